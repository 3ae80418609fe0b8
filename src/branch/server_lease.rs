//! This server's lease: the right to write the branches whose heads name it as their owner.
//!
//! One for all of them, renewed in the store while one of them is awake. What clients are told
//! counts only while it lasts, which is one comparison with the clock. Each loss of it begins a new
//! *term*: a life that was claimed in an earlier one says nothing to its clients until its head was
//! moved again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::BranchError;
use super::shared::Shared;
use crate::base::clock::uptime;
use crate::base::ids::ServerId;
use crate::base::limits::LEASE_RENEWAL;
use crate::base::name::Name;
use crate::store::ETag;
use crate::volume::{self, VolumeError, Volumes};

/// Who writes to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// This server and others: each has a lease, which lasts this long after a renewal.
    Several {
        /// The same for all is best, but nothing goes wrong where it is not.
        lease_ttl: Duration,
    },
    /// Nobody but this server, says who runs it. There are no leases.
    One,
}

/// For the server's whole life, in nanoseconds of [`uptime`].
const FOREVER: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct ServerLease {
    server: ServerId,
    session: ServerId,
    address: String,
    writers: Writers,
    /// Until when it lasts, nanoseconds of [`uptime`].
    until: AtomicU64,
    term: AtomicU64,
    terms: watch::Sender<u64>,
    held: tokio::sync::Mutex<Option<(volume::ServerLease, ETag)>>,
    /// Tells the renewing task that a branch is awake.
    wanted: Notify,
    /// Ends the renewing task.
    pub(super) over: CancellationToken,
    seen: Mutex<HashMap<ServerId, Seen>>,
}

/// The lease of another server as it was last seen.
#[derive(Debug)]
struct Seen {
    etag: Option<ETag>,
    /// When it was first seen like that, by [`uptime`].
    since: Duration,
}

impl ServerLease {
    pub(super) fn new(
        server: ServerId,
        session: ServerId,
        address: String,
        writers: Writers,
    ) -> Self {
        let until = match writers {
            Writers::One => FOREVER,
            Writers::Several { .. } => 0,
        };
        Self {
            server,
            session,
            address,
            writers,
            until: until.into(),
            term: AtomicU64::new(0),
            terms: watch::Sender::new(0),
            held: tokio::sync::Mutex::new(None),
            wanted: Notify::new(),
            over: CancellationToken::new(),
            seen: Mutex::default(),
        }
    }

    /// Whether what was claimed in this term may be spoken for right now. Cheap enough to ask with
    /// every command and every reply.
    pub(super) fn covers(&self, term: u64) -> bool {
        let until = self.until.load(Ordering::Acquire);
        self.term.load(Ordering::Acquire) == term
            && (until == FOREVER || nanoseconds(uptime()) < until)
    }

    /// Changes when the server was declared dead and has its lease again: what was claimed before
    /// must be claimed anew.
    pub(super) fn terms(&self) -> watch::Receiver<u64> {
        self.terms.subscribe()
    }

    /// Makes sure that the lease lasts for some time, and that it is renewed from now on. Gives the
    /// term in which a head may now be claimed.
    ///
    /// # Errors
    /// The store cannot be reached; another process has this server's id.
    pub(super) async fn hold(&self, volumes: &Volumes) -> Result<u64, BranchError> {
        if let Writers::Several { lease_ttl } = self.writers {
            let enough = nanoseconds(uptime().saturating_add(lease_ttl / 2));
            if self.until.load(Ordering::Acquire) < enough {
                self.renew(volumes, lease_ttl).await?;
            }
            self.wanted.notify_one();
        }
        Ok(self.term.load(Ordering::Acquire))
    }

    async fn renew(&self, volumes: &Volumes, ttl: Duration) -> Result<(), BranchError> {
        let mut held = self.held.lock().await;
        loop {
            let found = match held.take() {
                Some(known) => Some(known),
                None => volumes.server_lease(self.server).await?,
            };
            let next = self.next(found.as_ref().map(|(lease, _)| lease), ttl);
            let etag = found.as_ref().map(|(_, etag)| etag);
            // The lease counts from before the write: nobody can have seen it earlier than that.
            let sent = uptime();
            match volumes.write_server_lease(&next, etag).await {
                Ok(etag) => {
                    self.begin(next.term);
                    // A tenth less than others wait: for what happens between a look at the clock
                    // and the reply that goes out, and for clocks that differ in speed.
                    let until = sent.saturating_add(ttl.mul_f64(0.9));
                    self.until.store(nanoseconds(until), Ordering::Release);
                    *held = Some((next, etag));
                    return Ok(());
                }
                Err(VolumeError::LeaseMoved { .. }) => {
                    let was_ours =
                        found.as_ref().is_some_and(|(lease, _)| lease.session == self.session);
                    *held = found;
                    let now = volumes.server_lease(self.server).await?;
                    if let Some((other, _)) = &now
                        && was_ours
                        && other.session != self.session
                        && other.fenced_by.is_none()
                    {
                        self.until.store(0, Ordering::Release);
                        return Err(BranchError::SameServer { address: other.address.clone() });
                    }
                    // A renewal whose answer was lost, or a declaration of death.
                    *held = now;
                }
                Err(error) => {
                    *held = found;
                    return Err(error.into());
                }
            }
        }
    }

