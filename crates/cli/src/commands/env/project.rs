//! `empg env project`: the action in a model's text.

use std::io::Write;

use anyhow::bail;
use empg_env::Projection;
use serde::{Deserialize, Serialize};

use super::lines::{each_line, read, write_line};

#[derive(Deserialize)]
struct Raw {
    raw: String,
}

#[derive(Serialize)]
struct Action {
    action: String,
    valid: u8,
}

/// Reads the action out of model texts.
pub(super) fn run(env: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(projection) = Projection::of(env) else {
        bail!("no action format for {env:?}: it is alfworld, households, webshop or search");
    };
    each_line(|line| {
        let raw: Raw = read(line)?;
        let projected = projection.project(&raw.raw);
        let valid = u8::from(projected.valid);
        write_line(out, &Action { action: projected.action, valid })
    })
}
