//! Requests and answers, below the routes.

use std::io::Read;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body, SendBody};

use super::{ClientError, FOLLOW_WAIT_MS, Server};
use crate::types::Problem;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for an answer's head: longer than the server waits on our behalf.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(FOLLOW_WAIT_MS + 20_000);

/// How long a dump may take to its first byte: the branch is woken first, or saved before that.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
pub(super) struct Http {
    server: Server,
    agent: Agent,
}

impl Http {
    pub(super) fn new(server: Server) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The server is on this machine or was named: a proxy for the web is of no use.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .user_agent(concat!("argon/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { server, agent: config.into() }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let sent = self.agent.get(self.url(path)).call();
        self.document(&format!("GET {path}"), sent)
    }

    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let sent = self.agent.delete(self.url(path)).call();
        self.document(&format!("DELETE {path}"), sent)
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let sent = self.agent.post(self.url(path)).send_json(body);
        self.document(&format!("POST {path}"), sent)
    }

    pub(super) fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let sent = self.agent.patch(self.url(path)).send_json(body);
        self.document(&format!("PATCH {path}"), sent)
    }

    pub(super) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let sent = self.agent.put(self.url(path)).send_json(body);
        self.document(&format!("PUT {path}"), sent)
    }

    pub(super) fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let sent = self.agent.post(self.url(path)).send_empty();
        self.document(&format!("POST {path}"), sent)
    }

    pub(super) fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &mut dyn Read,
        bytes: u64,
    ) -> Result<T, ClientError> {
        let sent = self
            .agent
            .put(self.url(path))
            .content_type("application/octet-stream")
            // Both let the server refuse before the bytes are sent, and its reason be read.
            .header(header::CONTENT_LENGTH, bytes)
            .header(header::EXPECT, "100-continue")
            .send(SendBody::from_reader(body));
        self.document(&format!("PUT {path}"), sent)
    }

    pub(super) fn download(&self, path: &str) -> Result<impl Read + use<>, ClientError> {
        let request = format!("GET {path}");
        let sent = self
            .agent
            .get(self.url(path))
            .config()
            .timeout_recv_response(Some(FIRST_BYTE_TIMEOUT))
            .build()
            .call();
        let answer = self.accepted(&request, sent)?;
        Ok(answer.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn document<T: DeserializeOwned>(
        &self,
        request: &str,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let mut answer = self.accepted(request, sent)?;
        let bytes = answer.body_mut().read_to_vec().map_err(|e| self.failed(request, e))?;
        serde_json::from_slice(&bytes).map_err(|error| self.strange(request, error.to_string()))
    }

    /// The answer, where it is a success; else the problem in it.
    fn accepted(
        &self,
        request: &str,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, ClientError> {
        let mut answer = sent.map_err(|error| self.failed(request, error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if !is_problem(&answer) {
            return Err(self.strange(request, plain(status)));
        }
        let bytes = answer.body_mut().read_to_vec().map_err(|e| self.failed(request, e))?;
        let problem: Problem = serde_json::from_slice(&bytes)
            .map_err(|error| self.strange(request, format!("{}: {error}", plain(status))))?;
        Err(ClientError::Problem(Box::new(problem)))
    }

    fn failed(&self, request: &str, error: ureq::Error) -> ClientError {
        use std::io::ErrorKind::{
            AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable,
        };
        let server = self.server.clone();
        let request = request.to_owned();
        match &error {
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                ClientError::Unreachable { server, source: Box::new(error) }
            }
            ureq::Error::Io(io)
                if matches!(
                    io.kind(),
                    ConnectionRefused | AddrNotAvailable | HostUnreachable | NetworkUnreachable
                ) =>
            {
                ClientError::Unreachable { server, source: Box::new(error) }
            }
            ureq::Error::Protocol(_) => self.strange(&request, error.to_string()),
            _ => ClientError::Lost { server, request, source: Box::new(error) },
        }
    }

    fn strange(&self, request: &str, reason: String) -> ClientError {
        ClientError::Strange { server: self.server.clone(), request: request.to_owned(), reason }
    }
}

fn plain(status: StatusCode) -> String {
    format!("its status is {status}")
}

fn is_problem(answer: &Response<Body>) -> bool {
    answer.body().mime_type() == Some(Problem::MEDIA_TYPE)
}
