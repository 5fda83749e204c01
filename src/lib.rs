//! Online training of spiking neural networks on libtorch, through `tch`.
#![warn(unreachable_pub)]

mod autograd;
#[cfg(feature = "data")]
pub mod data;
mod error;
mod ffi;
mod layer;
mod module;
mod neuron;
mod signal;
pub mod surrogate;
pub mod train;

pub use autograd::{gradcheck, replace_for_grad, Context, Function, GradcheckConfig, Tensors};
pub use error::{Error, Result};
pub use layer::{
    with_parameters, ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Dropout, Dropout2d, Flatten,
    GradWithTrace, Identity, MaxPool2d, OtttSequential, PoolConfig, Scale, SpikeTraceOp, WithParameters,
    WsConv2d, WsConv2dConfig, WsLinear, WsLinearConfig,
};
pub use module::{Layer, Memory, OnlineModule, Parameter};
pub use neuron::{OtttLifConfig, OtttLifNode, SlttLifConfig, SlttLifNode};
pub use signal::Signal;
