//! The report: one HTML page that needs nothing else.

mod curves;
mod escape;
mod figures;
mod overview;
mod page;
mod summary;
mod tables;

pub use curves::{DrawnArm, Metric, drawn, metrics};
pub use page::{Contents, EPISODE_BYTES, bytes_of, is_page, page, shown};
