//! `gradcheck`: what it finds, what it takes, and what would check nothing.

use spiketrace::GradcheckConfig;

use super::*;

#[test]
fn holds_for_the_derivative_too() {
    // Central differences are taken without a graph; the inner derivative needs one of its own.
    let derivative = |x: &[Tensor]| {
        tch::with_grad(|| {
            let x = if x[0].requires_grad() {
                x[0].shallow_clone()
            } else {
                x[0].detach().set_requires_grad(true)
            };
            let y = cube(&x)?.f_sum(Kind::Double)?;
            Ok(Tensor::f_run_backward(&[y], &[&x], true, true)?.remove(0))
        })
    };
    gradcheck(derivative, &[doubles(&[0.7, -1.3])], Default::default()).unwrap();
}

/// 2 is wrong for x^3 nearly everywhere: the sentence says where and by how much.
#[test]
fn names_input_element_and_both_numbers() {
    let wrong = |x: &[Tensor]| {
        let f = custom(|_, x| Ok(vec![&x[0] * &x[1] * &x[1]]), |_, g| Ok(vec![None, Some(&g[0] * 2.0)]));
        Ok(f.apply(&[&x[0].detach(), &x[1]])?.remove(0))
    };
    let inputs = [tensor(&[1.0, 1.0]), doubles(&[1.0, 3.0])];
    let error = gradcheck(wrong, &inputs, Default::default()).unwrap_err();
    assert!(matches!(error, Error::Gradient(_)), "{error:?}");
    let text = error.to_string();
    for part in ["input 1", "[2]", "element 1", "central differences give"] {
        assert!(text.contains(part), "no '{part}' in: {text}");
    }
}

#[rstest]
#[case::transposed(Tensor::arange(6, (Kind::Double, tch::Device::Cpu)).view([2, 3]).tr())]
#[case::strided(Tensor::arange(12, (Kind::Double, tch::Device::Cpu)).view([4, 3]).slice(0, 0, 4, 2))]
#[case::one_number(Tensor::from(0.5))]
fn takes_inputs_of_any_layout(#[case] x: Tensor) {
    let x = x.set_requires_grad(true);
    gradcheck(|x| cube(&x[0]), &[x], Default::default()).unwrap();
}

/// What would check nothing, or could not check, says so.
#[rstest]
#[case::no_input_asks(&[tensor(&[1.0])], |x: &[Tensor]| cube(&x[0]), "set_requires_grad")]
#[case::single_precision(&[doubles(&[1.0]).to_kind(Kind::Float).detach().set_requires_grad(true)], |x: &[Tensor]| cube(&x[0]), "Double")]
#[case::an_output_without_elements(&[doubles(&[1.0])], |x: &[Tensor]| cube(&x[0].narrow(0, 0, 0)), "output")]
#[case::an_output_without_a_graph(&[doubles(&[1.0])], |x: &[Tensor]| cube(&x[0].detach()), "grad")]
#[case::a_gradient_of_nan(&[doubles(&[1.0])], |x: &[Tensor]| Ok(cube(&x[0])? * f64::NAN), "NaN")]
#[case::an_error_of_its_own(&[doubles(&[1.0])], |_: &[Tensor]| Err(Error::Gradient("mine".into())), "mine")]
fn does_not_pass_in_vain(
    #[case] inputs: &[Tensor],
    #[case] f: fn(&[Tensor]) -> Result<Tensor>,
    #[case] part: &str,
) {
    let text = gradcheck(f, inputs, Default::default()).unwrap_err().to_string();
    assert!(text.contains(part), "{text}");
}

#[rstest]
#[case(GradcheckConfig { eps: 0.0, ..Default::default() }, "eps")]
#[case(GradcheckConfig { eps: f64::NAN, ..Default::default() }, "eps")]
#[case(GradcheckConfig { atol: -1.0, ..Default::default() }, "atol")]
#[case(GradcheckConfig { rtol: f64::INFINITY, ..Default::default() }, "rtol")]
fn refuses_options_that_decide_nothing(#[case] config: GradcheckConfig, #[case] name: &str) {
    let text = gradcheck(|x| cube(&x[0]), &[doubles(&[1.0])], config).unwrap_err().to_string();
    assert!(text.contains(name), "{text}");
}

/// y = x², with a gradient that is wrong in one element.
struct Wrong;

impl Function for Wrong {
    fn forward(&self, ctx: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>> {
        ctx.save_for_backward(&[&inputs[0]])?;
        Ok(vec![&inputs[0] * &inputs[0]])
    }

    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
        let grad = &grads[0] * 2.0 * &ctx.saved_tensors()?[0];
        let _ = grad.get(3).g_mul_scalar_(1.5);
        Ok(vec![Some(grad)])
    }
}

#[test]
fn a_wrong_gradient_is_found_and_its_element_named() {
    let x = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0]).set_requires_grad(true);
    let wrong = gradcheck(|x| Ok(Wrong.apply(&[&x[0]])?.remove(0)), &[x], Default::default());
    let text = wrong.unwrap_err().to_string();
    assert!(text.contains("element 3"), "{text}");
}
