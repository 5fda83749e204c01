//! The neuron of NDOT: a trace that fades as the neuron's own potential does.

use tch::Tensor;

use super::lif::{expect_fresh, Lif, Options, Spikes};
use super::ottt::OtttLifConfig;
use crate::error::{guarded, Result};
use crate::module::{Constant, Layout, Memory, OnlineModule, Parameter};
use crate::signal::Signal;
use crate::through_time::is_through_time;

/// Options of [`NdotLifNode`]: those of [`OtttLifNode`](crate::OtttLifNode).
pub type NdotLifConfig = OtttLifConfig;

/// A LIF neuron for NDOT: [`OtttLifNode`](crate::OtttLifNode)'s dynamics, another trace.
///
/// OTTT fades its trace by the constant λ = 1 - 1/tau, the leak. NDOT fades it by how the neuron's own potential u
/// moves, e_t = u'_{t+1} / u'_t. What is left of u_t without its input is λ v_{t-1}, where v is the potential behind
/// the reset, counted from rest (v_reset, or 0 where the reset is soft); so this is a ratio of successive potentials,
/// taken within ±λ.
///
/// ```text
/// e_t = clamp(v_t / v_{t-1}, -λ, λ)        (λ where v_{t-1} is at rest, and at the first step)
/// a_t = e_{t-1} a_{t-1} + s_t              (training only, no gradient; a_1 = s_1)
/// ```
///
/// # Shapes
/// As of [`OtttLifNode`](crate::OtttLifNode); one time step at a time.
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
#[derive(Debug)]
pub struct NdotLifNode {
    lif: Lif,
    trace: Memory,
    /// e of the last training step.
    fading: Memory,
}

impl NdotLifNode {
    /// A node at rest; its state is made from the first input.
    ///
    /// # Errors
    /// When tau is below 1, or an option is not a finite number.
    pub fn new(config: NdotLifConfig) -> Result<Self> {
        let NdotLifConfig { tau, decay_input, v_threshold, v_reset, surrogate } = config;
        let lif = Lif::new("NdotLifNode", tau, decay_input, v_threshold, v_reset, surrogate)?;
        Ok(Self { lif, trace: None, fading: None })
    }

    /// The membrane potential after the last step, `None` before the first. A handle of it keeps its values.
    pub fn v(&self) -> Option<&Tensor> {
        self.lif.v.as_ref()
    }

    /// Sets the membrane potential; the next input must have its shape. No step changes `v` itself.
    pub fn set_v(&mut self, v: &Tensor) {
        self.lif.v = Some(v.shallow_clone());
    }

    /// The trace after the last training step, `None` before the first. A handle of it keeps its values.
    pub fn trace(&self) -> Option<&Tensor> {
        self.trace.as_ref()
    }

    /// Sets the trace, which fades by λ in the next step; the next input must have its shape.
    pub fn set_trace(&mut self, trace: &Tensor) {
        (self.trace, self.fading) = (Some(trace.shallow_clone()), None);
    }

    /// λ, the leak, which bounds e.
    fn most(&self) -> f64 {
        1.0 - 1.0 / self.lif.tau
    }

    /// a_t, from the spike of the step.
    fn next_trace(&self, spike: &Tensor) -> Result<Tensor> {
        let spike = spike.f_detach()?;
        Ok(match (&self.trace, &self.fading) {
            // In memory of its own: the spike is handed out, and whoever gets it may change it.
            (None, _) => spike.copy(),
            (Some(trace), Some(fading)) => spike.f_addcmul(fading, trace)?,
            (Some(trace), None) => trace.f_mul_scalar(self.most())?.f_add(&spike)?,
        })
    }

    /// e_t, from the potentials before the step and behind it.
    fn next_fading(&self, before: Option<&Tensor>, v: &Tensor) -> Result<Tensor> {
        let most = self.most();
        let Some(before) = before else { return Ok(v.f_full_like(most)?) };
        let above_rest = |v: &Tensor| match self.lif.v_reset {
            Some(v_reset) if v_reset != 0.0 => v.f_sub_scalar(v_reset),
            _ => Ok(v.shallow_clone()),
        };
        let (v, before) = (above_rest(v)?, above_rest(before)?);
        let mut ratio = v.f_div(&before)?.f_clamp(-most, most)?;
        let _ = ratio.f_masked_fill_(&before.f_eq(0.0)?, most)?;
        Ok(ratio)
    }
}

impl OnlineModule for NdotLifNode {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        let traces = train && !is_through_time();
        // While there is a second handle, the step leaves the memory as it is.
        let before = self.lif.v.as_ref().filter(|_| traces).map(Tensor::shallow_clone);
        for (what, memory) in [("trace", &self.trace), ("ratio of potentials", &self.fading)] {
            if let Some(memory) = memory {
                expect_fresh("NdotLifNode", what, memory, self.lif.v.as_ref().unwrap_or(x.value()))?;
            }
        }
        let Spikes { spike, .. } = self.lif.steps(x, 1, None, Options { train, scale: 1.0 })?;
        if !traces {
            return Ok(Signal::Dense(spike));
        }
        let trace = guarded("NdotLifNode", || self.next_trace(&spike))?;
        self.trace = Some(trace.shallow_clone());
        if let Some(v) = &self.lif.v {
            let v = v.f_detach()?;
            self.fading = Some(guarded("NdotLifNode", || self.next_fading(before.as_ref(), &v))?);
        }
        Ok(Signal::SpikeTrace { spike, trace })
    }

    fn constant(&mut self) -> Constant {
        Constant::Takes
    }

    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        vec![&mut self.lif.v, &mut self.trace, &mut self.fading]
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }

    fn name(&self) -> String {
        self.lif.describe()
    }
}
