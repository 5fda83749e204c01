//! The fused neuron step held to the composed one: the same values to the bit, the same gradients.

use std::sync::Arc;

use rstest::rstest;
use spiketrace::setting::{with_fast_paths, FastPaths};
use spiketrace::surrogate::*;
use spiketrace::{
    OnlineModule, OtttLifConfig, OtttLifNode, OtttSequential, Part, Pass, Result, Scale, SlttLifConfig,
    SlttLifNode,
};
use tch::{Device, Kind, Tensor};

const COMPOSED: FastPaths = FastPaths { fused_neuron: false, ..FastPaths::NONE };

/// Everything that five steps lead to.
struct Run {
    values: Vec<Tensor>,
    grads: Vec<Tensor>,
}

fn run<N: OnlineModule>(mut node: N, v: fn(&N) -> Tensor, x: &[Tensor], paths: FastPaths) -> Run {
    let mut run = Run { values: Vec::new(), grads: Vec::new() };
    with_fast_paths(paths, || {
        for (t, x) in x.iter().enumerate() {
            let x = x.detach().set_requires_grad(t != 3);
            // One step without gradients and one in evaluation are among them.
            let out = node.step(&(&x).into(), t != 4).unwrap();
            run.values.extend([out.value().detach(), v(&node)]);
            run.values.extend(out.trace().map(Tensor::copy));
            if t < 3 {
                let upstream = (Tensor::arange(x.numel() as i64, (Kind::Double, Device::Cpu)) + 0.5).sin();
                (out.value() * upstream.view_as(&x).to_kind(x.kind())).sum(Kind::Double).backward();
                run.grads.push(x.grad());
            }
        }
    });
    run
}

/// The largest difference, as a share of the largest gradient or of 1.
///
/// Of 1, since the composed derivatives are exact to that only: 1 - s has lost its digits where s is nearly 1.
fn difference(fused: &Tensor, composed: &Tensor) -> f64 {
    let scale = composed.abs().max().double_value(&[]).max(1.0);
    (fused - composed).abs().max().double_value(&[]) / scale
}

fn assert_same(what: &str, fused: &Run, composed: &Run, tolerance: f64) {
    assert_eq!(fused.values.len(), composed.values.len());
    assert_eq!(fused.values, composed.values, "{what}: values");
    assert_eq!(fused.grads.len(), 3);
    for (t, (fused, composed)) in fused.grads.iter().zip(&composed.grads).enumerate() {
        let difference = difference(fused, composed);
        assert!(difference <= tolerance, "{what}: the gradient of step {t} differs by {difference:e}");
    }
}

fn inputs(shape: &[i64], kind: Kind) -> Vec<Tensor> {
    (0..5).map(|_| (Tensor::randn(shape, (Kind::Double, Device::Cpu)) * 1.5 + 0.3).to_kind(kind)).collect()
}

fn surrogates() -> Vec<Arc<dyn Surrogate>> {
    vec![
        Arc::new(PiecewiseQuadratic::default()),
        Arc::new(PiecewiseExp::default()),
        Arc::new(Sigmoid::default()),
        Arc::new(SoftSign::default()),
        Arc::new(SuperSpike::default()),
        Arc::new(ATan::default()),
        Arc::new(NonzeroSignLogAbs::default()),
        Arc::new(Erf::default()),
        Arc::new(S2nn::default()),
        Arc::new(PiecewiseLeakyReLU::default()),
        Arc::new(QPseudoSpike::default()),
        Arc::new(SquarewaveFourierSeries { n: 4, t_period: 8.0 }),
        Arc::new(LeakyKReLU { leak: 0.2, k: 0.6 }),
        Arc::new(FakeNumericalGradient::default()),
        Arc::new(LogTailedReLU { alpha: 0.1 }),
        Arc::new(Rect::default()),
        Arc::new(DeterministicPass::default()),
        Arc::new(MultiLevelSpikeCount::new(3)),
    ]
}

