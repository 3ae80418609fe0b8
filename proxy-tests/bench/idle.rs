//! What many clients cost that do nothing: memory, and time on a processor.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bson::rawdoc;

use crate::load::Client;
use crate::messages::Prepared;
use crate::places::{Place, Places, app_name};
use crate::process;

/// Descriptors that this process and the proxy need besides those of the clients.
const OTHER_DESCRIPTORS: u64 = 200;

/// What idle clients cost, each a share of it.
#[derive(Debug)]
pub struct Idle {
    /// The place's name.
    pub place: &'static str,
    /// What the clients did before they fell silent, and whether the branch was awake.
    pub state: &'static str,
    /// How many there were.
    pub clients: usize,
    /// Resident memory of the proxy, bytes for each client.
    pub bytes_each: f64,
    /// Time on a processor while all were silent, percent of one processor.
    pub cpu_percent: f64,
}

/// How many idle clients, and how long their silence is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// How many.
    pub clients: usize,
    /// How long.
    pub lasts: Duration,
}

/// Measures each proxy with clients that said hello, and Argon also with clients that worked and
/// fell silent, with its branch awake and asleep. Leaves the branch asleep.
pub fn measure(places: &Places, watch: Watch) -> Result<Vec<Idle>> {
    let needed = watch.clients as u64 + OTHER_DESCRIPTORS;
    let may = process::descriptors()?;
    ensure!(may >= needed, "{needed} descriptors are needed, {may} allowed: `ulimit -n {needed}`");
    let mut rows = Vec::new();
    for place in places.all.iter().filter(|place| place.name != "argon") {
        if let Some(pid) = place.pid {
            // It holds two descriptors for each client, and so soon has none left.
            let half = Watch { clients: watch.clients / 2, ..watch };
            let mut crowd = Crowd::gather(place, pid, half)?;
            rows.push(crowd.row("after hello, connected")?);
        }
    }
    let place = places.argon();
    let pid = places.server.pid();
    // The memory that saving a branch leaves with the allocator is no client's share.
    places.suspend()?;
    places.resume()?;
    let mut crowd = Crowd::gather(place, pid, watch)?;
    rows.push(crowd.row("after hello, branch awake")?);
    crowd.work()?;
    rows.push(crowd.row("after work, branch awake")?);
    places.suspend()?;
    ensure!(places.server.mongods().is_empty(), "a suspended branch has a mongod");
    rows.push(crowd.row("after work, branch asleep")?);
    crowd.ping()?;
    ensure!(places.server.mongods().is_empty(), "pings woke the branch");
    Ok(rows)
}

struct Crowd {
    place: &'static str,
    pid: u32,
    watch: Watch,
    clients: Vec<Client>,
    before: u64,
}

impl Crowd {
    fn gather(place: &Place, pid: u32, watch: Watch) -> Result<Self> {
        // What the first connection of all allocates is no client's share.
        Client::connect(&place.address, &app_name())?;
        let before = process::resident(pid)?;
        let connect = |_| Client::connect(&place.address, &app_name());
        let clients = (0..watch.clients).map(connect).collect::<Result<_>>()?;
        Ok(Self { place: place.name, pid, watch, clients, before })
    }

    /// Each does one command, one after the other.
    fn work(&mut self) -> Result<()> {
        self.each(rawdoc! { "find": "nothing", "limit": 1 })
    }

    fn ping(&mut self) -> Result<()> {
        self.each(rawdoc! { "ping": 1 })
    }

    fn each(&mut self, command: bson::RawDocumentBuf) -> Result<()> {
        let mut command = Prepared::new(command);
        self.clients.iter_mut().try_for_each(|client| client.first(&mut command).map(drop))
    }

    fn row(&mut self, state: &'static str) -> Result<Idle> {
        // What the last event caused is over in this time; it is not what idle clients cost.
        sleep(Duration::from_millis(500));
        let grown = process::resident(self.pid)?.saturating_sub(self.before);
        let (began, before) = (Instant::now(), process::cpu(self.pid)?);
        sleep(self.watch.lasts);
        let spent = process::cpu(self.pid)?.saturating_sub(before);
        let clients = self.clients.len();
        Ok(Idle {
            place: self.place,
            state,
            clients,
            bytes_each: grown as f64 / clients as f64,
            cpu_percent: 100.0 * spent.as_secs_f64() / began.elapsed().as_secs_f64(),
        })
    }
}
