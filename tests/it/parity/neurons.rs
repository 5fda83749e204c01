//! Both nodes, step by step, and the surrogates.

use std::sync::Arc;

use spiketrace::surrogate::*;
use spiketrace::{OnlineModule, OtttLifConfig, OtttLifNode, SlttLifConfig, SlttLifNode};
use tch::Tensor;

use super::fixture::{backward, Case};

pub fn ottt_node(case: &mut Case) {
    let make = |case: &Case| {
        let config = OtttLifConfig {
            tau: case.number("tau"),
            decay_input: case.flag("decay_input"),
            v_threshold: case.number("v_threshold"),
            v_reset: case.option("v_reset"),
            ..Default::default()
        };
        OtttLifNode::new(config).unwrap()
    };
    eight_steps(case, make, |node| node.v().unwrap().copy());
}

pub fn sltt_node(case: &mut Case) {
    let make = |case: &Case| {
        let config = SlttLifConfig {
            tau: case.number("tau"),
            decay_input: case.flag("decay_input"),
            v_threshold: case.number("v_threshold"),
            v_reset: case.option("v_reset"),
            ..Default::default()
        };
        SlttLifNode::new(config).unwrap()
    };
    eight_steps(case, make, |node| node.v().unwrap().copy());
}

/// Eight steps of training, each with its own backward, and of evaluation.
fn eight_steps<N: OnlineModule>(case: &mut Case, make: fn(&Case) -> N, v: fn(&N) -> Tensor) {
    let (mut node, mut fresh) = (make(case), make(case));
    let (x_seq, upstream) = (case.get("x"), case.get("upstream"));
    let names = ["spike", "v", "eval_spike", "eval_v", "grad_x"];
    let mut steps: [Vec<Tensor>; 5] = Default::default();
    let mut traces = Vec::new();
    for t in 0..x_seq.size()[0] {
        let x = x_seq.get(t).copy().set_requires_grad(true);
        let out = node.step(&(&x).into(), true).unwrap();
        backward(out.value(), &upstream.get(t));
        let quiet = fresh.step(&x_seq.get(t).into(), false).unwrap();
        assert!(quiet.trace().is_none(), "evaluation needs no trace");
        traces.extend(out.trace().map(Tensor::copy));
        let now = [out.value().detach(), v(&node), quiet.into_value(), v(&fresh), x.grad()];
        steps.iter_mut().zip(now).for_each(|(all, now)| all.push(now));
    }
    for (name, steps) in names.iter().zip(&steps) {
        let got = Tensor::stack(steps, 0);
        match *name {
            "grad_x" => case.gradient(name, &got),
            _ => case.value(name, &got),
        }
    }
    if case.has("trace") {
        case.value("trace", &Tensor::stack(&traces, 0));
    }
}

pub fn surrogate(case: &mut Case) {
    let surrogate = by_name(case);
    let x = case.leaf("x");
    let y = spike(&x, surrogate).unwrap();
    backward(&y, &case.get("upstream"));
    case.value("y", &y);
    case.gradient("grad_x", &x.grad());
}

/// The case `<Class>` must be ours by default, `<Class>_other` has other parameters.
fn by_name(case: &Case) -> Arc<dyn Surrogate> {
    let class = case.name.trim_end_matches("_other");
    let by_default = class == case.name;
    macro_rules! made {
        ($type:ident { $($field:ident = $value:expr),* }) => {{
            let surrogate = $type { $($field: $value),* };
            assert!(!by_default || surrogate == $type::default(), "{class}'s defaults differ");
            Arc::new(surrogate)
        }};
    }
    let number = |name| case.number(name);
    match class {
        "PiecewiseQuadratic" => made!(PiecewiseQuadratic { alpha = number("alpha") }),
        "PiecewiseExp" => made!(PiecewiseExp { alpha = number("alpha") }),
        "Sigmoid" => made!(Sigmoid { alpha = number("alpha") }),
        "SoftSign" => made!(SoftSign { alpha = number("alpha") }),
        "SuperSpike" => made!(SuperSpike { alpha = number("alpha") }),
        "ATan" => made!(ATan { alpha = number("alpha") }),
        "NonzeroSignLogAbs" => made!(NonzeroSignLogAbs { alpha = number("alpha") }),
        "Erf" => made!(Erf { alpha = number("alpha") }),
        "S2NN" => made!(S2nn { alpha = number("alpha"), beta = number("beta") }),
        "PiecewiseLeakyReLU" => made!(PiecewiseLeakyReLU { w = number("w"), c = number("c") }),
        "QPseudoSpike" => made!(QPseudoSpike { alpha = number("alpha") }),
        "SquarewaveFourierSeries" => {
            made!(SquarewaveFourierSeries { n = number("n") as u32, t_period = number("T_period") })
        }
        "LeakyKReLU" => made!(LeakyKReLU { leak = number("leak"), k = number("k") }),
        "FakeNumericalGradient" => made!(FakeNumericalGradient { alpha = number("alpha") }),
        "LogTailedReLU" => made!(LogTailedReLU { alpha = number("alpha") }),
        "Rect" => made!(Rect { alpha = number("alpha") }),
        "DeterministicPass" => made!(DeterministicPass {}),
        "MultiLevelSpikeCount" => {
            let ends = case.setting("grad_window").as_array();
            let grad_window = ends.map(|w| (w[0].as_f64().unwrap(), w[1].as_f64().unwrap()));
            Arc::new(MultiLevelSpikeCount { max_spike_count: number("max_spike_count") as u32, grad_window })
        }
        name => panic!("nothing replays {name}"),
    }
}
