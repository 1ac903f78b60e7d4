//! Runs on a real file system.
