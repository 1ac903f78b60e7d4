//! `empg study`: arms × environments × seeds, resumable, on equal tasks.

mod plan;
mod pool;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use empg_report::html::{Contents, page};
use empg_report::run_data::RunData;
use empg_report::study::{Cell, markdown};
use empg_train::TrainError;
use serde_json::json;

use plan::{Plan, PlannedCell};
use pool::Pool;

use crate::progress::duration;
use crate::{interrupt, output};

/// Arguments of `empg study`.
#[derive(Args, Debug)]
#[command(after_help = "\
A study file names seeds, environments, arms, comparisons and grids;
studies/paper-laptop.toml is one. Finished cells are small JSON files in a
folder beside it, which may be versioned: a study goes on where it stopped, on
this machine or another. Tables go to stdout and to tables.md in that folder,
charts and all to report.html beside them.

Examples:
  empg study studies/paper-laptop.toml --dry-run
  empg study studies/paper-laptop.toml
  empg study studies/paper-laptop.toml --only households --seeds 0,1
  empg study my.toml --jobs 8 --runs /scratch/my --keep-runs")]
pub(crate) struct StudyArgs {
    /// The study
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Runs at a time [default: as many as the cores have threads for]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Where the runs lie while they are under way
    #[arg(long, value_name = "DIR", default_value = "runs/study")]
    runs: PathBuf,
    /// Keep the run directories of finished cells
    #[arg(long)]
    keep_runs: bool,
    /// Only cells of these environments or arms
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these seeds
    #[arg(long, value_name = "N", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Say what would be run
    #[arg(long)]
    dry_run: bool,
    /// Run nothing: tables of what is finished
    #[arg(long, conflicts_with = "dry_run")]
    tables: bool,
}

/// Runs the command.
pub(crate) fn run(args: StudyArgs, json: bool) -> anyhow::Result<()> {
    let StudyArgs { file, jobs, runs, keep_runs, only, seeds, dry_run, tables } = args;
    let plan = Plan::read(&file)?;
    for name in &only {
        if !plan.knows(name) {
            bail!("--only {name}: the study has no environment and no arm of that name");
        }
    }
    plan.check_seeds(&seeds)?;
    let wanted = |cell: &&PlannedCell| {
        let key = &cell.key;
        let named = |name: &String| *name == key.environment || *name == key.arm;
        (only.is_empty() || only.iter().any(named))
            && (seeds.is_empty() || seeds.contains(&key.seed))
    };
    if !plan.cells.iter().any(|cell| wanted(&cell)) {
        bail!("no cell of the study has both a name of --only and a seed of --seeds");
    }
    let mut pending = Vec::new();
    for cell in plan.cells.iter().filter(wanted) {
        if plan.finished(cell)?.is_none() {
            pending.push(cell.clone());
        }
    }
    if dry_run {
        return announce(&plan, &pending, json);
    }

    let started = Instant::now();
    let mut failed = Vec::new();
    if !tables && !pending.is_empty() {
        fs::create_dir_all(&plan.folder)
            .with_context(|| format!("cannot create {}", plan.folder.display()))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = jobs.unwrap_or((cores / plan.threads).max(1)).max(1);
        crate::say!(
            "study {}: {} of {} cells to run, {jobs} at a time with {} thread{}",
            plan.name,
            pending.len(),
            plan.cells.len(),
            plan.threads,
            if plan.threads == 1 { "" } else { "s" },
        );
        let stop = Arc::new(AtomicBool::new(false));
        interrupt::watch(
            Arc::clone(&stop),
            None,
            "stopping; runs under way go on from their last checkpoints next time",
        );
        let pool = Pool { plan: &plan, runs: &runs, keep_runs, stop: &stop };
        failed = pool.run(pending, jobs)?;
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            crate::say!("interrupted; the same command goes on");
            return Err(TrainError::Interrupted.into());
        }
    }

    let mut cells: Vec<Cell> = Vec::new();
    for cell in &plan.cells {
        cells.extend(plan.finished(cell)?);
    }
    let text = markdown(&plan.layout(), &cells);
    let path = plan.folder.join("tables.md");
    let report = plan.folder.join("report.html");
    if !cells.is_empty() {
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        let layout = plan.layout();
        let contents = Contents {
            title: format!("Study {}", layout.name),
            about: layout.about,
            runs: cells.iter().map(RunData::of_cell).collect(),
            ..Contents::default()
        };
        super::report::write(&report, &page(&contents))?;
        crate::say!("report: {}", report.display());
    }
    if json {
        let line = json!({
            "study": plan.name,
            "cells": plan.cells.len(),
            "finished": cells.len(),
            "failed": failed,
            "seconds": started.elapsed().as_secs_f64(),
            "tables": path.display().to_string(),
            "report": report,
        });
        output::line(&line.to_string())?;
    } else {
        output::text(&text)?;
    }
    if !failed.is_empty() {
        bail!("{} cells failed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

/// What would be run, and how long it took elsewhere.
fn announce(plan: &Plan, pending: &[PlannedCell], json: bool) -> anyhow::Result<()> {
    let mut seconds = Vec::new();
    for cell in &plan.cells {
        seconds.extend(plan.finished(cell)?.map(|c| c.seconds));
    }
    if json {
        let names: Vec<String> = pending.iter().map(|c| c.key.name()).collect();
        let line = json!({ "study": plan.name, "cells": plan.cells.len(), "pending": names });
        output::line(&line.to_string())?;
        return Ok(());
    }
    for cell in pending {
        let key = &cell.key;
        output::line(&format!("{:<12} {:<24} seed {}", key.environment, key.arm, key.seed))?;
    }
    crate::say!("{} of {} cells to run", pending.len(), plan.cells.len());
    if !seconds.is_empty() {
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        crate::say!("a finished cell took {} on average", duration(mean));
    }
    Ok(())
}
