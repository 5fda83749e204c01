//! OTTT's gradient by explicit sums, without autograd, against the whole machinery.
//!
//! The oracle knows only formulas: LIF dynamics, traces, the sigmoid's derivative, and
//! dL/dW_l = Σ_t δ_l(t)^T a_{l-1}(t) with δ_l(t) = (δ_{l+1}(t) W_{l+1}) ∘ c h(u_l(t) - v_threshold).

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use spiketrace::surrogate::Sigmoid;
use spiketrace::train::{ottt_online_training, Update};
use spiketrace::{
    OnlineModule, OtttLifConfig, OtttLifNode, OtttSequential, Part, SlttLifConfig, SlttLifNode,
};
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

use crate::common::{fill, mse, numbers, DOUBLE};
use crate::parity::fixture::relative_difference;

/// A random fully connected network and a random batch of sequences.
struct Setting {
    widths: Vec<i64>,
    tau: f64,
    decay_input: bool,
    v_threshold: f64,
    v_reset: Option<f64>,
    alpha: f64,
    /// [B, T, in] and [B, T, out].
    x: Tensor,
    target: Tensor,
}

fn random_setting(seed: u64) -> Setting {
    let mut rng = StdRng::seed_from_u64(seed);
    let widths: Vec<i64> = (0..rng.gen_range(2..6)).map(|_| rng.gen_range(1..9)).collect();
    let (batch, steps) = (rng.gen_range(1..5), rng.gen_range(1..9));
    let (first, last) = (widths[0], widths[widths.len() - 1]);
    Setting {
        tau: rng.gen_range(1.0..6.0),
        decay_input: rng.gen(),
        v_threshold: rng.gen_range(0.2..1.2),
        v_reset: rng.gen::<bool>().then(|| rng.gen_range(-0.5..0.1)),
        alpha: rng.gen_range(1.0..5.0),
        x: numbers(&[batch, steps, first], seed as usize) * 3.0,
        target: numbers(&[batch, steps, last], seed as usize + 1),
        widths,
    }
}

/// Linear layers with LIF nodes between them, the last one a readout.
fn network(setting: &Setting) -> (VarStore, OtttSequential) {
    let mut vs = VarStore::new(Device::Cpu);
    vs.set_kind(Kind::Double);
    let mut net = OtttSequential::new();
    for (l, pair) in setting.widths.windows(2).enumerate() {
        if l > 0 {
            let config = OtttLifConfig {
                tau: setting.tau,
                decay_input: setting.decay_input,
                v_threshold: setting.v_threshold,
                v_reset: setting.v_reset,
                surrogate: std::sync::Arc::new(Sigmoid { alpha: setting.alpha }),
            };
            net = net.add(OtttLifNode::new(config).unwrap());
        }
        net = net.add(nn::linear(vs.root() / l, pair[0], pair[1], Default::default()));
    }
    fill(&net, 1.0);
    (vs, net)
}

/// Weights and biases, layer after layer, by the containers' own list.
fn weights(net: &OtttSequential) -> Vec<Tensor> {
    net.parameters().into_iter().map(|p| p.tensor).collect()
}

/// What OTTT defines, written out: the loss's gradients per parameter for one time step and new states.
struct Oracle<'a> {
    setting: &'a Setting,
    v: Vec<Tensor>,
    trace: Vec<Tensor>,
}

impl<'a> Oracle<'a> {
    fn new(setting: &'a Setting) -> Self {
        let batch = setting.x.size()[0];
        let hidden = &setting.widths[1..setting.widths.len() - 1];
        let rest = setting.v_reset.unwrap_or(0.0);
        Self {
            setting,
            v: hidden.iter().map(|&n| Tensor::full([batch, n], rest, DOUBLE)).collect(),
            trace: hidden.iter().map(|&n| Tensor::zeros([batch, n], DOUBLE)).collect(),
        }
    }

