//! What operators watch: the counters and histograms of a whole server.
//!
//! `app` makes one [`Metrics`] and hands it to every room that has something to count. All series
//! exist from the start, so counting one is an atomic addition: no lock, no lookup by label, no
//! allocation. What can be counted by looking (branches by state, connections) is looked at when
//! somebody asks. `docs/metrics.md` lists every metric.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::gauge::Gauge;

/// Upper bounds of the buckets for what takes microseconds, seconds.
const MICROSECONDS: [f64; 12] =
    [2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 5e-3, 20e-3, 100e-3];

/// Upper bounds of the buckets for the pause of a seal, seconds.
const PAUSE_SECONDS: [f64; 10] =
    [50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 100e-3];

/// Upper bounds of the buckets for a wake's phases, seconds.
const WAKE_SECONDS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The values of a label, each of which is a series.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value),* }

        impl $name {
            const ALL: &[Self] = &[$(Self::$value),*];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),* }
            }
        }
    };
}

label! {
    /// How the proxy treats a command.
    CommandClass {
        /// Answered by the proxy.
        Local = "local",
        /// Tidies up.
        Cleanup = "cleanup",
        /// Forwarded, but no work.
        Probe = "probe",
        /// Forwarded; keeps the branch awake.
        Work = "work",
        /// Not for clients.
        Refused = "refused",
    }
}

label! {
    /// Why a client was turned away.
    TurnedAway {
        /// The server has as many connections as it may.
        ServerFull = "server_full",
        /// The branch has.
        BranchFull = "branch_full",
        /// No first message in time, or no hello after it.
        Late = "late",
        /// Bytes that are no message, or a message that is too large.
        NoMessage = "no_message",
    }
}

label! {
    /// How a wake or a suspend ended.
    Outcome {
        /// As it should.
        Done = "done",
        /// With an error.
        Failed = "failed",
    }
}

label! {
    /// The steps of a wake, in their order.
    WakePhase {
        /// Waiting for a turn: only so many mongods start at once.
        Queue = "queue",
        /// Claiming the branch and bringing its volume here.
        Restore = "restore",
        /// From the process's start until it listens.
        MongodStart = "mongod_start",
        /// Until it is a writable primary.
        Primary = "primary",
        /// Until the first command's connection to it stands.
        Attach = "attach",
    }
}

label! {
    /// Where a wake's mongod came from.
    Origin {
        /// It was started ahead.
        Parked = "parked",
        /// It was started for the wake.
        Cold = "cold",
    }
}

label! {
    /// The two times that the proxy holds a command.
    Step {
        /// The request, from its header to its last byte's being written to mongod.
        Request = "request",
        /// The reply, from its header to its last byte's being written to the client.
        Reply = "reply",
    }
}

label! {
    /// What a branch did while its volume was sealed.
    While {
        /// Its mongod ran, and its writes waited.
        Running = "running",
        /// It slept.
        Asleep = "asleep",
    }
}

/// What a look at the server found, for the series that are not counted as things happen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Commands that wait for their branch.
    pub parked: u64,
    /// Branches by the name of their state.
    pub branches: Vec<(&'static str, u64)>,
    /// mongods that were started ahead and wait.
    pub mongods_parked: u64,
    /// mongods that are being started ahead.
    pub mongods_starting: u64,
}

/// A server's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Clients that are connected.
    pub front: Gauge,
    /// Connections to branches' mongods on behalf of clients.
    pub back: Gauge,
    /// Bytes that came from clients.
    pub received_bytes: IntCounter,
    /// Bytes that went to clients.
    pub sent_bytes: IntCounter,
    commands: Vec<IntCounter>,
    turned_away: Vec<IntCounter>,
    wakes: Vec<IntCounter>,
    suspends: Vec<IntCounter>,
    origins: Vec<IntCounter>,
    lost_ahead: IntCounter,
    phases: Vec<Histogram>,
    pauses: Vec<Histogram>,
    held: Vec<Histogram>,
    connections: IntGaugeVec,
    branches: IntGaugeVec,
    ahead: IntGaugeVec,
}