    /// The lease after `found`: a new term where it is not this run's own, or was taken away.
    fn next(&self, found: Option<&volume::ServerLease>, ttl: Duration) -> volume::ServerLease {
        let known = self.term.load(Ordering::Acquire);
        let term = match found {
            Some(lease) if lease.session == self.session && lease.fenced_by.is_none() => lease.term,
            Some(lease) => lease.term.max(known) + 1,
            None => known + 1,
        };
        volume::ServerLease {
            server: self.server,
            session: self.session,
            address: self.address.clone(),
            term,
            renewals: found.map_or(0, |lease| lease.renewals) + 1,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            fenced_by: None,
        }
    }

    fn begin(&self, term: u64) {
        let before = self.term.swap(term, Ordering::AcqRel);
        if before != term {
            self.terms.send_replace(term);
            if before > 0 {
                warn!(term, "this server was declared dead, and has its lease again");
            }
        }
    }

    /// Makes sure that the owner of a branch's head is dead, so that the head may be moved.
    ///
    /// # Errors
    /// [`BranchError::Elsewhere`] as long as it is not known to be.
    pub(super) async fn outlive(
        &self,
        volumes: &Volumes,
        owner: ServerId,
        branch: &Name,
    ) -> Result<(), BranchError> {
        let Writers::Several { lease_ttl } = self.writers else { return Ok(()) };
        let found = volumes.server_lease(owner).await?;
        if found.as_ref().is_some_and(|(lease, _)| lease.fenced_by.is_some()) {
            return Ok(());
        }
        let (lease, etag) = found.unzip();
        let ttl = lease.as_ref().map_or(lease_ttl, volume::ServerLease::ttl);
        let elsewhere = |left| {
            let address = lease.as_ref().map(|lease| lease.address.clone());
            BranchError::Elsewhere { branch: branch.clone(), owner, address, left }
        };
        let left = ttl.saturating_sub(self.unchanged_for(owner, etag.as_ref()));
        if !left.is_zero() {
            return Err(elsewhere(left));
        }
        let absent = || volume::ServerLease {
            server: owner,
            session: owner,
            address: String::new(),
            term: 0,
            renewals: 0,
            ttl_ms: 0,
            fenced_by: None,
        };
        let fenced_by = Some(self.server);
        let dead = volume::ServerLease { fenced_by, ..lease.clone().unwrap_or_else(absent) };
        match volumes.write_server_lease(&dead, etag.as_ref()).await {
            Ok(_) => {
                info!(server = %owner, "declared dead: it did not renew its lease for {ttl:?}");
                Ok(())
            }
            Err(VolumeError::LeaseMoved { .. }) => Err(elsewhere(ttl)),
            Err(error) => Err(error.into()),
        }
    }

    /// How long this server has seen that lease as it is now. Nobody looks in between: a server
    /// that renewed meanwhile has another one.
    fn unchanged_for(&self, owner: ServerId, etag: Option<&ETag>) -> Duration {
        let now = uptime();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = seen.entry(owner).or_insert_with(|| Seen { etag: etag.cloned(), since: now });
        if entry.etag.as_ref() != etag {
            *entry = Seen { etag: etag.cloned(), since: now };
        }
        now.saturating_sub(entry.since)
    }

    fn renewal(&self) -> Duration {
        match self.writers {
            Writers::Several { lease_ttl } => LEASE_RENEWAL.min(lease_ttl / 4),
            Writers::One => LEASE_RENEWAL,
        }
    }
}

