//! What goes in and what comes back: inputs, outputs and gradients, present and absent.

use std::sync::Mutex;

use super::*;

/// An input left out in the middle, too: libtorch numbers only those that are there.
#[rstest]
#[case([Some(true), Some(true), Some(true)])]
#[case([Some(true), Some(false), Some(true)])]
#[case([Some(false), Some(true), Some(false)])]
#[case([Some(false), None, Some(true)])]
#[case([None, Some(true), Some(false)])]
#[case([None, None, Some(true)])]
fn needs_input_grad_is_right_in_forward_and_backward(#[case] asked: [Option<bool>; 3]) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (in_forward, in_backward) = (heard.clone(), heard.clone());
    let listen = |ctx: &Context<'_>, to: &Mutex<Vec<Vec<bool>>>| {
        let flags = (0..3).map(|i| ctx.needs_input_grad(i).unwrap()).collect();
        to.lock().unwrap().push(flags);
    };
    let function = custom(
        move |ctx, x| {
            listen(ctx, &in_forward);
            let sum = (0..3).filter_map(|i| x.get(i)).fold(tensor(&[0.0]), |sum, x| sum + x);
            Ok(vec![sum])
        },
        move |ctx, g| {
            listen(ctx, &in_backward);
            Ok((0..3).map(|i| ctx.needs_input_grad(i).unwrap().then(|| g[0].copy())).collect())
        },
    );
    let inputs = asked.map(|asked| asked.map(|asked| tensor(&[1.0]).set_requires_grad(asked)));
    let inputs: Vec<_> = inputs.iter().map(Option::as_ref).collect();
    backward(&function.apply_optional(&inputs).unwrap()[0]).unwrap();
    let wanted: Vec<bool> = asked.iter().map(|asked| *asked == Some(true)).collect();
    assert_eq!(*heard.lock().unwrap(), [wanted.clone(), wanted]);
}

/// run_backward asks for some of the gradients only, whatever the leaves want.
#[test]
fn needs_input_grad_follows_what_backward_was_asked_for() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let to = heard.clone();
    let function = custom(
        |_, x| Ok(vec![&x[0] + &x[1]]),
        move |ctx, g| {
            to.lock().unwrap().push([ctx.needs_input_grad(0)?, ctx.needs_input_grad(1)?]);
            Ok(vec![Some(g[0].copy()), Some(g[0].copy())])
        },
    );
    let (a, b) = (doubles(&[1.0]), doubles(&[2.0]));
    let y = function.apply(&[&a, &b]).unwrap().remove(0);
    grads(&y, &[&b]);
    grads(&y, &[&a]);
    grads(&y, &[&a, &b]);
    assert_eq!(*heard.lock().unwrap(), [[false, true], [true, false], [true, true]]);
}

/// (a b, a + b), backward asking which outputs were used.
fn product_and_sum(seen: Arc<Mutex<Vec<[bool; 2]>>>) -> impl Function {
    custom(
        |ctx, x| {
            ctx.save_for_backward(&[&x[0], &x[1]])?;
            Ok(vec![&x[0] * &x[1], &x[0] + &x[1]])
        },
        move |ctx, g| {
            seen.lock().unwrap().push([g.get(0).is_some(), g.get(1).is_some()]);
            let saved = ctx.saved_tensors()?;
            let grad = |other: &Tensor| match (g.get(0), g.get(1)) {
                (Some(product), Some(sum)) => Some(product * other + sum),
                (Some(product), None) => Some(product * other),
                (None, sum) => sum.map(Tensor::shallow_clone),
            };
            Ok(vec![grad(&saved[1]), grad(&saved[0])])
        },
    )
}

