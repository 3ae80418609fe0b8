//! A server of HTTP that gives every request the same answer: what no real server can be brought
//! to say when it should.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result};

/// Such a server.
#[derive(Debug)]
pub struct Answers {
    address: String,
    asked: Arc<AtomicU32>,
}

impl Answers {
    /// Says `status` (`507 Insufficient Storage`) and an error of S3 with this code, to everybody.
    pub fn always(status: &str, code: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
        let address = listener.local_addr()?.to_string();
        let answer = answer(status, code);
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        // It ends with the process: a test's.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                thread::spawn(move || reply(stream, &answer));
            }
        });
        Ok(Self { address, asked })
    }

    /// As a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests there were.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An answer of S3 that is an error.
pub(crate) fn answer(status: &str, code: &str) -> String {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as asked</Message></Error>"
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The whole request first: an answer that comes too early is lost with the connection.
pub(crate) fn reply(stream: TcpStream, answer: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut bytes = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            bytes = length.trim().parse().ok()?;
        }
    }
    std::io::copy(&mut reader.take(bytes), &mut std::io::sink()).ok()?;
    (&stream).write_all(answer.as_bytes()).ok()
}
