//! The metadata service of a machine at Amazon's, for tests: it gives a region, and a role's credentials,
//! to whoever asks, as <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>
//! says.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

use crate::buckets::REGION;

const ROLE: &str = "argon-role";
const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/";

/// Starts it; it ends with the process, a test's. Gives its URL.
pub fn serve(key: &str, secret: &str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let url = format!("http://{}", listener.local_addr()?);
    let document = format!(
        "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"LastUpdated\":\"2026-01-01T00:00:00Z\",\
         \"AccessKeyId\":\"{key}\",\"SecretAccessKey\":\"{secret}\",\"Token\":\"a token\",\
         \"Expiration\":\"2099-01-01T00:00:00Z\"}}"
    );
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let document = document.clone();
            thread::spawn(move || answer_all(stream, &document));
        }
    });
    Ok(url)
}

fn answer_all(stream: TcpStream, document: &str) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if requests.read_line(&mut first)? == 0 {
            return Ok(());
        }
        // None of them has a body.
        let mut header = String::from("-");
        while !header.trim_end().is_empty() {
            header.clear();
            if requests.read_line(&mut header)? == 0 {
                return Ok(());
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let found = match path.strip_prefix(CREDENTIALS) {
            _ if path == "/latest/api/token" => Some("a session"),
            _ if path == "/latest/meta-data/placement/region" => Some(REGION),
            Some("") => Some(ROLE),
            Some(ROLE) => Some(document),
            _ => None,
        };
        let (status, body) = found.map_or(("404 Not Found", ""), |body| ("200 OK", body));
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\
             X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\n\r\n{body}",
            body.len()
        )?;
    }
}
