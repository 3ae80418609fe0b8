//! Builds the server from its rooms, runs it, and stops it so that nothing is lost.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::compute::{self, OnProgress, Progress};
use super::config::{Config, Ready, Start};
use super::data_dir::{self, DataDir, DataDirError, Told};
use super::open_store::{self, OpenStoreError};
use super::{allocator, descriptors, main_task};
use crate::api::{self, Api, ApiError};
use crate::base::clock::{Clock, SystemClock};
use crate::base::metrics::Metrics;
use crate::branch::{BranchError, Branches, Parts, Settings};
use crate::catalog::{Catalog, CatalogError};
use crate::compute::mongod::MongodError;
use crate::compute::{Compute, ComputeError};
use crate::proxy::{Binding, Proxy, ProxyError};
use crate::store::Store;

/// What new projects start from as long as nobody says otherwise.
static SAMPLE_BASE: &[u8] = include_bytes!("../../data/base_dump.archive");

/// WiredTiger's cache of each mongod, GB: its minimum, since a branch's neighbours are many.
const CACHE_GB: f64 = 0.25;

/// Size of the oplog of new volumes, MB: the least that MongoDB lets anybody set. A start reads it at
/// ten random places for each time that this is in it, so that less would be more: a load that ends
/// before mongod's next checkpoint leaves a gigabyte and a half, whatever was asked for.
const OPLOG_MB: u32 = 990;

/// Between two looks at whether the old server has ended.
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(10);

/// The process was told twice to stop: 128 + SIGINT, as shells count.
const EXIT_STOPPED_TWICE: i32 = 130;

