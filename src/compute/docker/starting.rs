//! A mongod in a container: from its start until it is ready, started for a branch or ahead of one,
//! and then as long as it runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::debug;

use super::container::Container;
use super::sweep::Live;
use crate::base::limits::PARKED_START_WAIT;
use crate::compute::parked::{self, Parked};
use crate::compute::ready::Member;
use crate::compute::{ComputeError, Exit, Instance, Owner, ServerFacts, StartPhases, launch};

/// A mongod that is not ready yet.
#[derive(Clone, Debug)]
pub(super) struct Starting {
    pub(super) container: Arc<Container>,
    pub(super) member: Member,
    pub(super) image: String,
}

impl Starting {
    /// Returns when it is a writable primary; `begun` is when that was asked of it. The engine is asked
    /// nothing.
    pub(super) async fn ready(
        &self,
        begun: Instant,
        limit: Duration,
    ) -> Result<Arc<dyn Instance>, ComputeError> {
        let container = self.container.clone();
        let end = container.wait();
        let facts =
            launch::ready(container.socket(), &self.member, container.log(), limit, end).await;
        match facts {
            Ok((facts, listening)) => {
                let start =
                    StartPhases { listening: listening - begun, primary: listening.elapsed() };
                debug!(socket = %container.socket().display(), "mongod is a writable primary");
                Ok(Arc::new(Ready { container, facts, start, image: self.image.clone() }))
            }
            Err(error) => {
                container.kill().await;
                Err(error)
            }
        }
    }
}

/// A mongod that is started before it is known for which branch.
#[derive(Debug)]
pub(super) struct Ahead {
    starting: Starting,
    live: Arc<Live>,
}

impl Ahead {
    /// One that has just begun: it gives way to others.
    pub(super) fn begun(starting: Starting, live: Arc<Live>) -> Self {
        if let Some(process) = starting.container.process() {
            parked::give_way(process);
        }
        Self { starting, live }
    }
}

#[async_trait]
impl Parked for Ahead {
    fn has_parked(&self) {
        if let Some(process) = self.starting.container.process() {
            parked::hurry(process);
        }
    }

    fn is_sound(&self) -> bool {
        let container = &self.starting.container;
        // Where its process is not seen, one that was killed shows when it is let in.
        !container.has_ended()
            && !self.live.is_paused(container.name())
            && container.process().is_none_or(parked::is_sound)
    }

    fn is_for(&self, owner: Owner) {
        let container = &self.starting.container;
        container.rename(format!("{}-{}-{}", container.name(), owner.project, owner.branch));
    }

    async fn start(self: Arc<Self>) -> Result<Arc<dyn Instance>, ComputeError> {
        self.starting.ready(Instant::now(), PARKED_START_WAIT).await
    }

    async fn wait(&self) -> Exit {
        self.starting.container.wait().await
    }

    async fn kill(&self) {
        self.starting.container.kill().await;
    }
}

/// A mongod in a container that became ready.
#[derive(Debug)]
struct Ready {
    container: Arc<Container>,
    facts: ServerFacts,
    start: StartPhases,
    image: String,
}

#[async_trait]
impl Instance for Ready {
    fn socket(&self) -> &Path {
        self.container.socket()
    }

    fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    fn image(&self) -> Option<&str> {
        Some(&self.image)
    }

    fn start_phases(&self) -> StartPhases {
        self.start
    }

    async fn wait(&self) -> Exit {
        self.container.wait().await
    }

    async fn stop(&self) -> Exit {
        self.container.stop().await
    }

    async fn kill(&self) {
        self.container.kill().await;
    }

    fn freeze(&self) -> bool {
        self.container.freeze()
    }

    fn thaw(&self) {
        self.container.thaw();
    }
}
