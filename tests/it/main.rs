//! The integration tests, one binary.

mod container;
mod errors;
mod function;
mod memory;
mod oracle;
mod parity;
