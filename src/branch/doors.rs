//! Ways in that belong to one branch: a port, a Unix socket. They are for tools that cannot say
//! `appName=argon.…`, as mongodump and mongorestore, which put their own name there.
//!
//! A door is bound here, where it is known which branch has one, and handed to the proxy, which
//! serves it. It costs a descriptor and an idle task, whether its branch sleeps or not. A deleted
//! branch keeps the wish for its doors and gets them back when it is undeleted.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon_admin::types;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cell::Cell;
use super::local::{SOCKET_PATH_BYTES_MAX, make_private};
use super::shared::{Settings, Shared};
use super::state::State;
use super::{BranchError, Branches, view};
use crate::base::ids::BranchId;
use crate::base::name::Name;

/// A listener, and the branch that whoever connects to it means.
#[derive(Debug)]
pub struct Door {
    /// The branch.
    pub branch: BranchId,
    /// Its project's name.
    pub project: Name,
    /// Its name.
    pub name: Name,
    /// Where it is, for people.
    pub at: String,
    /// Cancelled when it is to be closed.
    pub closing: CancellationToken,
    /// Gone with the door: whoever closes it waits for that.
    _open: mpsc::Sender<Infallible>,
}

/// What a door's clients connect to; not yet part of the runtime, and non-blocking.
#[derive(Debug)]
pub enum DoorListener {
    /// A port.
    Port(TcpListener),
    /// A Unix socket.
    Socket(UnixListener),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Port,
    Socket,
}

const KINDS: [Kind; 2] = [Kind::Port, Kind::Socket];

/// All doors of a server.
#[derive(Debug)]
pub(super) struct Doors {
    host: IpAddr,
    sockets: PathBuf,
    open: Mutex<HashMap<(BranchId, Kind), Opened>>,
    /// Doors that could not be opened again after a restart or an undelete.
    failed: Mutex<HashMap<(BranchId, Kind), String>>,
    sender: mpsc::UnboundedSender<(Door, DoorListener)>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<(Door, DoorListener)>>>,
}

#[derive(Debug)]
struct Opened {
    /// A socket's file.
    file: Option<PathBuf>,
    closing: CancellationToken,
    gone: mpsc::Receiver<Infallible>,
}

impl Doors {
    pub(super) fn new(settings: &Settings) -> Result<Self, BranchError> {
        let sockets = settings.data_dir.join("sockets");
        make_private(&sockets)?;
        let listen = settings.address.parse::<SocketAddr>().ok();
        let (sender, receiver) = mpsc::unbounded_channel();
        Ok(Self {
            host: listen.map_or(Ipv4Addr::LOCALHOST.into(), |listen| listen.ip()),
            sockets,
            open: Mutex::default(),
            failed: Mutex::default(),
            sender,
            receiver: Mutex::new(Some(receiver)),
        })
    }

    pub(super) fn port_uri(&self, port: NonZeroU16) -> String {
        format!("mongodb://{}/", SocketAddr::new(self.host, port.get()))
    }

    /// The path percent-encoded, as the connection string specification wants it.
    pub(super) fn socket_uri(&self, cell: &Cell) -> String {
        let mut uri = "mongodb://".to_owned();
        for byte in self.socket_path(cell).as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    uri.push(char::from(*byte));
                }
                other => uri.push_str(&format!("%{other:02X}")),
            }
        }
        uri + "/"
    }

    /// Why a door that a branch should have is not open.
    pub(super) fn failure(&self, branch: BranchId) -> Option<String> {
        let failed = lock(&self.failed);
        KINDS.iter().find_map(|kind| failed.get(&(branch, *kind)).cloned())
    }

    /// A dot parts the names, for neither can have one. Where both together are too long, the
    /// branch's id takes their place.
    fn socket_path(&self, cell: &Cell) -> PathBuf {
        let named = self.sockets.join(format!("{}.{}.sock", cell.project, cell.name));
        match fits(&named) {
            true => named,
            false => self.sockets.join(format!("{}.sock", cell.id)),
        }
    }

    fn bind_port(&self, cell: &Cell, port: u16) -> Result<(TcpListener, NonZeroU16), BranchError> {
        let address = SocketAddr::new(self.host, port);
        let failed = |source| self.listen_error(cell, address.to_string(), source);
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let port = NonZeroU16::new(port).expect("a bound port is not 0");
        Ok((listener, port))
    }

    fn bind_socket(&self, cell: &Cell) -> Result<(UnixListener, PathBuf), BranchError> {
        let path = self.socket_path(cell);
        if !fits(&path) {
            return Err(BranchError::SocketPath { branch: cell.name.clone(), path });
        }
        let failed = |source| self.listen_error(cell, path.display().to_string(), source);
        // An earlier server's; the data directory is ours alone.
        remove_socket(&path).map_err(failed)?;
        let listener = UnixListener::bind(&path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok((listener, path))
    }

    fn listen_error(&self, cell: &Cell, address: String, source: io::Error) -> BranchError {
        BranchError::Listen { branch: cell.name.clone(), address, source: Arc::new(source) }
    }

    /// Hands a listener to the proxy.
    fn serve(&self, cell: &Cell, kind: Kind, at: String, listener: DoorListener) {
        let (open, gone) = mpsc::channel(1);
        let closing = CancellationToken::new();
        info!(branch = %cell.id, name = %cell.name, at, "listening for one branch");
        let door = Door {
            branch: cell.id,
            project: cell.project.clone(),
            name: cell.name.clone(),
            at,
            closing: closing.clone(),
            _open: open,
        };
        let file = match &listener {
            DoorListener::Port(_) => None,
            DoorListener::Socket(_) => Some(self.socket_path(cell)),
        };
        lock(&self.open).insert((cell.id, kind), Opened { file, closing, gone });
        lock(&self.failed).remove(&(cell.id, kind));
        // Nobody takes it only where the proxy has ended; then the door is closed by this.
        drop(self.sender.send((door, listener)));
    }

    /// Closes a door, and waits until its address is free.
    async fn close(&self, branch: BranchId, kind: Kind) {
        lock(&self.failed).remove(&(branch, kind));
        let opened = lock(&self.open).remove(&(branch, kind));
        if let Some(mut opened) = opened {
            opened.closing.cancel();
            // Nothing is ever sent: this is the end of the last sender.
            opened.gone.recv().await;
            if let Some(Err(error)) = opened.file.as_deref().map(remove_socket) {
                warn!(%branch, %error, "remove the socket that was closed");
            }
        }
    }

    pub(super) async fn close_both(&self, branch: BranchId) {
        for kind in KINDS {
            self.close(branch, kind).await;
        }
    }

    /// Closes every door. Those that nobody took are closed with the queue.
    pub(super) async fn close_all(&self) {
        drop(lock(&self.receiver).take());
        let all: Vec<_> = lock(&self.open).keys().copied().collect();
        for (branch, kind) in all {
            self.close(branch, kind).await;
        }
    }

    fn is_open(&self, branch: BranchId, kind: Kind) -> bool {
        lock(&self.open).contains_key(&(branch, kind))
    }

    fn reopen(&self, cell: &Cell, kind: Kind) -> Result<(), BranchError> {
        match (kind, cell.row().port) {
            (Kind::Port, Some(port)) => {
                let (listener, _) = self.bind_port(cell, port.get())?;
                let at = SocketAddr::new(self.host, port.get()).to_string();
                self.serve(cell, kind, at, DoorListener::Port(listener));
            }
            (Kind::Port, None) => {}
            (Kind::Socket, _) => {
                let (listener, path) = self.bind_socket(cell)?;
                self.serve(cell, kind, path.display().to_string(), DoorListener::Socket(listener));
            }
        }
        Ok(())
    }
}

