//! `argon base …`

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::error::CliError;
use super::human;
use super::output::{Answer, pairs};
use super::progress::Spinner;
use super::session::Session;
use crate::types::{Base, OperationResult};

#[derive(Subcommand, Clone, Debug)]
pub enum BaseCommand {
    /// Make an archive (`mongodump --archive`, with --gzip or without) the base
    Set {
        /// The archive
        file: PathBuf,
    },
    /// Show the base
    Show,
}

impl BaseCommand {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        match self {
            Self::Set { file } => set(session, file),
            Self::Show => {
                let base = session.client.base()?;
                Ok(Answer::new(&base, shown(&base)))
            }
        }
    }
}

fn set(session: &Session, path: &Path) -> Result<Answer, CliError> {
    let failed =
        |source| CliError::File { doing: "read the archive", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    let spinner = Spinner::new("send the archive");
    let sent = Counted { file, spinner: &spinner, bytes: 0, of: metadata.len() };
    let begun = session.client.set_base(sent, metadata.len())?;
    drop(spinner);
    let done = session.follow(begun)?;
    match &done.result {
        Some(OperationResult::Base(base)) => Ok(Answer::new(base, shown(base))),
        _ => Err(session.no_result(&done).into()),
    }
}

fn shown(base: &Base) -> String {
    pairs(&[
        ("source", Some(base.source.clone())),
        ("size", Some(human::size(base.bytes))),
        ("digest", Some(base.digest.clone())),
        ("version", Some(base.version.clone().unwrap_or_else(|| "not loaded yet".to_owned()))),
        ("set", base.set_at.as_deref().map(human::ago)),
    ])
}

/// A file that tells the spinner how much of it was read.
struct Counted<'a> {
    file: File,
    spinner: &'a Spinner,
    bytes: u64,
    of: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bytes += count as u64;
        let (sent, of) = (human::size(self.bytes), human::size(self.of));
        self.spinner.say(format!("send the archive: {sent} of {of}"));
        Ok(count)
    }
}
