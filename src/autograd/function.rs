//! A custom differentiable function, written in Rust, in libtorch's own graph.

use std::any::Any;
use std::ops::Index;
use std::sync::OnceLock;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::ffi;

/// A differentiable function with a backward of its own, as `torch.autograd.Function` in Python.
///
/// `forward` computes the outputs, `backward` turns the gradients of the outputs into those of the
/// inputs. Between the two, [`Context`] carries saved tensors and values of any type. Forward runs with
/// gradient recording off. Backward is recorded where the caller asks for it (`create_graph`), so a
/// backward made of differentiable operations can be differentiated again.
///
/// Errors and panics of either arrive as `Err` at the caller: of [`apply`](Function::apply), or of
/// `Tensor::f_backward`. Backward on CUDA runs on libtorch's threads, hence `Send + Sync`.
///
/// # Example: an activation
/// Swish, y = x σ(x), with dy/dx = σ(x) (1 + x (1 - σ(x))).
/// ```
/// use spiketrace::{Context, Function, Result, Tensors};
/// use tch::Tensor;
///
/// struct Swish;
///
/// impl Function for Swish {
///     fn forward(&self, ctx: &mut Context, inputs: &Tensors) -> Result<Vec<Tensor>> {
///         let x = &inputs[0];
///         ctx.save_for_backward(&[x])?;
///         Ok(vec![x * x.f_sigmoid()?])
///     }
///
///     fn backward(&self, ctx: &mut Context, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
///         let x = &ctx.saved_tensors()?[0];
///         let s = x.f_sigmoid()?;
///         Ok(vec![Some(&grads[0] * (&s * (x * (1.0 - &s) + 1.0)))])
///     }
/// }
///
/// let x = Tensor::from_slice(&[-1.0, 0.0, 2.0]).set_requires_grad(true);
/// let y = Swish.apply(&[&x])?.remove(0);
/// y.sum(tch::Kind::Double).f_backward()?;
/// assert!((x.grad().double_value(&[1]) - 0.5).abs() < 1e-12);
/// # spiketrace::gradcheck(|x| Ok(Swish.apply(&[&x[0]])?.remove(0)), &[x], Default::default())?;
/// # Ok::<(), spiketrace::Error>(())
/// ```
///
/// # Cost
/// 1.4 µs an application and as much a backward, beside the operations themselves (`benches/function.rs`).
#[doc(alias = "torch.autograd.Function")]
pub trait Function: Send + Sync + 'static {
    /// Computes the outputs.
    ///
    /// An input may be returned as an output: it is aliased, not copied.
    fn forward(&self, ctx: &mut Context<'_>, inputs: &Tensors) -> Result<Vec<Tensor>>;

    /// Computes one gradient an input, `None` where there is none.
    ///
    /// `grads` holds one gradient an output, undefined where nothing depends on that output.
    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Vec<Option<Tensor>>>;

    /// Applies the function to 1 to 16 tensors.
    ///
    /// # Errors
    /// What `forward` returns, its panics, and what libtorch says of the count of inputs.
    fn apply(self, inputs: &[&Tensor]) -> Result<Vec<Tensor>>
    where
        Self: Sized,
    {
        apply(self, inputs.iter().map(|&x| Some(x)).collect())
    }

    /// [`apply`](Function::apply) with some inputs left out; they are undefined in `forward`.
    fn apply_optional(self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>>
    where
        Self: Sized,
    {
        apply(self, inputs.iter().copied().collect())
    }
}

fn apply(function: impl Function, inputs: ffi::List) -> Result<Vec<Tensor>> {
    let call = Call { function, inputs: inputs.len(), value: OnceLock::new() };
    let outputs = ffi::apply(Box::new(call), &inputs)?;
    Ok(outputs.iter().map(Option::unwrap_or_default).collect())
}

/// Tensors of which some may be undefined.
///
/// `tensors[i]` is the i-th one and panics where it is undefined (inside a [`Function`] that becomes an
/// error); [`get`](Tensors::get) asks first.
#[derive(Debug)]
pub struct Tensors(Vec<Option<Tensor>>);

impl Tensors {
    /// The i-th tensor, `None` where it is undefined or there are fewer.
    pub fn get(&self, i: usize) -> Option<&Tensor> {
        self.0.get(i)?.as_ref()
    }

    /// How many there are, the undefined ones counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Index<usize> for Tensors {
    type Output = Tensor;

    fn index(&self, i: usize) -> &Tensor {
        match self.0.get(i) {
            Some(Some(tensor)) => tensor,
            Some(None) => panic!("tensor {i} is undefined here, ask for it with get({i})"),
            None => panic!("there is no tensor {i}, only {}", self.0.len()),
        }
    }
}

/// What one application carries from forward to backward.
pub struct Context<'a> {
    raw: &'a ffi::Context<'a>,
    inputs: usize,
    value: &'a OnceLock<Value>,
}

