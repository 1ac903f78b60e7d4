//! The observing expert on real games.

use std::path::Path;

use empg_env::alfworld::DataVersion;
use empg_env::households::{DemonstrationOptions, demonstration};
use empg_env::{Split, TaskSet};
use libtest_mimic::Failed;

use super::packed;

/// It wins every validation game, and nearly every game of the train split, in both data versions.
pub(crate) fn expert(data: &Path) -> Result<(), Failed> {
    let options = DemonstrationOptions { max_turns: 50, ..DemonstrationOptions::default() };
    for version in [DataVersion::V2_1_1, DataVersion::V2_1_2] {
        let set = packed(data).with(version, Some(50));
        let mut env = set.make();
        for (split, allowed) in [(Split::Seen, 0), (Split::Unseen, 0), (Split::Train, 2)] {
            let games = set.games(split);
            // A fourth of the train split is enough to notice a change.
            let step = if split == Split::Train { 4 } else { 1 };
            let mut lost = Vec::new();
            for (index, game) in games.iter().enumerate().step_by(step) {
                if !demonstration(env.as_mut(), game.id(), index as u64, &options)?.won {
                    lost.push(game.id());
                }
            }
            if lost.len() > allowed {
                return Err(format!("{version}: lost {lost:?}").into());
            }
        }
    }
    Ok(())
}
