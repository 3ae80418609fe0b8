//! A client's way to its branch: the listener, and one session for each connection.
//!
//! Job: accept, say hello, find the branch that the connection string names, answer here what
//! needs no server, park the rest until the branch is awake, pass commands and replies on
//! untouched. Not its job: when and how a branch wakes or sleeps (`branch`), and what a message
//! looks like (`wire`).
//! Invariant: a client that sent a whole command is answered as long as its socket lives; only
//! half a reply, or bytes that are no message, end a connection.

mod address;
mod back;
mod binding;
mod class;
mod connection;
mod dying;
mod error;
mod forbidden;
#[doc(hidden)]
pub mod fuzzing;
mod hello;
mod listener;
#[cfg(test)]
mod lives;
mod local_stream;
mod metered;
mod opening;
mod pace;
mod pool;
#[cfg(test)]
mod properties;
mod reception;
mod reply;
mod request;
mod response;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod scripted;
mod session;
mod skim;
mod splice;

pub use binding::Binding;
pub use error::ProxyError;
pub use listener::Proxy;
pub use opening::Foreign;
