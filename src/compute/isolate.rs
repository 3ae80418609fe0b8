//! What a mongod process may reach: its own loopback and its own files, where the host allows that.
//!
//! In a network namespace of its own every mongod is the replica set member `127.0.0.1:27017`, so
//! a copied volume needs no reconfiguration, and no branch can reach another or the network. In a
//! root file system of its own it sees the system's programs and its own two directories: no other
//! branch's data or sockets, nobody's credentials.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tracing::warn;

use super::ComputeError;
use super::jail::{Jail, check};
use super::spawner::Spawner;

/// Who root is inside: nobody in particular, so that a program that is executed gets no rights. Outside
/// it stays the server's user.
const ROOT_INSIDE: libc::uid_t = 1000;

/// Descriptors of one mongod: what its makers advise.
const DESCRIPTORS: libc::rlim_t = 64_000;

/// How a process is kept apart, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Its own user, network, mount and IPC namespaces, and a root of its own.
    Jail,
    /// Its own network namespace.
    Network,
    /// The host's network, a free loopback port: where namespaces are not allowed.
    SharedNetwork,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jail => "each in its own network and file system",
            Self::Network => "each in its own network namespace",
            Self::SharedNetwork => "on free loopback ports (network namespaces are not allowed)",
        })
    }
}

/// What a process works with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'p> {
    /// Directories that it may write.
    pub(super) own: &'p [&'p Path],
    /// Its program.
    pub(super) program: &'p Path,
    pub(super) working_directory: &'p Path,
}

/// Starts `program --version` in each way: the only proof that the host allows it.
pub(super) async fn probe(spawner: &Spawner, program: &Path) -> Isolation {
    for isolation in [Isolation::Jail, Isolation::Network] {
        match works(spawner, program, isolation).await {
            Ok(()) => return isolation,
            Err(reason) => warn!("a mongod {isolation} does not start here: {reason}"),
        }
    }
    Isolation::SharedNetwork
}