#[rstest]
fn every_surrogate_reset_and_decay(
    #[values((Kind::Float, 2e-6), (Kind::Double, 1e-14))] (kind, tolerance): (Kind, f64),
    #[values(None, Some(-0.3))] v_reset: Option<f64>,
    #[values(true, false)] decay_input: bool,
) {
    let x = inputs(&[7, 9], kind);
    for surrogate in surrogates() {
        let what = format!("{surrogate:?}");
        let (tau, v_threshold) = (1.7, 0.8);
        let config =
            OtttLifConfig { tau, decay_input, v_threshold, v_reset, surrogate: Arc::clone(&surrogate) };
        let ottt = |paths| {
            let node = OtttLifNode::new(config.clone()).unwrap();
            run(node, |node| node.v().unwrap().copy(), &x, paths)
        };
        assert_same(&what, &ottt(FastPaths::default()), &ottt(COMPOSED), tolerance);
        let config = SlttLifConfig { tau, decay_input, v_threshold, v_reset, surrogate };
        let sltt = |paths| {
            let node = SlttLifNode::new(config.clone()).unwrap();
            run(node, |node| node.v().unwrap().copy(), &x, paths)
        };
        assert_same(&what, &sltt(FastPaths::default()), &sltt(COMPOSED), tolerance);
    }
}

/// Above libtorch's grain, over several threads, and in layouts that are not dense.
#[rstest]
#[case::large(inputs(&[130, 20, 50], Kind::Float))]
#[case::transposed(inputs(&[13, 17], Kind::Float).iter().map(|x| x.tr()).collect())]
#[case::every_other(inputs(&[30, 8], Kind::Float).iter().map(|x| x.slice(1, 0, 8, 2)).collect())]
#[case::channels_last(inputs(&[3, 4, 5, 6], Kind::Float).iter().map(|x| x.permute([0, 3, 1, 2])).collect())]
#[case::layouts_that_change({
    let mut x = inputs(&[6, 6], Kind::Float);
    x[1] = x[1].tr();
    x[2] = x[2].slice(1, 0, 1, 1).expand([6, 6], false);
    x
})]
#[case::one_number(inputs(&[], Kind::Float))]
fn every_size_and_layout(#[case] x: Vec<Tensor>) {
    let ottt = |paths| {
        run(OtttLifNode::new(Default::default()).unwrap(), |node| node.v().unwrap().copy(), &x, paths)
    };
    assert_same("layout", &ottt(FastPaths::default()), &ottt(COMPOSED), 2e-6);
}

/// A surrogate of the user's own, that the kernels do not know.
#[derive(Debug)]
struct Own;

impl Surrogate for Own {
    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_abs()?.f_neg()?.f_exp()?)
    }
}

#[rstest]
#[case::a_surrogate_of_ones_own(Arc::new(Own), Kind::Float)]
#[case::half_precision(Arc::new(Sigmoid::default()), Kind::BFloat16)]
fn what_the_kernels_do_not_know_takes_the_composed_path(
    #[case] surrogate: Arc<dyn Surrogate>,
    #[case] kind: Kind,
) {
    let x = inputs(&[5, 5], kind);
    let ottt = |paths| {
        let config = OtttLifConfig { surrogate: Arc::clone(&surrogate), ..Default::default() };
        run(OtttLifNode::new(config).unwrap(), |node| node.v().unwrap().copy(), &x, paths)
    };
    assert_same("composed", &ottt(FastPaths::default()), &ottt(COMPOSED), 0.0);
}

#[test]
fn the_potential_is_updated_in_place_but_never_a_tensor_set_by_hand() {
    let mut node = OtttLifNode::new(Default::default()).unwrap();
    let x = Tensor::from_slice(&[0.5f32, 0.25]);
    node.step(&(&x).into(), true).unwrap();
    let place = node.v().unwrap().data_ptr();
    node.step(&(&x).into(), true).unwrap();
    assert_eq!(node.v().unwrap().data_ptr(), place);

    let given = Tensor::from_slice(&[0.1f32, 0.2]);
    node.set_v(&given);
    node.step(&(&x).into(), true).unwrap();
    assert_eq!(given, Tensor::from_slice(&[0.1f32, 0.2]));
    assert_ne!(node.v().unwrap(), &given);
}

