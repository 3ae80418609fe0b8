//! What can go wrong with a container engine.

use std::path::{Path, PathBuf};

use bollard::errors::Error as EngineError;
use thiserror::Error;

use crate::compute::mongod::OLDEST;

/// Why there are no containers to run mongods in.
#[derive(Debug, Error)]
pub enum DockerError {
    /// The variable names an engine that is not reached through a Unix socket.
    #[error("DOCKER_HOST is `{0}`: only engines behind a Unix socket can be used")]
    NotASocket(String),
    /// Nothing answers there.
    #[error("no container engine answers at {}", socket.display())]
    NoAnswer {
        /// The engine's socket.
        socket: PathBuf,
        /// What the connection said.
        #[source]
        source: Box<EngineError>,
    },
    /// Nothing can be called so.
    #[error("`{0}` is not the name of an image")]
    ImageName(String),
    /// The image was there, and is gone.
    #[error("there is no image {0} any more")]
    ImageGone(String),
    /// The image is not there, and cannot be had.
    #[error("pull the image {image}: {said}")]
    Pull {
        /// The image's name.
        image: String,
        /// The engine's words.
        said: String,
    },
    /// The image holds no mongod that runs.
    #[error("run `mongod --version` in the image {image}: {said}")]
    NotMongod {
        /// The image's name.
        image: String,
        /// What was printed, or how it ended.
        said: String,
    },
    /// Its mongod is older than what branches need.
    #[error("the image {image} has mongod {version}, which is older than {}.0", OLDEST)]
    TooOld {
        /// The image's name.
        image: String,
        /// What its mongod says it is.
        version: String,
    },
    /// The engine refused something.
    #[error("{doing} {object}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// To what.
        object: String,
        /// What the engine said.
        #[source]
        source: Box<EngineError>,
    },
    /// What is mounted here does not appear in containers, or not for their user.
    #[error("look at {} in a container: {said}", path.display())]
    Hidden {
        /// The file on the mount.
        path: PathBuf,
        /// What was printed, or what the engine said.
        said: String,
    },
    /// A folder cannot be handed to the container's user.
    #[error("hand {} to the user {user} of the container", path.display())]
    Owner {
        /// The folder or file.
        path: PathBuf,
        /// `UID:GID`.
        user: String,
        /// What the host said.
        #[source]
        source: std::io::Error,
    },
}

impl DockerError {
    /// Whether what somebody asked for is not there or not fit, and nothing has failed.
    pub fn is_refusal(&self) -> bool {
        let named = matches!(self, Self::ImageName(_) | Self::ImageGone(_) | Self::Pull { .. });
        named || matches!(self, Self::NotMongod { .. } | Self::TooOld { .. })
    }

    pub(super) fn engine(
        doing: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(EngineError) -> Self {
        let object = object.into();
        move |source| Self::Engine { doing, object, source: Box::new(source) }
    }

    pub(super) fn no_answer(socket: &Path) -> impl FnOnce(EngineError) -> Self + use<'_> {
        move |source| Self::NoAnswer { socket: socket.to_owned(), source: Box::new(source) }
    }

    /// The next step for whoever reads the error.
    pub fn hint(&self) -> String {
        let text = match self {
            Self::NotASocket(_) => "unset DOCKER_HOST, or name a socket with --docker-socket",
            Self::NoAnswer { .. } => {
                "start the engine, name its socket with --docker-socket, be in the group that may \
                 use it, or run local processes: --compute process"
            }
            Self::ImageName(_) => "name one as `docker pull` does: mongo:8.0",
            Self::ImageGone(_) => "bring it with `docker pull` or `docker load`",
            Self::Pull { .. } => {
                "name another image with --image, bring it with `docker pull` or `docker load`, or \
                 run local processes: --compute process"
            }
            Self::NotMongod { .. } => {
                "name an image that has mongod on its PATH (--image mongo:8.0), and look whether the \
                 engine takes --branch-memory, --branch-cpus, --branch-pids and --container-user"
            }
            Self::TooOld { .. } => "name a newer one with --image",
            Self::Engine { .. } => "the engine's own log says more; docs/docker.md what it needs",
            Self::Hidden { .. } => {
                "let the engine see this machine's mounts, and FUSE allow others to use them \
                 (`user_allow_other` in /etc/fuse.conf where the server is not root); or restore \
                 branches whole: --mount eager"
            }
            Self::Owner { .. } => "name another user with --container-user, or run Argon as it",
        };
        text.to_owned()
    }
}

/// The object is not there.
pub(super) fn is_not_found(error: &EngineError) -> bool {
    has_status(error, 404)
}

/// The engine does not understand what it is asked.
pub(super) fn is_bad_request(error: &EngineError) -> bool {
    has_status(error, 400)
}

/// The object is there already, or does not stand as it would have to.
pub(super) fn is_conflict(error: &EngineError) -> bool {
    has_status(error, 409) || is_taken(error)
}

/// A name is taken, as Podman says it.
fn is_taken(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code: 500, message }
        if message.contains("name is already in use"))
}

/// The engine answered, whatever it said.
pub(super) fn is_answer(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { .. })
}

fn has_status(error: &EngineError, wanted: u16) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code, .. } if *status_code == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_is_known_however_an_engine_says_it() {
        let said = |status_code, message: &str| EngineError::DockerResponseServerError {
            status_code,
            message: message.to_owned(),
        };
        assert!(is_conflict(&said(409, "Conflict. The container name \"/x\" is already in use")));
        // Podman 4.3.
        let podman = "container create: creating container storage: the container name \"x\" is \
                      already in use by 1c7f. You have to remove that container to be able to reuse \
                      that name: that name is already in use";
        assert!(is_conflict(&said(500, podman)));
        assert!(!is_conflict(&said(500, "no space left on device")));
        assert!(!is_conflict(&EngineError::RequestTimeoutError));
    }
}
