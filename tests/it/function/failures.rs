//! Errors and panics of a custom function, and where they arrive.

use super::*;

#[test]
fn an_error_of_forward_keeps_its_kind() {
    let f = custom(|_, _| Err(Error::Gradient("not today".into())), |_, _| Ok(vec![None]));
    let error = f.apply(&[&leaf(&[1.0], Kind::Double)]).unwrap_err();
    assert!(matches!(&error, Error::Gradient(text) if text == "not today"), "{error:?}");
}

#[test]
fn a_panic_of_forward_is_an_error_with_its_message() {
    let f = custom(|_, _| panic!("out of {}", "luck"), |_, _| Ok(vec![None]));
    let error = f.apply(&[&leaf(&[1.0], Kind::Double)]).unwrap_err();
    assert!(matches!(&error, Error::Panic { message, .. } if message == "out of luck"), "{error:?}");
}

/// What backward does wrong, and words of the error at f_backward's caller.
#[rstest]
#[case::an_error(|_: &Tensors| Err(Error::Gradient("not today".into())), "not today")]
#[case::a_panic(|_: &Tensors| panic!("out of luck"), "panicked: out of luck")]
#[case::too_few(|_: &Tensors| Ok(vec![]), "returned 0 gradients for 1 inputs")]
#[case::too_many(|_: &Tensors| Ok(vec![None, None]), "returned 2 gradients for 1 inputs")]
#[case::wrong_shape(|g: &Tensors| Ok(vec![Some(g[0].repeat([2]))]), "invalid gradient at index")]
#[case::undefined_grad(|g: &Tensors| Ok(vec![Some(g[1].shallow_clone())]), "there is no tensor 1, only 1")]
fn of_backward_arrive_at_the_caller_of_f_backward(
    #[case] wrong: fn(&Tensors) -> Result<Grads>,
    #[case] words: &str,
) {
    let x = leaf(&[1.0, 2.0], Kind::Double);
    let y = doubled(&x, move |_, g| wrong(g)).unwrap();
    let error = backward(&y).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
    assert!(!error.contains("Exception raised from"), "{error}");
    // Nothing is broken: the next function works.
    backward(&cube(&x).unwrap()).unwrap();
}

#[test]
fn backward_twice_without_retaining_is_an_error() {
    let y = cube(&leaf(&[1.0], Kind::Double)).unwrap();
    backward(&y).unwrap();
    let error = backward(&y).unwrap_err().to_string();
    assert!(error.contains("second time"), "{error}");
}

#[rstest]
#[case::none(0)]
#[case::seventeen(17)]
fn a_function_takes_1_to_16_tensors(#[case] count: usize) {
    let x = leaf(&[1.0], Kind::Double);
    let f = custom(|_, x| Ok(vec![x[0].shallow_clone()]), |_, _| Ok(vec![]));
    let error = f.apply(&vec![&x; count]).unwrap_err().to_string();
    assert!(error.contains(&format!("a function takes 1 to 16 tensors, got {count}")), "{error}");
}

#[test]
fn sixteen_inputs_are_fine() {
    let x: Vec<_> = (0..16).map(|i| leaf(&[f64::from(i)], Kind::Double)).collect();
    let f = custom(
        |_, x| Ok(vec![(0..16).map(|i| x[i].shallow_clone()).sum()]),
        |_, g| Ok((0..16).map(|i| Some(&g[0] * i)).collect()),
    );
    let y = f.apply(&x.iter().collect::<Vec<_>>()).unwrap().remove(0);
    backward(&y).unwrap();
    assert_eq!(y.double_value(&[0]), 120.0);
    assert_eq!(x[15].grad().double_value(&[0]), 15.0);
}
