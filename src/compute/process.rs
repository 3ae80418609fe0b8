//! A mongod as a local process, confined as far as the host allows.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::StartPhases;
use super::cgroup::{Group, Groups};
use super::isolate::{self, Isolation, Place};
use super::launch::{self, PORT, START_DEADLINE, STOP_DEADLINE};
use super::mongod::Mongod;
use super::parked::{self, Parked};
use super::ready::{Member, Volume};
use super::spawner::Spawner;
use super::{Cell, Compute, ComputeError, Exit, Instance, Limits, ServerFacts};
use crate::base::limits::PARKED_START_WAIT;

/// Starts mongods as child processes.
#[derive(Debug)]
pub struct ProcessCompute {
    mongod: Mongod,
    isolation: Isolation,
    spawner: Spawner,
    groups: Option<Groups>,
    why: Option<String>,
}

impl ProcessCompute {
    /// Tries what the host allows, and takes the best of it.
    pub async fn new(mongod: Mongod) -> Result<Self, ComputeError> {
        let spawner = Spawner::start()?;
        let isolation = isolate::probe(&spawner, &mongod.path).await;
        Ok(Self { mongod, isolation, spawner, groups: None, why: None })
    }

    /// Lets none of them take more of the machine.
    ///
    /// # Errors
    /// The host does not let this server say so.
    pub fn limited(mut self, limits: Limits) -> Result<Self, ComputeError> {
        self.groups = Groups::find(limits)?;
        Ok(self)
    }

    /// Says why mongods are run so.
    #[must_use]
    pub fn because(mut self, why: Option<String>) -> Self {
        self.why = why;
        self
    }

    fn command(
        &self,
        cell: &Cell,
        port: u16,
        group: Option<&Group>,
    ) -> Result<Command, ComputeError> {
        let log = File::create(&cell.log)
            .map_err(|source| ComputeError::io("create the log", &cell.log, source))?;
        let errors = log
            .try_clone()
            .map_err(|source| ComputeError::io("share the log", &cell.log, source))?;
        let mut command = Command::new(&self.mongod.path);
        command
            .args(launch::arguments(cell, port, &cell.dbpath, &cell.socket_dir))
            .env_clear()
            // The client's and the operator's locale must not change what mongod does.
            .env("LC_ALL", "C")
            .current_dir(&cell.dbpath)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(true);
        let place = Place {
            own: &[&cell.dbpath, &cell.socket_dir],
            program: &self.mongod.path,
            working_directory: &cell.dbpath,
        };
        let doors = group.map_or(Ok(Vec::new()), Group::doors)?;
        isolate::confine(&mut command, self.isolation, place, doors)?;
        Ok(command)
    }
}

#[async_trait]
impl Compute for ProcessCompute {
    fn describe(&self) -> String {
        let why = self.why.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        format!("local processes, {}{why}", self.isolation)
    }

    fn mongod_version(&self) -> &str {
        &self.mongod.version
    }

    async fn start(&self, cell: Cell) -> Result<Arc<dyn Instance>, ComputeError> {
        let port = self.port()?;
        let member = launch::member(&cell, port);
        let begun = Instant::now();
        self.spawn(&cell, member, port).await?.ready(begun, START_DEADLINE).await
    }

    fn can_park(&self) -> bool {
        true
    }

    async fn park(&self, cell: Cell) -> Result<Arc<dyn Parked>, ComputeError> {
        let port = self.port()?;
        // Only used volumes are given to it.
        let member = Member { volume: Volume::Used, ..launch::member(&cell, port) };
        let starting = self.spawn(&cell, member, port).await?;
        if let Some(pid) = starting.process.pid {
            parked::give_way(pid);
        }
        Ok(Arc::new(starting))
    }
}

impl ProcessCompute {
    fn port(&self) -> Result<u16, ComputeError> {
        match self.isolation {
            Isolation::Jail | Isolation::Network => Ok(PORT),
            Isolation::SharedNetwork => free_port(),
        }
    }

    async fn spawn(
        &self,
        cell: &Cell,
        member: Member,
        port: u16,
    ) -> Result<Starting, ComputeError> {
        let socket = launch::fresh_socket(cell, port)?;
        let group = self.groups.as_ref().map(Groups::create).transpose()?;
        let command = self.command(cell, port, group.as_ref())?;
        let child = self.spawner.spawn(command).await?;
        let process = Process::watch(child, socket, cell.log.clone(), group).into();
        Ok(Starting { process, member, log: cell.log.clone() })
    }
}

/// A mongod that is not ready yet.
#[derive(Debug)]
struct Starting {
    process: Arc<Process>,
    member: Member,
    log: PathBuf,
}

