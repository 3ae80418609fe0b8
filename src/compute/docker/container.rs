//! One container, from before it exists until it is gone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    RenameContainerOptionsBuilder, WaitContainerOptions,
};
use bson::doc;
use futures_util::StreamExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::DockerError;
use super::engine::Engine;
use super::error::{is_answer, is_conflict, is_not_found};
use super::still::First;
use super::sweep::{Live, Registered};
use crate::compute::Exit;
use crate::compute::error::ContainerEnd;
use crate::compute::launch::STOP_DEADLINE;
use crate::wire::Client;

/// Between two questions to an engine that does not answer.
const AWAY_PAUSE: Duration = Duration::from_millis(100);

/// How long an engine may take to clear up what has ended; the sweep does it otherwise.
const CLEAR_WAIT: Duration = Duration::from_secs(10);

/// How long mongod may take to hear that it should end, where the engine cannot tell it.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// A mongod that nothing can stop is given up after this much more; nobody else can have its data
/// as long as it has them locked.
const KILL_DEADLINE: Duration = Duration::from_secs(15);

/// A container gets its new name, and its process is asked for, when nobody waits for what happens meanwhile.
const QUIET_PAUSE: Duration = Duration::from_secs(1);

/// How long the engine may take to tell a process; orders wait for that.
const ASK_WAIT: Duration = Duration::from_secs(2);

/// Between two tries to kill it.
const KILL_PAUSE: Duration = Duration::from_secs(1);

/// Lines of its log that are kept when it has gone.
const LOG_LINES: &str = "2000";

#[derive(Debug)]
enum Order {
    Rename(String),
    Terminate,
    Kill,
}

/// A container, owned by one task: only that task talks to the engine about it. Dropping the last
/// handle kills and removes it.
#[derive(Debug)]
pub(super) struct Container {
    name: String,
    socket: PathBuf,
    log: PathBuf,
    process: Option<u32>,
    first: Arc<OnceLock<First>>,
    orders: mpsc::Sender<Order>,
    exit: watch::Receiver<Option<Exit>>,
}

/// What a container is made from.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) body: ContainerCreateBody,
    /// Where mongod's socket appears on this side.
    pub(super) socket: PathBuf,
    /// Where its log is put when it has ended.
    pub(super) log: PathBuf,
    /// Whether it is of use to know its process.
    pub(super) process: Process,
}

/// What is asked about the process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// Nothing: it is one question less.
    Unknown,
    /// Its number on this machine.
    Asked,
}

