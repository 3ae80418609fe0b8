//! The one thread that starts child processes.
//!
//! A child asks the kernel to be killed when its parent *thread* ends (`PR_SET_PDEATHSIG`, see
//! prctl(2)). The runtime's threads come and go, so children are started by a thread that lives
//! exactly as long as the server.

use std::sync::mpsc;
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::ComputeError;

struct Request {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<std::io::Result<Child>>,
}

/// Starts children that die with the server.
#[derive(Debug)]
pub(super) struct Spawner {
    requests: mpsc::Sender<Request>,
}

impl Spawner {
    pub(super) fn start() -> Result<Self, ComputeError> {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                // Ends, and with it every child, when the last Spawner is dropped.
                for Request { mut command, runtime, reply } in inbox {
                    let _inside = runtime.enter();
                    // Nobody waits any more: dropping the child kills it.
                    let _ = reply.send(command.spawn());
                }
            })
            .map_err(|source| ComputeError::io("start the thread", "spawner", source))?;
        Ok(Self { requests })
    }

    pub(super) async fn spawn(&self, command: Command) -> Result<Child, ComputeError> {
        let program = command.as_std().get_program().to_owned();
        let gone = || std::io::Error::other("the spawner thread is gone");
        let (reply, started) = oneshot::channel();
        let request = Request { command, runtime: Handle::current(), reply };
        let sent = self.requests.send(request).map_err(|_| gone());
        let child = match sent {
            Ok(()) => started.await.unwrap_or_else(|_| Err(gone())),
            Err(error) => Err(error),
        };
        child.map_err(|source| ComputeError::io("start", program, source))
    }
}
