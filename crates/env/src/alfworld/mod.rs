//! ALFWorld, native: the household text games of <https://github.com/alfworld/alfworld> without
//! TextWorld, Fast Downward or Python.
//!
//! A [`Game`] is what a problem file says, an [`Episode`] plays it, [`AlfworldEnv`] is that as an
//! [`Env`](crate::Env), and [`AlfworldSet`] holds the games of a data folder.

mod command;
mod episode;
mod error;
mod game;
mod goal;
mod observe;
mod official;
mod packed;
mod pddl;
mod rules;
mod set;
mod state;
mod strings;
mod tasks;

pub use command::{Command, DataVersion};
pub use episode::{AlfworldEnv, Episode, GameSource};
pub use error::GameError;
pub use game::{Game, Thing};
pub use goal::{Goal, TaskKind, Treatment};
pub use packed::PackedRecord;
pub use rules::Rules;
pub use set::{CAPACITY, Index, LocationId, Members, ObjectId, ReceptacleId, Set};
pub use state::State;
pub use tasks::AlfworldSet;