impl Container {
    /// Makes and starts a container. Whoever stops waiting for that leaves nothing behind.
    pub(super) async fn launch(
        engine: Engine,
        live: Arc<Live>,
        plan: Plan,
    ) -> Result<Self, DockerError> {
        let (orders, inbox) = mpsc::channel(4);
        let (announce, exit) = watch::channel(None);
        let (report, started) = oneshot::channel();
        let (socket, log) = (plan.socket.clone(), plan.log.clone());
        let (name, process) = (plan.name.clone(), None);
        let first = Arc::<OnceLock<_>>::default();
        let seen = first.clone();
        let container = Self { name, socket, log, process, first, orders, exit };
        tokio::spawn(async move {
            // Before it exists, so that no sweep takes it for a stray one.
            let mut registered = vec![live.register(&plan.name)];
            let keeper = match make(&engine, &plan).await {
                Ok(id) => Keeper { engine, live, id, plan, first: seen },
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let started = keeper.engine.docker.start_container(&keeper.id, None).await;
            if let Err(error) = started {
                keeper.remove().await;
                let error = DockerError::engine("start the container", &keeper.plan.name)(error);
                let _ = report.send(Err(error));
                return;
            }
            let process = match keeper.plan.process {
                Process::Unknown => None,
                Process::Asked => keeper.process().await,
            };
            let _ = report.send(Ok(process));
            let end = keeper.until_end(inbox, &mut registered).await;
            keeper.clear(&end).await;
            announce.send_replace(Some(Exit::container(end, keeper.plan.log.clone())));
        });
        match started.await {
            Ok(Ok(process)) => Ok(Self { process, ..container }),
            Ok(Err(error)) => Err(error),
            // The task ends in no other way but with the runtime.
            Err(_) => {
                Err(DockerError::engine("start", &container.name)(EngineError::RequestTimeoutError))
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The number of mongod's process, where this server sees it.
    pub(super) fn process(&self) -> Option<u32> {
        self.process
    }

    /// Has its process stand still, if that was seen by now. Gives whether it does.
    pub(super) fn freeze(&self) -> bool {
        self.first.get().is_some_and(First::stop)
    }

    pub(super) fn thaw(&self) {
        if let Some(first) = self.first.get() {
            first.go_on();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Gives it another name, for people, some time after this.
    pub(super) fn rename(&self, name: String) {
        // Nobody needs it where the channel is full or closed.
        let _ = self.orders.try_send(Order::Rename(name));
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().expect("waited for Some"),
            Err(_) => Exit::unknown(),
        }
    }

    pub(super) async fn stop(&self) -> Exit {
        // A full or closed channel means that it has such an order, or is gone.
        let _ = self.orders.try_send(Order::Terminate);
        match timeout(STOP_DEADLINE, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                warn!(
                    container = self.name,
                    "mongod did not stop in {STOP_DEADLINE:?}: killing it"
                );
                self.kill().await
            }
        }
    }

    pub(super) async fn kill(&self) -> Exit {
        let _ = self.orders.send(Order::Kill).await;
        match timeout(KILL_DEADLINE, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                warn!(container = self.name, "cannot be killed: does the engine answer?");
                Exit::unknown()
            }
        }
    }
}

/// Whether it must not live on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doom {
    None,
    /// Somebody said so.
    Killed,
    /// And nobody is left to say anything else.
    Final,
}

/// Makes a container and gives its id. Its name may be taken by an earlier life's, which the engine
/// could not remove at its end, or whose own task is about to: then that one goes first.
async fn make(engine: &Engine, plan: &Plan) -> Result<String, DockerError> {
    let begun = Instant::now();
    loop {
        let options = CreateContainerOptionsBuilder::new().name(&plan.name).build();
        match engine.docker.create_container(Some(options), plan.body.clone()).await {
            Ok(made) => return Ok(made.id),
            Err(error) if is_conflict(&error) && begun.elapsed() < CLEAR_WAIT => {
                let removed = engine.remove(&plan.name).await;
                removed.map_err(DockerError::engine("remove the old container", &plan.name))?;
            }
            Err(error) => {
                return Err(DockerError::engine("make the container", &plan.name)(error));
            }
        }
    }
}

/// What the task has. It speaks of the container by its id: another life's has the same name.
struct Keeper {
    engine: Engine,
    live: Arc<Live>,
    id: String,
    plan: Plan,
    first: Arc<OnceLock<First>>,
}

impl Keeper {
    /// Returns when mongod has ended, whoever ended it.
    async fn until_end(
        &self,
        mut inbox: mpsc::Receiver<Order>,
        registered: &mut Vec<Registered>,
    ) -> ContainerEnd {
        let mut end = std::pin::pin!(self.end());
        let mut doom = Doom::None;
        let mut rename: Option<(String, Instant)> = None;
        let mut look = Some(Instant::now() + QUIET_PAUSE);
        loop {
            tokio::select! {
                end = &mut end => return end,
                order = inbox.recv(), if doom != Doom::Final => match order {
                    Some(Order::Rename(name)) => {
                        // By both, so that no sweep takes it for a stray one.
                        registered.push(self.live.register(&name));
                        rename = Some((name, Instant::now() + QUIET_PAUSE));
                    }
                    Some(Order::Terminate) => self.terminate().await,
                    Some(Order::Kill) => {
                        doom = Doom::Killed;
                        self.kill().await;
                    }
                    // Nobody holds it any more, so nobody can use it.
                    None => {
                        doom = Doom::Final;
                        self.kill().await;
                    }
                },
                () = until(rename.as_ref().map(|(_, time)| *time)), if rename.is_some() => {
                    let name = rename.take().map(|(name, _)| name).unwrap_or_default();
                    self.rename(&name).await;
                }
                () = until(look), if look.is_some() => {
                    look = None;
                    let _ = timeout(ASK_WAIT, self.look()).await;
                }
                // The engine may not have been there to do it.
                () = sleep(KILL_PAUSE), if doom != Doom::None => self.kill().await,
            }
        }
    }

    async fn rename(&self, name: &str) {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        if let Err(error) = self.engine.docker.rename_container(&self.id, options).await {
            debug!(container = self.plan.name, name, %error, "it keeps the name that it has");
        }
    }

    /// Has its process at hand, to let it stand still.
    async fn look(&self) {
        let Some(process) = self.process().await else { return };
        match First::open(process, &self.id) {
            // There is only one look.
            Ok(first) => drop(self.first.set(first)),
            Err(error) => debug!(container = self.plan.name, %error, "its process is not seen"),
        }
    }

    /// The number of mongod's process, where this server sees it.
    async fn process(&self) -> Option<u32> {
        let asked = None::<InspectContainerOptions>;
        let found = self.engine.docker.inspect_container(&self.id, asked).await.ok()?;
        let process = found.state?.pid.and_then(|pid| u32::try_from(pid).ok())?;
        // An engine in another namespace counts otherwise: a container's group has its id.
        let group = tokio::fs::read_to_string(format!("/proc/{process}/cgroup")).await.ok()?;
        group.contains(&self.id).then_some(process)
    }

    async fn terminate(&self) {
        if self.signal("SIGTERM").await.is_err_and(|error| !is_answer(&error)) {
            // The engine is away, and mongod may be well: it is told directly.
            let ask = async {
                let mut client = Client::connect(&self.plan.socket).await?;
                client.command("admin", doc! { "shutdown": 1, "force": true }).await
            };
            // Its answer is that the connection ends.
            let _ = timeout(SHUTDOWN_WAIT, ask).await;
        }
    }

    async fn kill(&self) {
        if let Err(error) = self.signal("SIGKILL").await {
            debug!(container = self.plan.name, %error, "kill it");
        }
    }

    async fn signal(&self, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let sent = self.engine.docker.kill_container(&self.id, Some(options)).await;
        // Somebody may have paused it, and a paused process gets no signal. Most are not paused,
        // and the engine says so.
        let _ = self.engine.docker.unpause_container(&self.id).await;
        // One that stands still would hear of it when it goes on.
        if let Some(first) = self.first.get() {
            first.go_on();
        }
        sent
    }

    /// Waits for the end. The engine may go away and come back meanwhile.
    async fn end(&self) -> ContainerEnd {
        let mut warned = false;
        loop {
            let asked = Instant::now();
            let docker = &self.engine.docker;
            let _ = docker.wait_container(&self.id, None::<WaitContainerOptions>).next().await;
            // Whatever that said, this is how it stands.
            match docker.inspect_container(&self.id, None::<InspectContainerOptions>).await {
                Ok(found) => {
                    if let Some(end) = self.ended(&found) {
                        return end;
                    }
                }
                Err(error) if is_not_found(&error) => return ContainerEnd::Removed,
                Err(error) => {
                    if !warned {
                        warn!(container = self.plan.name, %error, "the container engine is away");
                        warned = true;
                    }
                    // As long as mongod runs, it serves; the engine will say more.
                    if UnixStream::connect(&self.plan.socket).await.is_err_and(is_dead) {
                        return ContainerEnd::EngineAway;
                    }
                }
            }
            sleep(AWAY_PAUSE.saturating_sub(asked.elapsed())).await;
        }
    }

    fn ended(&self, found: &ContainerInspectResponse) -> Option<ContainerEnd> {
        let state = found.state.as_ref()?;
        let runs = state.running.unwrap_or(false) || state.restarting.unwrap_or(false);
        if runs {
            return None;
        }
        // The kernel kills by SIGKILL; an engine that restarts forgets why it was.
        if state.oom_killed.unwrap_or(false) {
            let limit = self.plan.body.host_config.as_ref().and_then(|host| host.memory);
            return Some(ContainerEnd::OutOfMemory { limit });
        }
        Some(ContainerEnd::Exited(state.exit_code.unwrap_or(-1)))
    }

    /// Keeps the log, and removes the rest.
    async fn clear(&self, end: &ContainerEnd) {
        if *end == ContainerEnd::EngineAway {
            // When it is back, the sweep removes the container.
            return;
        }
        let kept = timeout(CLEAR_WAIT, async {
            match self.engine.log(&self.id, LOG_LINES).await {
                Ok(log) => {
                    tokio::fs::write(&self.plan.log, log).await.map_err(|error| error.to_string())
                }
                Err(error) if is_not_found(&error) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        if let Ok(Err(error)) = kept.await {
            warn!(container = self.plan.name, error, "keep the container's log");
        }
        self.remove().await;
    }

    async fn remove(&self) {
        match timeout(CLEAR_WAIT, self.engine.remove(&self.id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(container = self.plan.name, %error, "remove the container"),
            Err(_) => warn!(container = self.plan.name, "remove the container: no answer"),
        }
    }
}

/// Returns when it is time for what was put off.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Whether a connect says that nobody listens, and not that somebody is busy.
fn is_dead(error: std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error.kind(), ConnectionRefused | NotFound)
}
