//! Entropy-Modulated Policy Gradients: the nouns and the mathematics.

mod trajectory;

pub use trajectory::{
    Batch, End, Group, Limit, Segment, Step, TokenId, TokenScore, Trajectory, TrajectoryError,
};
