//! The load: clients that send one command, wait for its reply and send the next, as a driver's
//! pool at full use does. One thread serves them all, with two system calls a command, so that the
//! load takes as little of the machine as it can from what is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token};

use crate::messages::{Expected, Prepared, hello, length};

/// No reply within this time: what is measured hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one turn showed.
#[derive(Debug, Default)]
pub struct Turn {
    /// Commands answered.
    pub commands: u64,
    /// Replies that were not what was expected.
    pub errors: u64,
    /// How long the turn took.
    pub elapsed: Duration,
    /// Each command's time, nanoseconds, ascending.
    pub latencies: Vec<u32>,
}

impl Turn {
    /// Commands a second.
    pub fn rate(&self) -> f64 {
        self.commands as f64 / self.elapsed.as_secs_f64()
    }

    /// The time, microseconds, that this share of the commands took at most.
    pub fn quantile(&self, share: f64) -> f64 {
        let at = (self.latencies.len() as f64 * share) as usize;
        let at = at.min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(0.0, |ns| f64::from(*ns) / 1000.0)
    }

    fn answered(&mut self, since: Instant, good: bool) {
        self.commands += 1;
        self.errors += u64::from(!good);
        self.latencies.push(u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }

    fn finish(mut self, began: Instant) -> Self {
        self.elapsed = began.elapsed();
        self.latencies.sort_unstable();
        self
    }
}

/// One client's connection, which said hello.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    reply: Vec<u8>,
    got: usize,
}

impl Client {
    /// Connects and says hello.
    pub fn connect(address: &str, app_name: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, reply: Vec::new(), got: 0 };
        client.first(&mut hello(app_name)).context("say hello")?;
        client.reply = Vec::new();
        Ok(client)
    }

    /// Runs a command whose replies are not known yet.
    pub fn first(&mut self, command: &mut Prepared) -> Result<Expected> {
        let reply = self.exchange(command)?.0;
        Expected::from_reply(reply)
    }

    fn exchange(&mut self, command: &mut Prepared) -> Result<(&[u8], i32)> {
        let (message, id) = command.next();
        self.stream.write_all(message).context("send a command")?;
        self.got = 0;
        loop {
            if let Some(whole) = self.receive().context("wait for a reply")? {
                return Ok((&self.reply[..whole], id));
            }
        }
    }

    /// Reads once; gives the length of the reply when it is whole.
    fn receive(&mut self) -> Result<Option<usize>, std::io::Error> {
        let whole = length(&self.reply[..self.got]);
        let room = whole.unwrap_or(0).max(4096);
        if self.reply.len() < room {
            self.reply.resize(room, 0);
        }
        match self.stream.read(&mut self.reply[self.got..])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.got += count;
                Ok(length(&self.reply[..self.got]).filter(|whole| *whole <= self.got))
            }
        }
    }
}

/// One client, in turn: the thread waits in `read`.
pub fn alone(client: &mut Client, command: &mut Prepared, lasts: Duration) -> Result<Turn> {
    let expected = client.first(command)?;
    let (began, mut turn) = (Instant::now(), Turn::default());
    while began.elapsed() < lasts {
        let since = Instant::now();
        let (reply, id) = client.exchange(command)?;
        let good = expected.holds(reply, id);
        turn.answered(since, good);
    }
    Ok(turn.finish(began))
}

/// Many clients at once, each with its own copy of one small command: one thread waits for all.
pub fn together(mut clients: Vec<Client>, command: &Prepared, lasts: Duration) -> Result<Turn> {
    let mut poll = Poll::new().context("make a poll")?;
    let mut crowd = Vec::new();
    for (number, mut client) in clients.drain(..).enumerate() {
        let mut command = command.clone();
        let expected = client.first(&mut command)?;
        client.got = 0;
        client.stream.set_nonblocking(true)?;
        let mut polled = mio::net::TcpStream::from_std(client.stream.try_clone()?);
        poll.registry().register(&mut polled, Token(number), Interest::READABLE)?;
        crowd.push(Member {
            client,
            _polled: polled,
            command,
            expected,
            since: Instant::now(),
            id: 0,
        });
    }
    let (began, mut turn) = (Instant::now(), Turn::default());
    for member in &mut crowd {
        member.send()?;
    }
    let (mut events, mut at_work) = (Events::with_capacity(1024), crowd.len());
    while at_work > 0 {
        poll.poll(&mut events, Some(PATIENCE)).context("wait for replies")?;
        ensure!(!events.is_empty(), "no reply within {PATIENCE:?}");
        for event in &events {
            let member = &mut crowd[event.token().0];
            let Some(good) = member.receive()? else { continue };
            turn.answered(member.since, good);
            // The last commands are waited for, so that no connection is closed at work.
            if began.elapsed() < lasts { member.send()? } else { at_work -= 1 }
        }
    }
    Ok(turn.finish(began))
}

struct Member {
    client: Client,
    /// What the poll watches; the same socket.
    _polled: mio::net::TcpStream,
    command: Prepared,
    expected: Expected,
    since: Instant,
    id: i32,
}

impl Member {
    fn send(&mut self) -> Result<()> {
        let (message, id) = self.command.next();
        (self.id, self.since) = (id, Instant::now());
        let sent = self.client.stream.write(message).context("send a command")?;
        ensure!(sent == message.len(), "a small command did not fit into an empty socket");
        self.client.got = 0;
        Ok(())
    }

    /// Whether the reply is good; `None` while it is not whole.
    fn receive(&mut self) -> Result<Option<bool>> {
        loop {
            match self.client.receive() {
                Ok(Some(whole)) => {
                    return Ok(Some(self.expected.holds(&self.client.reply[..whole], self.id)));
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => bail!("wait for a reply: {error}"),
            }
        }
    }
}
