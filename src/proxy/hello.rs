//! The handshake, answered here: what a client's first hello said, and the answer.
//!
//! The answer looks like a mongos' (`msg: "isdbgrid"`): one address, sessions, transactions and
//! retryable writes, no discovery that would lead past the proxy, and no `topologyVersion`, so
//! that drivers poll with short hellos. Source: drivers' specifications `mongodb-handshake`,
//! `server-discovery-and-monitoring`, `load-balancers`.

use bson::oid::ObjectId;
use bson::{DateTime, Document, RawBson, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::class::Local;
use crate::base::clock::Timestamp;
use crate::base::ids::BranchId;
use crate::wire::WireError;

/// Largest `client` document that a server takes, bytes.
pub(super) const CLIENT_BYTES_MAX: usize = 512;

/// How much of an appName is kept, bytes: more than any address has, and twice what a server takes.
/// The first message may be much larger, and what is kept of it stays as long as the connection.
pub(super) const APP_NAME_BYTES_MAX: usize = 256;

/// What of the real server's hello is passed on: its limits, never constants of our own.
const FACTS: [&str; 6] = [
    "maxBsonObjectSize",
    "maxMessageSizeBytes",
    "maxWriteBatchSize",
    "logicalSessionTimeoutMinutes",
    "minWireVersion",
    "maxWireVersion",
];

/// What a connection's first hello said. Only the first carries the client's metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Greeting {
    /// `client.application.name`.
    pub(super) app_name: Option<String>,
    /// The `client` document as it came, for the server behind; not kept where no server takes it.
    pub(super) client: Option<RawDocumentBuf>,
    /// Whether the client believes in a load balancer.
    pub(super) balancing: Balancing,
}

/// Whether the connection string says `loadBalanced=true`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Balancing {
    /// It does not.
    #[default]
    None,
    /// It does: every hello's answer must carry a `serviceId`.
    LoadBalanced,
}

impl Greeting {
    /// Reads a hello. Only its top level and the way to the appName are looked at: the client is
    /// unknown yet, and how deep it nests its documents is its own choice.
    pub(super) fn read(hello: &RawDocument) -> Result<Self, WireError> {
        let balanced = field(Some(hello), "loadBalanced")?.and_then(RawBsonRef::as_bool);
        let client = field(Some(hello), "client")?.and_then(RawBsonRef::as_document);
        let application = field(client, "application")?.and_then(RawBsonRef::as_document);
        let app_name = field(application, "name")?.and_then(RawBsonRef::as_str);
        Ok(Self {
            app_name: app_name.map(|name| beginning(name, APP_NAME_BYTES_MAX).to_owned()),
            client: client
                .filter(|client| client.as_bytes().len() <= CLIENT_BYTES_MAX)
                .map(ToOwned::to_owned),
            balancing: match balanced {
                Some(true) => Balancing::LoadBalanced,
                _ => Balancing::None,
            },
        })
    }
}

/// What of the moment stands in an answer to hello.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The server's clock.
    pub(super) now: Timestamp,
    /// The connection's number.
    pub(super) connection: u64,
    /// The largest message that is taken from clients, bytes.
    pub(super) message_bytes: usize,
    /// For clients that believe in a load balancer.
    pub(super) service: Option<ObjectId>,
}

/// The answer to `hello` and `isMaster`. `facts` is the real server's answer to hello.
pub(super) fn hello_reply(form: Local, facts: &Document, moment: Moment) -> RawDocumentBuf {
    use bson::raw::cstr;
    let primary = match form {
        Local::IsMaster => cstr!("ismaster"),
        _ => cstr!("isWritablePrimary"),
    };
    let mut reply = rawdoc! { "helloOk": true };
    reply.append(primary, true);
    reply.append(cstr!("msg"), "isdbgrid");
    for key in FACTS {
        if let (Some(value), Ok(key)) = (facts.get(key), <&bson::raw::CStr>::try_from(key))
            && let Ok(value) = RawBson::try_from(value.clone())
        {
            reply.append(key, within(key.as_str(), value, moment.message_bytes));
        }
    }
    let now_ms = i64::try_from(moment.now.unix_ms()).unwrap_or(i64::MAX);
    reply.append(cstr!("localTime"), DateTime::from_millis(now_ms));
    // Drivers read an int32.
    let connection = i32::try_from(moment.connection % (1 << 31)).expect("less than 2^31");
    reply.append(cstr!("connectionId"), connection);
    if let Some(service) = moment.service {
        reply.append(cstr!("serviceId"), service);
    }
    reply.append(cstr!("readOnly"), false);
    reply.append(cstr!("ok"), 1.0);
    reply
}

/// A fact as clients may know it: where less is taken here than mongod takes, they split their
/// writes accordingly.
fn within(key: &str, value: RawBson, message_bytes: usize) -> RawBson {
    match (key, value) {
        ("maxMessageSizeBytes", RawBson::Int32(bytes)) => {
            RawBson::Int32(i32::try_from(message_bytes).unwrap_or(i32::MAX).min(bytes))
        }
        (_, value) => value,
    }
}

