//! Course, 1 of 4: a differentiable function of your own.
//!
//! A spike is a step, s = 1 if u >= 1 else 0. Its derivative is zero almost everywhere, so nothing
//! would learn. A `Function` says what backward uses instead: here a triangle around the threshold.

use anyhow::Result;
use spiketrace::{Context, Function, Tensors};
use tch::{Kind, Tensor};

struct Spike;

impl Function for Spike {
    fn forward(&self, ctx: &mut Context, inputs: &Tensors) -> spiketrace::Result<Vec<Tensor>> {
        let u = &inputs[0];
        ctx.save_for_backward(&[u])?;
        Ok(vec![u.f_ge(1.0)?.f_to_kind(u.kind())?])
    }

    fn backward(&self, ctx: &mut Context, grads: &Tensors) -> spiketrace::Result<Vec<Option<Tensor>>> {
        let u = &ctx.saved_tensors()?[0];
        let triangle: Tensor = 1.0 - (u - 1.0).f_abs()?;
        Ok(vec![Some(&grads[0] * triangle.f_clamp_min(0.0)?)])
    }
}

fn main() -> Result<()> {
    let u = Tensor::from_slice(&[-0.5, 0.75, 1.0, 1.5]).set_requires_grad(true);

    // The function stands in libtorch's graph like any operation.
    let s = Spike.apply(&[&u])?.remove(0);
    (&s * Tensor::from_slice(&[10.0, 20.0, 30.0, 40.0])).sum(Kind::Double).f_backward()?;

    println!("potential {:?}", Vec::<f64>::try_from(&u)?);
    println!("spike     {:?}", Vec::<f64>::try_from(&s)?);
    println!("gradient  {:?}", Vec::<f64>::try_from(&u.grad())?);
    assert_eq!(s, Tensor::from_slice(&[0.0, 0.0, 1.0, 1.0]));
    assert_eq!(u.grad(), Tensor::from_slice(&[0.0, 15.0, 30.0, 20.0]));

    // What goes wrong in it is an `Err` where it is called, never an abort.
    let error = Spike.apply(&[]).unwrap_err();
    println!("without an input: {error}");
    assert!(error.to_string().contains("takes 1 to 16 tensors, got 0"));

    // spiketrace has 18 such derivatives ready, and the trait to add one.
    let s = spiketrace::surrogate::spike(&(&u - 1.0), spiketrace::surrogate::ATan::default())?;
    assert_eq!(s, Tensor::from_slice(&[0.0, 0.0, 1.0, 1.0]));
    Ok(())
}
