//! A sequence's way through a network: the loop and the sum that all rules share.
//!
//! Time is the second dimension, after the batch.

use tch::Tensor;

use crate::autograd::Hold;
use crate::check::expect_steps;
use crate::error::{guarded, Error, Result};
use crate::module::{OnlineModule, Pass};
use crate::setting::fast_paths;
use crate::signal::Signal;

/// Repeats a batch `[B, ...]` over time: `[B, T, ...]`, without a copy.
///
/// The usual input code of OTTT: the same image drives the network at every step.
///
/// # Errors
/// When `time_steps` is below 1, or `x` is a scalar.
pub fn repeat_over_time(x: &Tensor, time_steps: i64) -> Result<Tensor> {
    if time_steps < 1 {
        return Err(Error::argument("time_steps", "at least 1", time_steps));
    }
    if x.dim() == 0 {
        return Err(Error::shape("repeat_over_time's x", "[B, ...]", x, "add a batch with unsqueeze(0)"));
    }
    let mut size = x.size();
    size.insert(1, time_steps);
    Ok(x.f_unsqueeze(1)?.f_expand(&size, false)?)
}

/// Errors unless both tensors share their first two sizes, which `dims` names, with nothing empty.
pub(super) fn expect_sequences(x_seq: &Tensor, target_seq: &Tensor, dims: &str) -> Result<()> {
    let expected = format!("[{dims}, ...]");
    for (what, tensor) in [("x_seq", x_seq), ("target_seq", target_seq)] {
        if !tensor.defined() {
            return Err(Error::argument(what, "a tensor with values", "an undefined tensor"));
        }
        if tensor.dim() < 2 {
            let fix = "repeat_over_time() makes a sequence of a batch";
            return Err(Error::shape(what, &expected, tensor, fix));
        }
        if tensor.numel() == 0 {
            return Err(Error::shape(what, "at least one element", tensor, "skip empty batches"));
        }
    }
    let wanted = &x_seq.size()[..2];
    if target_seq.size()[..2] != *wanted {
        let fix = "it must agree with x_seq in both; labels of shape [B] are repeated by repeat_over_time()";
        return Err(Error::shape(
            "target_seq",
            format!("[{}, {}, ...]", wanted[0], wanted[1]),
            target_seq,
            fix,
        ));
    }
    Ok(())
}

/// Errors unless `loss` is one number that depends on a parameter.
fn expect_loss(loss: &Tensor) -> Result<()> {
    if loss.numel() != 1 {
        return Err(Error::shape("the loss", "a single number", loss, "reduce it with mean() or sum()"));
    }
    if !loss.requires_grad() {
        return Err(Error::Gradient(
            "the loss depends on no parameter that asks for a gradient; is the VarStore frozen, \
             or no_grad() around the loop?"
                .into(),
        ));
    }
    Ok(())
}

/// Runs `body` with what is to keep values of weights that stand still meanwhile. They get the gradient that was
/// gathered, whatever comes of it.
pub(super) fn holding_weights<T>(body: impl FnOnce(Option<&Hold>) -> Result<T>) -> Result<T> {
    let hold = Hold::default();
    let result = guarded("the network", || body(fast_paths().held_weights.then_some(&hold)));
    let released = hold.release();
    result.and_then(|result| released.map(|()| result))
}

/// The inputs of a sequence and the network's answers.
pub(super) struct Answers<'a> {
    /// `[B, T, ...]`
    x_seq: &'a Tensor,
    /// The input of every step, where they are the same by their strides and the network takes that.
    constant: Option<Tensor>,
    takes_steps: bool,
    /// Whether the network's state carries no graph from pass to pass.
    cuts: bool,
}

impl<'a> Answers<'a> {
    pub(super) fn new(net: &mut (impl OnlineModule + ?Sized), x_seq: &'a Tensor) -> Result<Self> {
        let properties = net.properties();
        let repeats = x_seq.stride()[1] == 0 || x_seq.size()[1] == 1;
        let constant = (repeats && properties.takes_constant).then(|| x_seq.f_select(1, 0)).transpose()?;
        let takes_steps = properties.takes_steps
            || net.as_layer().is_some()
            || (properties.is_samplewise && net.memories().is_empty());
        Ok(Self { x_seq, constant, takes_steps, cuts: properties.cuts })
    }

