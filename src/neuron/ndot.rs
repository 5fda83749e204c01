//! The neuron of NDOT: a trace that fades as the neuron's own potential does.

use tch::Tensor;

use super::dynamics::LifConfig;
use super::lif::LifNode;
use super::rule::{LifStep, Rule, Trace};
use crate::check::expect_fresh;
use crate::error::Result;
use crate::module::Memory;

/// Options of [`NdotLifNode`].
pub type NdotLifConfig = LifConfig;

/// A LIF neuron for NDOT: [`OtttLifNode`](crate::OtttLifNode)'s dynamics, another trace.
///
/// OTTT fades its trace by the constant λ = 1 - 1/tau, the leak. NDOT fades it by how the neuron's own potential u
/// moves, e_t = u'_{t+1} / u'_t. What is left of u_t without its input is λ v_{t-1}, where v is the potential after
/// the reset, counted from rest (v_reset, or 0 where the reset is soft); so this is a ratio of successive potentials,
/// taken within ±λ.
///
/// ```text
/// e_t = clamp(v_t / v_{t-1}, -λ, λ)        (λ where v_{t-1} is at rest, and at the first step)
/// a_t = e_{t-1} a_{t-1} + s_t              (training only, no gradient; a_1 = s_1)
/// ```
///
/// # Shapes
/// As of [`OtttLifNode`](crate::OtttLifNode).
///
/// # Cost
/// Three tensors of state, v, a and e; six to eight passes over memory beside the neuron's own for the trace.
///
/// # Source
/// Jiang et al., *NDOT: Neuronal Dynamics-based Online Training for Spiking Neural Networks*, ICML 2024. Where there is
/// no ratio their code, too, takes λ.
///
/// ```
/// use spiketrace::{NdotLifNode, OnlineModule};
/// # use tch::Tensor;
/// let mut node = NdotLifNode::new(Default::default())?;
/// let steps = [1.5, 0.25, 0.875, 0.0].map(|x| node.step(&Tensor::from_slice(&[x]).into(), true).unwrap());
/// // Spikes 1, 0, 1 leave potentials 0.5, 0.5, 0.125, whose ratios are 1, clamped to 0.5, and 0.25.
/// let traces = steps.map(|out| out.trace().unwrap().double_value(&[0]));
/// assert_eq!(traces, [1.0, 0.5, 1.25, 0.3125]);
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "NDOT")]
pub type NdotLifNode = LifNode<Ndot>;

/// The rule of [`NdotLifNode`].
#[derive(Debug, Default)]
pub struct Ndot {
    /// e of the last training step.
    fading: Memory,
}

impl NdotLifNode {
    /// A node at rest; its state is made from the first input.
    ///
    /// # Errors
    /// When tau is below 1, or an option is not a finite number.
    pub fn new(config: NdotLifConfig) -> Result<Self> {
        Self::with_rule(Ndot::default(), config)
    }
}

impl Rule for Ndot {
    const NODE: &'static str = "NdotLifNode";

    fn trace(&self, _: &LifConfig) -> Trace {
        Trace::Own
    }

    fn next_trace(&mut self, step: &LifStep<'_>) -> Result<Tensor> {
        let LifStep { config, spike, .. } = *step;
        if let Some(fading) = self.fading.get() {
            expect_fresh("NdotLifNode's ratio of potentials", fading, "its spike", spike)?;
        }
        let trace = match (step.trace, self.fading.get()) {
            (None, _) => spike.copy(),
            (Some(trace), Some(fading)) => spike.f_addcmul(fading, trace)?,
            (Some(trace), None) => trace.f_mul_scalar(config.leak())?.f_add(spike)?,
        };
        self.fading.set(&fading(step)?);
        Ok(trace)
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.fading]
    }
}

/// e_t, from the potentials before and after the step.
fn fading(step: &LifStep<'_>) -> Result<Tensor> {
    let most = step.config.leak();
    let Some(before) = step.v_before else { return Ok(step.v.f_full_like(most)?) };
    let above_rest = |v: &Tensor| match step.config.rest() {
        0.0 => Ok(v.shallow_clone()),
        rest => v.f_sub_scalar(rest),
    };
    let (v, before) = (above_rest(step.v)?, above_rest(before)?);
    let mut ratio = v.f_div(&before)?.f_clamp(-most, most)?;
    let _ = ratio.f_masked_fill_(&before.f_eq(0.0)?, most)?;
    Ok(ratio)
}
