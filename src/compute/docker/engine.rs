//! A container engine that answers, and the images that it has.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, WaitContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::{Instant, sleep, timeout};

use super::DockerError;
use super::error::{is_bad_request, is_conflict, is_not_found};
use crate::compute::mongod::{OLDEST, last_words, version_in};

/// How long an engine may take for its first answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Where engines listen that nobody configured otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How long a removal that somebody else has begun is waited for, and between two looks at it.
const REMOVAL_WAIT: Duration = Duration::from_secs(10);
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

/// What one request may take, seconds; a container's start waits for its disk.
const REQUEST_SECONDS: u64 = 120;

/// A container engine that answered.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) docker: Docker,
    socket: PathBuf,
    /// How many CPUs it has.
    pub(super) cpus: u32,
}

/// An image that the engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As it was asked for, for example `mongo:8.0`.
    pub name: String,
    /// The engine's own id, `sha256:…`: what containers are made from, so that a tag that moves
    /// changes nothing under a running server.
    pub id: String,
    /// What registries know it by, where it came from one: `NAME@sha256:…`.
    pub digest: Option<String>,
}

impl Image {
    /// What is recorded of it: the same image, wherever it is asked for again.
    pub fn reference(&self) -> &str {
        self.digest.as_deref().unwrap_or(&self.id)
    }
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes of all layers whose size is known by now.
    pub of: u64,
}

/// The socket that is set, else the one that DOCKER_HOST names, else where engines listen.
pub fn socket(setting: Option<PathBuf>, host: Option<String>) -> Result<PathBuf, DockerError> {
    match (setting, host) {
        (Some(path), _) => Ok(path),
        (None, None) => Ok(DEFAULT_SOCKET.into()),
        (None, Some(host)) => match host.strip_prefix("unix://") {
            Some(path) => Ok(path.into()),
            None => Err(DockerError::NotASocket(host)),
        },
    }
}

/// Whether it can name an image; it becomes part of a URL's path, and nothing that means something
/// else there is one.
pub fn is_image_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "/:@._-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(legal)
        && !text.split('/').any(|part| part.is_empty() || part == "..")
}

impl Engine {
    /// Asks the engine for its version, and speaks the newest one that both know.
    pub async fn connect(socket: &Path) -> Result<Self, DockerError> {
        let no_answer = || DockerError::no_answer(socket);
        let path = socket.to_string_lossy();
        let ask = async {
            let docker =
                Docker::connect_with_unix(&path, REQUEST_SECONDS, bollard::API_DEFAULT_VERSION)?;
            let docker = docker.negotiate_version().await?;
            let cpus = docker.info().await?.ncpu.and_then(|cpus| u32::try_from(cpus).ok());
            Ok::<_, EngineError>((docker, cpus.unwrap_or(1)))
        };
        match timeout(ANSWER_WAIT, ask).await {
            Ok(answer) => {
                let (docker, cpus) = answer.map_err(no_answer())?;
                Ok(Self { docker, cpus, socket: socket.to_owned() })
            }
            Err(_) => Err(no_answer()(EngineError::RequestTimeoutError)),
        }
    }

    #[cfg(test)]
    pub(in crate::compute) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// An image, if the engine has it.
    pub async fn image(&self, name: &str) -> Result<Option<Image>, DockerError> {
        match self.docker.inspect_image(name).await {
            Ok(found) => {
                let digest = found.repo_digests.unwrap_or_default().into_iter().next();
                Ok(Some(Image {
                    name: name.to_owned(),
                    id: found.id.unwrap_or_else(|| name.to_owned()),
                    digest,
                }))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) if is_bad_request(&error) => Err(DockerError::ImageName(name.to_owned())),
            Err(error) => Err(DockerError::engine("look for the image", name)(error)),
        }
    }

    /// Has the engine fetch an image from its registry.
    pub async fn pull(
        &self,
        name: &str,
        progress: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<Image, DockerError> {
        let failed = |said: String| DockerError::Pull { image: name.to_owned(), said };
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(name)).build();
        let mut news = self.docker.create_image(Some(options), None, None);
        let mut layers = HashMap::new();
        while let Some(news) = news.next().await {
            let news = news.map_err(|error| failed(words(error)))?;
            let Some((layer, detail)) = news.id.zip(news.progress_detail) else { continue };
            let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
            let Some((bytes, of)) = count(detail.current).zip(count(detail.total)) else {
                continue;
            };
            // A layer is downloaded and then unpacked: what is shown never goes back.
            let known: &mut (u64, u64) = layers.entry(layer).or_default();
            *known = (known.0.max(bytes), known.1.max(of));
            let sum = |of: fn(&(u64, u64)) -> u64| layers.values().map(of).sum();
            progress(PullProgress { bytes: sum(|layer| layer.0), of: sum(|layer| layer.1) });
        }
        let found = self.image(name).await?;
        found.ok_or_else(|| failed("the engine has no such image afterwards".to_owned()))
    }

