//! A socket that answers by the byte, for the tests of this crate.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread::JoinHandle;

use super::Client;

/// Answers one connection after the other, one request each, and hands back the requests.
pub(crate) fn answering(answers: Vec<String>) -> (Client, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(listener.local_addr().unwrap().to_string().parse().unwrap());
    let serving = std::thread::spawn(move || {
        let serve = |answer: String| {
            let (mut socket, _) = listener.accept().unwrap();
            let request = read_request(&mut BufReader::new(&socket));
            socket.write_all(answer.as_bytes()).unwrap();
            let _ = socket.shutdown(Shutdown::Write);
            let _ = socket.read(&mut [0]);
            request
        };
        answers.into_iter().map(serve).collect()
    });
    (client, serving)
}

/// The request's line and its body.
fn read_request(reader: &mut impl BufRead) -> String {
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    format!("{}{}", first, String::from_utf8(body).unwrap())
}

pub(crate) fn answer(status: &str, media_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}
