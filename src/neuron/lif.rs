//! A layer of LIF neurons.

use tch::Tensor;

use super::dynamics::LifConfig;
use super::kernel::{row, Kernel, Request, Spikes};
use super::rule::{LifStep, Rule, Trace};
use crate::check::{expect_float, expect_fresh, expect_like, expect_steps, expect_time_steps};
use crate::error::{guarded, Result};
use crate::module::{Folds, Memory, OnlineModule, Part, Pass, Properties};
use crate::monitor::note;
use crate::signal::Signal;

/// A layer of LIF neurons, whose trace is that of the rule `R`.
///
/// The rules of this crate have names: [`OtttLifNode`](crate::OtttLifNode), [`SlttLifNode`](crate::SlttLifNode),
/// [`NdotLifNode`](crate::NdotLifNode). One of your own goes in by [`with_rule`](LifNode::with_rule).
///
/// # Shapes
/// Any input, floating-point, fixed from the first step until [`reset`](Part::reset). In training the output is
/// [`Signal::SpikeTrace`] where the rule has a trace, else the plain spike.
#[derive(Debug)]
pub struct LifNode<R> {
    config: LifConfig,
    rule: R,
    v: Memory,
    trace: Memory,
}

impl<R: Rule> LifNode<R> {
    /// A node at rest; its state is made from the first input.
    ///
    /// # Errors
    /// When tau is below 1, or an option is not a finite number.
    pub fn with_rule(rule: R, config: LifConfig) -> Result<Self> {
        config.check(R::NODE)?;
        Ok(Self { config, rule, v: Memory::default(), trace: Memory::default() })
    }

    /// The membrane potential after the last step, `None` before the first. A handle of it keeps its values.
    pub fn v(&self) -> Option<&Tensor> {
        self.v.get()
    }

    /// Sets the membrane potential; the next input must have its shape. No step changes `v` itself.
    pub fn set_v(&mut self, v: &Tensor) {
        self.v.set(v);
    }

    /// The trace after the last training step, `None` before the first. A handle of it keeps its values.
    pub fn trace(&self) -> Option<&Tensor> {
        self.trace.get()
    }

    /// Sets the trace; the next input must have its shape. No step changes `trace` itself. What the rule carries beside it
    /// belonged to another trace, and is forgotten.
    pub fn set_trace(&mut self, trace: &Tensor) {
        self.trace.set(trace);
        self.rule.memories().into_iter().for_each(Memory::forget);
    }

    /// Takes the steps of a pass. An error leaves the state as it was.
    fn steps(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Spikes> {
        expect_float(format_args!("{}'s input", R::NODE), x.value())?;
        expect_time_steps(R::NODE, pass.time_steps)?;
        let kernel = Kernel::of(&self.config, x.value(), pass);
        let spread = match x {
            Signal::Constant(x) if kernel.takes_constant(x) => None,
            Signal::Constant(_) => Some(x.shallow_clone().spread(pass.time_steps)?),
            _ => None,
        };
        let x = spread.as_ref().unwrap_or(x);
        let rows = if matches!(x, Signal::Constant(_)) { 1 } else { pass.time_steps };
        let x = x.value();
        expect_steps(R::NODE, x, rows)?;
        let first = row(x, rows, 0)?;
        let trace = match pass.train && !pass.through_time {
            true => self.rule.trace(&self.config),
            false => Trace::None,
        };
        let traced = Some(("trace", &self.trace)).filter(|_| trace != Trace::None);
        for (what, memory) in [("membrane potential v", &self.v)].into_iter().chain(traced) {
            if let Some(state) = memory.get() {
                expect_fresh(format_args!("{}'s {what}", R::NODE), state, "the input", &first)?;
            }
        }
        let request = Request { config: &self.config, x, rows, leak: None, pass: *pass };
        match trace {
            Trace::Leak(leak) => {
                kernel.run(&Request { leak: Some(leak), ..request }, &mut self.v, &mut self.trace)
            }
            Trace::Own => self.own_trace(kernel, x, rows, pass),
            Trace::None => kernel.run(&request, &mut self.v, &mut self.trace),
        }
    }

    /// The steps one after another, each with the trace that the rule makes.
    fn own_trace(&mut self, kernel: Kernel, x: &Tensor, rows: i64, pass: &Pass<'_>) -> Result<Spikes> {
        // While there are second handles, no kernel writes to the memory of the state.
        let before: Vec<Memory> = self.memories().into_iter().map(|memory| memory.shallow_clone()).collect();
        let (mut spikes, mut traces) = (Vec::new(), Vec::new());
        let result = guarded(R::NODE, || {
            for t in 0..pass.time_steps {
                let x = row(x, rows, t % rows)?;
                let pass = Pass { time_steps: 1, factor: 1.0, ..*pass };
                let request = Request { config: &self.config, x: &x, rows: 1, leak: None, pass };
                let [v_before, trace_before] = [&self.v, &self.trace].map(|m| m.get().map(Tensor::detach));
                let Spikes { spike, .. } = kernel.run(&request, &mut self.v, &mut self.trace)?;
                let data = spike.f_detach()?;
                let v = self.v.get().map_or_else(|| data.f_zeros_like(), Tensor::f_detach)?;
                let trace = self.rule.next_trace(&LifStep {
                    config: &self.config,
                    spike: &data,
                    v_before: v_before.as_ref(),
                    v: &v,
                    trace: trace_before.as_ref(),
                })?;
                expect_like(format_args!("{}'s next trace", R::NODE), &trace, "its spike", &data)?;
                // No graph of a rule's goes on to the next step, and none to the layers after the node.
                let trace = trace.f_detach()?;
                self.rule.memories().into_iter().for_each(Memory::detach);
                self.trace.set(&trace);
                spikes.push(spike);
                traces.push(trace);
            }
            Spikes::joined(spikes, traces, pass.factor)
        });
        if result.is_err() {
            self.memories().into_iter().zip(before).for_each(|(memory, before)| *memory = before);
        }
        result
    }
}

impl<R: Rule> Part for LifNode<R> {
    fn name(&self) -> String {
        self.config.describe(R::NODE)
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        let mut memories = vec![&mut self.v];
        if self.rule.trace(&self.config) != Trace::None {
            memories.push(&mut self.trace);
        }
        memories.extend(self.rule.memories());
        memories
    }

    fn properties(&self) -> Properties {
        let properties = Properties::default().any_layout().steps_at_once();
        Properties { takes_constant: true, cuts: true, ..properties.folds::<Self>(Folds::Multiplies) }
    }
}

impl<R: Rule> OnlineModule for LifNode<R> {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        guarded(R::NODE, || {
            let Spikes { spike, trace } = self.steps(x, pass)?;
            note(std::ptr::from_ref(self) as usize, &spike, self.v.get())?;
            Ok(match trace {
                Some(trace) => Signal::SpikeTrace { spike, trace },
                None => Signal::Dense(spike),
            })
        })
    }
}
