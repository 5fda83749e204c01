//! A step that fails leaves everything as it was.

use spiketrace::train::{Adam, Optimizer, Sgd};
use tch::{Kind, Tensor};

use super::{leaf, set_grad, ADAM, MAKERS, MOMENTUM};
use crate::common::numbers;

/// Two weights that can be moved, of kinds that two kernels move, and one with a sparse gradient.
fn weights() -> [Tensor; 3] {
    let single = leaf(&numbers(&[4], 1).to_kind(Kind::Float));
    let table = leaf(&numbers(&[5, 2], 2));
    [single, leaf(&numbers(&[4], 3)), table]
}

/// Of a table without a gradient.
fn set_sparse_grad(table: &Tensor) {
    let rows = Tensor::embedding(table, &Tensor::from_slice(&[1i64, 3]), -1, false, true);
    rows.sum(Kind::Double).backward();
}

fn assert_says_sparse(optimizer: &mut dyn Optimizer) {
    let error = optimizer.step().unwrap_err().to_string();
    assert!(error.contains("'s parameter 2 is sparse, expected a dense one"), "{error}");
}

#[test]
fn a_failed_first_step_leaves_no_momentum() {
    let [single, double, table] = weights();
    let before = [&single, &double, &table].map(Tensor::copy);
    let mut sgd = Sgd::new([&single, &double, &table], MOMENTUM).unwrap();
    set_grad(&single, &numbers(&[4], 4));
    set_grad(&double, &numbers(&[4], 5));
    set_sparse_grad(&table);
    assert_says_sparse(&mut sgd);
    assert!(sgd.momentum_buffers().iter().all(Option::is_none), "a momentum that was never computed");
    assert_eq!([single, double, table], before);
}

#[test]
fn a_failed_step_does_not_count_for_adam() {
    let [single, double, table] = weights();
    let mut adam = Adam::new([&single, &double, &table], ADAM).unwrap();
    let kept = |adam: &Adam| -> Vec<[Tensor; 3]> {
        adam.states().iter().map(|s| [s.step.copy(), s.exp_avg.copy(), s.exp_avg_sq.copy()]).collect()
    };
    for (seed, p) in [&single, &double, &table].into_iter().enumerate() {
        set_grad(p, &numbers(&p.size(), seed));
    }
    adam.step().unwrap();
    let (before, values) = (kept(&adam), [&single, &double, &table].map(Tensor::copy));
    adam.zero_grad().unwrap();
    set_grad(&single, &numbers(&[4], 4));
    set_grad(&double, &numbers(&[4], 5));
    set_sparse_grad(&table);
    assert_says_sparse(&mut adam);
    assert_eq!(kept(&adam), before);
    assert_eq!([single, double, table], values);
}

#[test]
fn a_parameter_of_another_shape_or_kind_moves_nothing() {
    for make in MAKERS {
        let (a, b) = (leaf(&numbers(&[4], 1)), leaf(&numbers(&[4], 2)));
        let mut optimizer = make(&[&a, &b]).unwrap();
        let mut step = || {
            for p in [&a, &b] {
                set_grad(p, &Tensor::ones_like(p));
            }
            optimizer.step()
        };
        step().unwrap();
        let before = a.copy();
        for (other, says) in [
            (numbers(&[2], 3), "has shape [4], expected [2]"),
            (numbers(&[4], 3).to_kind(Kind::Half), "holds Double"),
        ] {
            // Its gradient would be checked against the new shape when it comes.
            let mut b = b.shallow_clone();
            b.grad().set_data(&other);
            b.set_data(&other);
            let error = step().unwrap_err().to_string();
            assert!(error.contains("'s parameter 1") && error.contains(says), "{error}");
            assert_eq!(a, before);
        }
    }
}

#[test]
fn a_learning_rate_that_is_no_number_is_refused() {
    let p = leaf(&numbers(&[2], 1));
    let (mut sgd, mut adam) = (Sgd::new([&p], MOMENTUM).unwrap(), Adam::new([&p], ADAM).unwrap());
    for lr in [f64::NAN, f64::INFINITY, -0.1] {
        for error in [sgd.set_lr(lr).unwrap_err(), adam.set_lr(lr).unwrap_err()] {
            assert!(error.to_string().contains("expected a finite number from 0 on"), "{error}");
        }
    }
    assert_eq!((sgd.config().lr, adam.config().lr), (MOMENTUM.lr, ADAM.lr));
    sgd.set_lr(0.5).unwrap();
    assert_eq!(sgd.config().lr, 0.5);
}
