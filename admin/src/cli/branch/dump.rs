//! `argon branch dump`

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::super::error::CliError;
use super::super::interrupt;
use super::super::output::Answer;
use super::super::progress::Spinner;
use super::super::session::Session;
use super::{Named, human};

/// How much is held in memory at a time, bytes.
const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Args, Clone, Debug)]
pub struct Dump {
    #[command(flatten)]
    branch: Named,
    /// Where to: a file, which is replaced once the archive is whole, or `-` for stdout
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// The archive on its way, and how people call its branch.
struct Transfer<'a, R> {
    archive: R,
    branch: &'a str,
    spinner: &'a Spinner,
}

impl Dump {
    pub(super) fn execute(&self, session: &Session) -> Result<Answer, CliError> {
        let to_stdout = self.out == Path::new("-");
        if to_stdout && io::stdout().is_terminal() {
            return Err(CliError::Terminal);
        }
        let project = session.project(&self.branch.project)?;
        let branch = format!("{project}/{}", self.branch.name);
        let spinner = Spinner::new(format!("dump {branch}"));
        let archive = session.client.dump(&project, &self.branch.name)?;
        let transfer = Transfer { archive, branch: &branch, spinner: &spinner };
        if to_stdout {
            transfer.copy(&mut io::stdout().lock(), CliError::Stdout)?;
            return Ok(Answer::written());
        }
        let bytes = transfer.save(&self.out)?;
        let data = json!({ "file": self.out, "bytes": bytes });
        let text = format!("wrote {} to {}", human::size(bytes), self.out.display());
        Ok(Answer::new(&data, text))
    }
}

impl<R: Read> Transfer<'_, R> {
    /// Writes beside the file and puts the whole archive in its place at the end.
    fn save(self, path: &Path) -> Result<u64, CliError> {
        let mut part = path.to_owned().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = |source| CliError::File {
            doing: "write the archive to",
            path: path.to_owned(),
            source,
        };
        let mut file = File::create(&part).map_err(failed)?;
        let _interrupt = interrupt::while_writing(&part);
        let saved = self
            .copy(&mut file, failed)
            .and_then(|bytes| file.sync_all().map(|()| bytes).map_err(failed))
            .and_then(|bytes| std::fs::rename(&part, path).map(|()| bytes).map_err(failed));
        if saved.is_err() {
            // The first failure is the one to tell.
            let _ = std::fs::remove_file(&part);
        }
        saved
    }

    fn copy(
        mut self,
        into: &mut impl Write,
        failed: impl Fn(io::Error) -> CliError,
    ) -> Result<u64, CliError> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        loop {
            let count = match self.archive.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(CliError::CutShort {
                        branch: self.branch.to_owned(),
                        bytes,
                        source,
                    });
                }
            };
            into.write_all(&chunk[..count]).map_err(&failed)?;
            bytes += count as u64;
            self.spinner.say(format!("dump {}: {}", self.branch, human::size(bytes)));
        }
        into.flush().map_err(failed)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Breaks(&'static [u8]);

    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                count => Ok(count),
            }
        }
    }

    fn save(archive: impl Read, path: &Path) -> Result<u64, CliError> {
        let spinner = Spinner::new("");
        Transfer { archive, branch: "shop/dev", spinner: &spinner }.save(path)
    }

    #[test]
    fn only_a_whole_archive_takes_the_files_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dev.archive");
        assert_eq!(save(&b"first"[..], &path).unwrap(), 5);
        let error = save(Breaks(b"second"), &path).unwrap_err();
        assert!(matches!(error, CliError::CutShort { bytes: 6, .. }), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = save(&b""[..], &dir.path().join("none/dev.archive")).unwrap_err();
        assert!(matches!(error, CliError::File { .. }), "{error:?}");
    }
}
