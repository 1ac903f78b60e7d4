//! The report: one HTML page that needs nothing else.

mod escape;
mod page;
mod summary;
mod tables;

pub use page::{Contents, page};
