//! Modules one after another, each wrapped for OTTT as its parameters ask.

use std::fmt;

use tch::Tensor;

use super::layout::arranged;
use super::parts;
use crate::error::{Error, Result};
use crate::fast::fast_paths;
use crate::ffi::{backward_from, grad_enabled};
use crate::module::{Constant, Layout, Memory, OnlineModule, Parameter};
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
    modules: Vec<Box<dyn OnlineModule>>,
    /// One a module: its position, or a name of its own.
    names: Vec<String>,
    /// Whether the weights stand still.
    holds: bool,
    /// What the first modules make of a constant input meanwhile.
    head: Option<Head>,
}

/// The answer of the first modules to a constant input, made once while the weights stand still.
#[derive(Debug)]
struct Head {
    x: Tensor,
    train: bool,
    /// Whether a graph was recorded.
    recorded: bool,
    /// How many modules have gone by.
    modules: usize,
    /// Their answer with the graph behind it.
    made: Tensor,
    /// The same values without one: gathers the gradient.
    leaf: Tensor,
}

impl OtttSequential {
    /// An empty container: its output is its input.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a module, whose parameters are named by its position.
    #[allow(clippy::should_implement_trait)] // tch's name
    pub fn add(self, module: impl OnlineModule + 'static) -> Self {
        let position = self.modules.len().to_string();
        self.push(position, module)
    }

    /// Appends a module under a name of its own, as PyTorch's `Sequential(OrderedDict(..))` does.
    ///
    /// # Errors
    /// When the name is empty, taken, or the position of another module.
    pub fn add_named(self, name: &str, module: impl OnlineModule + 'static) -> Result<Self> {
        let position_of_another = name.parse::<usize>().is_ok_and(|i| i != self.modules.len());
        if name.is_empty() || position_of_another || self.names.iter().any(|taken| taken == name) {
            let expected = "a name that no other module of the container has";
            return Err(Error::argument("a module's name", expected, format!("{name:?}")));
        }
        Ok(self.push(name.to_owned(), module))
    }

    pub(crate) fn push(mut self, name: String, module: impl OnlineModule + 'static) -> Self {
        self.modules.push(Box::new(module));
        self.names.push(name);
        self
    }

    /// How many modules there are.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// [`step`](OnlineModule::step), with the signal behind each module shown to `inspect`.
    pub fn step_inspected(
        &mut self,
        x: &Signal,
        train: bool,
        mut inspect: impl FnMut(usize, &dyn OnlineModule, &Signal),
    ) -> Result<Signal> {
        self.run(x, 1, train, Some(&mut inspect))
    }

    /// Takes the signal through all modules; an error says which of them met it.
    fn run(
        &mut self,
        x: &Signal,
        time_steps: i64,
        train: bool,
        mut inspect: Option<Inspect<'_>>,
    ) -> Result<Signal> {
        let (begin, mut signal) = match x {
            Signal::Constant(x) if self.holds && inspect.is_none() => self.head(x, train)?,
            _ => (0, x.shallow_clone()),
        };
        let mut rest = self.modules.iter_mut().enumerate().skip(begin).peekable();
        while let Some((i, module)) = rest.next() {
            if module.constant() == Constant::Refuses {
                signal = signal.spread(time_steps)?;
            }
            // A neuron multiplies its spikes by itself, unless somebody wants to see them before.
            let next = rest.peek().and_then(|(_, next)| next.scale());
            let scale =
                next.filter(|_| inspect.is_none() && module.takes_scale() && fast_paths().fused_neuron);
            signal =
                parts::step(&self.names[i], &mut **module, &signal, |module, x| match (scale, time_steps) {
                    (Some(scale), _) => module.scaled_steps(x, time_steps, train, scale),
                    (None, 1) => module.step(x, train),
                    (None, _) => module.steps(x, time_steps, train),
                })?;
            if scale.is_some() {
                rest.next();
            }
            if let Some(inspect) = &mut inspect {
                inspect(i, &**module, &signal);
            }
        }
        arranged(&signal.spread(time_steps)?, Layout::Contiguous)
    }