    /// Runs `mongod --version` in a container of its own: the only proof that the image has a
    /// mongod that runs here.
    pub(super) async fn mongod_version(
        &self,
        image: &Image,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, DockerError> {
        let said = self.output(name, body).await;
        self.remove(name).await.map_err(DockerError::engine("remove the container", name))?;
        let failed = |said| DockerError::NotMongod { image: image.name.clone(), said };
        let (code, printed) = said.map_err(|error| failed(words(error)))?;
        match version_in(&String::from_utf8_lossy(&printed)) {
            Some((version, major)) if code == 0 => {
                match major.is_some_and(|major| major < OLDEST) {
                    true => Err(DockerError::TooOld { image: image.name.clone(), version }),
                    false => Ok(version),
                }
            }
            _ => Err(failed(format!("exit code {code}; {}", last_words(&printed)))),
        }
    }

    /// Runs a container to its end; gives its exit code and what it printed. It is still there then.
    pub(super) async fn output(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<(i64, Vec<u8>), EngineError> {
        self.remove(name).await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.docker.create_container(Some(options), body).await?;
        self.docker.start_container(name, None).await?;
        let ended = self.docker.wait_container(name, None::<WaitContainerOptions>).next().await;
        let code = match ended {
            Some(Ok(ended)) => ended.status_code,
            Some(Err(EngineError::DockerContainerWaitError { code, .. })) => code,
            Some(Err(error)) => return Err(error),
            None => return Err(EngineError::RequestTimeoutError),
        };
        Ok((code, self.log(name, "50").await?))
    }

    /// The last lines that a container printed.
    pub(super) async fn log(&self, name: &str, lines: &str) -> Result<Vec<u8>, EngineError> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(lines).build();
        let add = |mut all: Vec<u8>, more: bollard::container::LogOutput| async move {
            all.extend_from_slice(&more.into_bytes());
            Ok(all)
        };
        self.docker.logs(name, Some(options)).try_fold(Vec::new(), add).await
    }

    /// Removes a container and its anonymous volumes, running or not; it may be gone already, or be
    /// about to go: then that is waited for.
    pub(in crate::compute) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let begun = Instant::now();
        loop {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            match self.docker.remove_container(name, Some(options)).await {
                Err(error) if is_conflict(&error) && begun.elapsed() < REMOVAL_WAIT => {
                    sleep(REMOVAL_PAUSE).await;
                }
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => return Ok(()),
            }
        }
    }
}

/// Without a tag an engine fetches all of them.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.contains([':', '@']) {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    }
}

/// The engine's words, without the library's around them.
pub(super) fn words(error: EngineError) -> String {
    match error {
        EngineError::DockerResponseServerError { message, .. } => message,
        EngineError::DockerStreamError { error } => error,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_the_latest() {
        for (name, expected) in [
            ("mongo", "mongo:latest"),
            ("mongo:8.0", "mongo:8.0"),
            ("registry:5000/team/mongo", "registry:5000/team/mongo:latest"),
            ("registry:5000/mongo:7", "registry:5000/mongo:7"),
            ("mongo@sha256:00", "mongo@sha256:00"),
        ] {
            assert_eq!(with_tag(name), expected);
        }
    }

    #[test]
    fn only_what_can_be_an_image_is_taken_for_one() {
        for good in ["mongo", "mongo:8.0", "registry:5000/team/mongo@sha256:00", "a.b/c_d-e:1"] {
            assert!(is_image_name(good), "{good}");
        }
        for bad in ["", "../x", "a//b", "a/../b", "mongo 8", "mongo?x=1", "-mongo", "a\nb"] {
            assert!(!is_image_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_socket_is_the_one_that_is_set() {
        let host = || Some("unix:///run/user/1000/docker.sock".to_owned());
        assert_eq!(socket(Some("/a".into()), host()).unwrap(), Path::new("/a"));
        assert_eq!(socket(None, host()).unwrap(), Path::new("/run/user/1000/docker.sock"));
        assert_eq!(socket(None, None).unwrap(), Path::new(DEFAULT_SOCKET));
        let error = socket(None, Some("tcp://10.0.0.1:2375".into())).unwrap_err();
        assert!(error.to_string().contains("tcp://10.0.0.1:2375"));
    }
}
