//! Spikes that were made outside the graph, put into it.

use std::sync::Mutex;

use tch::Tensor;

use crate::autograd::{Context, Function, Tensors};
use crate::error::{no_second_derivative, Error, Result};
use crate::ffi::grad_enabled;

/// Puts `spike`, which a kernel made of x, into the graph after x. Its backward is `backward`, of `over`, how far the
/// potential was over the threshold, and of the spike's gradient.
///
/// A kernel fills several tensors at once, of which only the spike has a gradient: as outputs of one differentiable
/// function, all would be held by its node.
pub(super) fn fired(
    x: &Tensor,
    spike: Tensor,
    over: Tensor,
    backward: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    Ok(Fired { made: Mutex::new(Some((spike, over))), backward }.apply(&[x])?.remove(0))
}

struct Fired<B> {
    /// Spike and distance from the threshold, taken by forward.
    made: Mutex<Option<(Tensor, Tensor)>>,
    backward: B,
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static> Function for Fired<B> {
    fn forward(&self, ctx: &mut Context<'_>, _: &Tensors) -> Result<Vec<Tensor>> {
        let made = self.made.lock().ok().and_then(|mut made| made.take());
        let (spike, over) = made.ok_or_else(|| Error::Gradient("a step is recorded once".into()))?;
        ctx.save_for_backward(&[&over])?;
        Ok(vec![spike])
    }

    fn backward(&self, ctx: &mut Context<'_>, grads: &Tensors) -> Result<Vec<Option<Tensor>>> {
        let Some(grad) = grads.get(0) else { return Ok(vec![None]) };
        if grad_enabled() {
            return Err(no_second_derivative("a neuron step"));
        }
        Ok(vec![Some((self.backward)(&ctx.saved_tensors()?[0], grad)?)])
    }
}
