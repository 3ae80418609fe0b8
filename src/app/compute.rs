//! What branches' mongods run in: the settings, and the choice among what is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon_admin::types;

use super::config::{ConfigError, Given, Layers};
use super::mounts::bytes;
use super::serve::ServeError;
use crate::compute::docker::{self, Engine, Image, PullProgress, Setup};
use crate::compute::mongod::{self, Mongod, Search};
use crate::compute::{Compute, ComputeError, DockerCompute, Limits, ProcessCompute, User};

/// What branches' mongods run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeKind {
    /// Containers where an engine answers and has the image, else processes.
    #[default]
    Auto,
    /// Containers.
    Docker,
    /// Processes of this machine.
    Process,
}

/// How branches' mongods are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputeSettings {
    /// In what.
    pub kind: ComputeKind,
    /// The image of containers.
    pub image: String,
    /// The engine's socket, where it is set.
    pub socket: Option<PathBuf>,
    /// What the environment says of the engine.
    pub docker_host: Option<String>,
    /// What somebody set that each branch's mongod may take.
    pub limits: Limits,
    /// Whom mongod runs as there; else whom the server decides for.
    pub user: Option<User>,
}

impl Default for ComputeSettings {
    fn default() -> Self {
        Self {
            kind: ComputeKind::default(),
            image: docker::IMAGE.to_owned(),
            socket: None,
            docker_host: None,
            limits: Limits::default(),
            user: None,
        }
    }
}

/// How far is what a server must have before it can run mongods.
#[derive(Clone, Debug)]
pub enum Progress {
    /// A mongod is fetched.
    Mongod(mongod::Progress),
    /// An image is pulled.
    Image {
        /// Its name.
        name: String,
        /// How far.
        progress: PullProgress,
    },
    /// All is there.
    Done,
}

/// Told how far it is.
pub type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);

pub(super) fn compute(layers: &Layers<'_>) -> Result<ComputeSettings, ConfigError> {
    fn limit(
        found: Option<Given>,
        read: fn(&str) -> Option<u64>,
        expected: &'static str,
    ) -> Result<Option<u64>, ConfigError> {
        found.map(|given| given.parse(read, expected)).transpose()
    }
    let kind = layers.pick("compute", "ARGON_COMPUTE", |values| &values.compute);
    let image = layers.pick("image", "ARGON_IMAGE", |values| &values.image);
    let socket =
        layers.pick("docker_socket", "ARGON_DOCKER_SOCKET", |values| &values.docker_socket);
    let user =
        layers.pick("container_user", "ARGON_CONTAINER_USER", |values| &values.container_user);
    let memory_bytes = limit(
        layers.pick("branch_memory", "ARGON_BRANCH_MEMORY", |values| &values.branch_memory),
        bytes,
        "a number of bytes, as in 2GiB or 500MB; 0 is no limit",
    )?;
    let cpu_thousandths = limit(
        layers.pick("branch_cpus", "ARGON_BRANCH_CPUS", |values| &values.branch_cpus),
        cpus,
        "a number of CPUs from 0.01 on, as in 2 or 0.5; 0 is no limit",
    )?;
    let pids = limit(
        layers.pick("branch_pids", "ARGON_BRANCH_PIDS", |values| &values.branch_pids),
        |text| text.parse::<u32>().ok().map(u64::from),
        "a number of threads; 0 is no limit",
    )?;
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(ComputeSettings {
        kind: match kind {
            Some(given) => given.parse(named, "auto, docker or process")?,
            None => ComputeKind::default(),
        },
        image: match image {
            Some(given) => given.parse(image_name, "the name of an image, as in mongo:8.0")?,
            None => docker::IMAGE.to_owned(),
        },
        socket: match socket {
            Some(given) => Some(given.parse(socket_path, "the path of a Unix socket")?),
            None => None,
        },
        docker_host: layers.variable("DOCKER_HOST").map(Given::into_value),
        limits: Limits {
            memory_bytes,
            cpu_thousandths: cpu_thousandths.map(narrow),
            pids: pids.map(narrow),
        },
        user: match user {
            Some(given) => Some(given.parse(uid_and_gid, "UID:GID, two numbers, as in 999:999")?),
            None => None,
        },
    })
}

fn named(text: &str) -> Option<ComputeKind> {
    match text {
        "auto" => Some(ComputeKind::Auto),
        "docker" => Some(ComputeKind::Docker),
        "process" => Some(ComputeKind::Process),
        _ => None,
    }
}

fn image_name(text: &str) -> Option<String> {
    docker::is_image_name(text).then(|| text.to_owned())
}

fn socket_path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text.strip_prefix("unix://").unwrap_or(text));
    path.is_absolute().then(|| path.to_owned())
}

fn uid_and_gid(text: &str) -> Option<User> {
    let (uid, gid) = text.split_once(':')?;
    Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}

/// In thousandths. The kernel gives no share that is smaller.
fn cpus(text: &str) -> Option<u64> {
    thousandths(text).filter(|share| *share == 0 || *share >= 10)
}

