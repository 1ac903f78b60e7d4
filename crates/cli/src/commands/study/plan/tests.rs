//! Studies as they are written, and what is refused in them.

use super::*;

const SMALL: &str = r#"
name = "small"
seeds = [0, 1]
[settings]
steps = 3
[[environments]]
name = "households"
[[environments]]
name = "search"
settings = { steps = 2 }
[[arms]]
name = "dapo"
label = "DAPO"
settings = { empg = { enabled = false } }
[[arms]]
name = "dapo-empg"
label = "DAPO + EMPG"
[[comparisons]]
arm = "dapo-empg"
base = "dapo"
[[grids]]
arm = "dapo-empg"
key = "empg.k"
values = [0.5, 2.0]
seeds = [0]
environments = ["search"]
"#;

fn plan(text: &str) -> anyhow::Result<Plan> {
    Plan::of(toml::from_str(text)?, text, Path::new("studies/small.toml"))
}

#[test]
fn cells_are_planned_seed_by_seed() {
    let plan = plan(SMALL).unwrap();
    let names: Vec<String> = plan.cells.iter().map(|c| c.key.name()).collect();
    assert_eq!(
        names,
        [
            "households--dapo--s0",
            "households--dapo-empg--s0",
            "search--dapo--s0",
            "search--dapo-empg--s0",
            "search--dapo-empg-k-0.5--s0",
            "search--dapo-empg-k-2.0--s0",
            "households--dapo--s1",
            "households--dapo-empg--s1",
            "search--dapo--s1",
            "search--dapo-empg--s1",
        ]
    );
    assert_eq!(plan.folder, Path::new("studies/small"));
    assert_eq!(plan.cells[0].settings["steps"], 3);
    assert_eq!(plan.cells[2].settings["steps"], 2);
    assert_eq!(plan.cells[4].settings["empg.k"], 0.5);
    assert_eq!(plan.cells[0].settings["empg.enabled"], false);
    assert!(!plan.cells[0].settings.contains_key("seed"));
    assert!(plan.knows("search") && plan.knows("dapo") && !plan.knows("x"));
}

#[test]
fn what_is_named_twice_does_not_count_twice() {
    let seeds = SMALL.replacen("seeds = [0, 1]", "seeds = [0, 1, 0]", 1);
    assert!(plan(&seeds).unwrap_err().to_string().contains("seeds: one is named twice"));
    let environments = SMALL.replacen("name = \"search\"", "name = \"households\"", 1);
    let refused = plan(&environments).unwrap_err().to_string();
    assert!(refused.contains("two environments have the same name"), "{refused}");
}

#[test]
fn models_and_data_are_part_of_a_cell() {
    let settings = |to: &str| {
        let text = SMALL.replacen("steps = 3", &format!("steps = 3\n{to}"), 1);
        plan(&text).unwrap().cells[0].settings.clone()
    };
    let tiny = settings("");
    assert_eq!((&tiny["model.path"], &tiny["env.data"]), (&"tiny".into(), &"".into()));
    let other = settings("model = { path = \"owner/name\" }");
    assert_eq!(other["model.path"], "owner/name");
    // The same data may lie elsewhere.
    let one = settings("env = { data = \"/a/alfworld\" }");
    assert_eq!(one, settings("env = { data = \"/b/alfworld\" }"));
    assert_ne!(one, settings("env = { data = \"/a/other\" }"));
}