/// The same for a branch's whole life. An unknown branch has an id of zeros: its hello must still
/// work, for the error that explains it comes with the first command.
pub(super) fn service_id(branch: Option<BranchId>) -> ObjectId {
    let mut service = [0; 12];
    if let Some(branch) = branch {
        // The end of a branch's id is its randomness.
        service.copy_from_slice(&branch.to_bytes()[4..]);
    }
    ObjectId::from_bytes(service)
}

/// As many whole characters as fit.
fn beginning(text: &str, bytes: usize) -> &str {
    let fits = |(start, c): &(usize, char)| start + c.len_utf8() <= bytes;
    let end = text.char_indices().take_while(fits).last().map_or(0, |(at, c)| at + c.len_utf8());
    &text[..end]
}

fn field<'d>(
    document: Option<&'d RawDocument>,
    key: &str,
) -> Result<Option<RawBsonRef<'d>>, WireError> {
    let value = document.map(|document| document.get(key)).transpose();
    value.map(Option::flatten).map_err(WireError::bson("hello"))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn facts() -> Document {
        doc! {
            "isWritablePrimary": true,
            "setName": "rs0",
            "hosts": ["branch:27017"],
            "me": "branch:27017",
            "primary": "branch:27017",
            "topologyVersion": { "counter": 6_i64 },
            "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 17,
            "compression": ["zstd"],
            "ok": 1.0,
        }
    }

    fn reply(form: Local, service: Option<ObjectId>) -> Document {
        let moment = Moment {
            now: Timestamp::from_unix_ms(5_000),
            connection: 1 << 33 | 7,
            message_bytes: 48_000_000,
            service,
        };
        Document::try_from(&*hello_reply(form, &facts(), moment)).unwrap()
    }

    #[test]
    fn the_answer_is_a_mongos_of_the_real_servers_limits() {
        let expected = doc! {
            "helloOk": true,
            "isWritablePrimary": true,
            "msg": "isdbgrid",
            "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 17,
            "localTime": DateTime::from_millis(5_000),
            "connectionId": 7,
            "readOnly": false,
            "ok": 1.0,
        };
        assert_eq!(reply(Local::Hello, None), expected);
        let old = reply(Local::IsMaster, None);
        assert!(old.get_bool("ismaster").unwrap());
        assert!(!old.contains_key("isWritablePrimary"));
    }

    #[test]
    fn a_load_balanced_client_gets_its_branchs_service_id() {
        let branch = BranchId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let service = service_id(Some(branch));
        assert_eq!(service.bytes(), [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let reply = reply(Local::Hello, Some(service));
        assert_eq!(reply.get_object_id("serviceId").unwrap(), service);
        assert_eq!(service_id(None).bytes(), [0; 12]);
    }

    #[test]
    fn a_greeting_is_read_whatever_is_missing() {
        let client = rawdoc! { "application": { "name": "argon.shop/dev" }, "os": { "type": "x" } };
        let large = rawdoc! { "application": { "name": "a" }, "env": "x".repeat(512) };
        let name = |name: &str| Some(name.to_owned());
        let none = Balancing::None;
        for (hello, app_name, kept, balancing) in [
            (
                rawdoc! { "hello": 1, "client": client.clone(), "loadBalanced": true },
                name("argon.shop/dev"),
                Some(client),
                Balancing::LoadBalanced,
            ),
            (rawdoc! { "hello": 1, "client": large }, name("a"), None, none),
            (rawdoc! { "hello": 1 }, None, None, none),
            (rawdoc! { "hello": 1, "client": 3, "loadBalanced": 1 }, None, None, none),
            (rawdoc! { "hello": 1, "client": {} }, None, Some(rawdoc! {}), none),
            (
                rawdoc! { "hello": 1, "client": { "application": { "name": 3 } } },
                None,
                Some(rawdoc! { "application": { "name": 3 } }),
                none,
            ),
        ] {
            let expected = Greeting { app_name, client: kept, balancing };
            assert_eq!(Greeting::read(&hello).unwrap(), expected);
        }
    }

    #[test]
    fn no_more_of_an_app_name_is_kept_than_an_address_needs() {
        let most = "a".repeat(APP_NAME_BYTES_MAX);
        for (name, kept) in [
            (most.clone(), most.clone()),
            (format!("{most}b"), most.clone()),
            (most.repeat(200), most.clone()),
            // The character that does not fit whole is left out.
            (format!("{}äöü", &most[1..]), most[1..].to_owned()),
        ] {
            let hello = rawdoc! { "hello": 1, "client": { "application": { "name": name } } };
            assert_eq!(Greeting::read(&hello).unwrap().app_name, Some(kept));
        }
    }

    #[test]
    fn a_hello_that_is_no_bson_inside_is_an_error() {
        let broken = RawDocument::from_bytes(b"\x0b\0\0\0\x03a\0\xff\xff\xff\0").unwrap();
        assert!(Greeting::read(broken).is_err());
    }

    #[test]
    fn nesting_is_not_followed() {
        let mut nested = rawdoc! {};
        for _ in 0..8_000 {
            let inner = std::mem::take(&mut nested);
            nested.append(bson::raw::cstr!("a"), inner);
        }
        let greeting = Greeting::read(&rawdoc! { "hello": 1, "client": nested }).unwrap();
        assert_eq!(greeting, Greeting::default());
    }
}