/// `1.5` is 1500.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part = format!("{part:0<3}").parse::<u64>().ok()?;
    whole.parse::<u32>().ok().map(u64::from)?.checked_mul(1000)?.checked_add(part)
}

/// What was chosen, before the data directory is this server's.
pub(super) enum Chosen {
    Docker { engine: Engine, image: Image, why: Option<String> },
    Process { mongod: Mongod, why: Option<String> },
}

/// Chooses, and fetches what is missing.
pub(super) async fn choose(
    settings: &ComputeSettings,
    mongod: Option<&(PathBuf, String)>,
    progress: OnProgress<'_>,
) -> Result<Chosen, ServeError> {
    let engine = async {
        let socket = docker::socket(settings.socket.clone(), settings.docker_host.clone())?;
        Engine::connect(&socket).await
    };
    let name = &settings.image;
    match settings.kind {
        ComputeKind::Process => process(mongod, None, progress),
        ComputeKind::Docker => {
            let engine = engine.await.map_err(ComputeError::from)?;
            let image = match engine.image(name).await.map_err(ComputeError::from)? {
                Some(image) => image,
                None => {
                    let mut told = |how_far| {
                        progress(Progress::Image { name: name.clone(), progress: how_far });
                    };
                    engine.pull(name, &mut told).await.map_err(ComputeError::from)?
                }
            };
            Ok(Chosen::Docker { engine, image, why: None })
        }
        ComputeKind::Auto => {
            if let Some((_, setting)) = mongod {
                return process(mongod, Some(format!("{setting} names a mongod")), progress);
            }
            let engine = match engine.await {
                Ok(engine) => engine,
                Err(error) => return process(mongod, Some(error.to_string()), progress),
            };
            let at = engine.socket().display().to_string();
            match engine.image(name).await {
                Ok(Some(image)) => {
                    let why = Some(format!("the engine at {at} has the image"));
                    Ok(Chosen::Docker { engine, image, why })
                }
                Ok(None) => process(
                    mongod,
                    Some(format!("the engine at {at} has no image {name}")),
                    progress,
                ),
                Err(error) => process(mongod, Some(error.to_string()), progress),
            }
        }
    }
}

fn process(
    mongod: Option<&(PathBuf, String)>,
    why: Option<String>,
    progress: OnProgress<'_>,
) -> Result<Chosen, ServeError> {
    let mongod = tokio::task::block_in_place(|| {
        let search = Search::of_this_process(mongod.cloned())?;
        search.find_or_fetch(&mut |how_far| progress(Progress::Mongod(how_far)))
    })?;
    Ok(Chosen::Process { mongod, why })
}

/// What runs mongods, and which mongod that is.
pub(super) async fn open(
    chosen: Chosen,
    settings: &ComputeSettings,
    data_dir: &Path,
) -> Result<(Arc<dyn Compute>, types::Mongod), ComputeError> {
    let (compute, path): (Arc<dyn Compute>, _) = match chosen {
        Chosen::Docker { engine, image, why } => {
            let user = settings.user.unwrap_or_else(User::of_this_process);
            let setup = Setup { limits: settings.limits, user };
            let path = image.name.clone();
            let compute = DockerCompute::open(engine, image, setup, data_dir).await?;
            (Arc::new(compute.because(why)), path)
        }
        Chosen::Process { mongod, why } => {
            let path = mongod.path.display().to_string();
            let compute = ProcessCompute::new(mongod).await?.limited(settings.limits)?;
            (Arc::new(compute.because(why)), path)
        }
    };
    let version = compute.mongod_version().to_owned();
    Ok((compute, types::Mongod { path, version }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_read_to_the_thousandth() {
        for (text, expected) in [
            ("2", Some(2000)),
            ("0.5", Some(500)),
            ("1.25", Some(1250)),
            ("0", Some(0)),
            ("", None),
            (".5", None),
            ("1.", None),
            ("1.2345", None),
            ("-1", None),
            ("two", None),
        ] {
            assert_eq!(thousandths(text), expected, "{text}");
        }
    }

    #[test]
    fn a_share_that_the_kernel_cannot_give_is_none() {
        for (text, expected) in [
            ("0", Some(0)),
            ("0.01", Some(10)),
            ("0.009", None),
            ("0.001", None),
            ("2", Some(2000)),
        ] {
            assert_eq!(cpus(text), expected, "{text}");
        }
    }

    #[test]
    fn users_and_sockets_are_read() {
        assert_eq!(uid_and_gid("999:100"), Some(User { uid: 999, gid: 100 }));
        for bad in ["999", "a:b", "-1:0", ":"] {
            assert_eq!(uid_and_gid(bad), None, "{bad}");
        }
        assert_eq!(socket_path("unix:///run/x.sock"), Some("/run/x.sock".into()));
        assert_eq!(socket_path("/run/x.sock"), Some("/run/x.sock".into()));
        assert_eq!(socket_path("tcp://1.2.3.4:2375"), None);
    }
}
