//! The volumes that branches start from: empty, and loaded with the base archive. Each is made
//! once, with a real mongod; after that a branch starts from it in no time.

use std::path::Path;
use std::sync::Arc;

use bson::{Document, doc};
use tracing::{info, warn};

use super::BranchError;
use super::local::Workspace;
use super::reconcile::version_row;
use super::save::facts;
use super::shared::Shared;
use super::wake::restore;
use crate::archive;
use crate::base::ids::VersionId;
use crate::compute::{Build, Instance, OnPull, ServerFacts};
use crate::volume::{Capture, Cause};
use crate::wire::Client;

/// The mongod that makes start volumes: branches that begin with one go on with what made it.
pub(super) struct Maker {
    build: Build,
    whose: Whose,
}

/// Who asks for a mongod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The server: it runs this one where nothing is said.
    Server,
    /// A project that names its image.
    Project,
}

/// The server's own.
pub(super) fn own(shared: &Shared) -> Maker {
    let (version, image) = (shared.compute.mongod_version(), shared.compute.image());
    let build = Build { version: version.to_owned(), image: image.map(str::to_owned) };
    Maker { build, whose: Whose::Server }
}

/// That of an image, which is brought here where it is missing; the server's where none is named.
pub(super) async fn maker(
    shared: &Shared,
    image: Option<&str>,
    progress: OnPull<'_>,
) -> Result<Maker, BranchError> {
    let own = own(shared);
    let Some(image) = image else { return Ok(own) };
    let build = shared.compute.fetch(image, progress).await?;
    Ok(if build == own.build { own } else { Maker { build, whose: Whose::Project } })
}

/// The volume with an initiated replica set and nothing else. Making it also tells what the server's
/// mongod says of itself, which the proxy repeats to clients of branches that sleep.
pub(super) async fn empty(shared: &Arc<Shared>, maker: &Maker) -> Result<VersionId, BranchError> {
    let key = format!("empty/{}", maker.name());
    let _turn = shared.seeding.lock().await;
    let made = shared.catalog.seed(&key)?;
    if maker.whose == Whose::Project {
        return match made {
            Some(version) => Ok(version),
            None => Seed::begin(shared, maker, None).await?.finish(Cause::Empty, &key).await,
        };
    }
    if let (Some(version), Some(facts)) = (made, known_facts(shared)?) {
        shared.facts.get_or_init(|| Arc::new(facts));
        return Ok(version);
    }
    let seed = Seed::begin(shared, maker, None).await?;
    let facts = seed.instance.facts().clone();
    remember_facts(shared, &facts)?;
    shared.facts.get_or_init(|| Arc::new(facts));
    seed.finish(Cause::Empty, &key).await
}

/// The volume that holds what `archive` holds; `digest` is its BLAKE3.
///
/// # Errors
/// A damaged archive is refused before anything is made of it.
pub(super) async fn base(
    shared: &Arc<Shared>,
    archive: &Path,
    digest: blake3::Hash,
    maker: &Maker,
) -> Result<VersionId, BranchError> {
    let base_error = |source| BranchError::Base { source: Arc::new(source) };
    let key = base_key(maker, digest);
    if let Some(version) = shared.catalog.seed(&key)? {
        return Ok(version);
    }
    let checked = archive.to_owned();
    let summary = tokio::task::spawn_blocking(move || archive::check(&checked)).await;
    summary.map_err(|_| BranchError::Closing)?.map_err(base_error)?;
    let empty = empty(shared, maker).await?;
    let _turn = shared.seeding.lock().await;
    if let Some(version) = shared.catalog.seed(&key)? {
        return Ok(version);
    }
    let seed = Seed::begin(shared, maker, Some(empty)).await?;
    let mut client = Client::connect(seed.instance.socket()).await?;
    archive::load(archive, &mut client).await.map_err(base_error)?;
    seed.finish(Cause::Base, &key).await
}