/// Opens the doors that branches had when the last server ended.
pub(super) fn open_all(shared: &Shared) {
    for cell in shared.cells.iter().filter(|cell| cell.state() != State::Deleted) {
        reopen(shared, &cell);
    }
}

/// Opens the doors that a branch should have. One that cannot be opened is shown with the branch,
/// and keeps nobody from using its other addresses.
pub(super) fn reopen(shared: &Shared, cell: &Cell) {
    let row = cell.row();
    let wanted = [(Kind::Port, row.port.is_some()), (Kind::Socket, row.socket)];
    for (kind, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
        if let Err(error) = shared.doors.reopen(cell, kind) {
            warn!(branch = %cell.id, name = %cell.name, error = error.chain(), "not listening");
            lock(&shared.doors.failed).insert((cell.id, kind), error.chain());
        }
    }
}

impl Branches {
    /// The doors that are opened from now on, and those that are open. There is one taker.
    pub fn doors(&self) -> mpsc::UnboundedReceiver<(Door, DoorListener)> {
        let taken = lock(&self.shared.doors.receiver).take();
        // A second taker gets a queue that has ended.
        taken.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    /// Gives a branch a port of its own: this one, else the one that it has, else a free one.
    ///
    /// # Errors
    /// There is no such branch, or the port cannot be had; then everything stays as it was.
    pub async fn open_port(
        &self,
        project: &str,
        branch: &str,
        wanted: Option<NonZeroU16>,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        let doors = &self.shared.doors;
        let has = cell.row().port;
        let port = wanted.or(has);
        if !doors.is_open(cell.id, Kind::Port) || port != has {
            let (listener, port) = doors.bind_port(&cell, port.map_or(0, NonZeroU16::get))?;
            cell.update_row(&self.shared, |row| row.port = Some(port))?;
            doors.close(cell.id, Kind::Port).await;
            let at = SocketAddr::new(doors.host, port.get()).to_string();
            doors.serve(&cell, Kind::Port, at, DoorListener::Port(listener));
        }
        view::branch(&self.shared, &cell)
    }

    /// Takes a branch's own port away; its clients' connections stay.
    ///
    /// # Errors
    /// There is no such branch.
    pub async fn close_port(
        &self,
        project: &str,
        branch: &str,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        cell.update_row(&self.shared, |row| row.port = None)?;
        self.shared.doors.close(cell.id, Kind::Port).await;
        view::branch(&self.shared, &cell)
    }

    /// Gives a branch a Unix socket of its own.
    ///
    /// # Errors
    /// There is no such branch, or the socket cannot be made.
    pub async fn open_socket(
        &self,
        project: &str,
        branch: &str,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        let doors = &self.shared.doors;
        if !doors.is_open(cell.id, Kind::Socket) {
            let (listener, path) = doors.bind_socket(&cell)?;
            cell.update_row(&self.shared, |row| row.socket = true)?;
            let at = path.display().to_string();
            doors.serve(&cell, Kind::Socket, at, DoorListener::Socket(listener));
        }
        view::branch(&self.shared, &cell)
    }

    /// Takes a branch's own Unix socket away; its clients' connections stay.
    ///
    /// # Errors
    /// There is no such branch.
    pub async fn close_socket(
        &self,
        project: &str,
        branch: &str,
    ) -> Result<types::Branch, BranchError> {
        let cell = self.live(project, branch)?;
        cell.update_row(&self.shared, |row| row.socket = false)?;
        self.shared.doors.close(cell.id, Kind::Socket).await;
        view::branch(&self.shared, &cell)
    }
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks but what the allocator does.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
