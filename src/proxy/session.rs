//! One client's session: its front half. The socket, what its hello said and which branch it means
//! live as long as the socket; the back half ([`Back`]) comes and goes between its [`Seat`] and the
//! pool of that life of the branch.
//!
//! Messages are handled one after the other, in the order in which they came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{RawDocument, RawDocumentBuf, rawdoc};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::address::Address;
use super::back::{Back, Tie};
use super::class::{Class, Local, classify, logs_in};
use super::connection::Connection;
use super::error::ProxyError;
use super::forbidden::{Forbidden, forbidden_arguments};
use super::hello::{Balancing, Greeting, Moment, hello_reply, service_id};
use super::opening::first_header;
use super::pool::{Pools, Seat};
use super::reply::{Code, Refusal, Retry, Sent, dead_reference, nothing_to_tidy};
use super::request::{Request, Side, unless_stalled};
use super::response::{Broken, relay_reply};
use super::splice::Socket;
use crate::base::clock::Clock;
use crate::base::limits::{ClientLimits, PARKED_AHEAD_BYTES, RELAY_BYTES, UNPACKED_BYTES_MAX};
use crate::base::metrics::{Metrics, Step};
use crate::branch::{BranchHandle, Branches, Door, Lease, Use};
use crate::wire::{
    Header, MsgFlags, OpCode, Query, ReplyFlags, WireError, decompress, encode_msg, encode_reply,
};

/// How long a client that speaks another protocol may take to read what it is told.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);

/// What all sessions share.
#[derive(Debug)]
pub(super) struct House {
    /// The branches.
    pub(super) branches: Branches,
    /// The time, for hello.
    pub(super) clock: Arc<dyn Clock>,
    /// What is counted.
    pub(super) metrics: Arc<Metrics>,
    /// What clients may take.
    pub(super) limits: ClientLimits,
    /// Connections to the branches' mongods.
    pub(super) pools: Arc<Pools>,
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session<S> {
    house: Arc<House>,
    number: u64,
    client: Connection<S>,
    greeting: Option<Greeting>,
    branch: Option<BranchHandle>,
    seat: Option<Arc<Seat>>,
    drain: CancellationToken,
    last_reply_id: i32,
    /// The branch's own way that the client came by.
    door: Option<Arc<Door>>,
    /// When anything was said first.
    spoke: Option<Instant>,
}

/// What a command needs to be relayed.
#[derive(Debug)]
enum Demand {
    /// The branch awake, however long that takes.
    Awake(Use),
    /// Nothing more.
    Granted(Lease),
}

/// Why a command was not carried through.
#[derive(Debug)]
enum Failure {
    /// The session ends.
    End(ProxyError),
    /// The client is told, and the session goes on.
    Refuse {
        /// What it is told.
        refusal: Refusal,
        /// The message that this answers: the request, or the last reply of an exhaust.
        answers: i32,
    },
}

impl<S: AsyncRead + AsyncWrite + Socket + Unpin> Session<S> {
    /// A session that nobody spoke in yet. When `drain` is cancelled, it ends after the command
    /// at hand.
    pub(super) fn new(house: Arc<House>, number: u64, stream: S, drain: CancellationToken) -> Self {
        Self {
            house,
            number,
            client: Connection::new(stream),
            greeting: None,
            branch: None,
            seat: None,
            drain,
            last_reply_id: 0,
            door: None,
            spoke: None,
        }
    }

    /// For a client that came by a branch's own port or socket.
    pub(super) fn through(self, door: Option<Arc<Door>>) -> Self {
        Self { door, ..self }
    }

    /// Serves the client until it leaves, must leave, or the drain lets it go.
    pub(super) async fn run(mut self) -> Result<(), ProxyError> {
        let outcome = self.messages().await;
        if let Some(seat) = &self.seat {
            seat.leave();
        }
        if let Err(ProxyError::Foreign { protocol }) = &outcome {
            self.client.close(protocol.farewell(), FAREWELL_WAIT).await;
        }
        outcome
    }

    async fn messages(&mut self) -> Result<(), ProxyError> {
        while let Some(header) = self.next_header().await? {
            self.spoke.get_or_insert_with(Instant::now);
            let (length, max) = (header.length as usize, self.house.limits.message_bytes);
            if length > max {
                return Err(ProxyError::client(WireError::TooLarge { length, max }));
            }
            match header.opcode {
                OpCode::Msg => self.command(header).await?,
                OpCode::Query => self.query(header).await?,
                OpCode::Compressed => self.unpack(header).await?,
                opcode => return Err(ProxyError::Opcode { opcode }),
            }
        }
        Ok(())
    }