#[rstest]
#[case::both([true, true], [6.0, 3.0])]
#[case::the_product([true, false], [5.0, 2.0])]
#[case::the_sum([false, true], [1.0, 1.0])]
fn the_gradient_of_an_unused_output_is_undefined(#[case] used: [bool; 2], #[case] wanted: [f64; 2]) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (a, b) = (doubles(&[2.0]), doubles(&[5.0]));
    let outputs = product_and_sum(seen.clone()).apply(&[&a, &b]).unwrap();
    let used_outputs = outputs.iter().zip(used).filter(|(_, used)| *used).map(|(y, _)| y);
    backward(&used_outputs.fold(tensor(&[0.0]), |sum, y| sum + y)).unwrap();
    assert_eq!((values(&a.grad()), values(&b.grad())), (vec![wanted[0]], vec![wanted[1]]));
    assert_eq!(*seen.lock().unwrap(), [used]);
}

#[test]
fn one_tensor_as_both_inputs_gets_the_sum_of_both_gradients() {
    let x = doubles(&[3.0]);
    let outputs = product_and_sum(Default::default()).apply(&[&x, &x]).unwrap();
    assert_eq!(values(&grads(&outputs[0], &[&x])[0]), [6.0]);
}

#[test]
fn none_for_an_input_that_needs_a_gradient_leaves_it_without() {
    let (a, b) = (doubles(&[1.0]), doubles(&[2.0]));
    let first_only = custom(|_, x| Ok(vec![&x[0] + &x[1]]), |_, g| Ok(vec![Some(g[0].copy()), None]));
    backward(&first_only.apply(&[&a, &b]).unwrap()[0]).unwrap();
    assert!(a.grad().defined());
    assert!(!b.grad().defined());
}

#[test]
fn indices_of_whole_numbers_go_in_and_out_beside_floats() {
    let gather = custom(
        |ctx, x| {
            ctx.save_for_backward(&[&x[1]])?;
            Ok(vec![x[0].f_index_select(0, &x[1])?, x[1].f_neg()?])
        },
        |ctx, g| {
            let index = &ctx.saved_tensors()?[0];
            Ok(vec![Some(tensor(&[0.0; 4]).f_index_add(0, index, &g[0])?), None])
        },
    );
    let (x, index) = (doubles(&[1.0, 2.0, 3.0, 4.0]), Tensor::from_slice(&[3i64, 0, 3]));
    let y = gather.apply(&[&x, &index]).unwrap();
    assert_eq!((y[1].kind(), y[1].requires_grad()), (Kind::Int64, false));
    backward(&y[0]).unwrap();
    assert_eq!(values(&x.grad()), [1.0, 0.0, 0.0, 2.0]);
}

/// libtorch's rule for built-in operations, too: what broadcasts to the input's shape is summed to it.
#[test]
fn a_gradient_that_broadcasts_is_summed_to_the_inputs_shape() {
    let widen =
        custom(|_, x| Ok(vec![x[0].f_expand([3, 2], false)? * 1.0]), |_, g| Ok(vec![Some(g[0].copy())]));
    let x = doubles(&[1.0, 2.0]);
    backward(&widen.apply(&[&x]).unwrap()[0]).unwrap();
    assert_eq!(values(&x.grad()), [3.0, 3.0]);
}

#[rstest]
#[case::the_input_itself(|x: &Tensor| x.shallow_clone(), [5.0, 5.0])]
#[case::a_view(|x: &Tensor| x.view([2, 1]), [5.0, 5.0])]
#[case::a_part(|x: &Tensor| x.narrow(0, 1, 1), [0.0, 5.0])]
fn an_output_may_be_a_view_of_the_input(#[case] alias: fn(&Tensor) -> Tensor, #[case] wanted: [f64; 2]) {
    let x = doubles(&[1.0, 2.0]);
    let function = custom(
        move |_, x| Ok(vec![alias(&x[0])]),
        move |_, g| {
            let grad = tensor(&[0.0, 0.0]);
            alias(&grad).copy_(&(&g[0] * 5.0));
            Ok(vec![Some(grad)])
        },
    );
    let y = function.apply(&[&x]).unwrap().remove(0);
    assert_eq!(y.data_ptr(), alias(&x.detach()).data_ptr());
    assert!(x.is_leaf() && !y.is_leaf());
    backward(&y).unwrap();
    assert_eq!(values(&x.grad()), wanted);
}
