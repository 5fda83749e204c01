//! The wrappers around layers, and dropout.

use spiketrace::{
    with_parameters, ws_conv2d, ws_linear, AdaptiveAvgPool2d, AvgPool2d, Dropout, Dropout2d, Flatten,
    GradWithTrace, Layer, MaxPool2d, OnlineModule, PoolConfig, Signal, SpikeTraceOp, Variable,
    WsConv2dConfig, WsLinearConfig,
};
use tch::nn::{self, VarStore};
use tch::{Device, Kind, Tensor};

use super::fixture::{backward, Case};

pub fn replace_for_grad(case: &mut Case) {
    let (x, x_r) = (case.leaf("x"), case.leaf("x_r"));
    let y = spiketrace::replace_for_grad(&x, &x_r).unwrap();
    backward(&y, &case.get("upstream"));
    case.value("y", &y);
    case.gradient("grad_x", &x.grad());
    case.gradient("grad_x_r", &x_r.grad());
}

/// Variables of the case's kind.
pub fn var_store(case: &Case) -> VarStore {
    let mut vs = VarStore::new(Device::Cpu);
    vs.set_kind(case.kind);
    vs
}

pub fn grad_with_trace(case: &mut Case) {
    let vs = var_store(case);
    let p = vs.root();
    let pixels = |case: &Case| (case.number("kernel_size") as i64, case.number("padding") as i64);
    match &*case.name.clone() {
        name @ ("linear" | "linear_no_bias") => {
            let bias = name == "linear";
            let linear = nn::linear(p, 5, 7, nn::LinearConfig { bias, ..Default::default() });
            through(case, linear);
        }
        "conv2d" => {
            let (ksize, padding) = pixels(case);
            let stride = case.number("stride") as i64;
            let config = nn::ConvConfig { stride, padding, ..Default::default() };
            through(case, nn::conv2d(p, 3, 4, ksize, config));
        }
        "ws_conv2d" => {
            let (ksize, padding) = pixels(case);
            let config = WsConv2dConfig { padding, eps: case.number("eps"), ..Default::default() };
            through(case, ws_conv2d(p, 3, 4, ksize, config).unwrap());
        }
        "ws_linear" => {
            let config = WsLinearConfig { eps: case.number("eps"), ..Default::default() };
            through(case, ws_linear(p, 5, 7, config).unwrap());
        }
        "batch_norm2d" => {
            let (eps, momentum) = (case.number("eps"), case.number("momentum"));
            let mut vs = VarStore::new(Device::Cpu);
            let config = nn::BatchNormConfig { eps, momentum, ..Default::default() };
            let norm = nn::batch_norm2d(vs.root(), 3, config);
            // tch makes the running statistics in single precision, whatever the VarStore's kind.
            if case.kind == Kind::Double {
                vs.double();
            }
            let statistics = [
                ("running_mean", norm.running_mean.shallow_clone()),
                ("running_var", norm.running_var.shallow_clone()),
            ];
            for (name, tensor) in &statistics {
                tensor.shallow_clone().copy_(&case.get(&format!("before.{name}")));
            }
            through(case, norm);
            for (name, tensor) in &statistics {
                case.value(&format!("after.{name}"), tensor);
            }
        }
        "sequential" => {
            let first = nn::linear(&p / "0", 5, 7, Default::default());
            let last = nn::linear(&p / "2", 7, 4, Default::default());
            let parameters = vec![
                Variable::parameter("0.weight", &first.ws),
                Variable::parameter("0.bias", first.bs.as_ref().unwrap()),
                Variable::parameter("2.weight", &last.ws),
                Variable::parameter("2.bias", last.bs.as_ref().unwrap()),
            ];
            let block = nn::seq().add(first).add_fn(Tensor::relu).add(last);
            through(case, with_parameters("Sequential", block, parameters));
        }
        name => panic!("nothing replays {name}"),
    }
}

/// One step through `GradWithTrace` and back.
fn through(case: &mut Case, module: impl Layer) {
    let parameters = module.parameters();
    case.set(&parameters);
    let (spike, trace) = (case.leaf("spike"), case.leaf("trace"));
    let pair = Signal::SpikeTrace { spike: spike.shallow_clone(), trace: trace.shallow_clone() };
    let y = GradWithTrace::new(module).step(&pair, true).unwrap().into_value();
    backward(&y, &case.get("upstream"));
    case.value("y", &y);
    case.gradient("grad_spike", &spike.grad());
    case.gradient("grad_trace", &trace.grad());
    for parameter in parameters {
        case.gradient(&format!("grad.{}", parameter.name), &parameter.tensor.grad());
    }
}

pub fn spike_trace_op(case: &mut Case) {
    let pool = |case: &Case| {
        let stride = Some(case.number("stride") as i64);
        (case.number("kernel_size") as i64, PoolConfig { stride, ..Default::default() })
    };
    match &*case.name.clone() {
        "avg_pool2d" => {
            let (ksize, config) = pool(case);
            on_both(case, AvgPool2d::new(ksize, config).unwrap());
        }
        "max_pool2d" => {
            let (ksize, config) = pool(case);
            on_both(case, MaxPool2d::new(ksize, config).unwrap());
        }
        "adaptive_avg_pool2d" => {
            let size = case.number("output_size") as i64;
            on_both(case, AdaptiveAvgPool2d::new([size; 2]).unwrap());
        }
        "flatten" => {
            let (start_dim, end_dim) = (case.number("start_dim") as i64, case.number("end_dim") as i64);
            on_both(case, Flatten { start_dim, end_dim });
        }
        "dropout" => {
            let mut dropout = Dropout::new(case.number("p")).unwrap();
            dropout.set_mask(&case.get("mask"));
            on_both(case, dropout);
        }
        name => panic!("nothing replays {name}"),
    }
}

/// One step through `SpikeTraceOp` and back.
fn on_both(case: &mut Case, module: impl Layer) {
    let (spike, trace) = (case.leaf("spike"), case.leaf("trace"));
    let pair = Signal::SpikeTrace { spike: spike.shallow_clone(), trace: trace.shallow_clone() };
    let out = SpikeTraceOp::new(module).step(&pair, true).unwrap();
    assert!(!out.trace().unwrap().requires_grad(), "the trace has no gradient");
    case.value("out_spike", out.value());
    case.value("out_trace", out.trace().unwrap());
    backward(out.value(), &case.get("upstream"));
    case.gradient("grad_spike", &spike.grad());
}

pub fn dropout(case: &mut Case) {
    let (p, mask) = (case.number("p"), case.get("mask"));
    match &*case.name.clone() {
        "dropout" => {
            let mut dropout = Dropout::new(p).unwrap();
            dropout.set_mask(&mask);
            three_steps(case, dropout);
        }
        "dropout2d" => {
            let mut dropout = Dropout2d::new(p).unwrap();
            dropout.set_mask(&mask);
            three_steps(case, dropout);
        }
        name => panic!("nothing replays {name}"),
    }
}

fn three_steps(case: &mut Case, mut module: impl Layer) {
    let x = case.leaf("x");
    let steps: Vec<_> = (0..3).map(|t| module.forward(&x.get(t), true).unwrap()).collect();
    let y = Tensor::stack(&steps, 0);
    backward(&y, &case.get("upstream"));
    case.value("y", &y);
    case.gradient("grad_x", &x.grad());
}