impl Starting {
    /// Returns when it is a writable primary; `begun` is when that was asked of it.
    async fn ready(
        &self,
        begun: Instant,
        limit: Duration,
    ) -> Result<Arc<dyn Instance>, ComputeError> {
        let process = self.process.clone();
        let end = process.wait();
        let facts = launch::ready(&process.socket, &self.member, &self.log, limit, end).await;
        match facts {
            Ok((facts, listening)) => {
                let start =
                    StartPhases { listening: listening - begun, primary: listening.elapsed() };
                debug!(pid = process.pid, "mongod is a writable primary");
                Ok(Arc::new(Ready { process, facts, start }))
            }
            Err(error) => {
                process.kill().await;
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Parked for Starting {
    fn has_parked(&self) {
        if let Some(pid) = self.process.pid {
            parked::hurry(pid);
        }
    }

    fn is_sound(&self) -> bool {
        self.process.exit.borrow().is_none() && self.process.pid.is_some_and(parked::is_sound)
    }

    async fn start(self: Arc<Self>) -> Result<Arc<dyn Instance>, ComputeError> {
        self.ready(Instant::now(), PARKED_START_WAIT).await
    }

    async fn wait(&self) -> Exit {
        self.process.wait().await
    }

    async fn kill(&self) {
        self.process.kill().await;
    }
}

/// A mongod that became ready.
#[derive(Debug)]
struct Ready {
    process: Arc<Process>,
    facts: ServerFacts,
    start: StartPhases,
}

#[async_trait]
impl Instance for Ready {
    fn socket(&self) -> &Path {
        &self.process.socket
    }

    fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    fn start_phases(&self) -> StartPhases {
        self.start
    }

    async fn wait(&self) -> Exit {
        self.process.wait().await
    }

    async fn stop(&self) -> Exit {
        self.process.stop().await
    }

    async fn kill(&self) {
        self.process.kill().await;
    }

    fn freeze(&self) -> bool {
        self.process.orders.send(Order::Freeze).is_ok()
    }

    fn thaw(&self) {
        // Gone, it needs none.
        let _ = self.process.orders.send(Order::Thaw);
    }
}

/// What the task that owns the child is told.
#[derive(Debug)]
enum Order {
    Freeze,
    Thaw,
    Terminate,
    Kill,
}

/// A child process, owned by one task: only that task signals it and reaps it, so a signal can
/// never hit another process that got the same number.
#[derive(Debug)]
struct Process {
    pid: Option<u32>,
    socket: PathBuf,
    orders: mpsc::UnboundedSender<Order>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    fn watch(mut child: Child, socket: PathBuf, log: PathBuf, group: Option<Group>) -> Self {
        let (orders, mut inbox) = mpsc::unbounded_channel();
        let (announce, exit) = watch::channel(None);
        let pid = child.id();
        tokio::spawn(async move {
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    order = inbox.recv() => match order {
                        Some(Order::Freeze) => {
                            signal(&child, libc::SIGSTOP);
                            group.as_ref().map(Group::reclaim);
                        }
                        Some(Order::Thaw) => signal(&child, libc::SIGCONT),
                        Some(Order::Terminate) => {
                            signal(&child, libc::SIGTERM);
                            // One that is frozen would hear of it when it thaws.
                            signal(&child, libc::SIGCONT);
                        }
                        // Nobody holds the process any more, so nobody can use it.
                        Some(Order::Kill) | None => {
                            if let Err(error) = child.start_kill() {
                                debug!(%error, "kill mongod: it is gone already");
                            }
                        }
                    },
                }
            };
            announce.send_replace(Some(match &group {
                Some(group) if group.ran_out_of_memory() => Exit::out_of_memory(log),
                _ => Exit::process(status, log),
            }));
        });
        Self { pid, socket, orders, exit }
    }

    async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().expect("waited for Some"),
            Err(_) => Exit::unknown(),
        }
    }

    async fn stop(&self) -> Exit {
        // Nobody hears it where the process is gone.
        let _ = self.orders.send(Order::Terminate);
        match tokio::time::timeout(STOP_DEADLINE, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                warn!(pid = self.pid, "mongod did not stop in {STOP_DEADLINE:?}: killing it");
                self.kill().await;
                self.wait().await
            }
        }
    }

    async fn kill(&self) {
        let _ = self.orders.send(Order::Kill);
        self.wait().await;
    }
}

fn signal(child: &Child, signal: libc::c_int) {
    let Some(pid) = child.id().and_then(|pid| libc::pid_t::try_from(pid).ok()) else { return };
    // SAFETY: kill takes plain numbers; the child is not reaped yet, so the number is still its.
    unsafe { libc::kill(pid, signal) };
}

fn free_port() -> Result<u16, ComputeError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| ComputeError::io("find a free port on", "127.0.0.1", source))
}
