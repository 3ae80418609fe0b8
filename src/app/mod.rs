//! Configuration of the server.

pub mod config;
pub mod settings;
