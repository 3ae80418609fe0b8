//! Every limit that more than one room must agree on, in one place.

use std::time::Duration;

/// Longest project or branch name, bytes: a DNS label's limit, RFC 1035 section 2.3.4.
pub const NAME_BYTES: usize = 63;

/// Smallest wire message, bytes: its header.
pub const MESSAGE_BYTES_MIN: usize = 16;

/// Largest wire message, bytes: `maxMessageSizeBytes` of every server since 3.6.
pub const MESSAGE_BYTES_MAX: usize = 48_000_000;

/// Largest message accepted before a connection said a valid hello, bytes. A hello is some
/// hundred bytes: 128 of appName, 512 of `client`, and authentication's first step.
pub const FIRST_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Size of a volume's block, bytes.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// How long a branch may be idle before it is suspended, where nothing else is set.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How often a version is made of a running branch where something changed, where nothing else is
/// set.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(60);

/// Most bytes of blocks that are kept on this machine for all branches, where nothing else is set.
pub const CACHE_BYTES: u64 = 4 << 30;

/// The largest branch, bytes, whose remaining blocks are fetched behind its wake, where nothing
/// else is set: a larger one would push out of the cache what others read.
pub const BACKGROUND_FILL_BYTES: u64 = 1 << 30;

/// How many bytes must be free on the data directory's disk for a branch to be woken, where nothing
/// else is set: room for those that run to seal what they wrote.
pub const MIN_FREE_BYTES: u64 = 512 << 20;

/// How often it is looked how much that is: what branches write in this time must fit into it.
pub const DISK_LOOK: Duration = Duration::from_secs(2);

/// How long a command may wait for a branch to wake.
pub const WAKE_WAIT: Duration = Duration::from_secs(30);

/// Most commands that wait for one branch to wake: several large pools of drivers at once.
pub const PARKED_MAX: usize = 4_096;

/// Most bytes of such commands that are held in memory, per branch.
pub const PARKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How much more is read of a client whose command waits, to notice when it hangs up.
pub const PARKED_AHEAD_BYTES: usize = 2 * 1024;

/// The first and the longest wait after a failed wake, before a command may cause another.
pub const WAKE_BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// See [`WAKE_BACKOFF_FIRST`].
pub const WAKE_BACKOFF_CAP: Duration = Duration::from_secs(10);

/// How many wakes of a branch are remembered step by step; each takes half a kilobyte.
pub const WAKES_KEPT: usize = 4;

/// How many mongods may be starting at once: a start is half a second of pure computing.
pub const STARTS_AT_ONCE: usize = 4;

/// How many mongods are kept started ahead, where nothing else is set: one takes the start off most
/// wakes, and costs some 60 MB.
pub const PARKED_MONGODS: usize = 1;

/// Most that may be asked for.
pub const PARKED_MONGODS_MAX: usize = 64;

/// After a wake, how long its client's commands have the processor for themselves before a mongod is
/// started ahead for the next.
pub const PARK_CALM: Duration = Duration::from_millis(250);

/// How long a mongod that is started ahead may take to come to where it waits.
pub const PARK_DEADLINE: Duration = Duration::from_secs(60);

/// How long one that was let in to a branch may take until it is ready: less than [`WAKE_WAIT`], so that
/// another can be started within the same wake.
pub const PARKED_START_WAIT: Duration = Duration::from_secs(20);

/// How often the parked ones are looked at: one that was killed cannot end before it is let go on.
pub const PARK_LOOK: Duration = Duration::from_secs(5);

/// The first and the longest wait before another is started where one was lost.
pub const PARK_BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// See [`PARK_BACKOFF_FIRST`].
pub const PARK_BACKOFF_CAP: Duration = Duration::from_secs(60);

/// How long a server's lease on its branches lasts after its last renewal. Longer than a store is
/// usually away, as a running branch stops answering when the lease ends.
pub const LEASE_TTL: Duration = Duration::from_secs(10 * 60);

/// How often it is renewed while a branch is awake, where that is less than a quarter of it.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(10);

/// The first and the longest wait before a branch with unsaved writes is saved again.
pub const SAVE_BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// See [`SAVE_BACKOFF_FIRST`].
pub const SAVE_BACKOFF_CAP: Duration = Duration::from_secs(60);

/// How long an idle branch's mongod has to say whether a transaction is open, and how long the
/// suspend is put off when one is.
pub const IDLE_QUESTION: Duration = Duration::from_secs(5);
/// See [`IDLE_QUESTION`].
pub const IDLE_POSTPONE: Duration = Duration::from_secs(1);

/// How often the length of the oplog of a branch that is worked on is looked at: as often as mongod makes a
/// checkpoint.
pub const OPLOG_LOOK: Duration = Duration::from_secs(60);

/// How long mongod has to say that length, and to take another.
pub const OPLOG_WAIT: Duration = Duration::from_secs(1);

