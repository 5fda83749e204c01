//! The integration tests, one binary.

mod bptt;
mod container;
#[cfg(all(feature = "distributed", unix))]
mod distributed;
mod errors;
mod function;
mod fused_neuron;
mod layout;
mod memory;
mod one_pass;
mod oracle;
mod parity;
mod precision;
mod steps_per_pass;
