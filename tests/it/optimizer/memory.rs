//! Parameters, gradients and states that do not lie in memory as libtorch's kernels take for granted.

use tch::{Kind, Tensor};

use super::{leaf, set_grad, steps, MAKERS, MOMENTUM};
use crate::common::{numbers, FLOAT};
use spiketrace::train::{Optimizer, Sgd};

fn floats(size: &[i64], seed: usize) -> Tensor {
    numbers(size, seed).to_kind(Kind::Float)
}

#[test]
fn a_parameter_whose_elements_share_memory_is_refused() {
    let base = Tensor::zeros([64], FLOAT);
    let expanded = base.narrow(0, 0, 1).expand([32], false);
    let windows = base.as_strided([8, 4], [1, 1], 0);
    for parameter in [expanded, windows] {
        let parameter = parameter.set_requires_grad(true);
        for make in MAKERS {
            let error = make(&[&parameter]).err().expect("memory that elements share").to_string();
            assert!(error.contains("parameter 0 is a tensor whose elements share memory"), "{error}");
            assert!(error.contains("pass the tensor that was expanded, or a copy()"), "{error}");
        }
    }
}

/// Parameters with gaps, each as large as needed for several threads and small enough for one.
#[test]
fn a_parameter_with_gaps_moves_as_a_dense_one_and_the_gaps_stay() {
    for rows in [3, 1 << 12] {
        let base = floats(&[rows, 32], 1);
        for cut in [base.slice(1, 0, 32, 2), base.narrow(1, 5, 20), base.transpose(0, 1).narrow(0, 3, 7)] {
            for make in MAKERS {
                let (before, own) = (base.copy(), cut.copy());
                let (odd, dense) = (cut.detach().set_requires_grad(true), leaf(&cut));
                let grad = floats(&cut.size(), 2);
                steps(&mut *make(&[&odd]).unwrap(), &[&odd], &[&grad]);
                steps(&mut *make(&[&dense]).unwrap(), &[&dense], &[&grad]);
                assert_eq!(odd, dense);
                cut.shallow_clone().copy_(&own);
                assert_eq!(base, before, "memory outside the parameter was written");
            }
        }
    }
}

/// A gradient cannot be given other strides by a graph, but by whoever holds it.
#[test]
fn a_gradient_counts_by_its_elements_whatever_its_strides() {
    for make in MAKERS {
        let values = floats(&[24, 24], 1);
        let (odd, dense) = (leaf(&values), leaf(&values));
        let (mut of_odd, mut of_dense) = (make(&[&odd]).unwrap(), make(&[&dense]).unwrap());
        let strided = floats(&[24, 48], 2).slice(1, 0, 48, 2);
        for grad in
            [floats(&[24, 24], 3).transpose(0, 1), floats(&[24, 1], 4).expand([24, 24], false), strided]
        {
            set_grad(&dense, &grad);
            if !odd.grad().defined() {
                set_grad(&odd, &grad);
            }
            odd.grad().set_data(&grad);
            assert_ne!(odd.grad().stride(), dense.grad().stride());
            of_odd.step().unwrap();
            of_dense.step().unwrap();
            assert_eq!(odd, dense);
            assert_eq!(odd.grad(), grad, "the step changed the gradient");
        }
    }
}

#[test]
fn a_parameter_may_get_other_memory_between_steps() {
    for make in MAKERS {
        let values = floats(&[24, 24], 1);
        let (odd, dense) = (leaf(&values), leaf(&values));
        let (mut of_odd, mut of_dense) = (make(&[&odd]).unwrap(), make(&[&dense]).unwrap());
        let grad = floats(&[24, 24], 2);
        let turn = |p: &Tensor| p.detach().transpose(0, 1).contiguous().transpose(0, 1);
        let spread = |p: &Tensor| {
            let wide = Tensor::zeros([24, 48], FLOAT).slice(1, 0, 48, 2);
            wide.shallow_clone().copy_(&p.detach());
            wide
        };
        let moves: [&dyn Fn(&Tensor) -> Tensor; 3] = [&|p| p.detach().copy(), &turn, &spread];
        for other in moves {
            odd.shallow_clone().set_data(&other(&odd));
            for (optimizer, p) in [(&mut of_odd, &odd), (&mut of_dense, &dense)] {
                set_grad(p, &grad);
                optimizer.step().unwrap();
            }
            assert_eq!(odd, dense);
        }
    }
}