    /// Waits for the client's next message.
    async fn next_header(&mut self) -> Result<Option<Header>, ProxyError> {
        self.client.shrink();
        let Self { client, greeting, drain, house, spoke, .. } = self;
        // Whatever it says instead, a hello must come in time.
        let wait = match spoke {
            None => house.limits.first_message_wait,
            Some(since) => house.limits.hello_wait.saturating_sub(since.elapsed()),
        };
        let header = async {
            match greeting {
                Some(_) => match client.begun().await.map_err(ProxyError::client)? {
                    true => unless_stalled(client.header()).await,
                    false => Ok(None),
                },
                None => first_header(client, wait, house.limits.first_message_bytes).await,
            }
        };
        select! {
            biased;
            () = drain.cancelled() => Ok(None),
            header = header => header,
        }
    }

    /// An OP_MSG.
    async fn command(&mut self, header: Header) -> Result<(), ProxyError> {
        let begun = Instant::now();
        let mut request = Request::open(&mut self.client, header).await?;
        let class = request.class();
        self.house.metrics.command(class.counted());
        let answer = match class {
            Class::Local(local) => {
                if let Some(hello) = request.document(&self.client)? {
                    let greeting = self.greeting_in(local, hello)?;
                    self.greeted(greeting);
                }
                self.local(local)
            }
            Class::Refused(row) => forbidden_reply(&request, row),
            Class::Guarded => match forbidden_arguments(request.document(&self.client)?) {
                Some(row) => forbidden_reply(&request, row),
                None => return self.relay(request, Demand::Awake(Use::Work), begun).await,
            },
            Class::Cleanup(cleanup) => match self.running(Use::Probe) {
                Some(lease) => return self.relay(request, Demand::Granted(lease), begun).await,
                None => nothing_to_tidy(cleanup, request.document(&self.client)?),
            },
            Class::Probe => return self.relay(request, Demand::Awake(Use::Probe), begun).await,
            class => {
                let continues = class == Class::Continuation || request.continues_transaction();
                let commits = request.found().command.as_deref() == Some("commitTransaction");
                // A wrong address is told as such.
                if !continues || commits || self.branch().is_err() {
                    return self.relay(request, Demand::Awake(Use::Work), begun).await;
                }
                match self.running(Use::Work) {
                    Some(lease) => return self.relay(request, Demand::Granted(lease), begun).await,
                    None => dead_reference(request.found()),
                }
            }
        };
        let id = request.id();
        self.answer(&mut request, id, &answer).await
    }

    /// An OP_QUERY: how older drivers say hello and ask for the version, and nothing else any more.
    async fn query(&mut self, header: Header) -> Result<(), ProxyError> {
        let length = header.length as usize;
        if length > RELAY_BYTES {
            return Err(ProxyError::client(WireError::TooLarge { length, max: RELAY_BYTES }));
        }
        unless_stalled(self.client.fill_to(length)).await?;
        let query = Query::parse(&self.client.ahead()[Header::BYTES..length])
            .map_err(ProxyError::client)?;
        let command = query.command();
        let name = command.iter_elements().next().and_then(Result::ok);
        let name = name.map(|element| element.key().as_str()).unwrap_or_default();
        let class = query.command_database().map(|_| classify(name));
        let (flags, reply) = match class {
            Some(Class::Local(local)) => {
                let greeting = self.greeting_in(local, command)?;
                self.greeted(greeting);
                (ReplyFlags::SUCCESS, self.local(local))
            }
            _ => {
                let message = "OP_QUERY is for a driver's first questions only: \
                               the driver is too old for this server";
                let refusal = Refusal {
                    code: Code::OLD_QUERY,
                    message: message.to_owned(),
                    retry: Retry::Useless,
                };
                (ReplyFlags::FAILURE, refusal.query_failure())
            }
        };
        self.client.consume(length);
        let id = self.next_reply_id();
        self.send(encode_reply(id, header.request_id, flags, &reply)).await
    }

    /// An OP_COMPRESSED: what is in it takes its place as the next message. Compression is never
    /// offered, so this is for clients that do not ask.
    async fn unpack(&mut self, header: Header) -> Result<(), ProxyError> {
        let max = match self.greeting {
            Some(_) => UNPACKED_BYTES_MAX,
            None => self.house.limits.first_message_bytes,
        };
        let length = header.length as usize;
        if length > max {
            return Err(ProxyError::client(WireError::TooLarge { length, max }));
        }
        let mut packed = Vec::new();
        while packed.len() < length {
            let chunk = unless_stalled(self.client.chunk(length - packed.len())).await?;
            packed.extend_from_slice(chunk);
            let count = chunk.len();
            self.client.consume(count);
        }
        let (opcode, body) =
            decompress(&packed[Header::BYTES..], max).map_err(ProxyError::client)?;
        let length = u32::try_from(Header::BYTES + body.len()).expect("bounded by `max`");
        let plain = Header { length, opcode, ..header };
        self.client.replace(0, &[&plain.encode()[..], &body].concat());
        Ok(())
    }

