//! A hundred runs of a thousand steps: reading them, and making their page.
//!
//! `cargo bench -p empg-report`; the size of the page is printed.

use std::fs;
use std::path::{Path, PathBuf};

use criterion::{Criterion, criterion_group, criterion_main};
use empg_report::html::{Contents, page};
use empg_report::run_data::RunData;
use empg_run::{RunDir, StepRecord};
use serde_json::{Map, Value, json};

const RUNS: usize = 100;
const STEPS: u64 = 1000;
/// Seeds of an arm.
const SEEDS: usize = 5;

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// One run with what a trainer records of every step.
fn write_run(path: &Path) {
    let info = json!({"empg": "0.1.0", "environment": "households", "seed": 0});
    let mut run = RunDir::create(path, "", &info).expect("a new run");
    let evaluation = |success: f64| {
        let tally = json!({"episodes": 64, "won": 32, "success": success});
        json!([{"split": "unseen", "success": success, "episodes": 256,
            "by_task": {"look": tally, "pick": tally, "heat": tally, "cool": tally}}])
    };
    for step in 0..=STEPS {
        // Sums of sines: curves that neither repeat nor compress.
        let x = step as f64;
        let wave = |i: f64| (x / 7.3 + i).sin() * 0.1 + (x / 91.7 * i).cos() * 0.2 + x / 2000.0;
        let names = [
            "success",
            "return",
            "turns",
            "ineffective",
            "step_entropy",
            "step_entropy_min",
            "step_entropy_max",
            "token_entropy",
            "kl_reference",
            "kl_old",
            "clip_fraction",
            "grad_norm",
            "g_std",
            "g_min",
            "g_max",
            "bonus",
            "advantage_abs",
            "groups_dropped",
        ];
        let mut metrics: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(i, name)| ((*name).to_owned(), wave(i as f64 + 1.0).into()))
            .collect();
        if step == 0 || step == STEPS {
            metrics.insert("eval".into(), evaluation(0.5 + x / 4000.0));
        }
        let timings =
            map(json!({"tokens_per_s": 20_000.0 + wave(3.0), "total_s": 1.0 + wave(5.0)}));
        run.commit(&StepRecord { step, metrics, timings, ..StepRecord::default() })
            .expect("a step");
    }
}

/// Copies of the run with settings of their own, five seeds an arm.
fn write_runs(folder: &Path) -> Vec<PathBuf> {
    let first = folder.join("first");
    write_run(&first);
    (0..RUNS)
        .map(|i| {
            let path = folder.join(format!("run-{i:03}"));
            copy(&first, &path);
            let config = format!(
                "seed = {}\nsteps = {STEPS}\n[algo]\nname = \"dapo\"\n[optim]\nlr = {}\n[env]\nname = \"households\"\n\
                 [empg]\nenabled = {}\n",
                i % SEEDS,
                1e-4 * (i / SEEDS / 2 + 1) as f64,
                i / SEEDS % 2 == 1,
            );
            fs::write(path.join("config.toml"), config).expect("a configuration");
            path
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

fn many_runs(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let paths = write_runs(folder.path());
    let read = || -> Vec<RunData> {
        paths.iter().map(|path| RunData::read(path).expect("a run")).collect()
    };
    let runs = read();
    let contents = Contents { title: "100 runs".into(), runs, ..Contents::default() };
    let html = page(&contents);
    eprintln!("{RUNS} runs of {STEPS} steps: a page of {:.2} MB", html.len() as f64 / 1e6);
    if let Some(out) = std::env::var_os("EMPG_BENCH_PAGE") {
        fs::write(out, &html).expect("the page");
    }
    let mut group = criterion.benchmark_group("report of 100 runs × 1,000 steps");
    group.sample_size(10);
    group.bench_function("read", |b| b.iter(read));
    group.bench_function("page", |b| b.iter(|| page(&contents)));
    group.finish();
}

criterion_group!(benches, many_runs);
criterion_main!(benches);
