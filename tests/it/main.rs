//! The integration tests, one binary.

mod bptt;
mod container;
mod errors;
mod feedback;
mod function;
mod fused_neuron;
mod layout;
mod memory;
mod monitor;
mod one_pass;
mod oracle;
mod parity;
mod precision;
mod rules;
mod steps_per_pass;
