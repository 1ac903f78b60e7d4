//! How an expert errs. Every mistake is made of admissible commands: a decision that reinforcement
//! learning can reweight, not an ungrounded command.

/// Probabilities of mistakes; each but `wander` is drawn once an episode.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertStyle {
    /// Places the object without cleaning, heating or cooling it.
    pub skip_transform: f64,
    /// Goes to the lamp and uses it without holding the object.
    pub forget_object: f64,
    /// Of two objects, stops after one, or puts the second elsewhere.
    pub stop_after_one: f64,
    /// Puts the object at a place that the task does not name.
    pub wrong_place: f64,
    /// Searches in an order that has nothing to do with the object.
    pub poor_order: f64,
    /// Per turn: does something admissible that does not serve the task.
    pub wander: f64,
    /// How many turns a demonstration goes on after a mistake that the expert does not repair: at
    /// most this many, at least half of it.
    pub linger: u32,
}

impl ExpertStyle {
    /// Clean, or the cold start's mistakes.
    pub fn of(manner: crate::Manner) -> Self {
        match manner {
            crate::Manner::Clean => Self::clean(),
            crate::Manner::Careless => Self::cold_start(),
        }
    }

    /// No mistakes.
    pub fn clean() -> Self {
        Self {
            skip_transform: 0.0,
            forget_object: 0.0,
            stop_after_one: 0.0,
            wrong_place: 0.0,
            poor_order: 0.0,
            wander: 0.0,
            linger: 0,
        }
    }

    /// The demonstrations of the cold start: about 45 % succeed within 30 turns, each kind of task
    /// between 30 % and 60 %.
    pub fn cold_start() -> Self {
        Self {
            skip_transform: 0.56,
            forget_object: 0.52,
            stop_after_one: 0.55,
            wrong_place: 0.54,
            poor_order: 0.3,
            wander: 0.06,
            linger: 8,
        }
    }
}

impl Default for ExpertStyle {
    fn default() -> Self {
        Self::clean()
    }
}
