//! mongods in containers of a Docker engine, each alone: no network, no rights, a read-only root.
//!
//! A container sees two folders of this machine, its dbpath and the one of its Unix socket, and
//! runs as a user that may write them. It is made for one life of a branch and removed after it.

mod container;
mod engine;
mod error;
mod spec;
mod starting;
mod still;
mod sweep;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::ContainerCreateBody;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

pub use engine::{Engine, Image, PullProgress, is_image_name, socket};
pub use error::DockerError;

use self::container::{Container, Plan, Process};
use self::engine::words;
use self::spec::{OPEN_FILES, Template};
use self::starting::{Ahead, Starting};
use self::sweep::Live;
use super::launch::{self, PORT, START_DEADLINE};
use super::mongod::last_words;
use super::ready::{Member, Volume};
use super::{
    Build, Cell, Choice, Compute, ComputeError, Instance, Limits, OnPull, Parked, User, series,
};
use crate::base::blocking::blocking;

/// The image where nobody names one.
pub const IMAGE: &str = "mongo:8.0";

/// Whom mongod runs as where the server is root: the official image's own `mongodb`.
const USER_OF_ROOT: User = User { uid: 999, gid: 999 };

/// What a container may take where nobody set a limit, since an engine can limit always.
const LIMITS: Limits =
    Limits { memory_bytes: Some(2 << 30), cpu_thousandths: Some(2000), pids: Some(8192) };

impl User {
    /// The server's own, who may write its data directory; where that is root, somebody who is not.
    pub fn of_this_process() -> Self {
        // SAFETY: geteuid and getegid cannot fail and touch no memory.
        match unsafe { (libc::geteuid(), libc::getegid()) } {
            (0, _) => USER_OF_ROOT,
            (uid, gid) => Self { uid, gid },
        }
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// How containers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What each may take.
    pub limits: Limits,
    /// Whom mongod runs as.
    pub user: User,
}

/// Runs mongods in containers.
#[derive(Debug)]
pub struct DockerCompute {
    engine: Engine,
    image: Image,
    version: String,
    template: Template,
    user: User,
    /// What the names of its containers begin with.
    prefix: String,
    live: Arc<Live>,
    /// The versions of images that were asked for theirs, by their ids.
    versions: Mutex<BTreeMap<String, String>>,
    why: Option<String>,
    _watch: DropGuard,
}

impl DockerCompute {
    /// Removes what an earlier server on this data directory left, and sees what mongod the image
    /// has. The caller has the data directory for itself.
    pub async fn open(
        engine: Engine,
        image: Image,
        setup: Setup,
        data_dir: &Path,
    ) -> Result<Self, DockerError> {
        let server = std::fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let server = server.to_string_lossy().into_owned();
        let digest = blake3::hash(server.as_bytes()).to_hex();
        let prefix = format!("argon-{}", &digest[..12]);
        let live = Arc::new(Live::default());
        let swept = sweep::sweep(&engine, &server, &live).await;
        swept.map_err(DockerError::engine("remove the containers of", &server))?;
        let Setup { limits, user } = setup;
        let mut template = Template {
            image: image.id.clone(),
            server: server.clone(),
            user: user.to_string(),
            limits: limits.or(LIMITS),
            cpus: engine.cpus,
            ulimits: vec![("nofile", OPEN_FILES)],
        };
        let name = format!("{prefix}-version");
        let mut version = engine.mongod_version(&image, &name, template.version()).await;
        for ulimits in [own_ulimits(), Vec::new()] {
            match &version {
                Err(DockerError::NotMongod { said, .. }) if said.contains("rlimit") => {
                    info!(said, now = ?ulimits, "the engine may not give a container its limits");
                }
                _ => break,
            }
            template.ulimits = ulimits;
            version = engine.mongod_version(&image, &name, template.version()).await;
        }
        let version = version?;
        info!(image = image.name, id = image.id, digest = image.digest, version, %user,
              socket = %engine.socket().display(), "mongods run in containers");
        let stop = CancellationToken::new();
        let watch = sweep::watch(engine.clone(), server, live.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(watch));
        let _watch = stop.drop_guard();
        let versions = Mutex::new(BTreeMap::from([(image.id.clone(), version.clone())]));
        let why = None;
        Ok(Self { engine, image, version, template, user, prefix, live, versions, why, _watch })
    }

