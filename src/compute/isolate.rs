//! What a mongod process may reach: nothing but its own loopback, where the host allows that.
//!
//! In a network namespace of its own every mongod is the replica set member `127.0.0.1:27017`, so
//! a copied volume needs no reconfiguration, and no branch can reach another or the network.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::mem;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tracing::warn;

use super::spawner::Spawner;

/// How a process is kept apart from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Its own user and network namespace.
    Namespace,
    /// The host's network, a free loopback port: where namespaces are not allowed.
    SharedNetwork,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespace => "each in its own network namespace",
            Self::SharedNetwork => "on free loopback ports (network namespaces are not allowed)",
        })
    }
}

/// Starts `program --version` in a namespace: the only proof that the host allows it.
pub(super) async fn probe(spawner: &Spawner, program: &Path) -> Isolation {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    confine(&mut command, Isolation::Namespace);
    let outcome = match spawner.spawn(command).await {
        Ok(mut child) => child.wait().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(status) if status.success() => Isolation::Namespace,
        Ok(status) => {
            warn!("a mongod in a network namespace failed ({status}): using loopback ports");
            Isolation::SharedNetwork
        }
        Err(error) => {
            warn!("no network namespaces here ({error}): using loopback ports");
            Isolation::SharedNetwork
        }
    }
}

/// Arranges that the child is confined, is in a process group of its own (a Ctrl-C in the terminal
/// is the server's to handle) and dies with the server.
pub(super) fn confine(command: &mut Command, isolation: Isolation) {
    // SAFETY: getuid and friends cannot fail and touch no memory.
    let (uid, gid, parent) = unsafe { (libc::getuid(), libc::getgid(), libc::getpid()) };
    let uid_map = format!("{uid} {uid} 1");
    let gid_map = format!("{gid} {gid} 1");
    command.process_group(0);
    // SAFETY: between fork and exec the closure only makes system calls; the strings were made
    // before the fork, so nothing allocates.
    unsafe {
        command.pre_exec(move || {
            if isolation == Isolation::Namespace {
                enter_namespace(uid, &uid_map, &gid_map)?;
                raise_loopback()?;
            }
            // After the namespaces: a change of credentials clears it.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // The server may have died before the line above took effect.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

fn enter_namespace(uid: libc::uid_t, uid_map: &str, gid_map: &str) -> io::Result<()> {
    // SAFETY: unshare takes plain flags.
    unsafe {
        if uid == 0 {
            return check(libc::unshare(libc::CLONE_NEWNET));
        }
        check(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET))?;
    }
    // user_namespaces(7): without this an unprivileged process may not write its gid_map.
    write_proc("/proc/self/setgroups", "deny")?;
    write_proc("/proc/self/uid_map", uid_map)?;
    write_proc("/proc/self/gid_map", gid_map)
}

fn write_proc(path: &str, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

fn raise_loopback() -> io::Result<()> {
    // SAFETY: the request is zeroed, its name is shorter than the field and ends in a zero, and
    // the socket is closed on every path.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(socket)?;
        let mut request: libc::ifreq = mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let raised = check(libc::ioctl(socket, libc::SIOCSIFFLAGS, &request));
        libc::close(socket);
        raised
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
