//! `empg env goals`: the goals of a shop, in the order of a seed.

use std::io::Write;

use anyhow::bail;
use clap::Args;

use super::lines::write_line;
use super::source::Which;

/// Arguments of `empg env goals`.
#[derive(Args, Debug)]
pub(super) struct GoalsArgs {
    #[command(flatten)]
    which: Which,
    /// Seed of prices and of the order
    #[arg(long, value_name = "N", default_value_t = 0)]
    env_seed: u32,
    /// People's instructions instead of synthetic ones
    #[arg(long)]
    human_goals: bool,
}

/// Lists the goals.
pub(super) fn run(args: &GoalsArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let GoalsArgs { which, env_seed, human_goals } = args;
    if which.env != "webshop" {
        bail!("{:?} has no goals: they are webshop's", which.env);
    }
    which.check()?;
    let catalogue = which.data.catalogue()?;
    let goals = catalogue.goals(*env_seed, *human_goals)?;
    for index in 0..goals.len() {
        if let Some(goal) = goals.goal(&catalogue, index) {
            write_line(out, &goal)?;
        }
    }
    Ok(())
}