    /// Gradients of the mean square error at step `t`, in the order weight, bias, weight, bias ...
    fn step(&mut self, weights: &[Tensor], t: i64) -> Vec<Tensor> {
        let Setting { tau, decay_input, v_threshold, v_reset, alpha, .. } = *self.setting;
        let layers = weights.len() / 2;
        let x = self.setting.x.select(1, t);
        let mut presynaptic = vec![x.copy()]; // what each weight's gradient sees
        let mut slopes = Vec::new(); // ds/dI of each hidden layer
        let mut input = x;
        for l in 0..layers - 1 {
            let current = input.matmul(&weights[2 * l].tr()) + &weights[2 * l + 1];
            let v = &self.v[l];
            let above_rest = v - v_reset.unwrap_or(0.0);
            let (u, gain) = if decay_input {
                (v + (&current - above_rest) / tau, 1.0 / tau)
            } else {
                (v - above_rest / tau + &current, 1.0)
            };
            let spike = u.ge(v_threshold).to_kind(Kind::Double);
            // The sigmoid's derivative, without the digits that 1 - sigmoid loses far above the threshold.
            let e = ((&u - v_threshold).abs() * -alpha).exp();
            slopes.push(&e / (&e + 1.0).square() * (alpha * gain));
            self.v[l] = match v_reset {
                None => &u - &spike * v_threshold,
                Some(v_reset) => (1.0 - &spike) * &u + &spike * v_reset,
            };
            self.trace[l] = &self.trace[l] * (1.0 - 1.0 / tau) + &spike;
            presynaptic.push(self.trace[l].copy());
            input = spike;
        }
        let y = input.matmul(&weights[2 * layers - 2].tr()) + &weights[2 * layers - 1];
        let target = self.setting.target.select(1, t);
        let mut delta = (&y - target) * (2.0 / y.numel() as f64);
        let mut grads = Vec::new();
        for l in (0..layers).rev() {
            grads.push(delta.sum_dim_intlist(0i64, false, None::<Kind>));
            grads.push(delta.tr().matmul(&presynaptic[l]));
            if l > 0 {
                delta = delta.matmul(&weights[2 * l]) * &slopes[l - 1];
            }
        }
        grads.reverse();
        grads
    }
}

fn assert_all_close(what: &str, got: &[Tensor], expected: &[Tensor]) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let difference = relative_difference(got, expected);
        assert!(difference <= 1e-10, "{what}: parameter {i} differs by {difference:e}");
    }
}

#[rstest]
fn accumulated_gradients_are_the_explicit_sums(#[values(0, 1, 2, 3)] block: u64) {
    for seed in block * 10..block * 10 + 10 {
        let setting = random_setting(seed);
        let (vs, mut net) = network(&setting);
        let before: Vec<Tensor> = weights(&net).iter().map(|w| w.detach().copy()).collect();
        let mut sgd = nn::Sgd::default().build(&vs, 0.1).unwrap();
        let (x, target) = (&setting.x, &setting.target);
        ottt_online_training(&mut net, &mut sgd, x, target, mse, Update::EndOfSequence).unwrap();

        let mut oracle = Oracle::new(&setting);
        let mut sums: Vec<Tensor> = before.iter().map(Tensor::zeros_like).collect();
        for t in 0..x.size()[1] {
            sums.iter_mut().zip(oracle.step(&before, t)).for_each(|(sum, grad)| *sum += grad);
        }
        let got: Vec<Tensor> = weights(&net).iter().map(Tensor::grad).collect();
        assert_all_close(&format!("seed {seed}"), &got, &sums);
    }
}

#[rstest]
fn weights_moved_at_every_step_follow_the_explicit_gradients(#[values(0, 1)] block: u64) {
    for seed in 100 + block * 10..110 + block * 10 {
        let setting = random_setting(seed);
        let (vs, mut net) = network(&setting);
        let mut expected: Vec<Tensor> = weights(&net).iter().map(|w| w.detach().copy()).collect();
        let mut sgd = nn::Sgd::default().build(&vs, 0.1).unwrap();
        let (x, target) = (&setting.x, &setting.target);
        ottt_online_training(&mut net, &mut sgd, x, target, mse, Update::EveryStep).unwrap();

        let mut oracle = Oracle::new(&setting);
        for t in 0..x.size()[1] {
            let grads = oracle.step(&expected, t);
            expected.iter_mut().zip(grads).for_each(|(w, grad)| *w -= grad * 0.1);
        }
        let got: Vec<Tensor> = weights(&net).iter().map(Tensor::detach).collect();
        assert_all_close(&format!("seed {seed}"), &got, &expected);
    }
}

