//! Backpropagation through time against the same network unrolled by hand.

use rstest::rstest;
use spiketrace::surrogate::{spike, Sigmoid};
use spiketrace::train::{bptt_training, ottt_online_training, Optimizer, Sgd, SgdConfig, Update};
use spiketrace::{OtttLifConfig, OtttLifNode, OtttSequential, Part, SlttLifConfig, SlttLifNode};
use tch::nn::{self, VarStore};
use tch::{Device, Tensor};

use crate::common::{mse, DOUBLE};
use crate::parity::fixture::relative_difference;

struct Setting {
    vs: VarStore,
    net: OtttSequential,
    x: Tensor,
    target: Tensor,
}

fn setting(time_steps: i64) -> Setting {
    let mut vs = VarStore::new(Device::Cpu);
    let p = vs.root();
    let ottt = OtttLifConfig { tau: 3.0, v_threshold: 0.4, ..Default::default() };
    let sltt = SlttLifConfig { v_threshold: 0.2, v_reset: Some(-0.1), ..Default::default() };
    let net = OtttSequential::new()
        .add(nn::linear(&p / 0, 5, 8, Default::default()))
        .add(OtttLifNode::new(ottt).unwrap())
        .add(nn::linear(&p / 1, 8, 6, Default::default()))
        .add(SlttLifNode::new(sltt).unwrap())
        .add(nn::linear(&p / 2, 6, 2, Default::default()));
    vs.double();
    Setting {
        vs,
        net,
        x: Tensor::randn([3, time_steps, 5], DOUBLE) * 2.0,
        target: Tensor::randn([3, time_steps, 2], DOUBLE),
    }
}

/// Loss and gradients of the network written out, with nothing cut.
fn unrolled(s: &Setting) -> (Tensor, Vec<Tensor>) {
    let parameters: Vec<Tensor> =
        s.net.parameters().iter().map(|p| p.tensor.detach().set_requires_grad(true)).collect();
    let linear = |i: usize, x: &Tensor| x.linear(&parameters[2 * i], Some(&parameters[2 * i + 1]));
    let mut loss = Tensor::zeros([], DOUBLE);
    let (mut u, mut v) = (Tensor::zeros([3, 8], DOUBLE), Tensor::full([3, 6], -0.1, DOUBLE));
    for t in 0..s.x.size()[1] {
        let h = &u - &u / 3.0 + linear(0, &s.x.select(1, t));
        let a = spike(&(&h - 0.4), Sigmoid::default()).unwrap();
        u = h - a.detach() * 0.4;
        let h = &v + (linear(1, &a) - (&v + 0.1)) / 2.0;
        let b = spike(&(&h - 0.2), Sigmoid::default()).unwrap();
        v = h * (1.0 - b.detach()) - b.detach() * 0.1;
        loss += mse(&linear(2, &b), &s.target.select(1, t)).unwrap();
    }
    loss.backward();
    (loss.detach(), parameters.iter().map(Tensor::grad).collect())
}

#[rstest]
fn gradients_are_those_of_the_unrolled_network(#[values(1, 2, 7)] time_steps: i64) {
    let mut s = setting(time_steps);
    let (loss, grads) = unrolled(&s);
    let mut sgd = Sgd::new(&s.vs.trainable_variables(), SgdConfig { lr: 0.0, ..Default::default() }).unwrap();
    let out = bptt_training(&mut s.net, &mut sgd, &s.x, &s.target, mse).unwrap();
    assert!(relative_difference(&out.loss, &loss) < 1e-12);
    assert_eq!(out.outputs.size(), [3, time_steps, 2]);
    for (p, expected) in s.net.parameters().iter().zip(&grads) {
        let difference = relative_difference(&p.tensor.grad(), expected);
        assert!(difference < 1e-10, "{} differs by {difference:e}", p.name);
    }
    assert!(s.net.memories().into_iter().filter_map(|m| m.get()).all(|memory| !memory.requires_grad()));
}

#[rstest]
#[case::one_step(1, true)]
#[case::several(6, false)]
fn one_step_is_online_training_and_several_are_not(#[case] time_steps: i64, #[case] same: bool) {
    let mut s = setting(time_steps);
    let mut sgd = Sgd::new(&s.vs.trainable_variables(), SgdConfig { lr: 0.0, ..Default::default() }).unwrap();
    bptt_training(&mut s.net, &mut sgd, &s.x, &s.target, mse).unwrap();
    let first = s.net.parameters()[0].tensor.grad().copy();
    s.net.reset();
    sgd.zero_grad().unwrap();
    ottt_online_training(&mut s.net, &mut sgd, &s.x, &s.target, mse, Update::EndOfSequence).unwrap();
    let difference = relative_difference(&s.net.parameters()[0].tensor.grad(), &first);
    assert_eq!(difference < 1e-10, same, "{difference:e}");
}
