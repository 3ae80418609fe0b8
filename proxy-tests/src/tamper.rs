//! A TCP proxy before a server, that cuts connections, loses answers or hides headers when told.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::answers;

/// Headers that a server which ignores conditions does not see, and what it sees instead: of the
/// same length, so that nothing else changes.
const HIDDEN: [(&[u8], &[u8]); 2] =
    [(b"\r\nif-none-match:", b"\r\nxx-none-match:"), (b"\r\nif-match:", b"\r\nxx-match:")];

/// The proxy. It ends with this, and so do its connections.
#[derive(Debug)]
pub struct Tamper {
    shared: Arc<Shared>,
    /// Where it listens, `HOST:PORT`.
    pub address: String,
}

#[derive(Debug, Default)]
struct Shared {
    server: String,
    ended: AtomicBool,
    cut: AtomicBool,
    hide_conditions: AtomicBool,
    delay_ms: AtomicU64,
    lose_answers: AtomicU32,
    lost: AtomicU32,
    refusal: Mutex<Option<String>>,
    open: Mutex<Vec<TcpStream>>,
}

impl Tamper {
    /// Before the server at this address; passes everything on.
    pub fn before(server: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared { server: server.to_owned(), ..Shared::default() });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                // What cannot be joined is closed, as by a server that is away.
                client.and_then(|client| accepting.join(client)).ok();
            }
        });
        Ok(Self { shared, address })
    }

    /// As a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on every connection is closed at once, and so are those that are open.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        self.shared.close_all();
    }

    /// From now on every request gets this error of S3, and the server none.
    pub fn refuse(&self, status: &str, code: &str) {
        *self.shared.refusal() = Some(answers::answer(status, code));
        self.shared.close_all();
    }

    /// Connections and requests work again.
    pub fn mend(&self) {
        *self.shared.refusal() = None;
        self.shared.cut.store(false, Ordering::SeqCst);
    }

    /// The server does not see the conditions of writes any more.
    pub fn hide_conditions(&self) {
        self.shared.hide_conditions.store(true, Ordering::SeqCst);
    }

    /// From now on every request comes so much later to the server.
    pub fn delay(&self, by: Duration) {
        self.shared.delay_ms.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// So many of the next answers are lost: the server has done its work, the client is cut off.
    pub fn lose_answers(&self, count: u32) {
        self.shared.lose_answers.store(count, Ordering::SeqCst);
    }

    /// How many answers were lost so far.
    pub fn lost(&self) -> u32 {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Tamper {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.close_all();
        // Wakes the thread that accepts.
        TcpStream::connect(&self.address).ok();
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        if self.cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        if let Some(refusal) = self.refusal().clone() {
            thread::spawn(move || answers::reply(client, &refusal));
            return Ok(());
        }
        let server = TcpStream::connect(&self.server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.connections().push(stream.try_clone()?);
        }
        let (from, to, shared) = (client.try_clone()?, server.try_clone()?, self.clone());
        // A request begins with what comes after an answer.
        let answered = Arc::new(AtomicBool::new(true));
        let begins = answered.clone();
        thread::spawn(move || {
            pass(from, to, |bytes| {
                if begins.swap(false, Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(shared.delay_ms.load(Ordering::SeqCst)));
                }
                shared.request(bytes)
            });
        });
        let shared = self.clone();
        thread::spawn(move || {
            pass(server, client, |_| {
                answered.store(true, Ordering::SeqCst);
                shared.answer()
            });
        });
        Ok(())
    }

    fn refusal(&self) -> MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_all(&self) {
        for stream in self.connections().drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    fn request(&self, bytes: &mut [u8]) -> Flow {
        if self.hide_conditions.load(Ordering::SeqCst) {
            for (header, instead) in HIDDEN {
                let found = bytes
                    .windows(header.len())
                    .position(|window| window.eq_ignore_ascii_case(header));
                if let Some(at) = found {
                    bytes[at..at + header.len()].copy_from_slice(instead);
                }
            }
        }
        Flow::On
    }

    fn answer(&self) -> Flow {
        let one_less = |count: u32| count.checked_sub(1);
        match self.lose_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => {
                self.lost.fetch_add(1, Ordering::SeqCst);
                Flow::End
            }
            Err(_) => Flow::On,
        }
    }
}

enum Flow {
    On,
    End,
}

/// Large enough that the head of a request comes in one piece.
const BUFFER: usize = 64 * 1024;

fn pass(mut from: TcpStream, mut to: TcpStream, see: impl Fn(&mut [u8]) -> Flow) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..length];
        if matches!(see(bytes), Flow::End) || to.write_all(bytes).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
