//! A client that speaks the wire protocol by the byte: what no driver would do, and no pool between.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use bson::{Document, RawDocumentBuf, rawdoc};

use crate::wait::PATIENCE;

/// One connection.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub stream: TcpStream,
}

impl Raw {
    /// Connects, and says nothing.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// Says hello; the address is `appName=…` of a branch's URI.
    pub fn hello(&mut self, app_name: &str) -> Result<Document> {
        self.ask(&rawdoc! {
            "hello": 1, "$db": "admin",
            "client": {
                "application": { "name": app_name },
                "driver": { "name": "raw", "version": "1" },
                "os": { "type": "Linux" },
            },
        })
    }

    /// Sends a command and waits for its reply.
    pub fn ask(&mut self, command: &RawDocumentBuf) -> Result<Document> {
        self.stream.write_all(&message(command)).context("send a command")?;
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).context("read a reply's header")?;
        let length = u32::from_le_bytes(header[..4].try_into()?) as usize;
        ensure!((21..48_000_000).contains(&length), "a reply of {length} bytes");
        let mut body = vec![0; length - 16];
        self.stream.read_exact(&mut body).context("read a reply")?;
        Ok(bson::deserialize_from_slice(&body[5..])?)
    }

    /// Waits until the server closes the connection, and gives what it sent before.
    pub fn until_closed(&mut self) -> Result<Vec<u8>> {
        let mut got = Vec::new();
        match self.stream.read_to_end(&mut got) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(got),
            Err(e) => Err(e).context("the server does not close the connection"),
            Ok(_) => Ok(got),
        }
    }
}

/// An OP_MSG of one section.
pub fn message(command: &RawDocumentBuf) -> Vec<u8> {
    let body = command.as_bytes();
    [&header(21 + body.len())[..], &[0; 5], body].concat()
}

/// An OP_MSG's header.
pub fn header(length: usize) -> Vec<u8> {
    let length = i32::try_from(length).expect("a test's message is small");
    [length, 7, 0, 2013].iter().flat_map(|field| field.to_le_bytes()).collect()
}
