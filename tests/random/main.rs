//! Random networks and random programs, held to what needs no cleverness: paths without short cuts, fresh networks.
//!
//! A binary of its own: its tests draw from libtorch's generator, one after another.
//!
//! `cargo test` takes a few hundred cases; `scripts/soak` takes as many as one likes. Each case has a seed of its own. A
//! failure is shrunk, and its seed is printed: `scripts/soak --cases 1 --seed SEED` runs that one again.

mod case;
mod cases;
mod compare;
mod machine;
mod network;
mod part;
mod parts;
mod program;
mod soak;
#[path = "../it/thread_state.rs"]
mod thread_state;
