//! What is measured: each scenario in turns through every place, in several rounds of one run, so
//! that what else the machine does meanwhile meets all places alike.

use std::time::Duration;

use anyhow::{Context, Result};
use bson::{Binary, RawDocumentBuf, rawdoc, spec::BinarySubtype};

use crate::load::{Client, Turn, alone, together};
use crate::messages::Prepared;
use crate::places::{Place, app_name};
use crate::process;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Read a document by its id.
    Find,
    /// Write a document. `w: 1`, so that it is the proxy and not the disk that is measured.
    Insert,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What the clients do.
    pub work: Work,
    /// The size of the document, bytes.
    pub bytes: usize,
    /// How many clients there are.
    pub clients: usize,
}

const SMALL: usize = 200;
/// One of the two sizes of large documents.
pub const MB: usize = 1 << 20;
/// The largest document that mongod takes holds 16 MiB; some of them are names and numbers.
const MB_16: usize = 16 * MB - 1024;

/// All rows, in the order of the table.
pub fn all() -> Vec<Scenario> {
    let row = |work, bytes, clients| Scenario { work, bytes, clients };
    let mut rows = Vec::new();
    for work in [Work::Find, Work::Insert] {
        rows.extend([1, 16, 64, 256].map(|clients| row(work, SMALL, clients)));
    }
    for work in [Work::Find, Work::Insert] {
        rows.extend([MB, MB_16].map(|bytes| row(work, bytes, 1)));
    }
    rows
}

/// One turn of one scenario in one place.
#[derive(Debug)]
pub struct Sample {
    /// What the clients saw.
    pub turn: Turn,
    /// What the proxy spent, microseconds of processor time a command.
    pub cpu_us: Option<f64>,
}

impl Scenario {
    /// For people and as a key.
    pub fn name(&self) -> String {
        let work = match self.work {
            Work::Find => "find",
            Work::Insert => "insert",
        };
        match self.bytes {
            SMALL => format!("{work} one, {} clients", self.clients),
            MB => format!("{work} 1 MB, {} client", self.clients),
            _ => format!("{work} 16 MB, {} client", self.clients),
        }
    }

    /// Whether bytes and not commands are what counts.
    pub fn is_large(&self) -> bool {
        self.bytes != SMALL
    }

    fn collection(&self) -> String {
        match self.work {
            Work::Find => format!("documents_{}", self.bytes),
            Work::Insert => "written".to_owned(),
        }
    }

    fn document(&self) -> RawDocumentBuf {
        // Numbers that do not compress to nothing: WiredTiger and the oplog would do less.
        let mut state = 1_u32;
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let bytes = bytes.take(self.bytes).collect();
        rawdoc! { "payload": Binary { subtype: BinarySubtype::Generic, bytes } }
    }

    fn insert(&self) -> Prepared {
        // Without an `_id`, so that mongod makes one and the message can be sent again and again.
        Prepared::new(rawdoc! {
            "insert": self.collection(), "documents": [self.document()], "writeConcern": { "w": 1 },
        })
    }

    fn command(&self) -> Prepared {
        match self.work {
            Work::Insert => self.insert(),
            Work::Find => Prepared::new(rawdoc! {
                "find": self.collection(), "filter": {}, "limit": 1, "singleBatch": true,
            }),
        }
    }

    /// Makes sure that there is something to find, and that what other turns wrote is gone.
    pub fn prepare(&self, direct: &Place) -> Result<()> {
        let mut client = Client::connect(&direct.address, &app_name())?;
        let mut drop = Prepared::new(rawdoc! { "drop": self.collection() });
        // The first time there is nothing to drop, which is an error and no obstacle.
        client.first(&mut drop).ok();
        if self.work == Work::Find {
            client.first(&mut self.insert()).context("write the document to find")?;
        }
        Ok(())
    }

    /// Measures one turn.
    pub fn run(&self, place: &Place, lasts: Duration) -> Result<Sample> {
        let mut command = self.command();
        let connect = |_| Client::connect(&place.address, &app_name());
        let mut clients = (0..self.clients).map(connect).collect::<Result<Vec<_>>>()?;
        let cpu = || place.pid.map(process::cpu).transpose();
        let before = cpu()?;
        let turn = match &mut clients[..] {
            [client] => alone(client, &mut command, lasts)?,
            _ => together(clients, &command, lasts)?,
        };
        let spent = cpu()?.zip(before).map(|(after, before)| after.saturating_sub(before));
        let cpu_us = spent.map(|spent| spent.as_secs_f64() * 1e6 / turn.commands.max(1) as f64);
        Ok(Sample { turn, cpu_us })
    }
}
