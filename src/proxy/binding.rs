//! Binding the address of all branches, alone or beside a server that is to be replaced.
//!
//! Two servers of one user may listen on one address when both sockets have SO_REUSEPORT
//! (socket(7)). The kernel then deals new connections out to both, and those that lie in the queue
//! of the one that closes are reset. So the successor also tells the kernel to give all of them to
//! itself: a program of one instruction that answers "the second socket" (`SO_ATTACH_REUSEPORT_CBPF`).
//! The kernel lets nobody but the same user join.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

/// How many connections may wait for being accepted: those of a whole upgrade, as far as the
/// kernel's own limit (`net.core.somaxconn`) goes.
const BACKLOG: i32 = 4096;

/// Who else may be listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Nobody: an address that is taken is an error.
    Alone,
    /// A server that is about to end: from now on its new clients come here, and wait.
    TakeOver,
}

pub(super) fn listen(address: SocketAddr, binding: Binding) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if binding == Binding::TakeOver {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    // After binding: a successor may join us, but we joined nobody unasked.
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    if binding == Binding::TakeOver
        && let Err(error) = steer_to_second(&socket)
    {
        warn!(%error, "the old server still gets some of the new connections until it ends");
    }
    Ok(socket.into())
}

/// Lets the kernel give every new connection to the second of the sockets that share the address.
/// Where there is only one, it is not asked.
fn steer_to_second(socket: &Socket) -> io::Result<()> {
    // BPF_RET | BPF_K: return the constant.
    let mut answer = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 1 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut answer };
    let length = libc::socklen_t::try_from(size_of_val(&program)).expect("a few bytes");
    // SAFETY: the descriptor is open, and `program` points to one instruction that outlives the
    // call; the kernel copies both.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            length,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn nobody_joins_unasked_and_a_successor_gets_every_new_connection() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0)), Binding::Alone).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address, Binding::Alone).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let mut held = vec![first];
        for generation in 0..3 {
            let next = listen(address, Binding::TakeOver).unwrap();
            let clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
            let accepted = (0..50).filter(|_| next.accept().is_ok()).count();
            assert_eq!(accepted, clients.len(), "generation {generation}");
            held = vec![next];
        }
        // Alone again, it gets everybody, though the kernel was told "the second".
        let client = TcpStream::connect(address).unwrap();
        held[0].accept().unwrap();
        drop(client);
    }
}
