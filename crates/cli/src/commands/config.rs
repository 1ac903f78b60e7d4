//! `empg config`: the settings, shown and written.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use empg_train::Config;
use serde_json::json;

use crate::output;
use crate::settings::{self, TrainingArgs};

/// Arguments of `empg config`.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the settings that `empg train` with the same flags would run with
    #[command(after_help = "\
Examples:
  empg config show
  empg config show --env alfworld
  empg config show --config empg.toml --set optim.lr=1e-4")]
    Show {
        #[command(flatten)]
        training: Box<TrainingArgs>,
    },
    /// Write a settings file to start from
    #[command(after_help = "\
Examples:
  empg config init
  empg config init my.toml --env alfworld --data ~/alfworld
  empg train --config my.toml")]
    Init {
        /// The file
        #[arg(default_value = "empg.toml")]
        file: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        training: Box<TrainingArgs>,
    },
}

/// Runs the command.
pub(crate) fn run(args: ConfigArgs, json: bool) -> anyhow::Result<()> {
    match args.action {
        Action::Show { training } => {
            let config = settings::resolve(*training)?;
            if json {
                output::line(&serde_json::to_string(&config)?)?;
            } else {
                output::text(&settings::commented(&config)?)?;
            }
        }
        Action::Init { file, force, training } => {
            // Threads stay open: the file is for other machines too.
            let threads = training.common.threads.unwrap_or(0);
            let usual = Config { threads: 0, ..settings::usual(&training)? };
            let mut config = settings::resolve(*training)?;
            config.threads = threads;
            let text = settings::template(&config, &usual)?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            if !force {
                options.create_new(true);
            }
            match options.open(&file).and_then(|mut f| f.write_all(text.as_bytes())) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
                    "{} is there already: choose another name, or replace it with --force",
                    file.display()
                ),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot write {}", file.display()));
                }
            }
            crate::say!("use it with: empg train --config {}", file.display());
            if json {
                output::line(&json!({ "file": file.display().to_string() }).to_string())?;
            } else {
                output::line(&file.display().to_string())?;
            }
        }
    }
    Ok(())
}