/// How long an upload may take from its beginning to the write of its version. Longer ones are
/// refused: garbage collection, of other servers on the same store too, relies on it.
pub const UPLOAD_DEADLINE: Duration = Duration::from_secs(12 * 60 * 60);

/// How long something must be known to be dead before it is deleted, where nothing else is set.
/// Servers that share a store need at least twice [`UPLOAD_DEADLINE`].
pub const GC_MIN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How often garbage is collected, where nothing else is set.
pub const GC_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a server runs before it collects garbage, and waits after a run that failed.
pub const GC_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// How long after a wake what is read counts as its start: until then clients have their first
/// replies.
pub const BOOT_SET_OPEN: Duration = Duration::from_secs(3);

/// How many branches are saved at once when the server stops or starts.
pub const SAVES_AT_ONCE: usize = 4;

/// Most client connections at once; each holds a descriptor, and a second one while it works.
/// Half of the 20000 that a default hard limit on descriptors allows in the containers we met.
pub const CONNECTIONS_MAX: usize = 8_000;

/// Most connections that may use one branch at once, so that one application's leak leaves the
/// others theirs. Those that only say hello and ping, as drivers' monitors, do not count.
pub const BRANCH_CONNECTIONS_MAX: usize = 4_000;

/// How long a new connection may take to send its first message.
pub const FIRST_MESSAGE_WAIT: Duration = Duration::from_secs(30);

/// How long after its first message a connection may go on without a hello.
pub const HELLO_WAIT: Duration = Duration::from_secs(30);

/// How long a client may stand still inside a message, sending or taking it, before its connection
/// is closed: meanwhile it keeps its branch awake.
pub const CLIENT_STALL: Duration = Duration::from_secs(120);

/// Most bytes of a message that a connection holds in memory while it passes them on.
pub const RELAY_BYTES: usize = 64 * 1024;

/// Largest message that an OP_COMPRESSED may unpack to, bytes: no more than a connection holds of
/// any other, for a few bytes would make it hold that. Compression is never offered, so that no
/// driver sends any.
pub const UNPACKED_BYTES_MAX: usize = RELAY_BYTES;

/// How often the sessions' connections to a mongod are looked through: one that nobody used from
/// one look to the next goes to the branch's pool.
pub const BACK_SWEEP: Duration = Duration::from_millis(100);

/// Most connections that wait in a branch's pool; each holds a thread of mongod's.
pub const BACKS_AT_REST_MAX: usize = 64;

/// How long one waits there before it is closed.
pub const BACK_REST: Duration = Duration::from_secs(10);

/// How long a branch's running mongod may take to accept a connection and answer its hello.
pub const ATTACH_WAIT: Duration = Duration::from_secs(10);

/// How long requests in flight may take to end when the server shuts down.
pub const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// How garbage is collected; the defaults are the constants above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// See [`GC_MIN_AGE`].
    pub min_age: Duration,
    /// See [`GC_INTERVAL`]; none: only when somebody asks for it.
    pub interval: Option<Duration>,
}

impl Default for Garbage {
    fn default() -> Self {
        Self { min_age: GC_MIN_AGE, interval: Some(GC_INTERVAL) }
    }
}

/// How volumes become dbpaths, and what they may take of this machine's disk; the defaults are the
/// constants above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounts {
    /// Which kind of mount.
    pub kind: MountKind,
    /// See [`CACHE_BYTES`].
    pub cache_bytes: u64,
    /// See [`BACKGROUND_FILL_BYTES`]; 0: nothing is fetched that nobody asked for.
    pub background_fill_bytes: u64,
    /// See [`MIN_FREE_BYTES`].
    pub min_free_bytes: u64,
}

/// How a volume becomes a dbpath.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Lazily where FUSE works, else eagerly.
    #[default]
    Auto,
    /// Through FUSE: blocks are fetched when they are asked for.
    Lazy,
    /// A plain directory: every block is fetched before mongod starts.
    Eager,
}

impl Default for Mounts {
    fn default() -> Self {
        Self {
            kind: MountKind::Auto,
            cache_bytes: CACHE_BYTES,
            background_fill_bytes: BACKGROUND_FILL_BYTES,
            min_free_bytes: MIN_FREE_BYTES,
        }
    }
}

/// What clients may take; the defaults are the constants above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// See [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// See [`BRANCH_CONNECTIONS_MAX`].
    pub branch_connections: usize,
    /// See [`FIRST_MESSAGE_WAIT`].
    pub first_message_wait: Duration,
    /// See [`HELLO_WAIT`].
    pub hello_wait: Duration,
    /// See [`FIRST_MESSAGE_BYTES_MAX`].
    pub first_message_bytes: usize,
    /// See [`MESSAGE_BYTES_MAX`].
    pub message_bytes: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            branch_connections: BRANCH_CONNECTIONS_MAX,
            first_message_wait: FIRST_MESSAGE_WAIT,
            hello_wait: HELLO_WAIT,
            first_message_bytes: FIRST_MESSAGE_BYTES_MAX,
            message_bytes: MESSAGE_BYTES_MAX,
        }
    }
}
