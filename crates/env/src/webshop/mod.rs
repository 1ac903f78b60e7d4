//! WebShop (Yao et al., 2022): shopping in a simulated store, from the original files or a
//! generated catalogue.

pub mod generated;
mod options;

pub use options::{Mode, Splits, WebshopOptions};
