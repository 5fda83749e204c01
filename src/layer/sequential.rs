//! Modules one after another, each wrapped for OTTT as its parameters ask.

use std::fmt;

use tch::Tensor;

use super::layout::arranged;
use super::parts;
use crate::autograd::{Cut, Held};
use crate::error::{Error, Result};
use crate::fast::fast_paths;
use crate::ffi::{grad_enabled, identity};
use crate::module::{expect_time_steps, Constant, Layout, Memory, OnlineModule, Parameter};
use crate::precision::{precision, Precision};
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
    /// The first modules' answer to a constant input, made once for as long as the weights stand still.
    head: Held,
    /// The circumstances that it was made for.
    headed: Option<Headed>,
}

/// The circumstances under which a constant input went through the first modules.
#[derive(Debug)]
struct Headed {
    x: Tensor,
    train: bool,
    precision: Precision,
    /// How many modules it went through.
    modules: usize,
}

impl Headed {
    /// Whether `x` is the same tensor, or one of the same numbers where no gradient is to reach it.
    fn is_for(&self, x: &Tensor, train: bool) -> bool {
        let data =
            || !x.requires_grad() && !self.x.requires_grad() && x.f_is_set_to(&self.x).unwrap_or(false);
        self.train == train && self.precision == precision() && (identity(x) == identity(&self.x) || data())
    }
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
    /// When the name is empty, taken, the position of another module, or has a dot in it: that is what parts the names of
    /// nested modules.
    pub fn add_named(self, name: &str, module: impl OnlineModule + 'static) -> Result<Self> {
        let position_of_another = name.parse::<usize>().is_ok_and(|i| i != self.modules.len());
        let taken = position_of_another || self.names.iter().any(|taken| taken == name);
        if name.is_empty() || name.contains('.') || taken {
            let expected = "a name without a dot that no other module of the container has";
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
        expect_time_steps(|| "OtttSequential", time_steps)?;
        let held = self.head.is_held();
        let (begin, mut signal) = match x {
            Signal::Constant(x) if held && inspect.is_none() => self.head(x, train)?,
            _ => (0, x.shallow_clone()),
        };
        let mut rest = self.modules.iter_mut().enumerate().skip(begin).peekable();
        while let Some((i, module)) = rest.next() {
            if module.constant() == Constant::Refuses {
                signal = spread(signal, time_steps, held)?;
            }
            // A neuron multiplies its spikes by itself, unless somebody wants to see them before, or they would no
            // longer tell who fired.
            let next = rest.peek().and_then(|(_, next)| next.scale());
            let scale = next.filter(|scale| {
                inspect.is_none()
                    && module.takes_scale()
                    && fast_paths().fused_neuron
                    && (*scale as f32).is_normal()
            });
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
        arranged(&spread(signal, time_steps, held)?, Layout::Contiguous)
    }

    /// How many modules keep a constant `x` constant, and what they make of it.
    fn head(&mut self, x: &Tensor, train: bool) -> Result<(usize, Signal)> {
        let Self { modules, names, head, headed } = self;
        let keeps = |module: &mut Box<dyn OnlineModule>| module.constant() == Constant::Keeps;
        let count = modules.iter_mut().map(keeps).take_while(|keeps| *keeps).count();
        let same = headed.as_ref().is_some_and(|headed| headed.modules == count && headed.is_for(x, train));
        let make = || {
            // A copy where a graph keeps it: the caller may change x before the graph is gone through.
            let mut signal = Signal::Constant(if grad_enabled() { copied(x)? } else { x.shallow_clone() });
            let mut sources = vec![x.shallow_clone()];
            for (name, module) in names.iter().zip(&mut modules[..count]) {
                signal = parts::step(name, &mut **module, &signal, |module, x| module.step(x, train))?;
                sources.extend(module.state().into_iter().map(|p| p.tensor));
            }
            let cut = Cut::new(signal.into_value(), sources)?;
            let (x, precision) = (x.shallow_clone(), precision());
            *headed = Some(Headed { x, train, precision, modules: count });
            Ok(cut)
        };
        match if count > 0 { head.value(same, make)? } else { None } {
            Some(made) => Ok((count, Signal::Constant(made))),
            None => Ok((0, Signal::Constant(x.shallow_clone()))),
        }
    }

    /// What `of` says of every module, the module's name in front of each.
    fn named(&self, of: impl Fn(&dyn OnlineModule) -> Vec<Parameter>) -> Vec<Parameter> {
        parts::named(self.names.iter().zip(&self.modules).map(|(name, module)| (&**name, &**module)), of)
    }

    /// The modules with their names.
    fn parts(
        &mut self,
    ) -> impl DoubleEndedIterator<Item = (&str, &mut dyn OnlineModule)> + ExactSizeIterator {
        let parts = self.names.iter().zip(&mut self.modules);
        parts.map(|(name, module)| (&**name, &mut **module as &mut dyn OnlineModule))
    }
}

/// Is shown the signal behind each module.
type Inspect<'a> = &'a mut dyn FnMut(usize, &dyn OnlineModule, &Signal);

/// A constant as `[time_steps * N, ...]`. A held one goes out as a copy: whoever gets it may change it in place, and it is
/// to serve again.
fn spread(signal: Signal, time_steps: i64, held: bool) -> Result<Signal> {
    match signal {
        Signal::Constant(x) if held && time_steps == 1 => Ok(Signal::Dense(copied(&x)?)),
        signal => signal.spread(time_steps),
    }
}

/// The same numbers in memory of their own; recorded.
fn copied(x: &Tensor) -> Result<Tensor> {
    let mut copy = x.f_detach()?.f_empty_like()?;
    copy.f_copy_(x)?;
    Ok(copy)
}

impl OnlineModule for OtttSequential {
    fn step(&mut self, x: &Signal, train: bool) -> Result<Signal> {
        self.run(x, 1, train, None)
    }

    fn steps(&mut self, x: &Signal, time_steps: i64, train: bool) -> Result<Signal> {
        self.run(x, time_steps, train, None)
    }

    fn hold_weights(&mut self) -> Result<()> {
        let late = self.head.hold();
        late.and(parts::each(self.parts(), |module| module.hold_weights()))
    }

    /// From the last module to the first, since what one passes on is for those before it. The head goes through the
    /// first modules' weights, which are released after it.
    fn release_weights(&mut self) -> Result<()> {
        let headed = self.headed.as_ref().map_or(0, |headed| headed.modules);
        let after = self.len() - headed;
        let release = |module: &mut dyn OnlineModule| module.release_weights();
        let rest = parts::each(self.parts().rev().take(after), release);
        let head = self.head.release();
        if !self.head.has_value() {
            self.headed = None;
        }
        let first = parts::each(self.parts().rev().skip(after), release);
        rest.and(head).and(first)
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
