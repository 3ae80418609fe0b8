//! One client's session. Its front half (the socket, what its hello said, which branch it means)
//! lives as long as the socket; its back half ([`Back`]) as long as that life of the branch.
//!
//! Messages are handled one after the other, in the order in which they came.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bson::{RawDocument, RawDocumentBuf, rawdoc};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::address::Address;
use super::back::Back;
use super::class::{Class, Local, classify};
use super::connection::Connection;
use super::error::ProxyError;
use super::hello::{Balancing, Greeting, Moment, hello_reply, service_id};
use super::opening::first_header;
use super::reply::{Code, Refusal, Retry, Sent, nothing_to_tidy};
use super::request::{Request, Side, unless_stalled};
use super::response::{Broken, relay_reply};
use crate::base::clock::Clock;
use crate::base::limits::{FIRST_MESSAGE_BYTES_MAX, RELAY_BYTES, UNPACKED_BYTES_MAX};
use crate::branch::{BranchHandle, Branches, Lease, Use};
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
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session<S> {
    house: Arc<House>,
    number: u64,
    client: Connection<S>,
    greeting: Option<Greeting>,
    branch: Option<BranchHandle>,
    back: Option<Back>,
    drain: CancellationToken,
    last_reply_id: i32,
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

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// A session that nobody spoke in yet. When `drain` is cancelled, it ends after the command
    /// at hand.
    pub(super) fn new(house: Arc<House>, number: u64, stream: S, drain: CancellationToken) -> Self {
        Self {
            house,
            number,
            client: Connection::new(stream),
            greeting: None,
            branch: None,
            back: None,
            drain,
            last_reply_id: 0,
        }
    }

    /// Serves the client until it leaves, must leave, or the drain lets it go.
    pub(super) async fn run(mut self) -> Result<(), ProxyError> {
        let outcome = self.messages().await;
        if let Err(ProxyError::Foreign { protocol }) = &outcome {
            self.client.close(protocol.farewell(), FAREWELL_WAIT).await;
        }
        outcome
    }

    async fn messages(&mut self) -> Result<(), ProxyError> {
        while let Some(header) = self.next_header().await? {
            match header.opcode {
                OpCode::Msg => self.command(header).await?,
                OpCode::Query => self.query(header).await?,
                OpCode::Compressed => self.unpack(header).await?,
                opcode => return Err(ProxyError::Opcode { opcode }),
            }
        }
        Ok(())
    }

    /// Waits for the client's next message. A back half whose branch went to sleep meanwhile is
    /// let go.
    async fn next_header(&mut self) -> Result<Option<Header>, ProxyError> {
        self.client.shrink();
        loop {
            let Self { client, back, greeting, drain, .. } = self;
            let header = async {
                match greeting {
                    Some(_) => client.header().await.map_err(ProxyError::client),
                    None => first_header(client).await,
                }
            };
            let back_closed = async {
                match back {
                    Some(back) => back.connection.closed().await,
                    None => pending().await,
                }
            };
            select! {
                biased;
                () = drain.cancelled() => return Ok(None),
                header = header => return header,
                () = back_closed => self.back = None,
            }
        }
    }

    /// An OP_MSG.
    async fn command(&mut self, header: Header) -> Result<(), ProxyError> {
        let mut request = Request::open(&mut self.client, header).await?;
        let answer = match request.class() {
            Class::Local(local) => {
                if let Some(hello) = request.document(&self.client)? {
                    let greeting = self.greeting_in(local, hello)?;
                    self.greeted(greeting);
                }
                self.local(local)
            }
            Class::Refused(why) => {
                let command = request.found().command.as_deref().unwrap_or_default();
                let message = format!("{command} is not for clients of Argon: {why}");
                let refusal = Refusal { code: Code::UNAUTHORIZED, message, retry: Retry::Useless };
                refusal.document(request.found())
            }
            Class::Cleanup(cleanup) if !self.is_running() => {
                nothing_to_tidy(cleanup, request.document(&self.client)?)
            }
            Class::Cleanup(_) | Class::Probe => return self.relay(request, Use::Probe).await,
            Class::Work => return self.relay(request, Use::Work).await,
        };
        let id = request.id();
        self.answer(&mut request, id, &answer).await
    }

    /// An OP_QUERY: how older drivers say hello, and nothing else any more.
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
            Some(Class::Local(local @ (Local::Hello | Local::IsMaster))) => {
                let greeting = self.greeting_in(local, command)?;
                self.greeted(greeting);
                (ReplyFlags::SUCCESS, self.local(local))
            }
            _ => {
                let message = "OP_QUERY is for hello and isMaster only: \
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
            None => FIRST_MESSAGE_BYTES_MAX,
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
                let moment = Moment { now, connection: self.number, service };
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
        let address = Address::parse(app_name).map_err(|error| Refusal::of_address(&error))?;
        let branch = self.house.branches.route(address.project.as_ref(), &address.branch);
        let branch = branch.map_err(|error| Refusal::of_branch(&error))?;
        self.branch = Some(branch.clone());
        Ok(branch)
    }

    fn is_running(&mut self) -> bool {
        self.branch().is_ok_and(|branch| branch.is_running())
    }

    /// Carries a command to the branch and its reply back; what fails is told to the client.
    async fn relay(&mut self, mut request: Request, use_: Use) -> Result<(), ProxyError> {
        match self.exchange(&mut request, use_).await {
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

    async fn exchange(&mut self, request: &mut Request, use_: Use) -> Result<(), Failure> {
        let answers = request.id();
        let refuse = |refusal| Failure::Refuse { refusal, answers };
        // Held to the last byte of the reply: it keeps the branch from being suspended.
        let lease = self.lease(request, use_).await?;
        let kept = self.back.take().and_then(|mut back| back.serves(lease.epoch()).then_some(back));
        let mut back = match kept {
            Some(back) => back,
            None => {
                let client = self.greeting.as_ref().and_then(|greeting| greeting.client.as_deref());
                Back::attach(lease.socket(), lease.epoch(), client)
                    .await
                    .map_err(|error| refuse(Refusal::unreachable(&error, Sent::No)))?
            }
        };
        match request.forward(&mut self.client, &mut back.connection).await {
            Ok(()) => {}
            Err(Side::Client(error)) => return Err(Failure::End(error)),
            Err(Side::Branch(error)) => {
                return Err(refuse(Refusal::unreachable(&error, Sent::No)));
            }
        }
        if request.wants_reply() {
            let (branch, client) = (&mut back.connection, &mut self.client);
            match relay_reply(branch, client, answers, &self.drain).await {
                Ok(()) => {}
                Err(Broken::Client(error)) => return Err(Failure::End(error)),
                Err(Broken::Branch { source, answers }) => {
                    let refusal = Refusal::unreachable(&source, Sent::Yes);
                    return Err(Failure::Refuse { refusal, answers });
                }
            }
        }
        // Only a connection whose last exchange went well serves another.
        self.back = Some(back);
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
        select! {
            biased;
            lease = branch.acquire(use_) => {
                lease.map_err(|error| refuse(Refusal::of_branch(&error)))
            }
            // Who asked for no reply may leave: the write is still to be done.
            () = self.client.closed(), if request.wants_reply() => {
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