    /// The answer to the steps from `t` on, as many as the pass has.
    pub(super) fn of(
        &self,
        net: &mut (impl OnlineModule + ?Sized),
        t: i64,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let k = pass.time_steps;
        if k > 1 && !self.takes_steps {
            return Err(Error::SeveralSteps { module: net.name() });
        }
        let x = match &self.constant {
            Some(x) => Signal::Constant(x.shallow_clone()),
            None if k == 1 => self.x_seq.f_select(1, t)?.into(),
            None => self.x_seq.f_narrow(1, t, k)?.f_transpose(0, 1)?.f_flatten(0, 1)?.into(),
        };
        guarded("the network", || net.pass(&x, pass)).map(Signal::into_value)
    }
}

/// What a training loop returns.
#[derive(Debug)]
pub struct SequenceOutput {
    /// Sum of the steps' losses; on the loop's device, without a graph.
    pub loss: Tensor,
    /// `[B, T, ...]`, the network's outputs, without a graph.
    pub outputs: Tensor,
}

/// A sequence that a network learns from.
pub(super) struct Sequence<'a, F> {
    answers: Answers<'a>,
    target_seq: &'a Tensor,
    loss_fn: F,
    /// Of the steps so far.
    loss: Option<Tensor>,
    /// `[B, T, ...]`, filled up to here: one tensor, since many small ones between the large would scatter the heap.
    outputs: Option<Tensor>,
}

impl<'a, F: Fn(&Tensor, &Tensor) -> Result<Tensor>> Sequence<'a, F> {
    pub(super) fn new(
        net: &mut (impl OnlineModule + ?Sized),
        x_seq: &'a Tensor,
        target_seq: &'a Tensor,
        loss_fn: F,
    ) -> Result<Self> {
        let answers = Answers::new(net, x_seq)?;
        Ok(Self { answers, target_seq, loss_fn, loss: None, outputs: None })
    }

    pub(super) fn output(self) -> SequenceOutput {
        SequenceOutput { loss: self.loss.unwrap_or_default(), outputs: self.outputs.unwrap_or_default() }
    }

    /// Steps without learning: forward alone.
    pub(super) fn forward(
        &mut self,
        net: &mut (impl OnlineModule + ?Sized),
        t: i64,
        pass: &Pass<'_>,
    ) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let y = self.answers.of(net, t, pass)?;
        self.keep(&y, t, pass.time_steps)
    }

    /// The loss of the steps from `t` on, summed, with its graph; and the outputs.
    pub(super) fn loss(
        &self,
        net: &mut (impl OnlineModule + ?Sized),
        t: i64,
        pass: &Pass<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let k = pass.time_steps;
        let y = self.answers.of(net, t, pass)?;
        expect_steps("the loss", &y, k)?;
        let mut loss = None;
        let steps = if k == 1 { vec![y.shallow_clone()] } else { y.f_split(y.size()[0] / k, 0)? };
        for (step, y) in (t..).zip(&steps) {
            let target = self.target_seq.f_select(1, step)?.f_contiguous()?;
            let own = guarded("the loss", || (self.loss_fn)(y, &target))?;
            expect_loss(&own)?;
            add(&mut loss, own)?;
        }
        Ok((loss.unwrap_or_default(), y))
    }

    /// The steps from `t` on: forward, loss, backward.
    pub(super) fn learn(
        &mut self,
        net: &mut (impl OnlineModule + ?Sized),
        t: i64,
        pass: &Pass<'_>,
    ) -> Result<()> {
        let (loss, y) = self.loss(net, t, pass)?;
        loss.f_backward()?;
        if !self.answers.cuts {
            net.detach();
        }
        self.count(&loss)?;
        self.keep(&y, t, pass.time_steps)
    }

    /// Adds a loss to the sum, without its graph.
    pub(super) fn count(&mut self, loss: &Tensor) -> Result<()> {
        add(&mut self.loss, loss.f_detach()?)
    }

    /// Keeps the outputs of steps `t .. t + k`.
    pub(super) fn keep(&mut self, y: &Tensor, t: i64, k: i64) -> Result<()> {
        let y = y.f_detach()?.f_unflatten(0, [k, -1])?.f_transpose(0, 1)?;
        if self.outputs.is_none() {
            let mut size = y.size();
            size[1] = self.answers.x_seq.size()[1];
            self.outputs = Some(y.f_new_empty(size, (y.f_kind()?, y.device()))?);
        }
        if let Some(outputs) = &self.outputs {
            guarded("the outputs", || Ok(outputs.f_narrow(1, t, k)?.f_copy_(&y).map(drop)?))?;
        }
        Ok(())
    }
}

/// Adds a tensor to the sum of those before.
pub(super) fn add(total: &mut Option<Tensor>, tensor: Tensor) -> Result<()> {
    *total = Some(match total.take() {
        Some(total) => total.f_add(&tensor)?,
        None => tensor,
    });
    Ok(())
}
