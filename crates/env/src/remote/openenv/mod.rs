//! A client of OpenEnv servers: one WebSocket session per environment.

mod address;
mod connection;
mod episode;
mod schema;
mod set;

pub use set::{OpenEnvOptions, OpenEnvSet};
