//! Every kind of error, panic and mistake, and the sentence that explains it.

use super::*;

fn kinds_of_errors() -> Vec<Error> {
    let (what, expected) = (|| "the what".to_owned(), || "the expected".to_owned());
    vec![
        Error::Layer { layer: "3: L".into(), source: Box::new(Error::Gradient("inner".into())) },
        Error::Shape { what: what(), expected: expected(), got: vec![1, 2], fix: "the fix".into() },
        Error::Kind { what: what(), expected: expected(), got: Kind::Int },
        Error::Device { what: what(), expected: tch::Device::Cuda(1), got: tch::Device::Cpu },
        Error::Argument { name: what(), expected: expected(), got: "-1".into() },
        Error::Gradient("the gradient".into()),
        Error::Data { path: "the/file".into(), problem: "the problem".into(), io: None },
        Error::Torch("the text, with ünïcödé and a \"quote\"".into()),
        Error::from(tensor(&[1.0]).f_view([7, 7]).unwrap_err()),
    ]
}

/// Fails with one of the errors above, in forward or in backward.
struct Failing {
    error: usize,
    forward: bool,
}

impl Function for Failing {
    fn forward(&self, _: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>> {
        match self.forward {
            true => Err(kinds_of_errors().remove(self.error)),
            false => Ok(vec![&inputs[0] * 2.0]),
        }
    }

    fn backward(&self, _: &mut Context<'_>, _: &Tensors) -> Result<Grads> {
        Err(kinds_of_errors().remove(self.error))
    }
}

#[test]
fn an_error_of_forward_arrives_as_it_was() {
    for (i, error) in kinds_of_errors().into_iter().enumerate() {
        let failing = move || Failing { error: i, forward: true };
        let nested = custom(move |_, x| failing().apply(&[&x[0]]), |_, _| unreachable!());
        for got in [failing().apply(&[&doubles(&[1.0])]), nested.apply(&[&doubles(&[1.0])])] {
            assert_eq!(format!("{:?}", got.unwrap_err()), format!("{error:?}"));
        }
    }
}

/// tch's interface has room for a text only.
#[test]
fn an_error_of_backward_arrives_with_its_sentence() {
    for (i, error) in kinds_of_errors().into_iter().enumerate() {
        let y = Failing { error: i, forward: false }.apply(&[&doubles(&[1.0])]).unwrap();
        let got = backward(&y[0]).unwrap_err();
        assert!(matches!(got, Error::Torch(_)), "{got:?}");
        assert!(got.to_string().contains(&error.to_string()), "'{got}' lost '{error}'");
    }
}

#[rstest]
#[case::a_str(|| panic!("no luck"), "a custom function panicked: no luck")]
#[case::a_string(|| panic!("no {}", "luck at all"), "a custom function panicked: no luck at all")]
#[case::a_value(|| std::panic::panic_any(7), "a custom function panicked: (no message)")]
#[case::tchs_own(|| tensor(&[1.0]).view([7, 7]).double_value(&[]), "libtorch: a custom function: shape '[7, 7]' is invalid")]
fn a_panic_arrives_as_an_error_with_its_message(
    #[case] panics: fn() -> f64,
    #[case] message: &str,
    #[values(true, false)] in_forward: bool,
) {
    let run = move |here: bool| if here { panics() } else { 1.0 };
    let f = custom(
        move |_, x| Ok(vec![&x[0] * run(in_forward)]),
        move |_, g| Ok(vec![Some(&g[0] * run(!in_forward))]),
    );
    let applied = f.apply(&[&doubles(&[1.0])]);
    assert_eq!(applied.is_err(), in_forward);
    let text = applied.and_then(|y| backward(&y[0])).unwrap_err().to_string();
    assert!(text.contains(message) && !text.contains("libtorch: libtorch"), "{text}");
}

/// A mistake in the use of the context or of the gradients, and the words that explain it.
#[rstest]
#[case::too_few_gradients(
    custom(|_, x| Ok(vec![&x[0] + &x[1]]), |_, g| Ok(vec![Some(g[0].copy())])),
    &["1 gradients for 2 inputs", "None where there is none"])]
#[case::too_many_gradients(
    custom(|_, x| Ok(vec![&x[0] + &x[1]]), |_, g| Ok((0..3).map(|_| Some(g[0].copy())).collect())),
    &["3 gradients for 2 inputs"])]
#[case::gradient_of_a_wrong_shape(
    custom(|_, x| Ok(vec![&x[0] + &x[1]]), |_, g| Ok(vec![Some(tensor(&[1.0; 5])), Some(g[0].copy())])),
    &["invalid gradient at index 0", "[5]", "[2]"])]
#[case::gradient_of_whole_numbers_shape(
    custom(|_, x| Ok(vec![&x[0] + &x[1]]), |_, _| Ok(vec![None, Some(Tensor::from_slice(&[1i64; 3]))])),
    &["invalid gradient at index 1"])]
