//! Forward propagation through time: a running average of the weights stands for the past.

use tch::{Reduction, Tensor};

use super::sequence::{expect_sequences, Sequence};
use super::Optimizer;
use crate::check::expect_like;
use crate::error::{guarded, Error, Result};
use crate::module::{Memory, OnlineModule, Pass};

/// The running averages that [`fptt_online_training`] starts from: copies of the optimizer's parameters.
pub fn fptt_online_training_init_w_ra(optimizer: &(impl Optimizer + ?Sized)) -> Vec<Tensor> {
    optimizer.parameters().iter().map(|p| p.detach().copy()).collect()
}

/// Trains `net` on one batch of sequences by FPTT; the weights move at every step.
///
/// With w̄ the running average and g the last gradient of the plain loss, each step minimizes
///
/// ```text
/// loss_t + alpha/2 Σ_i mean((w_i - w̄_i - g_i/(2 alpha))²),
/// ```
///
/// moves the weights, and, but at the last step, takes the plain loss's gradient g at the new weights
/// on the same input and state and sets w̄ := (w̄ + w)/2 - g/(2 alpha).
///
/// Returns the sum of the plain losses.
///
/// # Shapes
/// `x_seq` `[T, N, ...]` and `target_seq` `[T, N, ...]`: time first, as in SpikingJelly. `w_ra` is what
/// [`fptt_online_training_init_w_ra`] made, kept from call to call.
///
/// # Errors
/// When the sequences do not fit together, `alpha` is not above 0, `w_ra` is not the optimizer's, and
/// what the network, the loss and the optimizer say. All shapes are checked before anything moves.
///
/// # Source
/// Kag and Saligrama, *Training Recurrent Neural Networks via Forward Propagation Through Time*, ICML
/// 2021; for spiking networks Yin et al., arXiv 2112.11231; SpikingJelly's `fptt_online_training`.
pub fn fptt_online_training(
    net: &mut (impl OnlineModule + ?Sized),
    optimizer: &mut (impl Optimizer + ?Sized),
    x_seq: &Tensor,
    target_seq: &Tensor,
    loss_fn: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    alpha: f64,
    w_ra: &mut [Tensor],
) -> Result<Tensor> {
    expect_sequences(x_seq, target_seq, "T, N")?;
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(Error::argument("alpha", "a finite number above 0", alpha));
    }
    let parameters = optimizer.parameters();
    if w_ra.len() != parameters.len() {
        let expected =
            format!("{} running averages, from fptt_online_training_init_w_ra()", parameters.len());
        return Err(Error::argument("the length of w_ra", &expected, w_ra.len()));
    }
    for (i, (average, parameter)) in w_ra.iter().zip(&parameters).enumerate() {
        expect_like(format_args!("w_ra[{i}]"), average, "its parameter", parameter)?;
    }
    let mut last_grads: Vec<Tensor> = parameters.iter().map(|p| p.detach().zeros_like()).collect();
    let time_steps = x_seq.size()[0];
    optimizer.set_samples(x_seq.size()[1]);
    let (x_seq, target_seq) = (x_seq.f_transpose(0, 1)?, target_seq.f_transpose(0, 1)?);
    let mut sequence = Sequence::new(net, &x_seq, &target_seq, loss_fn)?;
    let pass = Pass::new(true);

    for t in 0..time_steps {
        optimizer.zero_grad()?;
        let (loss, _) = sequence.loss(net, t, &pass)?;
        let mut regularized = loss.shallow_clone();
        for ((p, average), grad) in parameters.iter().zip(w_ra.iter()).zip(&last_grads) {
            let pull = guarded("the regularizer", || {
                let centre = average.f_add(&grad.f_div_scalar(2.0 * alpha)?)?;
                Ok(p.f_mse_loss(&centre, Reduction::Mean)?.f_mul_scalar(alpha / 2.0)?)
            })?;
            regularized = regularized.f_add(&pull)?;
        }
        regularized.f_backward()?;
        optimizer.step()?;
        net.detach();
        sequence.count(&loss)?;

        if t < time_steps - 1 {
            optimizer.zero_grad()?;
            as_if_never(net, |net| Ok(sequence.loss(net, t, &pass)?.0.f_backward()?))?;
            optimizer.average_grads()?;
            for ((p, average), last) in parameters.iter().zip(w_ra.iter_mut()).zip(&mut last_grads) {
                // A frozen parameter has none: it counts as zero.
                let grad = if p.grad().defined() { p.grad() } else { p.detach().zeros_like() };
                *average = guarded("the running average", || {
                    let half = average.f_add(&p.detach())?.f_div_scalar(2.0)?;
                    Ok(half.f_sub(&grad.f_div_scalar(2.0 * alpha)?)?)
                })?;
                *last = grad.copy();
            }
        }
        optimizer.zero_grad()?;
    }
    Ok(sequence.output().loss)
}

/// Runs `body`; whatever comes of it, the network's state is then the one of before.
fn as_if_never<M: OnlineModule + ?Sized>(net: &mut M, body: impl FnOnce(&mut M) -> Result<()>) -> Result<()> {
    let copy = |memory: &mut Memory| memory.get().map(Tensor::copy).into();
    let state: Vec<Memory> = net.memories().into_iter().map(copy).collect();
    let result = guarded("the network", || body(net));
    net.memories().into_iter().zip(state).for_each(|(memory, kept)| *memory = kept);
    result
}
