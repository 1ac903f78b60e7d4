//! Ctrl-C: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;

/// Makes Ctrl-C (and a request to terminate) set `stop` and say `message`; the second one ends the
/// process.
pub(crate) fn watch(stop: Arc<AtomicBool>, bar: Option<ProgressBar>, message: &'static str) {
    let handler = move || {
        if stop.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        if let Some(bar) = &bar {
            bar.println(message);
        } else {
            crate::say!("{message}");
        }
    };
    // Only a second handler in one process is refused, and there is none.
    if let Err(error) = ctrlc::set_handler(handler) {
        crate::say!("warning: Ctrl-C will end the program at once: {error}");
    }
}