#[test]
fn mistakes_are_named() {
    for (from, to, expected) in [
        ("base = \"dapo\"", "base = \"dpao\"", "dpao"),
        ("steps = 3", "steps = 3\nseed = 1", "settings.seed"),
        ("environments = [\"search\"]", "environments = [\"shop\"]", "shop"),
        ("name = \"dapo\"\n", "name = \"dapo-empg\"\n", "same name"),
        ("\"empg.k\"", "\"empg.kk\"", "empg.kk"),
        ("seeds = [0, 1]", "seeds = []", "at least one"),
        ("name = \"small\"", "name = \"../small\"", "../small"),
        ("name = \"households\"", "name = \"chess\"", "chess"),
    ] {
        assert!(SMALL.contains(from));
        let error = format!("{:#}", plan(&SMALL.replacen(from, to, 1)).unwrap_err());
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn mistakes_in_settings_are_told_by_the_studys_own_lines() {
    let line = |text: &str, needle: &str| {
        let at = text.find(needle).unwrap();
        text[..at].matches('\n').count() + 1
    };
    for (from, to, needle, what) in [
        ("steps = 3", "rollout = { group_sise = 3 }", "rollout = {", "`rollout.group_size`?"),
        ("steps = 3", "[settings.optim]\nlr = \"x\"", "lr =", "`optim.lr` has the wrong type"),
        ("{ steps = 2 }", "{ stpes = 2 }", "settings = { stpes", "no key `stpes`"),
        ("{ empg = { enabled = false } }", "{ empg = { k = -1 } }", "settings = { e", "`empg.k`"),
        ("\"empg.k\"", "\"empg.kk\"", "key = ", "no key `empg.kk`"),
        ("values = [0.5, 2.0]", "values = [\"x\"]", "key = ", "`empg.k` has the wrong type"),
    ] {
        let text = SMALL.replacen(from, to, 1);
        let error = format!("{:#}", plan(&text).unwrap_err());
        let place = format!("studies/small.toml:{}: ", line(&text, needle));
        assert!(error.contains(&place) && error.contains(what), "{to}: {error}");
    }
}

#[test]
fn seeds_that_a_study_does_not_have_are_refused_with_those_that_it_has() {
    let plan = plan(SMALL).unwrap();
    plan.check_seeds(&[1, 0]).unwrap();
    let refused = plan.check_seeds(&[1, 7, 9]).unwrap_err().to_string();
    assert_eq!(refused, "--seeds 7, 9: the study has the seeds 0, 1 only");
}

/// What becomes of the cell of `plan` that was run with other settings.
fn finished(
    plan: &Plan,
    change: impl FnOnce(&mut BTreeMap<String, serde_json::Value>),
) -> anyhow::Result<Option<Cell>> {
    let planned = &plan.cells[0];
    let mut settings = planned.settings.clone();
    change(&mut settings);
    let cell: Cell = serde_json::from_value(serde_json::json!({
        "format": 1, "environment": "households", "arm": "dapo", "seed": 0, "empg": "0",
        "settings": settings, "steps": 3, "seconds": 1.0, "before": [], "after": [],
        "curves": {},
    }))
    .unwrap();
    cell.write(&plan.file(&planned.key)).unwrap();
    plan.finished(planned)
}

fn written(folder: &Path, text: &str) -> Plan {
    let file = folder.join("small.toml");
    std::fs::write(&file, text).unwrap();
    let plan = Plan::read(&file).unwrap();
    std::fs::create_dir_all(&plan.folder).unwrap();
    plan
}

#[test]
fn cells_of_other_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plan = written(folder.path(), SMALL);
    assert!(finished(&plan, |_| ()).unwrap().is_some());
    // Another version had no such key.
    let fewer = finished(&plan, |s| {
        for key in ["rollout.system", "env.retries", "env.corpus", "model.path"] {
            assert!(s.remove(key).is_some(), "{key}");
        }
    });
    assert!(fewer.unwrap().is_some());
    for (key, value, now) in [
        ("steps", 4.into(), "3"),
        ("optim.from_the_past", 1.into(), "nothing"),
        ("model.lora.rank", 16.into(), "nothing"),
        ("model.tape_gb", 0.5.into(), "nothing"),
        ("rollout.top_k", 5.into(), "nothing"),
        ("reward.overlong.penalty", 0.5.into(), "nothing"),
        ("env.url", "http://a".into(), "nothing"),
    ] {
        let shown = serde_json::Value::to_string(&value);
        let error = finished(&plan, |s| drop(s.insert(key.into(), value))).unwrap_err();
        let expected = format!("{key} = {shown}, the study has {now} now");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}

#[test]
fn settings_that_a_study_came_to_have_do_not_take_old_cells() {
    let folder = tempfile::tempdir().unwrap();
    for (to, key) in [
        ("model = { lora = { rank = 16 } }", "model.lora."),
        ("model = { tape_gb = 0.5 }", "model.tape_gb = nothing"),
        ("rollout = { top_k = 5 }", "rollout.top_k = nothing, the study has 5 now"),
        ("rollout = { top_p = 0.5 }", "rollout.top_p = nothing"),
        ("reward = { overlong = { max = 64, buffer = 16, penalty = 1.0 } }", "reward.overlong."),
        ("env = { url = \"ws://a\" }", "env.url = nothing"),
    ] {
        let text = SMALL.replacen("steps = 3", &format!("steps = 3\n{to}"), 1);
        let plan = written(folder.path(), &text);
        assert!(finished(&plan, |_| ()).unwrap().is_some());
        let then = self::plan(SMALL).unwrap().cells[0].settings.clone();
        let error = finished(&plan, |s| *s = then).unwrap_err().to_string();
        assert!(error.contains(key), "{to}: {error}");
    }
}

#[test]
fn contexts_are_compared_whatever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let text = SMALL.replacen("steps = 3", "steps = 3\nrollout = { context = { window = 2 } }", 1);
    let (window, full) = (written(folder.path(), &text), plan(SMALL).unwrap());
    assert!(finished(&window, |_| ()).unwrap().is_some());
    let then = full.cells[0].settings.clone();
    let error = finished(&window, |s| *s = then).unwrap_err().to_string();
    let expected = r#"rollout.context = "full", the study has {"window":2} now"#;
    assert!(error.contains(expected), "{error}");
    let three = finished(&window, |s| drop(s.insert("rollout.context.window".into(), 3.into())));
    assert!(three.unwrap_err().to_string().contains(r#"{"window":3}"#));
}

#[test]
fn the_recorded_study_is_finished() {
    let studies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../studies");
    let plan = Plan::read(&studies.join("paper-laptop.toml")).unwrap();
    assert_eq!(plan.cells.len(), 144);
    for cell in &plan.cells {
        assert!(plan.finished(cell).unwrap().is_some(), "{}", cell.key.name());
    }
}
