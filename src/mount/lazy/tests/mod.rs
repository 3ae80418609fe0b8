//! Real mounts, compared with plain directories and with models.

mod basics;
mod crash;
mod random;
mod source;
mod twin;