    /// How many modules keep a constant `x` constant, and what they make of it.
    fn head(&mut self, x: &Tensor, train: bool) -> Result<(usize, Signal)> {
        let known = |head: &&Head| {
            let same = |a: &Tensor, b: &Tensor| {
                (a.data_ptr(), a.size(), a.stride()) == (b.data_ptr(), b.size(), b.stride())
            };
            head.train == train && (head.recorded || !grad_enabled()) && same(&head.x, x)
        };
        if self.head.as_ref().filter(known).is_none() {
            self.release_head()?;
            let (mut signal, mut modules) = (Signal::Constant(x.shallow_clone()), 0);
            for (name, module) in self.names.iter().zip(&mut self.modules) {
                if module.constant() != Constant::Keeps {
                    break;
                }
                signal = parts::step(name, &mut **module, &signal, |module, x| module.step(x, train))?;
                modules += 1;
            }
            let made = signal.into_value();
            let leaf = made.f_detach()?.f_set_requires_grad(made.requires_grad())?;
            self.head =
                Some(Head { x: x.shallow_clone(), train, recorded: grad_enabled(), modules, made, leaf });
        }
        Ok(self.head.as_ref().map_or((0, Signal::Constant(x.shallow_clone())), |head| {
            (head.modules, Signal::Constant(head.leaf.shallow_clone()))
        }))
    }

    /// Passes the gradient that the head's answer has gathered on to the first modules.
    fn release_head(&mut self) -> Result<()> {
        let Some(Head { made, leaf, .. }) = self.head.take() else { return Ok(()) };
        let grad = leaf.f_grad()?;
        if grad.defined() && made.requires_grad() {
            backward_from(&made, &grad)?;
        }
        Ok(())
    }

    /// What `of` says of every module, the module's name in front of each.
    fn named(&self, of: impl Fn(&dyn OnlineModule) -> Vec<Parameter>) -> Vec<Parameter> {
        parts::named(self.names.iter().zip(&self.modules).map(|(name, module)| (&**name, &**module)), of)
    }

    /// Does `what` with every module.
    fn each(&mut self, what: impl Fn(&mut dyn OnlineModule) -> Result<()>) -> Result<()> {
        let parts = self.names.iter().zip(&mut self.modules);
        parts::each(parts.map(|(name, module)| (&**name, &mut **module as &mut dyn OnlineModule)), what)
    }
}

/// Is shown the signal behind each module.
type Inspect<'a> = &'a mut dyn FnMut(usize, &dyn OnlineModule, &Signal);

impl OnlineModule for OtttSequential {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        self.run(x, 1, train, None)
    }

    fn steps(&mut self, x: &Signal, time_steps: i64, train: bool) -> Result<Signal> {
        self.run(x, time_steps, train, None)
    }

    fn hold_weights(&mut self) -> Result<()> {
        self.holds = fast_paths().held_weights;
        self.head = None;
        self.each(|module| module.hold_weights())
    }

    fn release_weights(&mut self) -> Result<()> {
        self.holds = false;
        // First, since it leads to the weights.
        let head = self.release_head();
        head.and(self.each(|module| module.release_weights()))
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.named(|module| module.parameters())
    }

    fn buffers(&self) -> Vec<Parameter> {
        self.named(|module| module.buffers())
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        self.modules.iter_mut().flat_map(|module| module.memories()).collect()
    }

    fn reset(&mut self) {
        self.modules.iter_mut().for_each(|module| module.reset());
    }

    fn detach(&mut self) {
        self.modules.iter_mut().for_each(|module| module.detach());
    }

    fn constant(&mut self) -> Constant {
        Constant::Takes
    }

    fn layout(&self) -> Layout {
        Layout::Any
    }

    fn name(&self) -> String {
        format!("OtttSequential({} modules)", self.modules.len())
    }
}

/// A table: name, module, wrapper, parameters.
impl fmt::Display for OtttSequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["".into(), "module".into(), "wrapper".into(), "parameters".into()]];
        for (name, module) in self.names.iter().zip(&self.modules) {
            let parameters = module.parameters().into_iter();
            let parameters: Vec<String> =
                parameters.map(|p| format!("{} {:?}", p.name, p.tensor.size())).collect();
            let wrapper = module.wrapper().to_owned();
            rows.push([name.clone(), module.name(), wrapper, parameters.join(", ")]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 3] = std::array::from_fn(width);
        for [index, module, wrapper, parameters] in &rows {
            let [a, b, c] = widths;
            let line = format!("{index:>a$}  {module:<b$}  {wrapper:<c$}  {parameters}");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
