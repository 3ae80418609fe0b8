//! Argon admin: the API types, an HTTP client, and the CLI commands.

pub mod cli;
pub mod client;
pub mod types;
