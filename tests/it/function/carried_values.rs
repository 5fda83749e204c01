//! Values of any type on their way from forward to backward.

use super::*;

type Drops = Arc<AtomicUsize>;

struct Counted(Drops);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// y = 2x, carrying a counted value; forward can be made to fail after saving it.
fn carrying(drops: &Drops, x: &Tensor, fail: bool) -> Result<Tensor> {
    let drops = Arc::clone(drops);
    let f = custom(
        move |ctx, x| {
            ctx.save_value(Counted(Arc::clone(&drops)))?;
            match fail {
                true => Err(Error::Gradient("refused".into())),
                false => Ok(vec![&x[0] * 2.0]),
            }
        },
        |ctx, g| {
            assert!(ctx.saved_value::<Counted>().is_some() && ctx.saved_value::<String>().is_none());
            Ok(vec![Some(&g[0] * 2.0)])
        },
    );
    Ok(f.apply(&[x])?.remove(0))
}

#[rstest]
#[case::the_graph_is_dropped_unused(|drops: &Drops, x: &Tensor| drop(carrying(drops, x, false)))]
#[case::backward_ran(|drops: &Drops, x: &Tensor| backward(&carrying(drops, x, false).unwrap()).unwrap())]
#[case::backward_ran_twice(|drops: &Drops, x: &Tensor| {
    let y = carrying(drops, x, false).unwrap();
    Tensor::run_backward(&[&y], &[x], true, false);
    assert_eq!(drops.load(Ordering::SeqCst), 0, "the retained graph needs it still");
    Tensor::run_backward(&[&y], &[x], false, false);
})]
#[case::forward_failed(|drops: &Drops, x: &Tensor| drop(carrying(drops, x, true).unwrap_err()))]
#[case::no_gradient_is_asked_for(|drops: &Drops, x: &Tensor| drop(carrying(drops, &x.detach(), false)))]
#[case::recording_is_off(|drops: &Drops, x: &Tensor| drop(tch::no_grad(|| carrying(drops, x, false))))]
fn are_dropped_exactly_once(#[case] run: fn(&Drops, &Tensor)) {
    let drops = Arc::default();
    run(&drops, &leaf(&[1.0], Kind::Double));
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    assert_eq!(Arc::strong_count(&drops), 1, "the function itself is dropped too");
}

#[test]
fn are_dropped_after_thousands_of_errors() {
    let drops = Arc::default();
    let x = leaf(&[1.0], Kind::Double);
    for _ in 0..3_000 {
        carrying(&drops, &x, true).unwrap_err();
    }
    assert_eq!(drops.load(Ordering::SeqCst), 3_000);
}

#[test]
fn a_second_one_is_an_error() {
    let f = custom(
        |ctx, x| {
            ctx.save_value(1)?;
            ctx.save_value(2)?;
            Ok(vec![x[0].shallow_clone()])
        },
        |_, _| Ok(vec![None]),
    );
    let error = f.apply(&[&leaf(&[1.0], Kind::Double)]).unwrap_err();
    assert_eq!(error.to_string(), "save_value is a second one, expected one call an application");
}