#[test]
fn traces_handed_out_stay_as_they_were() {
    let mut node = OtttLifNode::new(Default::default()).unwrap();
    let x = Tensor::from_slice(&[1.5f32, 0.25]);
    let traces: Vec<Tensor> =
        (0..3).map(|_| node.step(&(&x).into(), true).unwrap().trace().unwrap().shallow_clone()).collect();
    let first: Vec<f64> = traces.iter().map(|trace| trace.double_value(&[0])).collect();
    assert_eq!(first, [1.0, 1.5, 1.75]);
}

#[test]
fn a_second_derivative_is_refused_with_the_way_to_it() {
    let x = Tensor::from_slice(&[0.5, 1.5]).set_requires_grad(true);
    let twice = |paths| -> Result<Tensor> {
        with_fast_paths(paths, || {
            let mut node = OtttLifNode::new(Default::default())?;
            let y =
                node.step(&(&x).into(), true)?.into_value().square().sum(Kind::Double) + x.sum(Kind::Double);
            let slope = Tensor::f_run_backward(&[y], &[&x], true, true)?.remove(0);
            Ok(Tensor::f_run_backward(&[slope.sum(Kind::Double)], &[&x], false, false)?.remove(0))
        })
    };
    let error = twice(FastPaths::default()).unwrap_err().to_string();
    assert!(error.contains("with_fast_paths(FastPaths::NONE"), "{error}");
    assert!(twice(FastPaths::NONE).unwrap().abs().max().double_value(&[]) > 0.0);
}

#[rstest]
fn a_scale_behind_a_neuron_is_part_of_its_sweep(
    #[values(Kind::Float, Kind::Double)] kind: Kind,
    #[values(1, 3)] time_steps: i64,
) {
    let run = |paths| {
        let node = OtttLifNode::new(OtttLifConfig { tau: 3.0, ..Default::default() }).unwrap();
        let mut net = OtttSequential::new()
            .add(node)
            .add(Scale(2.74))
            .add(SlttLifNode::new(Default::default()).unwrap())
            .add(Scale(0.5));
        let mut run = Run { values: Vec::new(), grads: Vec::new() };
        with_fast_paths(paths, || {
            for t in 0..6 {
                let numbers = Tensor::arange(3 * 35, (Kind::Double, Device::Cpu)) * 0.37 + f64::from(t);
                let x = (numbers.sin() * 3.0).view([3, 5, 7]).to_kind(kind).set_requires_grad(true);
                // A look between, in training and not, meets the spikes before they are scaled.
                let out = match t {
                    2 | 3 => net.step_inspected(&(&x).into(), t == 2, |_, _, _| ()).map(|_| None),
                    _ => net.pass(&(&x).into(), &Pass::new(true).steps(time_steps)).map(Some),
                };
                if t == 2 && time_steps > 1 {
                    assert!(out.unwrap_err().to_string().contains("reset()"));
                    net.reset();
                    continue;
                }
                let Ok(Some(out)) = out else {
                    net.reset();
                    continue;
                };
                let upstream = Tensor::arange(3 * 35, (Kind::Double, Device::Cpu)).cos().view([3, 5, 7]);
                (out.value() * upstream.to_kind(kind)).sum(Kind::Double).backward();
                run.values.push(out.value().detach());
                run.values
                    .extend(net.memories().into_iter().filter_map(|m| m.get()).map(|memory| memory.copy()));
                run.grads.push(x.grad());
            }
        });
        assert_eq!(run.grads.len(), 4);
        run
    };
    let (fused, composed) = (run(FastPaths::default()), run(COMPOSED));
    assert_eq!(fused.values, composed.values);
    for (fused, composed) in fused.grads.iter().zip(&composed.grads) {
        let difference = difference(fused, composed);
        assert!(difference <= if kind == Kind::Float { 2e-6 } else { 1e-14 }, "{difference:e}");
    }
}
