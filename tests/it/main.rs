//! The integration tests, one binary.

mod atomic_files;
mod bptt;
mod checkpoint;
mod common;
mod container;
#[cfg(all(feature = "distributed", unix))]
mod distributed;
mod dropout;
mod errors;
mod feedback;
#[cfg(unix)]
mod file_faults;
mod function;
mod fused_neuron;
mod held_weights;
mod hostile_files;
mod house;
#[cfg(feature = "data")]
mod idx;
mod input_trace;
mod layout;
mod measures;
mod memory;
mod monitor;
mod neuron_state;
mod one_pass;
mod optimizer;
mod oracle;
mod own_parts;
mod parity;
mod plan;
mod precision;
mod rules;
mod script_module;
mod state_dict;
mod steps_per_pass;
mod thread_state;
