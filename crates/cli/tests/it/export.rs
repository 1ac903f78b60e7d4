//! `empg export`: GGUF files out of models.

use serde_json::Value;

use crate::program::{run, run_in};

/// A small model in mixed element types.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../llm/tests/goldens/tiny_llama.gguf");

#[test]
fn a_model_becomes_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut sizes = Vec::new();
    for kind in ["q8_0", "f16", "bf16", "f32"] {
        let file = format!("{kind}.gguf");
        let ran = run_in(
            dir.path(),
            &format!("export --model {SOURCE} --gguf {file} --type {kind} --json"),
        );
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let line: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        let bytes = std::fs::metadata(dir.path().join(&file)).unwrap().len();
        assert_eq!(line["gguf"], file.as_str());
        assert_eq!(line["bytes"], bytes);
        sizes.push(bytes);
        // What was written is a model like the first.
        let again =
            run_in(dir.path(), &format!("export --model {file} --gguf again.gguf --type {kind}"));
        assert_eq!(again.code, Some(0), "{}", again.stderr);
    }
    assert!(sizes[0] < sizes[1] && sizes[1] == sizes[2] && sizes[2] < sizes[3], "{sizes:?}");
    assert!(
        std::fs::read_dir(dir.path())
            .unwrap()
            .all(|f| { f.unwrap().path().extension().is_some_and(|e| e == "gguf") })
    );
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), "export --model tiny --gguf tiny.gguf");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("byte-pair"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    std::fs::copy(SOURCE, dir.path().join("m.gguf")).unwrap();
    let ran = run_in(dir.path(), "export --model m.gguf --gguf m.gguf");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("another file"), "{}", ran.stderr);
    let ran = run_in(dir.path(), "export --model missing.gguf --gguf out.gguf");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("missing.gguf"), "{}", ran.stderr);
    assert_eq!(run("export --model m.gguf --gguf o.gguf --type q2_k").code, Some(2));
    let damaged = std::fs::read(SOURCE).unwrap();
    std::fs::write(dir.path().join("m.gguf"), &damaged[..damaged.len() - 40]).unwrap();
    let ran = run_in(dir.path(), "eval --model m.gguf --env households --episodes 1");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("truncated") && ran.stderr.contains("offset"), "{}", ran.stderr);
}
