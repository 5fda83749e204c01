//! `Function`: what a custom differentiable function may do, and what happens when it goes wrong.

mod carried_values;
mod failures;
mod gradcheck;
mod gradients;
mod lifetime;
mod mistakes;
mod threads;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use rstest::rstest;
use spiketrace::{gradcheck, Context, Error, Function, Result, Tensors};
use tch::{Device, Kind, Tensor};

type Grads = Vec<Option<Tensor>>;

/// A function made of two closures.
struct Custom<F, B>(F, B);

impl<F, B> Function for Custom<F, B>
where
    F: Fn(&mut Context<'_>, &Tensors) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    B: Fn(&mut Context<'_>, &Tensors) -> Result<Grads> + Send + Sync + 'static,
{
    fn forward(&self, ctx: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>> {
        (self.0)(ctx, inputs)
    }

    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Grads> {
        (self.1)(ctx, grads)
    }
}

fn custom<F, B>(forward: F, backward: B) -> Custom<F, B>
where
    F: Fn(&mut Context<'_>, &Tensors) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    B: Fn(&mut Context<'_>, &Tensors) -> Result<Grads> + Send + Sync + 'static,
{
    Custom(forward, backward)
}

/// y = x³, whose backward is made of differentiable operations.
fn cube(x: &Tensor) -> Result<Tensor> {
    let f = custom(
        |ctx, x| {
            ctx.save_for_backward(&[&x[0]])?;
            Ok(vec![x[0].f_pow_tensor_scalar(3)?])
        },
        |ctx, g| {
            let x = &ctx.saved_tensors()?[0];
            Ok(vec![Some(&g[0] * x * x * 3.0)])
        },
    );
    Ok(f.apply(&[x])?.remove(0))
}

/// y = 2x with a backward of the test's own.
fn doubled<B>(x: &Tensor, backward: B) -> Result<Tensor>
where
    B: Fn(&mut Context<'_>, &Tensors) -> Result<Grads> + Send + Sync + 'static,
{
    Ok(custom(|_, x| Ok(vec![&x[0] * 2.0]), backward).apply(&[x])?.remove(0))
}

fn leaf(values: &[f64], kind: Kind) -> Tensor {
    Tensor::from_slice(values).to_kind(kind).set_requires_grad(true)
}

fn tensor(values: &[f64]) -> Tensor {
    Tensor::from_slice(values)
}

fn doubles(values: &[f64]) -> Tensor {
    leaf(values, Kind::Double)
}

fn values(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.detach().contiguous().view(-1)).unwrap()
}

/// The gradients of the sum of `y`, the graph kept for another call.
fn grads(y: &Tensor, xs: &[&Tensor]) -> Vec<Tensor> {
    Tensor::run_backward(&[y.sum(Kind::Double)], xs, true, false)
}

fn backward(y: &Tensor) -> Result<()> {
    Ok(y.f_sum(y.kind())?.f_backward()?)
}

#[rstest]
fn several_inputs_and_outputs_have_their_own_gradients(#[values(Kind::Float, Kind::Double)] kind: Kind) {
    let f = custom(
        |ctx, x| {
            ctx.save_for_backward(&[&x[0], &x[1]])?;
            Ok(vec![&x[0] * &x[1], &x[0] - &x[1]])
        },
        |ctx, g| {
            let saved = ctx.saved_tensors()?;
            Ok(vec![Some(&g[0] * &saved[1] + &g[1]), Some(&g[0] * &saved[0] - &g[1])])
        },
    );
    let (a, b) = (leaf(&[1.0, 2.0], kind), leaf(&[3.0, 5.0], kind));
    let out = f.apply(&[&a, &b]).unwrap();
    assert_eq!(out[0], Tensor::from_slice(&[3.0, 10.0]).to_kind(kind));
    assert_eq!(out[1], Tensor::from_slice(&[-2.0, -3.0]).to_kind(kind));
    let upstream = Tensor::from_slice(&[2.0, 7.0]).to_kind(kind);
    (&out[0] * &upstream + &out[1] * 10.0).sum(kind).backward();
    assert_eq!(a.grad(), Tensor::from_slice(&[16.0, 45.0]).to_kind(kind));
    assert_eq!(b.grad(), Tensor::from_slice(&[-8.0, 4.0]).to_kind(kind));
}

#[test]
fn needs_input_grad_tells_the_truth_in_forward_and_backward() {
    let seen =
        |ctx: &Context<'_>| -> Vec<Option<bool>> { (0..4).map(|i| ctx.needs_input_grad(i).ok()).collect() };
    let expected = vec![Some(true), Some(false), Some(false), None];
    let (in_backward, calls) = (expected.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&calls);
    let f = custom(
        move |ctx, x| {
            assert_eq!(seen(ctx), expected);
            Ok(vec![&x[0] + &x[2]])
        },
        move |ctx, g| {
            assert_eq!(seen(ctx), in_backward);
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(vec![Some(g[0].shallow_clone()), None, None])
        },
    );
    let (a, b) = (leaf(&[1.0], Kind::Double), Tensor::from_slice(&[1.0]));
    backward(&f.apply_optional(&[Some(&a), None, Some(&b)]).unwrap()[0]).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn left_out_inputs_and_unused_outputs_are_undefined() {
    let f = custom(
        |_, x| {
            assert!(x.get(1).is_none() && x.get(9).is_none());
            Ok(vec![&x[0] * 2.0, &x[0] * 3.0])
        },
        |_, g| {
            assert!(g.get(0).is_none(), "nothing depends on the first output");
            Ok(vec![Some(&g[1] * 3.0), None])
        },
    );
    let x = leaf(&[1.0, 2.0], Kind::Double);
    let out = f.apply_optional(&[Some(&x), None]).unwrap();
    backward(&out[1]).unwrap();
    assert_eq!(x.grad(), Tensor::from_slice(&[3.0, 3.0]));
}

#[test]
fn an_undefined_tensor_that_is_used_all_the_same_is_an_error_that_tells_how_to_ask() {
    let f = custom(|_, x| Ok(vec![&x[0] + &x[1]]), |_, _| Ok(vec![None, None]));
    let error = f.apply_optional(&[Some(&leaf(&[1.0], Kind::Double)), None]).unwrap_err();
    assert!(error.to_string().contains("ask for it with get(1)"), "{error}");
}

#[test]
fn a_saved_tensor_changed_in_place_is_an_error_in_backward() {
    let x = leaf(&[1.0, 2.0], Kind::Double);
    let mut middle = &x * 1.0;
    let y = cube(&middle).unwrap();
    let _ = tch::no_grad(|| middle.f_add_scalar_(1.0).unwrap());
    let error = backward(&y).unwrap_err().to_string();
    assert!(error.contains("modified by an inplace operation"), "{error}");
}

#[test]
fn an_output_marked_non_differentiable_asks_for_no_gradient() {
    let f = custom(
        |ctx, x| {
            let (y, mask) = (&x[0] * 2.0, x[0].f_gt(1.5)?.to_kind(Kind::Double));
            ctx.mark_non_differentiable(&[&mask])?;
            Ok(vec![y, mask])
        },
        |_, g| Ok(vec![Some(&g[0] * 2.0)]),
    );
    let out = f.apply(&[&leaf(&[1.0, 2.0], Kind::Double)]).unwrap();
    assert!(out[0].requires_grad() && !out[1].requires_grad());
}

#[test]
fn an_input_returned_as_output_is_aliased_not_copied() {
    let f = custom(|_, x| Ok(vec![x[0].shallow_clone()]), |_, g| Ok(vec![Some(&g[0] * 5.0)]));
    let x = leaf(&[1.0, 2.0], Kind::Double);
    let y = f.apply(&[&x]).unwrap().remove(0);
    assert_eq!(y.data_ptr(), x.data_ptr());
    backward(&y).unwrap();
    assert_eq!(x.grad(), Tensor::from_slice(&[5.0, 5.0]));
}

#[test]
fn without_recording_there_is_no_graph() {
    let x = leaf(&[1.0], Kind::Double);
    assert!(!tch::no_grad(|| cube(&x)).unwrap().requires_grad());
    assert!(!cube(&x.detach()).unwrap().requires_grad());
}

#[test]
fn a_backward_of_differentiable_operations_can_be_differentiated_again() {
    let x = leaf(&[0.5, -1.5, 2.0], Kind::Double);
    gradcheck(|x| cube(&x[0]), &[x.shallow_clone()], Default::default()).unwrap();
    let slope = |x: &[Tensor]| -> Result<Tensor> {
        let y = cube(&x[0])?.f_sum(Kind::Double)?;
        Ok(Tensor::f_run_backward(&[y], &[&x[0]], true, true)?.remove(0))
    };
    // At a shifted point of gradcheck's differences, slope still needs a graph of its own.
    let second = |x: &[Tensor]| {
        let x =
            [if x[0].requires_grad() { x[0].shallow_clone() } else { x[0].copy().set_requires_grad(true) }];
        tch::with_grad(|| slope(&x))
    };
    gradcheck(second, &[x], Default::default()).unwrap();
}

#[test]
fn functions_nest_in_forward_and_backward() {
    let f = custom(
        |ctx, x| {
            ctx.save_for_backward(&[&x[0]])?;
            Ok(vec![cube(&cube(&x[0])?)?])
        },
        |ctx, g| {
            let x = ctx.saved_tensors()?[0].detach().set_requires_grad(true);
            let y = tch::with_grad(|| Ok::<_, Error>(cube(&cube(&x)?)? * &g[0]))?;
            Ok(vec![Some(Tensor::f_run_backward(&[y], &[x], false, false)?.remove(0))])
        },
    );
    let x = Tensor::from_slice(&[1.25]).set_requires_grad(true);
    backward(&f.apply(&[&x]).unwrap()[0]).unwrap();
    assert!((x.grad().double_value(&[0]) - 9.0 * 1.25f64.powi(8)).abs() < 1e-9);
}

#[rstest]
fn a_long_chain_is_walked_and_released(#[values(true, false)] walk: bool) {
    let x = leaf(&[1.0], Kind::Double);
    let mut y = x.shallow_clone();
    for _ in 0..20_000 {
        y = doubled(&y, |_, g| Ok(vec![Some(&g[0] * 2.0)])).unwrap() * 0.5;
    }
    if walk {
        backward(&y).unwrap();
        assert_eq!(x.grad().double_value(&[0]), 1.0);
    }
    drop(y);
}

#[test]
fn functions_are_applied_and_differentiated_from_many_threads_at_once() {
    let shared = leaf(&[2.0], Kind::Double);
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let shared = shared.shallow_clone();
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let x = leaf(&[f64::from(i)], Kind::Double);
                    backward(&cube(&x).unwrap()).unwrap();
                    assert_eq!(x.grad().double_value(&[0]), f64::from(3 * i * i));
                    backward(&cube(&shared).unwrap()).unwrap();
                }
                // Made here, differentiated where this thread is gone.
                cube(&shared).unwrap()
            })
        })
        .collect();
    for thread in threads {
        backward(&thread.join().unwrap()).unwrap();
    }
    // Gradients of one leaf are summed without a lock only by libtorch's own threads.
    assert!(shared.grad().double_value(&[0]) > 0.0);
}

#[test]
fn gradcheck_finds_a_wrong_gradient_and_leaves_the_inputs_alone() {
    let x = Tensor::rand([3, 2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
    let before = x.detach().copy();
    let wrong = |x: &[Tensor]| doubled(&x[0], |_, g| Ok(vec![Some(&g[0] * 2.01)]));
    let error = gradcheck(wrong, &[x.shallow_clone()], Default::default()).unwrap_err().to_string();
    assert!(
        error.contains("input 0 (shape [3, 2]) at element 0") && error.contains("central differences"),
        "{error}"
    );
    assert_eq!(x.detach(), before);
    assert!(!x.grad().defined());
}

#[test]
fn gradcheck_of_an_output_without_a_graph_is_an_error() {
    let x = leaf(&[1.0], Kind::Double);
    let error = gradcheck(|x| Ok(x[0].detach()), &[x], Default::default()).unwrap_err().to_string();
    assert!(error.contains("does not depend"), "{error}");
}
