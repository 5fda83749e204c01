//! Online training of spiking neural networks (OTTT, SLTT) on libtorch, through [`tch`].
//!
//! Between layers flows a [`Signal`]: a tensor, or after a neuron a **spike** s_t with its **trace**
//! a_t = (1 - 1/τ) a_{t-1} + s_t. A weighted layer computes its value from the spike and its weights'
//! gradient from the trace, so a loss at step t trains the network at step t: nothing is kept of the
//! steps before but one tensor per neuron.
//!
//! | where | what |
//! |---|---|
//! | [`OtttSequential`] | the container: wraps each module as its parameters ask |
//! | [`OtttLifNode`], [`SlttLifNode`], [`NdotLifNode`] | the neurons, one for each rule; [`Rule`] for your own |
//! | [`InputTrace`] | a trace for an input that changes with time |
//! | [`Feedback`] | connections that come back a step later: recurrent layers, VGG-F |
//! | [`Residual`] | skip connections |
//! | [`surrogate`] | derivatives of the spike, and the trait for your own |
//! | [`GradWithTrace`], [`SpikeTraceOp`], [`replace_for_grad`] | what the container does, by hand |
//! | [`ws_conv2d`], [`Dropout`], [`AvgPool2d`] ... | layers; tch's own go in as they are |
//! | [`model`] | SpikingJelly's spiking VGG networks |
//! | [`ScriptModule`] | TorchScript modules as layers |
//! | [`StateDict`] | weights in and out of PyTorch's files |
//! | [`train`] | the online loops, loss, schedule, evaluation, accuracy |
//! | [`Monitor`] | firing rates, membranes, gradients of a network that runs |
//! | [`Function`] | a custom differentiable function in Rust |
//! | [`setting`] | device, precision, random state, and the switches of the fast paths |
//! | [`data`] | real images (feature `data`) |
//! | [`distributed`] | many processes (feature `distributed`) |
//!
//! A module of your own is a [`Part`], which says what it is, and beyond that does one thing: a [`Layer`] maps a tensor
//! to a tensor, an [`OnlineModule`] a signal to a signal, and a [`Rule`] makes a neuron's trace. Bring `Part` into scope
//! to call `parameters()`, `reset()` and what else all of them have. Every fallible call returns [`Result`]; the message
//! names the layer, the shapes and the fix.
//!
//! The README has an example, the table from Python to Rust, and how libtorch is found.
#![warn(unreachable_pub)]

// In the order of the layers: each uses only those above it (tests/it/house.rs).
mod error;
mod ffi;
mod check;
mod numeric;
pub mod setting;
mod atomic_file;
mod autograd;
pub mod surrogate;
mod signal;
mod module;
mod monitor;
mod neuron;
mod layer;
pub mod model;
mod state_dict;
pub mod train;
#[cfg(feature = "data")]
pub mod data;
#[cfg(all(feature = "distributed", unix))]
pub mod distributed;

pub use autograd::{gradcheck, replace_for_grad, Context, Function, GradcheckConfig, Tensors};
pub use error::{Error, Result};
pub use layer::{
    with_parameters, ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Dropout, Dropout2d, Feedback,
    Flatten, GradWithTrace, Identity, MaxPool2d, OtttSequential, PoolConfig, Residual, Scale, ScriptConfig,
    ScriptModule, SpikeTraceOp, WithParameters, WsConv2d, WsConv2dConfig, WsLinear, WsLinearConfig,
};
pub use module::{Layer, Memory, OnlineModule, Part, Pass, Properties, Role, Variable};
pub use monitor::{Monitor, MonitorConfig, Record};
pub use neuron::{
    InputTrace, LifConfig, LifNode, LifStep, Ndot, NdotLifConfig, NdotLifNode, Ottt, OtttLifConfig,
    OtttLifNode, Rule, Sltt, SlttLifConfig, SlttLifNode, Trace,
};
pub use setting::device;
pub use signal::Signal;
#[cfg(feature = "files")]
pub use state_dict::ReadConfig;
pub use state_dict::{LoadConfig, LoadReport, Misfit, StateDict};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