type Value = Box<dyn Any + Send + Sync>;

impl Context<'_> {
    /// Keeps tensors for backward; to be called at most once, from forward.
    ///
    /// libtorch notes their versions: one that is changed in place before backward is an error there.
    /// They are released after backward, unless the graph is retained.
    pub fn save_for_backward(&mut self, tensors: &[&Tensor]) -> Result<()> {
        self.raw.save_for_backward(&tensors.iter().map(|&t| Some(t)).collect())
    }

    /// The tensors kept by [`save_for_backward`](Context::save_for_backward), in order.
    ///
    /// # Errors
    /// When one was changed in place meanwhile, or when they were released by an earlier backward.
    pub fn saved_tensors(&self) -> Result<Vec<Tensor>> {
        Ok(self.raw.saved_tensors()?.iter().map(Option::unwrap_or_default).collect())
    }

    /// Keeps a value of any type for backward; to be called at most once, from forward.
    ///
    /// It is dropped with the graph. A tensor belongs into
    /// [`save_for_backward`](Context::save_for_backward): an output kept here would keep itself alive.
    pub fn save_value(&mut self, value: impl Any + Send + Sync) -> Result<()> {
        let again = |_| Error::argument("save_value", "one call an application", "a second one");
        self.value.set(Box::new(value)).map_err(again)
    }

    /// The value kept by [`save_value`](Context::save_value), `None` if none of this type was.
    pub fn saved_value<T: Any>(&self) -> Option<&T> {
        self.value.get()?.downcast_ref()
    }

    /// Whether the gradient of this input is asked for. Valid in forward and backward.
    ///
    /// # Errors
    /// When there is no such input.
    pub fn needs_input_grad(&self, input: usize) -> Result<bool> {
        if input >= self.inputs {
            let expected = format!("one of the {} inputs, counted from 0", self.inputs);
            return Err(Error::argument("needs_input_grad's input", &expected, input));
        }
        self.raw.needs_input_grad(input)
    }

    /// Declares outputs that have no gradient; to be called at most once, from forward.
    pub fn mark_non_differentiable(&mut self, outputs: &[&Tensor]) -> Result<()> {
        self.raw.mark_non_differentiable(&outputs.iter().map(|&t| Some(t)).collect())
    }
}

/// One application: the function, and what it keeps.
struct Call<F> {
    function: F,
    inputs: usize,
    value: OnceLock<Value>,
}

impl<F: Function> ffi::Node for Call<F> {
    fn forward(&self, ctx: &ffi::Context<'_>, inputs: &ffi::List, outputs: &mut ffi::List) -> Result<()> {
        let mut ctx = Context { raw: ctx, inputs: self.inputs, value: &self.value };
        let result = self.function.forward(&mut ctx, &Tensors(inputs.iter().collect()))?;
        if result.is_empty() {
            return Err(Error::argument("forward's output", "at least one tensor", "an empty list"));
        }
        result.iter().for_each(|tensor| outputs.push(Some(tensor)));
        Ok(())
    }

    fn backward(&self, ctx: &ffi::Context<'_>, grads: &ffi::List, out: &mut ffi::List) -> Result<()> {
        let mut ctx = Context { raw: ctx, inputs: self.inputs, value: &self.value };
        let result = self.function.backward(&mut ctx, &Tensors(grads.iter().collect()))?;
        if result.len() != self.inputs {
            let (got, inputs) = (result.len(), self.inputs);
            return Err(Error::Gradient(format!(
                "backward returned {got} gradients for {inputs} inputs; return one each, None where there is none"
            )));
        }
        result.iter().for_each(|tensor| out.push(tensor.as_ref()));
        Ok(())
    }
}
