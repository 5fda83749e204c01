//! Modules one after another, each wrapped for OTTT as its parameters ask.

use std::fmt;

use tch::Tensor;

use super::layout::arranged;
use super::slot::{self, Slot};
use crate::autograd::{Cut, Hold, Key, Owner};
use crate::check::expect_time_steps;
use crate::error::{Error, Result};
use crate::ffi::{grad_enabled, identity};
use crate::module::{Folds, Layout, Memory, OnlineModule, Part, Pass, Properties, Variable, Wrapper};
use crate::setting::{fast_paths, precision};
use crate::signal::Signal;

/// A sequential container for online training.
///
/// It takes neurons, layers (this crate's, tch's, your own) and containers. A dense input goes through
/// layers plainly until an OTTT neuron makes it a spike with its trace; from there on
///
/// - a layer with parameters acts as [`GradWithTrace`](crate::GradWithTrace): a dense signal leaves it;
/// - a layer without acts as [`SpikeTraceOp`](crate::SpikeTraceOp): a pair leaves it;
/// - a neuron is called once, on the spike.
///
/// A parameter counts whether or not it asks for a gradient.
///
/// # Source
/// SpikingJelly's `OTTTSequential`.
///
/// ```
/// use spiketrace::{OnlineModule, OtttLifNode, OtttSequential};
/// use tch::{nn, Device, Kind, Tensor};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let p = vs.root();
/// let mut net = OtttSequential::new()
///     .add(nn::linear(&p / "0", 4, 8, Default::default()))
///     .add(OtttLifNode::new(Default::default())?)
///     .add(nn::linear(&p / "2", 8, 2, Default::default()));
/// let y = net.step(&Tensor::rand([3, 4], (Kind::Float, Device::Cpu)).into(), true)?;
/// assert_eq!(y.value().size(), [3, 2]);
/// println!("{net}");
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "OTTTSequential")]
#[derive(Debug, Default)]
pub struct OtttSequential {
    slots: Vec<Slot>,
    /// How many of the first modules keep a constant input constant: all that they do with it is done once, for as long
    /// as the weights stand still.
    head: usize,
    owner: Owner,
}

impl OtttSequential {
    /// An empty container: its output is its input.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a module, whose variables are named by its position.
    ///
    /// It is asked for its properties and variables here, and at no step.
    #[allow(clippy::should_implement_trait)] // tch's name
    pub fn add(self, module: impl OnlineModule + 'static) -> Self {
        let position = self.slots.len().to_string();
        self.push(position, module)
    }

    /// Appends a module under a name of its own, as PyTorch's `Sequential(OrderedDict(..))` does.
    ///
    /// # Errors
    /// When the name is empty, taken, the position of another module, or has a dot in it: that is what parts the names of
    /// nested modules.
    pub fn add_named(self, name: &str, module: impl OnlineModule + 'static) -> Result<Self> {
        let position_of_another = name.parse::<usize>().is_ok_and(|i| i != self.slots.len());
        let taken = position_of_another || self.slots.iter().any(|slot| slot.name == name);
        if name.is_empty() || name.contains('.') || taken {
            let expected = "a name without a dot that no other module of the container has";
            return Err(Error::argument("a module's name", expected, format!("{name:?}")));
        }
        Ok(self.push(name.to_owned(), module))
    }

    pub(crate) fn push(mut self, name: String, module: impl OnlineModule + 'static) -> Self {
        let slot = Slot::new(name, module);
        if self.head == self.slots.len() && slot.plan.keeps_constant {
            self.head += 1;
        }
        self.slots.push(slot);
        self
    }

    /// How many modules there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// [`step`](OnlineModule::step), with the signal after each module shown to `inspect`.
    pub fn step_inspected(
        &mut self,
        x: &Signal,
        train: bool,
        mut inspect: impl FnMut(usize, &dyn OnlineModule, &Signal),
    ) -> Result<Signal> {
        self.run(x, &Pass::new(train), Some(&mut inspect))
    }

    /// Takes the signal through all modules; an error says which of them met it.
    fn run(&mut self, x: &Signal, pass: &Pass<'_>, mut inspect: Option<Inspect<'_>>) -> Result<Signal> {
        expect_time_steps("OtttSequential", pass.time_steps)?;
        let (begin, mut signal) = match (x, pass.hold) {
            (Signal::Constant(x), Some(hold)) if self.head > 0 && inspect.is_none() => {
                (self.head, self.head_value(x, pass, hold)?)
            }
            _ => (0, x.shallow_clone()),
        };
        // Somebody who looks wants to see the spikes as they are: multiplied, they would not tell any longer who fired.
        let folds = inspect.is_none() && fast_paths().fused_neuron;
        let mut i = begin;
        while let Some(slot) = self.slots.get(i) {
            if !slot.plan.takes_constant {
                signal = spread(signal, pass)?;
            }
            let factor = if folds { self.folded(i) } else { None };
            let slot = &mut self.slots[i];
            signal = slot.pass(&signal, &Pass { factor: factor.unwrap_or(1.0), ..*pass })?;
            if let Some(inspect) = &mut inspect {
                inspect(i, &*slot.module, &signal);
            }
            i += if factor.is_some() { 2 } else { 1 };
        }
        arranged(&spread(signal, pass)?, Layout::Contiguous)
    }