/// Why the server does not run, or did not stop well.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the variants are named for the rooms they come from")]
pub enum ServeError {
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("open the catalog")]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error(transparent)]
    Mongod(#[from] MongodError),
    #[error("prepare to run mongod")]
    Compute(#[from] ComputeError),
    #[error("prepare the branches")]
    Branches(#[from] BranchError),
    #[error("listen for drivers")]
    Proxy(#[from] ProxyError),
    #[error("listen for the admin API")]
    Api(#[from] ApiError),
    #[error("say that the server listens")]
    Announce(#[source] io::Error),
    #[error("{0} branches could not be saved; their writes are kept in {dir}", dir = .1.display())]
    NotSaved(usize, PathBuf),
}

impl ServeError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DataDir(error) => Some(error.hint().to_owned()),
            Self::Catalog(CatalogError::TooNew { .. }) => {
                Some("run the Argon that wrote it, or give another --data-dir".into())
            }
            Self::Store(error) => error.hint(),
            Self::Catalog(CatalogError::NotACatalog { .. }) => Some(
                "move that file away; `argon repair --from-store` then makes a new catalog".into(),
            ),
            Self::Branches(error) => error.hint(),
            Self::Mongod(error) => Some(error.hint()),
            Self::Compute(error) => error.hint(),
            Self::Proxy(_) => {
                Some("take another address: --listen, port 0 picks a free one".into())
            }
            Self::Api(_) => {
                Some("take another address: --admin-listen, port 0 picks a free one".into())
            }
            Self::NotSaved(..) => {
                Some("start the server again on the same data directory: it saves them".into())
            }
            _ => None,
        }
    }
}

/// Runs the server until SIGTERM or SIGINT, then drains it. What it must fetch before is told of
/// by `progress`.
///
/// # Errors
/// It cannot start, or a branch could not be saved at the end.
pub fn serve(config: Config, progress: OnProgress<'_>) -> Result<(), ServeError> {
    allocator::tune();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    main_task::run(runtime, run(config, progress))
}

async fn run(config: Config, progress: OnProgress<'_>) -> Result<(), ServeError> {
    let stop = stop_on_signal()?;
    let chosen = tokio::select! {
        chosen = compute::choose(&config.compute, config.mongod.as_ref(), &mut *progress) => chosen?,
        () = stop.cancelled() => return Ok(()),
    };
    progress(Progress::Done);
    if let Some(shortage) = descriptors::raise(config.limits.connections) {
        warn!("{shortage}");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let metrics = Arc::new(Metrics::new());
    let bind = |binding| {
        let (clock, limits) = (clock.clone(), config.limits.clone());
        Proxy::bind(config.listen, binding, clock, limits, metrics.clone())
    };
    // Bound before the branches are there: a client of the first seconds waits, it is not refused.
    let (data_dir, proxy) = match config.start {
        Start::Alone => {
            let data_dir = DataDir::take(&config.data_dir)?;
            (data_dir, bind(Binding::Alone).await?)
        }
        Start::TakeOver => {
            let proxy = bind(Binding::TakeOver).await?;
            let Some(data_dir) = take_over(&config, &stop).await? else { return Ok(()) };
            (data_dir, proxy)
        }
    };
    // Not before: a server that was replaced has this address to its end.
    let api = Api::bind(config.admin_listen).await?;
    let connections = proxy.connections();
    let (compute, mongod) = compute::open(chosen, &config.compute, data_dir.path()).await?;
    let about = api::Settings {
        listen: proxy.local_addr(),
        data_dir: data_dir.path().to_owned(),
        mongod,
        clock: clock.clone(),
        connections: Box::new(move || connections.value() as u64),
        archive_bytes_max: api::ARCHIVE_BYTES_MAX,
        metrics: metrics.clone(),
    };
    let branches = open(&config, compute, &data_dir, &proxy, clock, metrics).await?;
    announce(&config, &proxy, &api, &data_dir).map_err(ServeError::Announce)?;
    tokio::join!(
        proxy.serve(branches.clone(), stop.clone()),
        api.serve(branches.clone(), about, stop.clone()),
    );
    info!("stopping: saving the branches");
    match branches.close().await.len() {
        0 => Ok(()),
        failed => Err(ServeError::NotSaved(failed, data_dir.path().to_owned())),
    }
}

/// Tells the server that has the data directory to end, and waits until it has. `None` where this
/// one is told to end first.
async fn take_over(
    config: &Config,
    stop: &CancellationToken,
) -> Result<Option<DataDir>, ServeError> {
    let begun = Instant::now();
    let mut told = None;
    loop {
        match DataDir::take(&config.data_dir) {
            Ok(data_dir) => {
                info!(waited_ms = begun.elapsed().as_millis() as u64, "took over");
                return Ok(Some(data_dir));
            }
            Err(DataDirError::InUse { pid, .. }) => {
                // A second server may have taken it over before us: that one is told too.
                if told.as_ref() != Some(&pid) && data_dir::tell_to_end(&pid)? == Told::Yes {
                    info!(pid, "taking over: told the old server to end");
                    told = Some(pid);
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = sleep(TAKE_OVER_PAUSE) => {}
        }
    }
}

/// The catalog of a data directory.
pub(super) fn open_catalog(data_dir: &Path) -> Result<Catalog, CatalogError> {
    Catalog::open(&data_dir.join("catalog.sqlite"))
}

/// The store that is set, tried.
pub(super) async fn open_store(
    config: &Config,
    data_dir: &Path,
    clock: &dyn Clock,
) -> Result<Arc<dyn Store>, OpenStoreError> {
    let directory = config.store_dir.clone().unwrap_or_else(|| data_dir.join("store"));
    open_store::open(config.bucket.as_ref(), &directory, config.writers, clock.now()).await
}

async fn open(
    config: &Config,
    compute: Arc<dyn Compute>,
    data_dir: &DataDir,
    proxy: &Proxy,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) -> Result<Branches, ServeError> {
    let path = data_dir.path();
    let catalog = open_catalog(path)?;
    let store = open_store(config, path, &*clock).await?;
    let parts = Parts { catalog, store, compute, clock, metrics };
    let settings = Settings {
        data_dir: path.to_owned(),
        idle_timeout: config.idle_timeout,
        snapshot_every: config.snapshot_every,
        keep_warm: config.keep_warm,
        mounts: config.mounts,
        parked: config.parked,
        address: proxy.local_addr().to_string(),
        base_key: config.base_archive.clone(),
        sample_base: SAMPLE_BASE,
        cache_gb: CACHE_GB,
        oplog_mb: OPLOG_MB,
        clients_max: config.limits.branch_connections,
        garbage: config.garbage,
        writers: config.writers,
    };
    Ok(Branches::open(parts, settings).await?)
}

/// The start-up lines: where everything is.
fn announce(config: &Config, proxy: &Proxy, api: &Api, data_dir: &DataDir) -> io::Result<()> {
    let (listen, admin) = (proxy.local_addr(), api.local_addr());
    match config.ready {
        Ready::Json => {
            let pid = std::process::id();
            let line = serde_json::json!({
                "listen": listen.to_string(), "admin": admin.to_string(), "pid": pid,
            });
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{line}")?;
            stdout.flush()
        }
        Ready::Text => {
            let bucket = config.bucket.as_ref();
            let bucket = bucket.map_or(String::new(), |bucket| {
                format!("  bucket     s3://{}/{}\n", bucket.bucket, bucket.prefix.as_str())
            });
            let text = format!(
                "argon {} is ready\n  drivers    mongodb://{listen}\n  admin API  http://{admin}\n  \
                 data       {}\n{bucket}next: `argon project create NAME`, then `argon branch \
                 create dev`\nCtrl-C stops the server and saves every branch\n",
                env!("CARGO_PKG_VERSION"),
                data_dir.path().display(),
            );
            // Whoever reads this may have left, as `head` does, which is no reason not to serve.
            let _ = io::stderr().write_all(text.as_bytes());
            Ok(())
        }
    }
}

/// The first SIGTERM or SIGINT begins the drain; a second one ends the process at once, and the
/// next start recovers what that leaves.
fn stop_on_signal() -> Result<CancellationToken, ServeError> {
    let mut term = signal(SignalKind::terminate()).map_err(ServeError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Runtime)?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stopping.is_cancelled() {
                warn!("told to stop twice: ending at once; the next start recovers the branches");
                std::process::exit(EXIT_STOPPED_TWICE);
            }
            info!("told to stop: draining; once more ends the server at once");
            stopping.cancel();
        }
    });
    Ok(stop)
}