/// Under which name the catalog keeps the version of a base archive.
pub(super) fn base_key(maker: &Maker, digest: blake3::Hash) -> String {
    format!("{}{}", base_prefix(digest), maker.name())
}

/// With what the names of all versions of an archive begin, whatever mongod made them.
pub(super) fn base_prefix(digest: blake3::Hash) -> String {
    format!("base/{digest}/")
}

impl Maker {
    fn name(&self) -> String {
        let Build { version, image } = &self.build;
        match image {
            Some(image) => format!("{version}/{image}"),
            None => version.clone(),
        }
    }
}

/// A volume in the making. Dropped unfinished, it leaves nothing behind.
struct Seed<'s> {
    shared: &'s Arc<Shared>,
    id: VersionId,
    parent: Option<VersionId>,
    workspace: Workspace,
    instance: Arc<dyn Instance>,
}

impl<'s> Seed<'s> {
    async fn begin(
        shared: &'s Arc<Shared>,
        maker: &Maker,
        parent: Option<VersionId>,
    ) -> Result<Self, BranchError> {
        let id = VersionId::generate(shared.clock.now());
        let workspace = shared.layout.seed(id);
        let prepared = match parent {
            Some(parent) => restore(shared, &workspace, parent).await.map(Some),
            None => workspace.prepare().and_then(|dir| workspace.adopt(&dir)).map(|()| None),
        };
        let started = match prepared {
            Ok(_) => {
                let (db, image) = (workspace.db(), maker.build.image.as_deref());
                shared.start_with(&workspace, db, image).await
            }
            Err(error) => Err(error),
        };
        match started {
            Ok(instance) => Ok(Self { shared, id, parent, workspace, instance }),
            Err(error) => {
                discard(&workspace);
                Err(error)
            }
        }
    }

    async fn finish(self, cause: Cause, key: &str) -> Result<VersionId, BranchError> {
        let mongod = facts(self.shared, &self.instance);
        self.instance.stop().await;
        let capture =
            Capture { id: self.id, parent: self.parent, branch: None, cause, mongod, label: None };
        let version = self.shared.volumes.capture(&self.workspace.db(), capture).await?;
        self.shared.catalog.insert_version(&version_row(&version))?;
        self.shared.catalog.set_seed(key, version.id)?;
        info!(seed = key, version = %version.id, bytes = version.total_bytes, "made a start volume");
        Ok(version.id)
    }
}

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        discard(&self.workspace);
    }
}

/// At the next start it would be removed too.
fn discard(workspace: &Workspace) {
    if let Err(error) = workspace.discard() {
        warn!(error = error.chain(), "remove an unfinished start volume");
    }
}

fn facts_key(shared: &Shared) -> String {
    format!("facts/{}", shared.compute.mongod_version())
}

fn remember_facts(shared: &Shared, facts: &ServerFacts) -> Result<(), BranchError> {
    let ServerFacts { hello, build_info, fcv } = facts;
    let document = doc! { "hello": hello, "build_info": build_info, "fcv": fcv };
    // Replies that came as BSON can be written as BSON.
    let bytes = document.to_vec().expect("a server's replies fit a BSON document");
    Ok(shared.catalog.set_fact(&facts_key(shared), &bytes)?)
}

/// `None` where they were never asked for, or are in a form that only another Argon knows.
fn known_facts(shared: &Shared) -> Result<Option<ServerFacts>, BranchError> {
    let bytes = shared.catalog.fact(&facts_key(shared))?;
    let read = |bytes: Vec<u8>| {
        let document = Document::from_reader(bytes.as_slice()).ok()?;
        Some(ServerFacts {
            hello: document.get_document("hello").ok()?.clone(),
            build_info: document.get_document("build_info").ok()?.clone(),
            fcv: document.get_str("fcv").ok()?.to_owned(),
        })
    };
    Ok(bytes.and_then(read))
}