/// One step knows no past: the trace is the spike, and OTTT is backpropagation.
#[test]
fn a_single_step_equals_plain_backpropagation() {
    for seed in 200..230 {
        let mut setting = random_setting(seed);
        setting.x = setting.x.narrow(1, 0, 1);
        setting.target = setting.target.narrow(1, 0, 1);
        let (vs, mut net) = network(&setting);
        let mut sgd = nn::Sgd::default().build(&vs, 0.0).unwrap();
        let (x, target) = (&setting.x, &setting.target);
        ottt_online_training(&mut net, &mut sgd, x, target, mse, Update::EndOfSequence).unwrap();
        let got: Vec<Tensor> = weights(&net).iter().map(|w| w.grad().copy()).collect();

        let weights = weights(&net);
        let mut h = x.select(1, 0);
        let rest = setting.v_reset.unwrap_or(0.0);
        for (l, pair) in weights.chunks(2).enumerate() {
            if l > 0 {
                let charge = if setting.decay_input { h / setting.tau } else { h };
                let over: Tensor = charge + (rest - setting.v_threshold);
                h = spiketrace::surrogate::spike(&over, Sigmoid { alpha: setting.alpha }).unwrap();
            }
            h = h.linear(&pair[0], Some(&pair[1]));
        }
        let loss = mse(&h, &target.select(1, 0)).unwrap();
        let expected = Tensor::run_backward(&[loss], &weights, false, false);
        assert_all_close(&format!("seed {seed}"), &got, &expected);
    }
}

/// With tau = 1 a trace forgets at once, and nothing is left of the membrane but the input.
#[test]
fn with_tau_1_ottt_equals_sltt() {
    for seed in 300..330 {
        let setting = Setting { tau: 1.0, ..random_setting(seed) };
        let (x, target) = (&setting.x, &setting.target);
        let (vs, mut ottt) = network(&setting);
        let mut sgd = nn::Sgd::default().build(&vs, 0.0).unwrap();
        ottt_online_training(&mut ottt, &mut sgd, x, target, mse, Update::EndOfSequence).unwrap();
        let expected: Vec<Tensor> = weights(&ottt).iter().map(|w| w.grad().copy()).collect();

        let mut sltt = OtttSequential::new();
        for (l, pair) in weights(&ottt).chunks(2).enumerate() {
            if l > 0 {
                let config = SlttLifConfig {
                    tau: 1.0,
                    decay_input: setting.decay_input,
                    v_threshold: setting.v_threshold,
                    v_reset: setting.v_reset,
                    surrogate: std::sync::Arc::new(Sigmoid { alpha: setting.alpha }),
                };
                sltt = sltt.add(SlttLifNode::new(config).unwrap());
            }
            let (ws, bs) = (pair[0].shallow_clone(), Some(pair[1].shallow_clone()));
            sltt = sltt.add(nn::Linear { ws, bs });
        }
        ottt_online_training(&mut sltt, &mut sgd, x, target, mse, Update::EndOfSequence).unwrap();
        let got: Vec<Tensor> = weights(&sltt).iter().map(Tensor::grad).collect();
        assert_all_close(&format!("seed {seed}"), &got, &expected);
    }
}

/// The membrane is carried on as data: a loss at the second step does not reach the first input.
#[test]
fn no_gradient_flows_back_through_time() {
    let mut node = OtttLifNode::new(Default::default()).unwrap();
    let first = Tensor::rand([4], DOUBLE).set_requires_grad(true);
    let second = Tensor::rand([4], DOUBLE).set_requires_grad(true);
    node.step(&(&first).into(), true).unwrap();
    let out = node.step(&(&second).into(), true).unwrap();
    out.value().sum(Kind::Double).backward();
    assert!(!first.grad().defined());
    assert!(second.grad().abs().min().double_value(&[]) > 0.0);
}
