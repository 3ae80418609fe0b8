//! Containers of this server that nothing owns any more: at its start, and when the engine comes
//! back from wherever it was.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures_util::StreamExt;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::engine::Engine;
use super::spec::SERVER;

/// Between two tries to hear from an engine that is away.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The names of the containers that somebody owns, and how they stand.
#[derive(Debug, Default)]
pub(super) struct Live {
    names: Mutex<BTreeMap<String, Standing>>,
}

#[derive(Debug, Default)]
struct Standing {
    /// A life that ends may still have its own while the next one begins.
    owners: usize,
    /// Somebody paused it.
    paused: bool,
}

/// A container is owned as long as this is held.
pub(super) struct Registered {
    live: Arc<Live>,
    name: String,
}

impl Live {
    pub(super) fn register(self: &Arc<Self>, name: &str) -> Registered {
        self.names().entry(name.to_owned()).or_default().owners += 1;
        Registered { live: self.clone(), name: name.to_owned() }
    }

    fn owns(&self, name: &str) -> bool {
        self.names().contains_key(name)
    }

    pub(super) fn is_paused(&self, name: &str) -> bool {
        self.names().get(name).is_some_and(|standing| standing.paused)
    }

    fn pause(&self, name: &str, paused: bool) {
        if let Some(standing) = self.names().get_mut(name) {
            standing.paused = paused;
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut names = self.live.names();
        if let Some(standing) = names.get_mut(&self.name) {
            standing.owners -= 1;
            if standing.owners == 0 {
                names.remove(&self.name);
            }
        }
    }
}

/// Removes the server's containers that nobody owns. Gives how many there were.
pub(super) async fn sweep(
    engine: &Engine,
    server: &str,
    live: &Live,
) -> Result<usize, EngineError> {
    let mut removed = 0;
    for Found { id, name } in list(engine, server).await? {
        if live.owns(&name) {
            continue;
        }
        // By its id: the name may be the next life's by now.
        engine.remove(&id).await?;
        info!(container = name, "removed a container that no branch owns");
        removed += 1;
    }
    Ok(removed)
}

/// A container that the engine has.
pub(super) struct Found {
    id: String,
    pub(super) name: String,
}

/// The server's containers, running or not.
pub(super) async fn list(engine: &Engine, server: &str) -> Result<Vec<Found>, EngineError> {
    let options = ListContainersOptionsBuilder::new().all(true).filters(&ours(server)).build();
    let found = engine.docker.list_containers(Some(options)).await?;
    let found = found.into_iter().filter_map(|container| {
        let name = container.names.unwrap_or_default().into_iter().next()?;
        Some(Found { id: container.id?, name: name.trim_start_matches('/').to_owned() })
    });
    Ok(found.collect())
}

/// Listens to the engine for as long as the server runs. Each container's own task learns of its
/// end by itself; here is what nobody else would see.
pub(super) async fn watch(engine: Engine, server: String, live: Arc<Live>) {
    let mut away = false;
    loop {
        let mut filters = ours(&server);
        filters.insert("type", vec!["container".to_owned()]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut events = std::pin::pin!(engine.docker.events(Some(options)));
        if away {
            match sweep(&engine, &server, &live).await {
                Ok(_) => {
                    info!("the container engine is back");
                    away = false;
                }
                Err(error) => debug!(%error, "look for containers that no branch owns"),
            }
        }
        while !away && let Some(Ok(event)) = events.next().await {
            let attribute = |name: &str| event.actor.as_ref()?.attributes.as_ref()?.get(name);
            let container = attribute("name").map(String::as_str).unwrap_or_default();
            match event.action.as_deref() {
                Some("pause") => {
                    live.pause(container, true);
                    warn!(container, "somebody paused it: its branch stands still until unpaused");
                }
                Some("unpause") => live.pause(container, false),
                // Somebody labelled it as ours.
                Some("create" | "start") if !live.owns(container) => {
                    if let Err(error) = sweep(&engine, &server, &live).await {
                        warn!(container, %error, "remove a container that no branch owns");
                    }
                }
                Some("oom") => warn!(container, "the kernel killed in it, for want of memory"),
                _ => {}
            }
        }
        away = true;
        sleep(RETRY_PAUSE).await;
    }
}

fn ours(server: &str) -> HashMap<&'static str, Vec<String>> {
    HashMap::from([("label", vec![format!("{SERVER}={server}")])])
}
