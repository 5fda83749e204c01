//! Layers, and the wrappers and the container that carry spikes with their traces through them.

mod check;
mod dropout;
mod feedback;
mod from_tch;
mod grad_with_trace;
mod layout;
mod online;
mod plan;
mod pool;
mod residual;
mod rounded;
mod script_module;
mod sequential;
mod shape;
mod slot;
mod spike_trace_op;
mod standardize;
mod ws;

pub use dropout::{Dropout, Dropout2d};
pub use feedback::Feedback;
pub use from_tch::{with_parameters, WithParameters};
pub use grad_with_trace::GradWithTrace;
pub use pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d, PoolConfig};
pub use residual::Residual;
pub use script_module::{ScriptConfig, ScriptModule};
pub use sequential::OtttSequential;
pub use shape::{Flatten, Identity, Scale};
pub use spike_trace_op::SpikeTraceOp;
pub use ws::{ws_conv2d, ws_linear, WsConv2d, WsConv2dConfig, WsLinear, WsLinearConfig};
