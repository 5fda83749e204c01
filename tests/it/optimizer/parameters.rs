//! Which tensors an optimizer takes, and how it counts them.

use spiketrace::train::{Optimizer, Sgd, SgdConfig};
use spiketrace::{OtttSequential, Part};
use tch::nn;
use tch::{Kind, Tensor};

use super::{leaf, set_grad, steps, MAKERS, MOMENTUM};
use crate::common::{numbers, DOUBLE};

#[test]
fn a_weight_with_two_places_moves_once_a_step() {
    for make in MAKERS {
        let (ws, once) = (leaf(&numbers(&[3, 3], 1)), leaf(&numbers(&[3, 3], 1)));
        let linear = || nn::Linear { ws: ws.shallow_clone(), bs: None };
        let net = OtttSequential::new().add(linear()).add(linear());
        let named = net.parameters();
        assert_eq!(named.len(), 2);
        let mut shared = make(&named.iter().map(|p| &p.tensor).collect::<Vec<_>>()).unwrap();
        assert_eq!(shared.parameters().len(), 1);
        let grad = numbers(&[3, 3], 2);
        steps(&mut *shared, &[&ws], &[&grad]);
        steps(&mut *make(&[&once]).unwrap(), &[&once], &[&grad]);
        assert_eq!(ws, once);
    }
}

/// As PyTorch numbers them, whose `parameters()` lists a shared weight once.
#[test]
fn states_are_numbered_by_the_tensors_not_by_their_names() {
    let (a, b) = (leaf(&numbers(&[2], 1)), leaf(&numbers(&[3], 2)));
    let mut sgd = Sgd::new([&a, &a.shallow_clone(), &b], MOMENTUM).unwrap();
    set_grad(&a, &numbers(&[2], 3));
    set_grad(&b, &numbers(&[3], 4));
    sgd.step().unwrap();
    let state = sgd.state().unwrap();
    assert_eq!(state.get("0.momentum_buffer").unwrap().size(), [2]);
    assert_eq!(state.get("1.momentum_buffer").unwrap().size(), [3]);
    let mut other = Sgd::new([&a, &b], SgdConfig { momentum: 0.9, ..Default::default() }).unwrap();
    other.load_state(&state).unwrap();
    assert_eq!(other.momentum_buffers(), sgd.momentum_buffers());
}

#[test]
fn two_parameters_in_one_memory_are_refused() {
    let base = Tensor::zeros([8, 8], DOUBLE);
    let part = |rows: i64| base.narrow(0, rows, 4).detach().set_requires_grad(true);
    let columns = base.narrow(1, 0, 3).detach().set_requires_grad(true);
    let other = leaf(&base);
    for (first, second) in [(part(0), part(0)), (part(0), part(3)), (columns, part(4))] {
        for make in MAKERS {
            let error = make(&[&first, &other, &second]).err().expect("one memory").to_string();
            assert!(error.contains("the memory of ") && error.contains("also parameter 0's"), "{error}");
            assert!(error.contains("parameter 2 is"), "{error}");
        }
    }
}

#[test]
fn two_parts_of_one_matrix_move_side_by_side() {
    for make in MAKERS {
        let base = numbers(&[6, 8], 1);
        let part = |from: i64| base.slice(1, from, 8, 2).detach().set_requires_grad(true);
        let (even, odd, whole) = (part(0), part(1), leaf(&base));
        let grad = numbers(&[6, 8], 2);
        let (of_even, of_odd) = (grad.slice(1, 0, 8, 2), grad.slice(1, 1, 8, 2));
        steps(&mut *make(&[&even, &odd]).unwrap(), &[&even, &odd], &[&of_even, &of_odd]);
        steps(&mut *make(&[&whole]).unwrap(), &[&whole], &[&grad]);
        assert_eq!(base, whole);
    }
}

#[test]
fn what_can_never_move_is_refused() {
    for make in MAKERS {
        let integers = Tensor::zeros([3], (Kind::Int64, tch::Device::Cpu));
        let error = make(&[&integers]).err().expect("no weight").to_string();
        assert!(error.contains("parameter 0 holds Int64, expected a floating-point kind"), "{error}");
        let sparse = Tensor::zeros([3], DOUBLE).to_sparse_sparse_dim(1);
        assert!(make(&[&sparse]).is_err());
    }
}
