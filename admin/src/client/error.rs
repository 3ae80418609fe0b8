//! What can go wrong between a client and the server.

use thiserror::Error;

use super::Server;
use crate::types::Problem;

/// What can go wrong between a client and the server.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The server refused, or the work failed; it says why.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// Nothing answers at the address. Nothing was sent, so it may be tried again.
    #[error("cannot reach the server at {server}")]
    Unreachable {
        /// The address.
        server: Server,
        /// What the machine says.
        source: Box<ureq::Error>,
    },
    /// The connection was lost or went silent after something was sent.
    #[error("lost the server at {server} during {request}")]
    Lost {
        /// The address.
        server: Server,
        /// Method and path.
        request: String,
        /// What the machine says.
        source: Box<ureq::Error>,
    },
    /// Something answers that is no server of Argon's, or one of another age.
    #[error("{server} does not answer {request} as an Argon server does: {reason}")]
    Strange {
        /// The address.
        server: Server,
        /// Method and path.
        request: String,
        /// What is strange.
        reason: String,
    },
}

impl ClientError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Problem(problem) => problem.hint.clone(),
            Self::Unreachable { .. } => Some(
                "start one with `argon serve`, or name another with --server URL or ARGON_SERVER"
                    .to_owned(),
            ),
            Self::Lost { .. } => {
                Some("work that had begun goes on in the server: `argon operation list`".to_owned())
            }
            Self::Strange { .. } => {
                Some("check --server and ARGON_SERVER: it is the admin port that is needed".into())
            }
        }
    }

    /// The stable code: the problem's own, or one of the client's.
    pub fn code(&self) -> &str {
        match self {
            Self::Problem(problem) => &problem.code,
            Self::Unreachable { .. } => "unreachable",
            Self::Lost { .. } => "connection_lost",
            Self::Strange { .. } => "not_an_argon_server",
        }
    }
}