    /// Says why mongods are run so.
    #[must_use]
    pub fn because(mut self, why: Option<String>) -> Self {
        self.why = why;
        self
    }

    /// The names of its containers that the engine has.
    #[cfg(test)]
    pub(super) async fn containers(&self) -> Result<Vec<String>, DockerError> {
        let found = sweep::list(&self.engine, &self.template.server).await;
        let found =
            found.map_err(DockerError::engine("list the containers of", &self.template.server))?;
        Ok(found.into_iter().map(|found| found.name).collect())
    }

    #[cfg(test)]
    pub(super) fn own_image(&self) -> &Image {
        &self.image
    }

    #[cfg(test)]
    pub(super) fn setup(&self) -> Setup {
        Setup { limits: self.template.limits, user: self.user }
    }

    /// What mongod an image has. A container is asked once for each.
    async fn version_of(&self, image: &Image) -> Result<String, DockerError> {
        // Held meanwhile: the next one who asks finds the answer.
        let mut versions = self.versions.lock().await;
        if let Some(version) = versions.get(&image.id) {
            return Ok(version.clone());
        }
        let name = format!("{}-version", self.prefix);
        let _registered = self.live.register(&name);
        let mut body = self.template.version();
        body.image = Some(image.id.clone());
        let version = self.engine.mongod_version(image, &name, body).await?;
        versions.insert(image.id.clone(), version.clone());
        Ok(version)
    }

    /// The image that a cell's mongod comes from.
    async fn image_for(&self, choice: &Choice) -> Result<Image, DockerError> {
        let found = match choice {
            Choice::Server => None,
            Choice::WroteIt(build) => self.earlier(Some(build)).await?,
            Choice::Image(image) if image == self.image.reference() => None,
            Choice::Image(image) => {
                let found = self.engine.image(image).await?;
                Some(found.ok_or_else(|| DockerError::ImageGone(image.clone()))?)
            }
        };
        Ok(found.unwrap_or_else(|| self.image.clone()))
    }

    /// The image that wrote a volume, where that is not the server's own and the engine has it.
    async fn earlier(&self, written_by: Option<&Build>) -> Result<Option<Image>, DockerError> {
        match written_by.and_then(|build| build.image.as_deref()) {
            // It stands in the store, where anybody may have written it.
            Some(image) if image != self.image.reference() && engine::is_image_name(image) => {
                self.engine.image(image).await
            }
            _ => Ok(None),
        }
    }

    /// One container for each dbpath: two would be one too many.
    fn name(&self, cell: &Cell) -> String {
        let id = cell.socket_dir.file_name().unwrap_or_default().to_string_lossy();
        let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        format!("{}-{}", self.prefix, id.chars().map(legal).collect::<String>())
    }
}

#[async_trait]
impl Compute for DockerCompute {
    fn describe(&self) -> String {
        let why = self.why.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        format!(
            "Docker containers of {} ({}), without network{why}",
            self.image.name,
            self.image.reference()
        )
    }

    fn user(&self) -> Option<User> {
        Some(self.user)
    }

    async fn look_at(&self, file: &Path) -> Result<(), ComputeError> {
        let name = format!("{}-look", self.prefix);
        let _registered = self.live.register(&name);
        let said = self.engine.output(&name, self.template.look_at(file)).await;
        let removed = self.engine.remove(&name).await;
        let hidden = |said| DockerError::Hidden { path: file.to_owned(), said };
        match said {
            Ok((0, _)) => {}
            Ok((_, printed)) => return Err(hidden(last_words(&printed)).into()),
            Err(error) => return Err(hidden(words(error)).into()),
        }
        removed.map_err(DockerError::engine("remove the container", name))?;
        Ok(())
    }

    fn mongod_version(&self) -> &str {
        &self.version
    }

    fn image(&self) -> Option<&str> {
        Some(self.image.reference())
    }