async fn works(spawner: &Spawner, program: &Path, isolation: Isolation) -> Result<(), String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let place = Place { own: &[], program, working_directory: Path::new("/tmp") };
    confine(&mut command, isolation, place, Vec::new()).map_err(|error| error.to_string())?;
    let mut child = spawner.spawn(command).await.map_err(|error| {
        let error: &dyn std::error::Error = &error;
        error.source().unwrap_or(error).to_string()
    })?;
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Arranges that the child is confined, is in a session of its own (a Ctrl-C in the terminal is the
/// server's to handle), gains no rights, and dies with the server. `groups` are the `cgroup.procs`
/// files of the control groups that it is to be in.
///
/// # Errors
/// What it works with cannot be read.
pub(super) fn confine(
    command: &mut Command,
    isolation: Isolation,
    place: Place<'_>,
    groups: Vec<OwnedFd>,
) -> Result<(), ComputeError> {
    let jail = match isolation {
        Isolation::Jail => {
            let program = place.program;
            let jail = Jail::prepare(place.own, program, place.working_directory);
            Some(jail.map_err(|source| ComputeError::io("isolate", program, source))?)
        }
        Isolation::Network | Isolation::SharedNetwork => None,
    };
    // SAFETY: getuid and friends cannot fail and touch no memory.
    let (uid, gid, parent) = unsafe { (libc::getuid(), libc::getgid(), libc::getpid()) };
    let inside = |id| if id == 0 { ROOT_INSIDE } else { id };
    let uid_map = format!("{} {uid} 1", inside(uid));
    let gid_map = format!("{} {gid} 1", inside(gid));
    // SAFETY: between fork and exec the closure only makes system calls; whatever they take was made
    // before the fork, so nothing allocates.
    unsafe {
        command.pre_exec(move || {
            check(libc::setsid())?;
            for group in &groups {
                // Zero is whoever writes it.
                check(libc::write(group.as_raw_fd(), c"0".as_ptr().cast(), 1) as libc::c_int)?;
            }
            match (&jail, isolation) {
                (Some(jail), _) => {
                    enter_user(libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWIPC)?;
                    map_user(&uid_map, &gid_map)?;
                    raise_loopback()?;
                    jail.enter()?;
                }
                (None, Isolation::SharedNetwork) => {}
                (None, _) if uid == 0 => {
                    check(libc::unshare(libc::CLONE_NEWNET))?;
                    raise_loopback()?;
                }
                (None, _) => {
                    enter_user(libc::CLONE_NEWNET)?;
                    map_user(&uid_map, &gid_map)?;
                    raise_loopback()?;
                }
            }
            limit()?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            // After the namespaces: a change of credentials clears it.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // The server may have died before the line above took effect.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    Ok(())
}

fn enter_user(others: libc::c_int) -> io::Result<()> {
    // SAFETY: unshare takes plain flags.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | others) })
}

fn map_user(uid_map: &str, gid_map: &str) -> io::Result<()> {
    // user_namespaces(7): without this an unprivileged process may not write its gid_map.
    write_proc("/proc/self/setgroups", "deny")?;
    write_proc("/proc/self/uid_map", uid_map)?;
    write_proc("/proc/self/gid_map", gid_map)
}

fn write_proc(path: &str, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// Of descriptors as many as it may need and the server may give; no core dumps, which would hold a
/// branch's data; files that nobody else may read.
fn limit() -> io::Result<()> {
    // SAFETY: the structures are whole, and the kernel only fills or reads them.
    unsafe {
        let mut files: libc::rlimit = mem::zeroed();
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut files))?;
        files.rlim_max = files.rlim_max.min(DESCRIPTORS);
        files.rlim_cur = files.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files))?;
        let none: libc::rlimit = mem::zeroed();
        check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
        libc::umask(0o077);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What a shell script says in a jail with these directories.
    async fn told(script: &str, own: &[&Path]) -> String {
        let spawner = Spawner::start().unwrap();
        let program = Path::new("/bin/bash");
        assert_eq!(works(&spawner, program, Isolation::Jail).await, Ok(()));
        let mut command = Command::new(program);
        command.args(["-c", script]).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
        let place = Place { own, program, working_directory: own[0] };
        confine(&mut command, Isolation::Jail, place, Vec::new()).unwrap();
        let child = spawner.spawn(command).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn its_own_files_are_all_it_sees_and_the_system_cannot_be_written() {
        let data = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| data.path().join(name));
        for directory in [&own, &other] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "a branch's").unwrap();
        }
        let _socket = UnixListener::bind(other.join("socket")).unwrap();
        let all = data.path().display();
        let own_paths = [own.as_path()];
        let seen = told(&format!("cat file; ls {all}; ls -A /tmp | wc -l"), &own_paths).await;
        let above = if data.path().starts_with("/tmp") { "1" } else { "0" };
        assert_eq!(seen, format!("a branch'sown\n{above}"));

        let refused = told(&format!("cat {all}/other/file; : > {all}/own/made"), &own_paths).await;
        assert!(refused.ends_with("No such file or directory"), "{refused}");
        assert!(own.join("made").exists());
        for write in [": > /usr/made", ": > /proc/sys/kernel/hostname", "mkdir /sys/made"] {
            let refused = told(write, &own_paths).await;
            assert!(refused.contains("Read-only") || refused.contains("denied"), "{refused}");
        }
        for outside in ["/proc/1/root/", "/root", "/home", "/etc/shadow"] {
            let refused = told(&format!("ls {outside}"), &own_paths).await;
            assert!(refused.contains("No such") || refused.contains("denied"), "{refused}");
        }
    }

    #[tokio::test]
    async fn it_reaches_no_network_and_gains_no_rights() {
        let data = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = [data.path()];
        for address in [format!("127.0.0.1/{port}"), "192.0.2.1/80".to_owned()] {
            let refused = told(&format!("exec 3<>/dev/tcp/{address}"), &own).await;
            assert!(
                refused.contains("refused") || refused.contains("unreachable"),
                "{address}: {refused}"
            );
        }
        let status = told("grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status", &own).await;
        let lines: Vec<_> = status.split_whitespace().skip(1).step_by(2).collect();
        assert_eq!(lines, ["0000000000000000", "0000000000000000", "1"]);
        let names = told("grep -c : /proc/net/dev", &own).await;
        assert_eq!(names, "1", "only the loopback");
        let refused = told("unshare -m true", &own).await;
        assert!(refused.contains("failed"), "{refused}");
        let limits = told("ulimit -c; umask; ps -o sid= -p $$ | tr -d ' '; echo $$", &own).await;
        let lines: Vec<_> = limits.lines().collect();
        assert_eq!(lines[..2], ["0", "0077"]);
        assert_eq!(lines[2], lines[3], "a session of its own");
    }
}