/// Renews the lease while a branch is awake or has writes that no version has. Sleeps otherwise.
pub(super) async fn keep(shared: Weak<Shared>, lease: std::sync::Arc<ServerLease>) {
    let renewing = async {
        loop {
            lease.wanted.notified().await;
            loop {
                sleep(lease.renewal()).await;
                let Some(shared) = shared.upgrade() else { return };
                let Writers::Several { lease_ttl } = lease.writers else { return };
                if !shared.cells.iter().any(|cell| cell.needs_lease()) {
                    break;
                }
                if let Err(error) = lease.renew(&shared.volumes, lease_ttl).await {
                    warn!(error = error.chain(), "renew this server's lease on its branches");
                }
            }
        }
    };
    tokio::select! {
        () = lease.over.cancelled() => {}
        () = renewing => {}
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(FOREVER - 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::clock::{SystemClock, Timestamp};
    use crate::store::LocalStore;

    const LONG: Duration = Duration::from_secs(3600);

    struct Scene {
        volumes: Volumes,
        _directory: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Arc::new(LocalStore::open(directory.path()).unwrap());
            let volumes = Volumes::new(store, Arc::new(SystemClock::default()));
            Self { volumes, _directory: directory }
        }
    }

    fn server(number: u8, lease_ttl: Duration) -> ServerLease {
        let session = ServerId::generate(Timestamp::from_unix_ms(1));
        let writers = Writers::Several { lease_ttl };
        ServerLease::new(ServerId::from_bytes([number; 16]), session, "here:1".into(), writers)
    }

    fn dev() -> Name {
        "dev".parse().unwrap()
    }

    #[tokio::test]
    async fn a_server_that_lives_is_not_outlived() {
        let scene = Scene::new();
        let (one, two) = (server(1, LONG), server(2, Duration::ZERO));
        let term = one.hold(&scene.volumes).await.unwrap();
        assert!(one.covers(term) && !one.covers(term + 1));
        for _ in 0..2 {
            let error = two.outlive(&scene.volumes, one.server, &dev()).await.unwrap_err();
            assert!(matches!(error, BranchError::Elsewhere { left, .. } if left > LONG / 2));
            assert!(error.retryable() && error.to_string().contains("here:1"), "{error}");
        }
        // One that never said anything is waited for as well.
        let silent = two.outlive(&scene.volumes, ServerId::from_bytes([3; 16]), &dev()).await;
        silent.unwrap();
        let patient = server(4, LONG);
        let silent = patient.outlive(&scene.volumes, ServerId::from_bytes([5; 16]), &dev()).await;
        assert!(matches!(silent, Err(BranchError::Elsewhere { address: None, .. })));
    }

    #[tokio::test]
    async fn a_renewal_takes_back_a_death_and_begins_a_term() {
        let scene = Scene::new();
        let (one, two) = (server(1, Duration::ZERO), server(2, LONG));
        let term = one.hold(&scene.volumes).await.unwrap();
        assert!(!one.covers(term), "a lease of no time has ended");
        let mut terms = one.terms();
        terms.mark_unchanged();
        // A renewal that nobody came between is the same term.
        assert_eq!(one.hold(&scene.volumes).await.unwrap(), term);
        assert!(!terms.has_changed().unwrap());
        two.outlive(&scene.volumes, one.server, &dev()).await.unwrap();
        // Whoever comes later need not wait.
        server(3, LONG).outlive(&scene.volumes, one.server, &dev()).await.unwrap();
        assert_eq!(one.hold(&scene.volumes).await.unwrap(), term + 1);
        assert!(terms.has_changed().unwrap());
        let (lease, _) = scene.volumes.server_lease(one.server).await.unwrap().unwrap();
        assert_eq!((lease.fenced_by, lease.term), (None, term + 1));
    }

    #[tokio::test]
    async fn a_renewal_makes_a_watcher_begin_anew() {
        let scene = Scene::new();
        let (one, two) = (server(1, LONG), server(2, LONG));
        one.hold(&scene.volumes).await.unwrap();
        let (_, first) = scene.volumes.server_lease(one.server).await.unwrap().unwrap();
        two.unchanged_for(one.server, Some(&first));
        let before = two.unchanged_for(one.server, Some(&first));
        one.renew(&scene.volumes, LONG).await.unwrap();
        let (_, second) = scene.volumes.server_lease(one.server).await.unwrap().unwrap();
        assert_ne!(first, second);
        assert!(before > Duration::ZERO);
        assert_eq!(two.unchanged_for(one.server, Some(&second)), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_copied_data_directory_is_noticed() {
        let scene = Scene::new();
        let (original, copy) = (server(1, LONG), server(1, LONG));
        let term = original.hold(&scene.volumes).await.unwrap();
        // As a restart does it.
        let later = copy.hold(&scene.volumes).await.unwrap();
        assert!(later > term && copy.covers(later));
        for _ in 0..2 {
            let error = original.renew(&scene.volumes, LONG).await.unwrap_err();
            assert!(matches!(error, BranchError::SameServer { .. }), "{error}");
            assert!(!original.covers(term));
        }
        copy.renew(&scene.volumes, LONG).await.unwrap();
        assert!(copy.covers(later));
    }

    #[tokio::test]
    async fn the_only_writer_leaves_no_lease() {
        let scene = Scene::new();
        let id = ServerId::from_bytes([1; 16]);
        let only = ServerLease::new(id, id, String::new(), Writers::One);
        let term = only.hold(&scene.volumes).await.unwrap();
        assert!(only.covers(term));
        only.outlive(&scene.volumes, ServerId::from_bytes([2; 16]), &dev()).await.unwrap();
        assert_eq!(scene.volumes.server_lease(id).await.unwrap(), None);
    }
}