    async fn fetch(&self, image: &str, progress: OnPull<'_>) -> Result<Build, ComputeError> {
        if !is_image_name(image) {
            return Err(DockerError::ImageName(image.chars().take(256).collect()).into());
        }
        let found = match self.engine.image(image).await? {
            Some(found) => found,
            None => {
                info!(image, "pulling an image");
                self.engine.pull(image, &mut |so_far| progress(so_far)).await?
            }
        };
        let version = self.version_of(&found).await?;
        Ok(Build { version, image: Some(found.reference().to_owned()) })
    }

    async fn opens(&self, written_by: &Build) -> Result<bool, ComputeError> {
        Ok(series(&written_by.version) == series(&self.version)
            || self.earlier(Some(written_by)).await?.is_some())
    }

    async fn start(&self, cell: Cell) -> Result<Arc<dyn Instance>, ComputeError> {
        let member = launch::member(&cell, PORT);
        let image = self.image_for(&cell.mongod).await?;
        let body = self.template.mongod(&cell, &image);
        let begun = Instant::now();
        let container = self.launch(cell, body, Process::Unknown).await?;
        let image = image.reference().to_owned();
        Starting { container, member, image }.ready(begun, START_DEADLINE).await
    }

    fn can_park(&self) -> bool {
        true
    }

    async fn park(&self, cell: Cell) -> Result<Arc<dyn Parked>, ComputeError> {
        // Only used volumes are given to it.
        let member = Member { volume: Volume::Used, ..launch::member(&cell, PORT) };
        let body = self.template.parked(&cell, &self.image);
        let container = self.launch(cell, body, Process::Asked).await?;
        let image = self.image.reference().to_owned();
        let live = self.live.clone();
        Ok(Arc::new(Ahead::begun(Starting { container, member, image }, live)))
    }
}

impl DockerCompute {
    /// Makes and starts a cell's container.
    async fn launch(
        &self,
        cell: Cell,
        body: ContainerCreateBody,
        process: Process,
    ) -> Result<Arc<Container>, ComputeError> {
        let socket = launch::fresh_socket(&cell, PORT)?;
        // It is written when the container has ended; until then it must not be an earlier one's.
        std::fs::write(&cell.log, "")
            .map_err(|source| ComputeError::io("create the log", &cell.log, source))?;
        let plan = Plan { name: self.name(&cell), body, socket, log: cell.log.clone(), process };
        let user = self.user;
        blocking(move || [cell.dbpath, cell.socket_dir].iter().try_for_each(|dir| give(dir, user)))
            .await?;
        Ok(Container::launch(self.engine.clone(), self.live.clone(), plan).await?.into())
    }
}

/// This process's own limits. An engine that cannot raise them likely has the same, and what it gives
/// unasked may be more than it can (Podman's is).
fn own_ulimits() -> Vec<(&'static str, i64)> {
    let own = |name, resource, most: i64| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a whole rlimit, which the kernel fills.
        let known = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
        let limit = i64::try_from(limit.rlim_max).unwrap_or(i64::MAX);
        (known && limit < most).then_some((name, limit))
    };
    let files = own("nofile", libc::RLIMIT_NOFILE, OPEN_FILES);
    files.into_iter().chain(own("nproc", libc::RLIMIT_NPROC, i64::MAX)).collect()
}

/// Makes a folder and what is in it the user's, where it is not already. A mount of its own decides
/// by itself who may do what in it.
fn give(dir: &Path, user: User) -> Result<(), DockerError> {
    let failed = |path: &Path| {
        let (path, user) = (path.to_owned(), user.to_string());
        move |source| DockerError::Owner { path, user, source }
    };
    let parent = dir.parent().unwrap_or(dir);
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    if device(dir).map_err(failed(dir))? != device(parent).map_err(failed(parent))? {
        return Ok(());
    }
    give_below(dir, user).map_err(|(path, source)| failed(&path)(source))
}

fn give_below(path: &Path, user: User) -> Result<(), (std::path::PathBuf, io::Error)> {
    let failed = |source| (path.to_owned(), source);
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if found.is_dir() {
        for entry in std::fs::read_dir(path).map_err(failed)? {
            give_below(&entry.map_err(failed)?.path(), user)?;
        }
    }
    if (found.uid(), found.gid()) != (user.uid, user.gid) {
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    Ok(())
}
