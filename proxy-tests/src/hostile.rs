//! Clients that mean no good, the client beside them that must not notice, and what both cost the
//! server.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use argon::wire::{Client, Header, MsgFlags, OpCode, encode_msg};
use bson::{RawDocument, doc};
use futures_util::future::try_join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::driver;
use crate::scenario::{changes, insert};
use crate::server::Server;
use crate::wait::eventually_async;

/// Connections that say nothing yet.
pub async fn crowd(listen: &str, count: usize) -> Result<Vec<TcpStream>> {
    try_join_all((0..count).map(|_| connect(listen))).await
}

/// One connection that says nothing yet.
pub async fn connect(listen: &str) -> Result<TcpStream> {
    TcpStream::connect(listen).await.context("connect to the proxy")
}

/// A connection whose hello names a branch of project `demo`.
pub async fn greeted(listen: &str, branch: &str) -> Result<TcpStream> {
    let mut client = Client::over(connect(listen).await?);
    let name = format!("argon.demo/{branch}");
    let hello = doc! { "hello": 1, "client": { "application": { "name": name } } };
    client.command("admin", hello).await.context("say hello")?;
    Ok(client.into_inner())
}

/// A command's message; `$db` is the command's own to have.
pub fn message(id: i32, command: &RawDocument) -> Vec<u8> {
    encode_msg(id, 0, MsgFlags::NONE, command).to_vec()
}

/// The beginning of an insert of 48 MB: as many bytes of it as are asked for.
pub fn beginning_of_48_mb(bytes: usize) -> Vec<u8> {
    const LENGTH: u32 = 48_000_000;
    let head = Header { length: LENGTH, request_id: 9, response_to: 0, opcode: OpCode::Msg };
    let command = bson::rawdoc! { "insert": "large", "$db": "demo" };
    let sequence = LENGTH as usize - 16 - 5 - command.as_bytes().len() - 1;
    let mut out = [&head.encode()[..], &[0; 5], command.as_bytes(), &[1]].concat();
    out.extend(i32::try_from(sequence).expect("less than 48 MB").to_le_bytes());
    out.extend(b"documents\0");
    out.resize(bytes, 0);
    out
}

/// Sends bytes one at a time, each on its own way.
pub async fn dribble(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    for byte in bytes {
        stream.write_all(&[*byte]).await.context("send one byte")?;
        // A pause between two bytes is what is tested here; nothing is waited for.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A client that behaves, on branch `dev` of project `demo`, from one insert to the next.
#[derive(Debug)]
pub struct Witness {
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    work: JoinHandle<Result<u64>>,
}

impl Witness {
    /// Makes the project, the branch and the client, and begins.
    pub async fn begin(server: &Server) -> Result<Self> {
        server.project("demo")?;
        let client = driver::connect(&server.branch("dev", &["--empty"])?.uri).await?;
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (written.clone(), stop.clone());
        let work = tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                insert(&client, &format!("{number}")).await.context("the client beside them")?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(changes(&client).await?.len() as u64)
        });
        let witness = Self { written, stop, work };
        witness.goes_on().await?;
        Ok(witness)
    }

    /// Waits until it got some further commands through.
    pub async fn goes_on(&self) -> Result<()> {
        let aim = self.written.load(Ordering::Relaxed) + 10;
        let done = || async {
            let written = self.written.load(Ordering::Relaxed);
            ensure!(!self.work.is_finished(), "it ended after {written} inserts");
            Ok((written >= aim).then_some(()))
        };
        eventually_async("the client that behaves gets its commands through", done).await
    }

    /// Ends it: not one of its commands failed, everything that it wrote is there, and the server
    /// panicked nowhere. A session that panics takes no other with it, so that only the log tells.
    pub async fn end(self, server: &Server) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let found = self.work.await.context("the client beside them")??;
        let written = self.written.load(Ordering::Relaxed);
        ensure!(found == written, "{found} documents are there of {written}");
        ensure!(!server.log().contains("panicked"), "a session panicked: {}", server.log());
        Ok(())
    }
}

/// What the server's process has at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pid: u32,
    resident_kb: u64,
    descriptors: usize,
}

impl Cost {
    /// Of this server, now.
    pub fn of(server: &Server) -> Result<Self> {
        Self::now(server.pid())
    }

    fn now(pid: u32) -> Result<Self> {
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).context("read its status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let open = fs::read_dir(format!("/proc/{pid}/fd")).context("read its descriptors")?;
        // A branch that is awake has those files open that mongod has written on its mount by now,
        // which has nothing to do with clients.
        let descriptors = open.filter(|one| {
            let target = one.as_ref().ok().and_then(|one| fs::read_link(one.path()).ok());
            !target
                .is_some_and(|target| target.components().any(|part| part.as_os_str() == "overlay"))
        });
        let resident_kb = number.context("no VmRSS in its status")?;
        Ok(Self { pid, resident_kb, descriptors: descriptors.count() })
    }

    /// Requires that the server has grown by no more than this since.
    pub fn grown_at_most(&self, kilobytes: u64) -> Result<()> {
        let now = Self::now(self.pid)?.resident_kb;
        let grown = now.saturating_sub(self.resident_kb);
        println!("the server grew by {grown} kB, to {now} kB");
        ensure!(grown <= kilobytes, "the server grew by {grown} kB, to {now} kB");
        Ok(())
    }

    /// Waits until no more connections are open than there were, give or take those of a driver's
    /// pool.
    pub async fn descriptors_return(&self) -> Result<()> {
        const POOL: usize = 8;
        let back = || async {
            Ok((Self::now(self.pid)?.descriptors <= self.descriptors + POOL).then_some(()))
        };
        let waited = eventually_async("the server closes what its clients closed", back).await;
        waited.with_context(|| format!("before {self:?}, now {:?}", Self::now(self.pid)))
    }
}
