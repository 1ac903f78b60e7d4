//! How a failure is told, and the exit code that it has.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use empg_train::{ScriptError, TrainError};

use crate::settings::SettingsError;

/// Something failed.
const FAILED: u8 = 1;
/// The command was not used as it must be.
const USAGE: u8 = 2;
/// Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Tells the error on stderr and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let code = code(error);
    // The reader of our output has gone: nobody is left to be told, and nothing went wrong.
    if code == 0 {
        return ExitCode::SUCCESS;
    }
    // Whoever was interrupted has said what there is to say.
    if code != INTERRUPTED {
        crate::say_part!("{}", in_words(error));
    }
    ExitCode::from(code)
}

/// An error in a run's prompt as one of the copy that the run keeps and goes by, where it has one.
pub(crate) fn in_prompt(error: anyhow::Error, run: &Path) -> anyhow::Error {
    let copy = run.join("prompt.jinja");
    match error.downcast_ref::<TrainError>() {
        Some(TrainError::Script(ScriptError::Template { reason, .. })) if copy.exists() => anyhow!(
            "{}: {reason}; the run goes by this copy of its template, and goes on once it is mended",
            copy.display()
        ),
        _ => error,
    }
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
        {
            return 0;
        }
        if cause.is::<SettingsError>() {
            return USAGE;
        }
        match cause.downcast_ref::<TrainError>() {
            Some(TrainError::Interrupted) => return INTERRUPTED,
            Some(TrainError::Config(_)) => return USAGE,
            _ => {}
        }
    }
    FAILED
}

/// What an error says, with its causes.
pub(crate) fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut said = error.to_string();
    let _ = writeln!(text, "error: {said}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many errors repeat their cause in their own text.
        if !said.contains(&cause) {
            let _ = writeln!(text, "  caused by: {cause}");
            said = cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error =
            anyhow!("no such file").context("cannot read x: no such file").context("loading");
        assert_eq!(in_words(&error), "error: loading\n  caused by: cannot read x: no such file\n");
    }

    #[test]
    fn codes_follow_the_root() {
        let pipe = std::io::Error::from(ErrorKind::BrokenPipe);
        assert_eq!(code(&anyhow::Error::from(pipe).context("writing")), 0);
        assert_eq!(code(&anyhow::Error::from(TrainError::Interrupted)), 130);
        let usage: Result<(), _> = Err(SettingsError::Conflict("a".into()));
        assert_eq!(code(&usage.context("b").unwrap_err()), 2);
        assert_eq!(code(&anyhow!("c")), 1);
    }
}