#[case::output_that_is_not_there(
    custom(|_, x| Ok(vec![x[2].copy()]), |_, _| unreachable!()),
    &["there is no tensor 2, only 2"])]
#[case::no_output(custom(|_, _| Ok(vec![]), |_, _| unreachable!()), &["forward's output", "at least one tensor"])]
#[case::input_that_is_not_there_in_forward(
    custom(|ctx, x| { ctx.needs_input_grad(2)?; Ok(vec![x[0].copy()]) }, |_, _| unreachable!()),
    &["input is 2", "2 inputs"])]
#[case::input_that_is_not_there_in_backward(
    custom(|_, x| Ok(vec![x[0].copy()]), |ctx, _| { ctx.needs_input_grad(99)?; Ok(vec![None, None]) }),
    &["input is 99", "2 inputs"])]
#[case::saved_tensors_that_were_not_saved(
    custom(|_, x| Ok(vec![x[0].copy()]), |ctx, _| Ok(vec![Some(ctx.saved_tensors()?[0].copy()), None])),
    &["a custom function panicked", "len is 0"])]
#[case::two_values(
    custom(|ctx, x| { ctx.save_value(1)?; ctx.save_value(2)?; Ok(vec![x[0].copy()]) }, |_, _| unreachable!()),
    &["save_value", "one call an application"])]
fn a_mistake_is_explained(#[case] function: impl Function, #[case] parts: &[&str]) {
    let (a, b) = (doubles(&[1.0, 2.0]), doubles(&[3.0, 4.0]));
    let error = function.apply(&[&a, &b]).and_then(|y| backward(&y[0])).unwrap_err().to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "no '{part}' in: {error}"));
    assert!(!error.contains("Exception raised from"), "{error}");
}

#[test]
fn a_gradient_for_an_input_left_out_is_an_error() {
    let f = custom(|_, x| Ok(vec![x[0].copy()]), |_, g| Ok(vec![Some(g[0].copy()), Some(g[0].copy())]));
    let y = f.apply_optional(&[Some(&doubles(&[1.0])), None]).unwrap();
    let text = backward(&y[0]).unwrap_err().to_string();
    assert!(text.contains("input 1") && text.contains("None"), "{text}");
}

/// As for libtorch's own operations: the gradient is cast to the input's kind.
#[rstest]
#[case(Kind::Float)]
#[case(Kind::Half)]
fn a_gradient_of_another_precision_is_cast(#[case] kind: Kind) {
    let f = custom(|_, x| Ok(vec![x[0].copy()]), move |_, g| Ok(vec![Some(g[0].to_kind(kind))]));
    let x = doubles(&[1.0, 2.0]);
    backward(&f.apply(&[&x]).unwrap()[0]).unwrap();
    assert_eq!(x.grad(), tensor(&[1.0, 1.0]));
}

/// What a function met on its way and answered with success must not stand for a later failure.
#[test]
fn an_error_that_was_handled_stays_handled() {
    let f = custom(
        |_, _| {
            let inner = || Failing { error: 5, forward: false }.apply(&[&doubles(&[1.0])]);
            let handled = tch::with_grad(|| backward(&inner()?[0]));
            assert!(handled.unwrap_err().to_string().contains("the gradient"));
            // libtorch refuses an undefined output, after forward.
            Ok(vec![Tensor::new()])
        },
        |_, _| unreachable!(),
    );
    let error = f.apply(&[&doubles(&[1.0])]).unwrap_err();
    assert!(!error.to_string().contains("the gradient"), "an old error came back: {error}");
}

#[test]
fn undefined_tensors_may_be_saved_and_come_back_undefined() {
    let f = custom(
        |ctx, x| {
            ctx.save_for_backward(&[&Tensor::new(), &x[0]])?;
            Ok(vec![&x[0] * 2.0])
        },
        |ctx, g| {
            let saved = ctx.saved_tensors()?;
            assert!(!saved[0].defined() && saved[1].defined());
            Ok(vec![Some(&g[0] * 2.0)])
        },
    );
    backward(&f.apply(&[&doubles(&[1.0])]).unwrap()[0]).unwrap();
}

#[test]
fn a_saved_value_of_another_type_is_none() {
    let f = custom(
        |ctx, x| {
            ctx.save_value("text".to_owned())?;
            Ok(vec![&x[0] * 2.0])
        },
        |ctx, g| {
            assert_eq!(ctx.saved_value::<u32>(), None);
            assert_eq!(ctx.saved_value::<String>().unwrap(), "text");
            Ok(vec![Some(&g[0] * 2.0)])
        },
    );
    backward(&f.apply(&[&doubles(&[1.0])]).unwrap()[0]).unwrap();
}
