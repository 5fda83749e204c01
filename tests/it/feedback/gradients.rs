//! Gradients by explicit sums over the time steps, and of the network unrolled.

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::surrogate::{spike, Sigmoid};
use spiketrace::train::{bptt_training, ottt_online_training, sltt_k_training, Update};
use spiketrace::Part;
use tch::{Kind, Tensor};

use super::{setting, Rule, Setting, BATCH, TIME_STEPS};
use crate::common::{mse, DOUBLE};
use crate::parity::fixture::relative_difference;

/// The derivative of the sigmoid surrogate, alpha 4.
fn slope(over: &Tensor) -> Tensor {
    let s = (over * 4.0).sigmoid();
    &s * (1.0 - &s) * 4.0
}

/// One LIF layer by hand: potential and trace.
struct Cell {
    rule: Rule,
    v: Tensor,
    a: Tensor,
    /// What the trace is multiplied by on its way to the next step.
    fading: Tensor,
}

impl Cell {
    fn new(rule: Rule, size: i64) -> Self {
        let [v, a, fading] = [0.0, 0.0, 0.5].map(|value| Tensor::full([BATCH, size], value, DOUBLE));
        Self { rule, v, a, fading: if rule == Rule::Sltt { fading * 0.0 } else { fading } }
    }

    /// Spike, and how far the potential was over the threshold.
    fn step(&mut self, u: &Tensor) -> (Tensor, Tensor) {
        let over = &self.v * 0.5 + u - 0.5;
        let s = over.ge(0.0).to_kind(Kind::Double);
        let v = &over + 0.5 - &s * 0.5;
        self.a = &self.a * &self.fading + &s;
        if self.rule == Rule::Ndot {
            let rests = self.v.eq(0.0);
            self.fading = (&v / &self.v).clamp(-0.5, 0.5).masked_fill(&rests, 0.5);
        }
        self.v = v;
        (s, over)
    }
}

/// Sums over the time steps `learned` of outer products of explicit gradients and traces.
fn explicit_sums(s: &Setting, rule: Rule, learned: &[i64]) -> Vec<(&'static str, Tensor, Tensor)> {
    let of = s.weights();
    let layer = |name: &str, x: &Tensor| x.linear(&of(name).0.detach(), Some(of(name).1.detach()));
    let w = |name: &str| of(name).0.detach();
    let (mut first, mut second) = (Cell::new(rule, 8), Cell::new(rule, 6));
    let mut grads: Vec<_> = s
        .layers()
        .into_iter()
        .map(|name| (name, of(name).0.detach().zeros_like(), of(name).1.detach().zeros_like()))
        .collect();
    let mut before: Option<(Tensor, Tensor)> = None;
    for t in 0..TIME_STEPS {
        let x = s.x.select(1, t);
        let mut u = layer("in", &x);
        if let Some((spike, _)) = &before {
            u += layer("back", spike);
        }
        let (mut spikes, over) = first.step(&u);
        let mut trace = first.a.shallow_clone();
        let mut over_2 = None;
        if s.deep {
            let (deeper, over) = second.step(&layer("between", &spikes));
            (spikes, trace, over_2) = (deeper, second.a.shallow_clone(), Some(over));
        }
        let y = layer("out", &spikes);
        let g_out = (&y - s.target.select(1, t)) * (2.0 / y.numel() as f64);
        let mut g = g_out.matmul(&w("out"));
        let mut add = |name: &str, g: &Tensor, a: &Tensor| {
            if !learned.contains(&t) {
                return;
            }
            let (_, weight, bias) = grads.iter_mut().find(|entry| entry.0 == name).unwrap();
            *weight += g.tr().matmul(a);
            *bias += g.sum_dim_intlist(0i64, false, Kind::Double);
        };
        add("out", &g_out, &trace);
        if let Some(over_2) = over_2 {
            g *= slope(&over_2);
            add("between", &g, &first.a);
            g = g.matmul(&w("between"));
        }
        g *= slope(&over);
        add("in", &g, &x);
        if let Some((_, trace)) = &before {
            add("back", &g, trace);
        }
        before = Some((spikes, trace));
    }
    grads
}

