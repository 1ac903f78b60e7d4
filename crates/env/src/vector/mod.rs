//! Many environments stepped as one, over threads of one process.
//!
//! A [`Vector`] holds `N` environments of a [`TaskSet`](crate::TaskSet). Every call gives one
//! [`Turn`] per environment; which task comes next is [`TaskOrder`]'s to say, so that the same seeds
//! and actions give the same turns for any number of threads.
//!
//! Useful for: driving hundreds of environments from one loop, as Gymnasium's vector environments
//! do. Not useful for: rollouts of the trainer, whose episodes run independently of each other.

mod crew;
mod error;
mod order;
mod runner;
mod slot;
mod turn;

pub use error::VectorError;
pub use order::TaskOrder;
pub use runner::{Vector, VectorOptions};
pub use turn::{Last, Turn};

/// What follows the end of an episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Autoreset {
    /// The next step ignores its action and begins the next episode.
    #[default]
    NextStep,
    /// The step that ends an episode begins the next one; the end is in [`Turn::last`].
    SameStep,
    /// The caller resets; a step after the end is refused.
    Disabled,
}
