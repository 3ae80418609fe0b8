//! Real mounts, compared with plain directories and with models.

mod basics;
mod crash;
mod direct;
mod errors;
mod held;
mod mapped;
mod mapping;
mod mongod;
mod random;
mod source;
mod twin;