impl Metrics {
    /// All series, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect(WELL_FORMED);
            registry.register(Box::new(counter.clone())).expect(WELL_FORMED);
            counter
        };
        let counters = |name: &str, help: &str, label: &str, values: Vec<&str>| {
            let family = IntCounterVec::new(Opts::new(name, help), &[label]).expect(WELL_FORMED);
            registry.register(Box::new(family.clone())).expect(WELL_FORMED);
            values.iter().map(|value| family.with_label_values(&[*value])).collect::<Vec<_>>()
        };
        let histograms =
            |name: &str, help: &str, label: &str, values: Vec<&str>, bounds: &[f64]| {
                let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
                let family = HistogramVec::new(options, &[label]).expect(WELL_FORMED);
                registry.register(Box::new(family.clone())).expect(WELL_FORMED);
                values.iter().map(|value| family.with_label_values(&[*value])).collect::<Vec<_>>()
            };
        let gauges = |name: &str, help: &str| {
            let family = IntGaugeVec::new(Opts::new(name, help), &["state"]).expect(WELL_FORMED);
            registry.register(Box::new(family.clone())).expect(WELL_FORMED);
            family
        };
        Self {
            front: Gauge::default(),
            back: Gauge::default(),
            received_bytes: counter("argon_received_bytes_total", "Bytes from clients."),
            sent_bytes: counter("argon_sent_bytes_total", "Bytes to clients."),
            commands: counters(
                "argon_commands_total",
                "Commands of clients, by how the proxy treats them.",
                "class",
                CommandClass::ALL.iter().map(|one| one.as_str()).collect(),
            ),
            turned_away: counters(
                "argon_turned_away_total",
                "Clients that were turned away, and commands of those that a full branch refused.",
                "reason",
                TurnedAway::ALL.iter().map(|one| one.as_str()).collect(),
            ),
            wakes: counters(
                "argon_wakes_total",
                "Wakes that ended.",
                "outcome",
                Outcome::ALL.iter().map(|one| one.as_str()).collect(),
            ),
            suspends: counters(
                "argon_suspends_total",
                "Suspends that ended, those before a deletion included.",
                "outcome",
                Outcome::ALL.iter().map(|one| one.as_str()).collect(),
            ),
            origins: counters(
                "argon_wake_mongods_total",
                "mongods that wakes got ready, by where they came from.",
                "from",
                Origin::ALL.iter().map(|one| one.as_str()).collect(),
            ),
            lost_ahead: counter(
                "argon_parked_mongods_lost_total",
                "mongods that were started ahead and ended before they were needed.",
            ),
            phases: histograms(
                "argon_wake_phase_seconds",
                "Time that each phase of a successful wake took.",
                "phase",
                WakePhase::ALL.iter().map(|one| one.as_str()).collect(),
                &WAKE_SECONDS,
            ),
            pauses: histograms(
                "argon_seal_pause_seconds",
                "Time that writes waited while a version's state was fixed.",
                "while",
                While::ALL.iter().map(|one| one.as_str()).collect(),
                &PAUSE_SECONDS,
            ),
            held: histograms(
                "argon_added_seconds",
                "Time that the proxy itself held a command of at most 64 KiB.",
                "step",
                Step::ALL.iter().map(|one| one.as_str()).collect(),
                &MICROSECONDS,
            ),
            connections: gauges("argon_connections", "Connections now."),
            branches: gauges("argon_branches", "Branches now."),
            ahead: gauges("argon_parked_mongods", "mongods that are started ahead, now."),
            registry,
        }
    }

    /// Counts a command.
    pub fn command(&self, class: CommandClass) {
        self.commands[class as usize].inc();
    }

    /// Counts a client that is turned away.
    pub fn turned_away(&self, reason: TurnedAway) {
        self.turned_away[reason as usize].inc();
    }

    /// Counts a wake.
    pub fn wake(&self, outcome: Outcome) {
        self.wakes[outcome as usize].inc();
    }

    /// Counts where the mongod of a wake came from.
    pub fn wake_by(&self, origin: Origin) {
        self.origins[origin as usize].inc();
    }

    /// Counts a mongod that was started ahead and is of no use.
    pub fn parked_lost(&self) {
        self.lost_ahead.inc();
    }

    /// Counts a suspend.
    pub fn suspend(&self, outcome: Outcome) {
        self.suspends[outcome as usize].inc();
    }

    /// Notes how long a phase of a wake took.
    pub fn wake_phase(&self, phase: WakePhase, took: Duration) {
        self.phases[phase as usize].observe(took.as_secs_f64());
    }

    /// Notes how long a seal kept writes waiting.
    pub fn sealed(&self, doing: While, pause: Duration) {
        self.pauses[doing as usize].observe(pause.as_secs_f64());
    }

    /// Notes how long the proxy held a command.
    pub fn held(&self, step: Step, time: Duration) {
        self.held[step as usize].observe(time.as_secs_f64());
    }

    /// Everything, in Prometheus' text format 0.0.4.
    pub fn text(&self, observed: &Observed) -> String {
        let set = |family: &IntGaugeVec, state: &str, count: u64| {
            family.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(&self.connections, "front", self.front.value() as u64);
        set(&self.connections, "back", self.back.value() as u64);
        set(&self.connections, "parked", observed.parked);
        set(&self.ahead, "parked", observed.mongods_parked);
        set(&self.ahead, "starting", observed.mongods_starting);
        for (state, count) in &observed.branches {
            set(&self.branches, state, *count);
        }
        // It fails only where a family has no name or no series.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// Why registering cannot fail.
const WELL_FORMED: &str = "names and labels stand here, are well-formed, and differ";

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let text = Metrics::new().text(&Observed::default());
        for line in [
            "argon_commands_total{class=\"cleanup\"} 0",
            "argon_turned_away_total{reason=\"branch_full\"} 0",
            "argon_wakes_total{outcome=\"failed\"} 0",
            "argon_wake_mongods_total{from=\"parked\"} 0",
            "argon_parked_mongods_lost_total 0",
            "argon_suspends_total{outcome=\"done\"} 0",
            "argon_wake_phase_seconds_count{phase=\"mongod_start\"} 0",
            "argon_added_seconds_count{step=\"reply\"} 0",
            "argon_received_bytes_total 0",
            "argon_connections{state=\"parked\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn what_is_counted_shows() {
        let metrics = Metrics::new();
        let _client = metrics.front.enter();
        metrics.command(CommandClass::Work);
        metrics.wake_phase(WakePhase::Attach, Duration::from_millis(3));
        metrics.held(Step::Request, Duration::from_micros(4));
        let observed = Observed {
            parked: 2,
            branches: vec![("running", 5)],
            mongods_parked: 1,
            mongods_starting: 0,
        };
        let text = metrics.text(&observed);
        for line in [
            "argon_commands_total{class=\"work\"} 1",
            "argon_connections{state=\"front\"} 1",
            "argon_connections{state=\"parked\"} 2",
            "argon_branches{state=\"running\"} 5",
            "argon_parked_mongods{state=\"parked\"} 1",
            "argon_parked_mongods{state=\"starting\"} 0",
            "argon_wake_phase_seconds_bucket{phase=\"attach\",le=\"0.001\"} 0",
            "argon_wake_phase_seconds_bucket{phase=\"attach\",le=\"0.005\"} 1",
            "argon_added_seconds_bucket{step=\"request\",le=\"0.000005\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