#[rstest]
fn gradients_are_the_explicit_sums(
    #[values(false, true)] deep: bool,
    #[values(Rule::Ottt, Rule::Ndot, Rule::Sltt)] rule: Rule,
    #[values(FastPaths::default(), FastPaths::NONE)] paths: FastPaths,
) {
    let mut s = setting(deep, rule);
    let expected = explicit_sums(&s, rule, &Vec::from_iter(0..TIME_STEPS));
    let mut sgd = s.sgd(0.0);
    let update = Update::EndOfSequence;
    with_fast_paths(paths, || {
        ottt_online_training(&mut s.net, &mut sgd, &s.x, &s.target, mse, update).unwrap()
    });
    let variables = s.vs.variables();
    for (name, weight, bias) in expected {
        assert!(weight.abs().max().double_value(&[]) > 0.0, "{name} says nothing");
        for (part, expected) in [("weight", weight), ("bias", bias)] {
            let difference = relative_difference(&variables[&format!("{name}.{part}")].grad(), &expected);
            assert!(difference < 1e-10, "{name}.{part} differs by {difference:e}");
        }
    }
}

#[rstest]
fn sltt_k_goes_on_through_the_steps_it_leaves_out(#[values(false, true)] deep: bool) {
    let mut s = setting(deep, Rule::Sltt);
    let mut sgd = s.sgd(0.0);
    for _ in 0..4 {
        sltt_k_training(&mut s.net, &mut sgd, &s.x, &s.target, mse, 1).unwrap();
        s.net.reset();
        let variables = s.vs.variables();
        let fits = |t: &i64| {
            explicit_sums(&s, Rule::Sltt, &[*t]).into_iter().all(|(name, weight, _)| {
                let grad = variables[&format!("{name}.weight")].grad();
                // Nothing comes back at the first step.
                if grad.defined() {
                    relative_difference(&grad, &weight) < 1e-10
                } else {
                    *t == 0
                }
            })
        };
        assert_eq!((0..TIME_STEPS).filter(fits).count(), 1, "the gradient is that of one step");
    }
}

#[rstest]
fn backpropagation_through_time_goes_through_the_feedback(#[values(false, true)] deep: bool) {
    let mut s = setting(deep, Rule::Ottt);
    let of = s.weights();
    let layer = |name: &str, x: &Tensor| x.linear(&of(name).0, Some(of(name).1));
    let fire = |v: &mut Tensor, u: Tensor| {
        let h = &*v * 0.5 + u;
        let spikes = spike(&(&h - 0.5), Sigmoid::default()).unwrap();
        *v = h - spikes.detach() * 0.5;
        spikes
    };
    let (mut u, mut v) = (Tensor::zeros([BATCH, 8], DOUBLE), Tensor::zeros([BATCH, 6], DOUBLE));
    let (mut loss, mut before) = (Tensor::zeros([], DOUBLE), None);
    for t in 0..TIME_STEPS {
        let mut x = layer("in", &s.x.select(1, t));
        if let Some(before) = &before {
            x += layer("back", before);
        }
        let mut spikes = fire(&mut u, x);
        if deep {
            spikes = fire(&mut v, layer("between", &spikes));
        }
        loss += mse(&layer("out", &spikes), &s.target.select(1, t)).unwrap();
        before = Some(spikes);
    }
    loss.backward();
    let mut sgd = s.sgd(0.0);
    let out = bptt_training(&mut s.net, &mut sgd, &s.x, &s.target, mse).unwrap();
    assert!(relative_difference(&out.loss, &loss) < 1e-12);
    for name in s.layers() {
        let grad = s.vs.variables()[&format!("{name}.weight")].grad();
        let difference = relative_difference(&grad, &of(name).0.grad());
        assert!(difference < 1e-10, "{name} differs by {difference:e}");
    }
    assert!(s.net.memories().into_iter().filter_map(|m| m.get()).all(|memory| !memory.requires_grad()));
}
