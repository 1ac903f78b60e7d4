//! What can go wrong with a tracker, and whether it may pass.

use std::path::PathBuf;

use empg_run::RunError;

/// Why a run could not be mirrored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// An address that no server can be reached at.
    #[error("{address:?} is no address of an MLflow server: {what}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it, and what would be right.
        what: String,
    },
    /// No answer.
    #[error("no answer from {address}: {what}")]
    Unreachable {
        /// The server.
        address: String,
        /// What happened instead.
        what: String,
    },
    /// An answer that refuses.
    #[error("{address} refused {call} with status {status}{}", said(message))]
    Refused {
        /// The server.
        address: String,
        /// The call.
        call: &'static str,
        /// HTTP's status.
        status: u16,
        /// MLflow's name of the error; empty where it gave none.
        code: String,
        /// What it said.
        message: String,
    },
    /// An answer that is not MLflow's.
    #[error("{address} does not answer {call} as an MLflow server does ({what})")]
    NotMlflow {
        /// The server.
        address: String,
        /// The call.
        call: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Something on the server was deleted, and nobody but its users may bring it back.
    #[error("{what} was deleted on {address}: restore it there, or name another experiment")]
    Deleted {
        /// The server.
        address: String,
        /// The run or experiment.
        what: String,
    },
    /// A server that is not believed to be who it says it is.
    #[error(
        "{address} is not trusted ({what}): MLFLOW_TRACKING_SERVER_CERT_PATH names a PEM file with the \
         authority that signed its certificate"
    )]
    Untrusted {
        /// The server.
        address: String,
        /// Why.
        what: String,
    },
    /// A certificate that cannot be used.
    #[error("cannot use the certificates of {}: {what}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The run cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl TrackError {
    /// Whether the same may work later: the network, a server that is overloaded or restarted.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(*status, 408 | 425 | 429),
            _ => false,
        }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