#[test]
fn a_state_may_get_other_memory_between_steps() {
    let values = floats(&[24, 24], 1);
    let (odd, dense) = (leaf(&values), leaf(&values));
    let (mut of_odd, mut of_dense) =
        (Sgd::new([&odd], MOMENTUM).unwrap(), Sgd::new([&dense], MOMENTUM).unwrap());
    let grad = floats(&[24, 24], 2);
    steps(&mut of_odd, &[&odd], &[&grad]);
    steps(&mut of_dense, &[&dense], &[&grad]);
    let buffer = of_odd.momentum_buffers()[0].as_ref().unwrap();
    let turned = buffer.transpose(0, 1).contiguous().transpose(0, 1);
    buffer.shallow_clone().set_data(&turned);
    steps(&mut of_odd, &[&odd], &[&grad]);
    steps(&mut of_dense, &[&dense], &[&grad]);
    assert_eq!(odd, dense);
    assert_eq!(of_odd.momentum_buffers(), of_dense.momentum_buffers());
    // One number cannot stand for all of a momentum.
    of_odd.momentum_buffers()[0]
        .as_ref()
        .unwrap()
        .shallow_clone()
        .set_data(&turned.narrow(1, 0, 1).expand([24, 24], false));
    let error = of_odd.step().unwrap_err().to_string();
    assert!(
        error.contains("the momentum of Sgd's parameter 0 is a tensor whose elements share memory"),
        "{error}"
    );
}

#[test]
fn a_gradient_in_its_parameters_memory_is_read_before_it_is_written() {
    for make in MAKERS {
        let values = floats(&[50_000], 1);
        let (odd, dense) = (leaf(&values), leaf(&values));
        let (mut of_odd, mut of_dense) = (make(&[&odd]).unwrap(), make(&[&dense]).unwrap());
        set_grad(&dense, &values);
        set_grad(&odd, &values);
        odd.grad().set_data(&odd.detach());
        of_odd.step().unwrap();
        of_dense.step().unwrap();
        assert_eq!(odd, dense);
    }
}

/// libtorch keeps the negative of a tensor as a flag where it can.
#[test]
fn a_negated_view_is_not_taken_by_its_memory() {
    for make in MAKERS {
        let values = floats(&[30], 1);
        let (odd, dense) = (leaf(&values), leaf(&values));
        let (mut of_odd, mut of_dense) = (make(&[&odd]).unwrap(), make(&[&dense]).unwrap());
        let grad = floats(&[30], 2);
        set_grad(&dense, &(-&grad));
        set_grad(&odd, &grad);
        odd.grad().set_data(&grad.internal_neg_view());
        of_odd.step().unwrap();
        of_dense.step().unwrap();
        assert_eq!(odd, dense);
    }
}

/// Else a backward through a graph that keeps the weights of before would compute with those of after.
#[test]
fn a_graph_from_before_a_step_is_an_error() {
    for size in [4, 1 << 18] {
        for make in MAKERS {
            let p = leaf(&Tensor::ones([size], FLOAT));
            let mut optimizer = make(&[&p]).unwrap();
            let before = (&p * &p).sum(Kind::Float);
            set_grad(&p, &Tensor::ones_like(&p));
            optimizer.step().unwrap();
            let error = before.f_backward().unwrap_err().to_string();
            assert!(error.contains("modified by an inplace operation"), "{error}");
        }
    }
}
