//! The `empg` command: one file per subcommand under `commands/`.

mod commands;
mod estimate;
mod failure;
mod hub;
mod interrupt;
mod models;
mod output;
mod progress;
mod settings;
mod table;
mod tasks;
mod track;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