    /// What a hello says of its client, where it is this connection's first.
    fn greeting_in(
        &self,
        local: Local,
        hello: &RawDocument,
    ) -> Result<Option<Greeting>, ProxyError> {
        let first = self.greeting.is_none() && matches!(local, Local::Hello | Local::IsMaster);
        first.then(|| Greeting::read(hello)).transpose().map_err(ProxyError::client)
    }

    fn greeted(&mut self, greeting: Option<Greeting>) {
        if let Some(greeting) = greeting {
            debug!(
                connection = self.number,
                app_name = greeting.app_name.as_deref().unwrap_or_default(),
                "the client said hello"
            );
            self.greeting = Some(greeting);
            // Looked up now, so that the branch knows its clients; what is wrong with the address
            // is told with the first command, for a hello must always work.
            let _ = self.branch();
        }
    }

    /// The reply to a command that is answered here.
    fn local(&mut self, local: Local) -> RawDocumentBuf {
        let facts = self.house.branches.server_facts();
        match local {
            Local::Ping => rawdoc! { "ok": 1.0 },
            Local::BuildInfo => {
                let mut info = facts.build_info.clone();
                // The cluster time of whatever server was asked once says nothing of this branch.
                info.remove("$clusterTime");
                info.remove("operationTime");
                RawDocumentBuf::try_from(&info).unwrap_or_else(|_| rawdoc! { "ok": 1.0 })
            }
            Local::Hello | Local::IsMaster => {
                let balanced = self
                    .greeting
                    .as_ref()
                    .is_some_and(|greeting| greeting.balancing == Balancing::LoadBalanced);
                let service = balanced.then(|| service_id(self.branch().ok().map(|b| b.id())));
                let now = self.house.clock.now();
                let (connection, message_bytes) = (self.number, self.house.limits.message_bytes);
                let moment = Moment { now, connection, message_bytes, service };
                hello_reply(local, &facts.hello, moment)
            }
        }
    }

    /// The branch that the client means. Looked up until it is found, then kept.
    fn branch(&mut self) -> Result<BranchHandle, Refusal> {
        if let Some(branch) = &self.branch {
            return Ok(branch.clone());
        }
        let app_name = self.greeting.as_ref().and_then(|greeting| greeting.app_name.as_deref());
        let wrong = |error| Refusal::of_address(&error);
        let branch = match &self.door {
            Some(door) => {
                Address::check(door, app_name).map_err(wrong)?;
                self.house.branches.route_door(door)
            }
            None => {
                let address = Address::parse(app_name).map_err(wrong)?;
                self.house.branches.route(address.project.as_ref(), &address.branch)
            }
        };
        let branch = branch.map_err(|error| Refusal::of_branch(&error))?;
        self.branch = Some(branch.clone());
        Ok(branch)
    }

    /// A lease if the branch runs right now.
    fn running(&mut self, use_: Use) -> Option<Lease> {
        self.branch().ok()?.acquire_running(use_)
    }

    /// Carries a command to the branch and its reply back; what fails is told to the client.
    async fn relay(
        &mut self,
        mut request: Request,
        demand: Demand,
        begun: Instant,
    ) -> Result<(), ProxyError> {
        match self.exchange(&mut request, demand, begun).await {
            Ok(()) => Ok(()),
            Err(Failure::End(error)) => Err(error),
            Err(Failure::Refuse { refusal, answers }) => {
                debug!(
                    connection = self.number,
                    command = request.found().command.as_deref().unwrap_or_default(),
                    code = refusal.code.0,
                    reason = refusal.message,
                    "a command was refused"
                );
                // Its labels depend on the whole command, which may still be on its way.
                request.discard(&mut self.client).await?;
                let reply = refusal.document(request.found());
                self.answer(&mut request, answers, &reply).await
            }
        }
    }

