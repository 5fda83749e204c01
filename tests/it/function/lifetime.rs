//! What a function owns and what it saves is dropped exactly once, whatever happens.

use std::sync::atomic::AtomicIsize;

use super::*;

/// Counts those of its kind that live; below zero where one was dropped twice.
struct Counted(Arc<AtomicIsize>);

impl Counted {
    fn new(count: &Arc<AtomicIsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Fails {
    Never,
    ForwardErr,
    ForwardPanic,
    BackwardErr,
    BackwardPanic,
}
use Fails::*;

/// y = 2 x; owns one counted value and saves another for backward.
struct Carrier {
    owned: Counted,
    fails: Fails,
}

impl Function for Carrier {
    fn forward(&self, ctx: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>> {
        ctx.save_value(Counted::new(&self.owned.0))?;
        ctx.save_for_backward(&[&inputs[0]])?;
        match self.fails {
            ForwardErr => Err(Error::Gradient("no".into())),
            ForwardPanic => panic!("no"),
            _ => Ok(vec![&inputs[0] * 2.0]),
        }
    }

    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Grads> {
        let count = ctx.saved_value::<Counted>().expect("the value was saved").0.load(Ordering::SeqCst);
        assert!(count >= 2, "owned and saved value live, counted {count}");
        ctx.saved_tensors()?;
        match self.fails {
            BackwardErr => Err(Error::Gradient("no".into())),
            BackwardPanic => panic!("no"),
            _ => Ok(vec![Some(&grads[0] * 2.0)]),
        }
    }
}

type Scenario = fn(&Tensor, Option<Tensor>);

fn no_backward(_: &Tensor, _: Option<Tensor>) {}

fn backward_once(_: &Tensor, y: Option<Tensor>) {
    let _ = backward(&y.unwrap());
}

fn backward_twice_retained(x: &Tensor, y: Option<Tensor>) {
    let y = y.unwrap();
    grads(&y, &[x]);
    grads(&y, &[x]);
}

fn backward_twice_released(_: &Tensor, y: Option<Tensor>) {
    let y = y.unwrap().sum(tch::Kind::Double);
    y.f_backward().unwrap();
    y.f_backward().unwrap_err();
}

#[rstest]
#[case::dropped_without_backward(Never, no_backward)]
#[case::after_backward(Never, backward_once)]
#[case::after_two_backwards_on_a_retained_graph(Never, backward_twice_retained)]
#[case::after_a_second_backward_that_fails(Never, backward_twice_released)]
#[case::forward_fails(ForwardErr, no_backward)]
#[case::forward_panics(ForwardPanic, no_backward)]
#[case::backward_fails(BackwardErr, backward_once)]
#[case::backward_panics(BackwardPanic, backward_once)]
fn values_are_dropped_exactly_once(
    #[case] fails: Fails,
    #[case] scenario: Scenario,
    #[values(true, false)] x_asks: bool,
) {
    let count = Arc::new(AtomicIsize::new(0));
    let x = doubles(&[1.0]);
    let input = if x_asks { x.shallow_clone() } else { x.detach() };
    let y = Carrier { owned: Counted::new(&count), fails }.apply(&[&input]);
    let fails_forward = matches!(fails, ForwardErr | ForwardPanic);
    assert_eq!(y.is_err(), fails_forward);
    let living = if x_asks && !fails_forward { 2 } else { 0 };
    assert_eq!(count.load(Ordering::SeqCst), living, "after apply");
    if x_asks {
        scenario(&x, y.ok().map(|mut y| y.remove(0)));
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "at the end");
}

#[test]
fn the_value_lives_as_long_as_the_graph_not_as_the_output() {
    let count = Arc::new(AtomicIsize::new(0));
    let x = doubles(&[1.0]);
    let y = Carrier { owned: Counted::new(&count), fails: Never }.apply(&[&x]).unwrap().remove(0);
    let z = &y + 1.0;
    drop(y);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    drop(z);
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[test]
fn a_function_that_is_never_run_is_dropped_too() {
    let count = Arc::new(AtomicIsize::new(0));
    Carrier { owned: Counted::new(&count), fails: Never }.apply(&[]).unwrap_err();
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

/// An output saved for backward does not keep its own graph alive.
#[test]
fn a_saved_output_makes_no_cycle() {
    let count = Arc::new(AtomicIsize::new(0));
    let owned = Counted::new(&count);
    let exp = custom(
        move |ctx, x| {
            let _ = &owned;
            let y = x[0].f_exp()?;
            ctx.save_for_backward(&[&y])?;
            Ok(vec![y])
        },
        |ctx, g| Ok(vec![Some(&g[0] * &ctx.saved_tensors()?[0])]),
    );
    let x = doubles(&[0.5]);
    let y = exp.apply(&[&x]).unwrap().remove(0);
    assert_eq!(grads(&y, &[&x])[0], y.detach());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    drop(y);
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor that panics");
    }
}

#[test]
fn a_destructor_that_panics_does_not_abort() {
    let armed = || {
        custom(
            |ctx, x| {
                ctx.save_value(Bomb)?;
                Ok(vec![&x[0] * 2.0])
            },
            |_, g| Ok(vec![Some(&g[0] * 2.0)]),
        )
    };
    let x = doubles(&[1.0]);
    drop(armed().apply(&[&x]).unwrap());
    backward(&armed().apply(&[&x]).unwrap()[0]).unwrap();
    assert_eq!(values(&x.grad()), [2.0]);
}
