//! Online training of spiking neural networks (OTTT, SLTT) on libtorch, through [`tch`].
//!
//! Between layers flows a [`Signal`]: a tensor, or behind a neuron a **spike** s_t with its **trace**
//! a_t = (1 - 1/τ) a_{t-1} + s_t. A weighted layer computes its value from the spike and its weights'
//! gradient from the trace, so a loss at step t trains the network at step t: nothing is kept of the
//! steps before but one tensor a neuron.
//!
//! | where | what |
//! |---|---|
//! | [`OtttSequential`] | the container: wraps each module as its parameters ask |
//! | [`OtttLifNode`], [`SlttLifNode`] | the neurons |
//! | [`surrogate`] | derivatives of the spike, and the trait for your own |
//! | [`GradWithTrace`], [`SpikeTraceOp`], [`replace_for_grad`] | what the container does, by hand |
//! | [`ws_conv2d`], [`Dropout`], [`AvgPool2d`] ... | layers; tch's own go in as they are |
//! | [`train`] | the online loops, loss, evaluation, accuracy |
//! | [`Function`] | a custom differentiable function in Rust |
//! | [`data`] | real images (feature `data`) |
//! | [`distributed`] | many processes (feature `distributed`) |
//!
//! [`Layer`] and [`OnlineModule`] are the two traits to implement for modules of your own. Every
//! fallible call returns [`Result`]; the message names the layer, the shapes and the fix.
//!
//! The README has an example, the table from Python to Rust, and how libtorch is found.
#![warn(unreachable_pub)]

mod autograd;
#[cfg(feature = "data")]
pub mod data;
mod device;
#[cfg(all(feature = "distributed", unix))]
pub mod distributed;
mod error;
mod fast;
mod ffi;
mod layer;
mod module;
mod neuron;
mod precision;
mod signal;
pub mod surrogate;
pub mod train;

pub use autograd::{gradcheck, replace_for_grad, Context, Function, GradcheckConfig, Tensors};
pub use device::device;
pub use error::{Error, Result};
pub use fast::{with_fast_paths, FastPaths};
pub use ffi::keep_freed_memory;
pub use layer::{
    with_parameters, ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Dropout, Dropout2d, Flatten,
    GradWithTrace, Identity, MaxPool2d, OtttSequential, PoolConfig, Scale, SpikeTraceOp, WithParameters,
    WsConv2d, WsConv2dConfig, WsLinear, WsLinearConfig,
};
pub use module::{Constant, Layer, Layout, Memory, OnlineModule, Parameter};
pub use neuron::{OtttLifConfig, OtttLifNode, SlttLifConfig, SlttLifNode};
pub use precision::{with_precision, Precision};
pub use signal::Signal;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