    /// What the module multiplies its output by in the place of the next one, which is left out then.
    fn folded(&self, i: usize) -> Option<f64> {
        match (self.slots[i].plan.folds?, self.slots.get(i + 1)?.plan.folds?) {
            // One that f32 has no normal number for would not give the same numbers in the neuron's place.
            (Folds::Multiplies, Folds::Factor(factor)) => Some(factor).filter(|f| (*f as f32).is_normal()),
            _ => None,
        }
    }

    /// What the head makes of a constant `x`.
    fn head_value(&mut self, x: &Tensor, pass: &Pass<'_>, hold: &Hold) -> Result<Signal> {
        let key = Key { input: identity(x), train: pass.train, kind: precision().kind(), ..self.owner.key() };
        let made = hold.value(key, || {
            // A copy where a graph keeps it: the caller may change x before the graph is gone through.
            let mut signal = Signal::Constant(if grad_enabled() { copied(x)? } else { x.shallow_clone() });
            let mut sources = vec![x.shallow_clone()];
            for slot in &mut self.slots[..self.head] {
                signal = slot.pass(&signal, &Pass { factor: 1.0, ..pass.steps(1) })?;
                sources.extend(slot.module.variables().into_iter().map(|variable| variable.tensor));
            }
            Cut::new(signal.into_value(), sources)
        });
        made.map(Signal::Constant)
    }
}

/// Is shown the signal after each module.
type Inspect<'a> = &'a mut dyn FnMut(usize, &dyn OnlineModule, &Signal);

/// A constant as `[time_steps * N, ...]`. A held one goes out as a copy: whoever gets it may change it in place, and it is
/// to serve again.
fn spread(signal: Signal, pass: &Pass<'_>) -> Result<Signal> {
    match signal {
        Signal::Constant(x) if pass.hold.is_some() && pass.time_steps == 1 => Ok(Signal::Dense(copied(&x)?)),
        signal => signal.spread(pass.time_steps),
    }
}

/// The same numbers in memory of their own; recorded.
fn copied(x: &Tensor) -> Result<Tensor> {
    let mut copy = x.f_detach()?.f_empty_like()?;
    copy.f_copy_(x)?;
    Ok(copy)
}

impl Part for OtttSequential {
    fn name(&self) -> String {
        format!("OtttSequential({} modules)", self.slots.len())
    }

    fn variables(&self) -> Vec<Variable> {
        slot::variables(&self.slots)
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        slot::memories(&mut self.slots)
    }

    fn reset(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.module.reset());
    }

    fn detach(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.module.detach());
    }

    fn properties(&self) -> Properties {
        let cuts = self.slots.iter().all(|slot| slot.plan.cuts);
        Properties { takes_constant: true, cuts, ..Properties::default().any_layout().steps_at_once() }
    }
}

impl OnlineModule for OtttSequential {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        self.run(x, pass, None)
    }
}

/// The plan as a table: name, module, wrapper, what else was decided, parameters.
impl fmt::Display for OtttSequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["", "module", "wrapper", "plan", "parameters"].map(str::to_owned)];
        for (i, slot) in self.slots.iter().enumerate() {
            let parameters = slot.module.parameters().into_iter();
            let parameters: Vec<String> =
                parameters.map(|p| format!("{} {:?}", p.name, p.tensor.size())).collect();
            let wrapper = match slot.plan.wrapper {
                Wrapper::None => String::new(),
                wrapper => format!("{wrapper:?}"),
            };
            rows.push([
                slot.name.clone(),
                slot.module.name(),
                wrapper,
                self.decided(i),
                parameters.join(", "),
            ]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [a, b, c, d]: [usize; 4] = std::array::from_fn(width);
        for [index, module, wrapper, plan, parameters] in &rows {
            let line = format!("{index:>a$}  {module:<b$}  {wrapper:<c$}  {plan:<d$}  {parameters}");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

impl OtttSequential {
    /// What was decided about a module, in words.
    fn decided(&self, i: usize) -> String {
        let plan = &self.slots[i].plan;
        let decided = [
            (plan.is_affine && plan.wrapper == Wrapper::GradWithTrace, "one pass"),
            (i > 0 && self.folded(i - 1).is_some(), "by the neuron"),
            (i < self.head, "a constant once"),
            (!plan.takes_steps, "step by step"),
        ];
        let words = decided.into_iter().filter_map(|(is_so, words)| is_so.then_some(words));
        words.collect::<Vec<_>>().join(", ")
    }
}