    async fn exchange(
        &mut self,
        request: &mut Request,
        demand: Demand,
        begun: Instant,
    ) -> Result<(), Failure> {
        let answers = request.id();
        let refuse = |refusal| Failure::Refuse { refusal, answers };
        let skimmed = begun.elapsed();
        // Held to the last byte of the reply: it keeps the branch from being suspended.
        let lease = match demand {
            Demand::Granted(lease) => lease,
            Demand::Awake(use_) => self.lease(request, use_).await?,
        };
        let seat = match self.seat.take() {
            Some(seat) if seat.serves(&lease) => seat,
            _ => self.house.pools.seat(&lease, self.number),
        };
        let seat = self.seat.insert(seat).clone();
        let client = self.greeting.as_ref().and_then(|greeting| greeting.client.as_deref());
        let mut back = match seat.take(client) {
            Some(back) => back,
            None => {
                let back = Back::attach(lease.socket(), client, &self.house.metrics)
                    .await
                    .map_err(|error| refuse(Refusal::unreachable(&error, Sent::No)))?;
                lease.attached();
                back
            }
        };
        if request.found().command.as_deref().is_some_and(logs_in) {
            back.tie = Tie::Pinned;
        }
        // What waiting for the branch took is not the proxy's.
        let attached = Instant::now();
        match request.forward(&mut self.client, &mut back.connection).await {
            Ok(()) => {}
            Err(Side::Client(error)) => return Err(Failure::End(error)),
            Err(Side::Branch(error)) => {
                return Err(refuse(Refusal::unreachable(&error, Sent::No)));
            }
        }
        if request.is_small() {
            self.house.metrics.held(Step::Request, skimmed + attached.elapsed());
        }
        if request.wants_reply() {
            let (branch, client) = (&mut back.connection, &mut self.client);
            let (metrics, is_over) = (&self.house.metrics, || lease.is_over());
            match relay_reply(branch, client, answers, &self.drain, metrics, is_over).await {
                Ok(()) => {}
                Err(Broken::Client(error)) => return Err(Failure::End(error)),
                Err(Broken::Branch { source, answers }) => {
                    let refusal = Refusal::unreachable(&source, Sent::Yes);
                    return Err(Failure::Refuse { refusal, answers });
                }
                Err(Broken::Stopping { last_words, answers }) => {
                    let refusal = Refusal::stopping(&last_words);
                    return Err(Failure::Refuse { refusal, answers });
                }
            }
        }
        // Only a connection whose last exchange went well serves another.
        seat.put(back);
        drop(lease);
        Ok(())
    }

    /// Parks the command until the branch is awake. A handle may outlive its branch; where another
    /// has the name now, that one is meant.
    async fn lease(&mut self, request: &Request, use_: Use) -> Result<Lease, Failure> {
        let refuse = |refusal| Failure::Refuse { refusal, answers: request.id() };
        let branch = self.branch().map_err(refuse)?;
        let parked = self.park(&branch, request, use_).await;
        match parked {
            Err(Failure::Refuse { refusal, answers }) if refusal.retry == Retry::Useless => {
                self.branch = None;
                let again = self.branch().map_err(refuse)?;
                if again.id() == branch.id() {
                    return Err(Failure::Refuse { refusal, answers });
                }
                self.park(&again, request, use_).await
            }
            parked => parked,
        }
    }

    async fn park(
        &mut self,
        branch: &BranchHandle,
        request: &Request,
        use_: Use,
    ) -> Result<Lease, Failure> {
        let refuse = |refusal| Failure::Refuse { refusal, answers: request.id() };
        // All that is held in memory of this client while it waits.
        let buffered = self.client.ahead().len() + PARKED_AHEAD_BYTES;
        select! {
            biased;
            lease = branch.acquire(use_, buffered) => {
                lease.map_err(|error| refuse(Refusal::of_branch(&error)))
            }
            // Who asked for no reply may leave: the write is still to be done.
            () = self.client.closed_within(buffered), if request.wants_reply() => {
                Err(Failure::End(ProxyError::HungUp))
            }
            () = self.drain.cancelled() => Err(refuse(Refusal::shutting_down())),
        }
    }

    /// Answers a command here, when all of it was taken from the client.
    async fn answer(
        &mut self,
        request: &mut Request,
        answers: i32,
        reply: &RawDocument,
    ) -> Result<(), ProxyError> {
        request.discard(&mut self.client).await?;
        if !request.wants_reply() {
            return Ok(());
        }
        let id = self.next_reply_id();
        self.send(encode_msg(id, answers, MsgFlags::NONE, reply)).await
    }

    async fn send(&mut self, message: Bytes) -> Result<(), ProxyError> {
        unless_stalled(async {
            self.client.write(&message).await?;
            self.client.flush().await
        })
        .await
    }

    fn next_reply_id(&mut self) -> i32 {
        self.last_reply_id = self.last_reply_id.wrapping_add(1);
        self.last_reply_id
    }
}

fn forbidden_reply(request: &Request, row: &Forbidden) -> RawDocumentBuf {
    let command = request.found().command.as_deref().unwrap_or_default();
    let Forbidden { why, instead, .. } = row;
    let message = format!("{command} is not for clients of Argon: {why}; instead: {instead}");
    Refusal { code: Code::UNAUTHORIZED, message, retry: Retry::Useless }.document(request.found())
}
