//! Looking inside a network while it runs: spikes, membranes, gradients.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;
use std::path::Path;

use tch::Tensor;

use crate::atomic_file::write_atomically;
use crate::error::{Error, Result};
use crate::module::OnlineModule;
use crate::setting::AtEnd;

mod tally;

use tally::{number, Tally};

/// Options of [`Monitor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitorConfig {
    /// Record one call of [`Monitor::watch`] in every `every`, starting with the first. Default: 50.
    pub every: u64,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self { every: 50 }
    }
}

/// Records what the neurons of a network do and how large its gradients are.
///
/// Any network of any depth: its neurons report by themselves while a call is watched, on the thread that calls. Of
/// each layer of neurons, whose input's first dimension is the batch,
///
/// | quantity | over the watched steps |
/// |---|---|
/// | `rate` | share of the steps at which a neuron fired, mean of neurons and samples |
/// | `silent` | share of the neurons that never fired, for no sample |
/// | `saturated` | share of the neurons that always fired |
/// | `v_mean`, `v_std`, `v_min`, `v_max` | of the potentials after each step (with K steps a pass, after each pass); NaN where one is none |
///
/// and of each parameter `grad_norm`, the Euclidean norm of the gradient that is there afterwards. A layer is called
/// by its path, `1.block.0`, as a parameter is. Where one path has several, neurons inside a module of your own or
/// inputs of another size, the second is `1.block.0#2`.
///
/// Records stay until [`take_records`](Monitor::take_records) takes them: a program that never ends should.
///
/// # Cost
/// None unless a call is recorded. A recorded step reads once more what each layer of neurons made, a recorded call
/// the gradients: a training takes 4 to 9 percent longer where every batch is recorded, and as long as without, within
/// the noise, where every 50th is (`cargo bench --bench monitor`, two networks, one thread).
///
/// ```
/// use spiketrace::train::{ottt_online_training, repeat_over_time, Sgd, SgdConfig, Update};
/// use spiketrace::{Monitor, MonitorConfig, OtttLifNode, OtttSequential, Part};
/// use tch::{nn, Device, Kind, Tensor};
/// # let vs = nn::VarStore::new(Device::Cpu);
/// # let p = vs.root();
/// let mut net = OtttSequential::new()
///     .add(nn::linear(&p / 0, 8, 4, Default::default()))
///     .add(OtttLifNode::new(Default::default())?)
///     .add(nn::linear(&p / 2, 4, 2, Default::default()));
/// # let mut sgd = Sgd::new(&vs.trainable_variables(), SgdConfig::default())?;
/// # let x = repeat_over_time(&Tensor::rand([3, 8], (Kind::Float, Device::Cpu)), 6)?;
/// # let target = Tensor::rand([3, 6, 2], (Kind::Float, Device::Cpu));
/// # let mse = |y: &Tensor, t: &Tensor| Ok(y.f_mse_loss(t, tch::Reduction::Mean)?);
/// let mut monitor = Monitor::new(MonitorConfig { every: 10 })?;
/// for _ in 0..20 {
///     monitor.watch(&mut net, |net| {
///         ottt_online_training(net, &mut sgd, &x, &target, mse, Update::EveryStep)
///     })?;
///     net.reset();
/// }
/// let rates = monitor.records().iter().filter(|r| r.quantity == "rate");
/// assert_eq!(rates.map(|r| (r.call, &*r.name)).collect::<Vec<_>>(), [(0, "1"), (10, "1")]);
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[derive(Debug)]
pub struct Monitor {
    every: u64,
    calls: u64,
    records: Vec<Record>,
}

/// One number that a [`Monitor`] recorded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// Which call of [`Monitor::watch`] it is of, counted from 0.
    pub call: u64,
    /// The layer's path, or the parameter's name.
    pub name: String,
    /// What was measured, as in [`Monitor`]'s table.
    pub quantity: &'static str,
    /// The number.
    pub value: f64,
}

impl Monitor {
    /// A monitor without records.
    ///
    /// # Errors
    /// When `every` is 0.
    pub fn new(config: MonitorConfig) -> Result<Self> {
        if config.every == 0 {
            return Err(Error::argument("Monitor's every", "at least 1", 0));
        }
        Ok(Self { every: config.every, calls: 0, records: Vec::new() })
    }

    /// Calls `body` with `net`, and records it if it is its turn.
    ///
    /// # Errors
    /// Those of `body`; nothing is recorded then.
    pub fn watch<M: OnlineModule + ?Sized, T, E: From<Error>>(
        &mut self,
        net: &mut M,
        body: impl FnOnce(&mut M) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = self.calls;
        self.calls += 1;
        if !call.is_multiple_of(self.every) {
            return body(net);
        }
        let (result, layers) = recorded(|| body(net));
        let result = result?;
        let mut add = |name: &str, quantity, value| {
            self.records.push(Record { call, name: name.into(), quantity, value })
        };
        for layer in layers {
            let (name, numbers) = (layer.name(), layer.tally.numbers()?);
            numbers.into_iter().for_each(|(quantity, value)| add(&name, quantity, value));
        }
        for p in net.parameters() {
            let grad = p.tensor.f_grad().map_err(Error::from)?;
            if grad.defined() {
                add(&p.name, "grad_norm", number(&grad.f_norm().map_err(Error::from)?)?);
            }
        }
        Ok(result)
    }

    /// All that was recorded, in the order of time.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Takes what was recorded so far out of the monitor; calls count on.
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Writes `call,name,quantity,value`, one record a line; the file is replaced whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let written = write_atomically(path, |file| {
            writeln!(file, "call,name,quantity,value")?;
            self.records.iter().try_for_each(|Record { call, name, quantity, value }| {
                writeln!(file, "{call},{},{quantity},{value}", quoted(name))
            })
        });
        written.map_err(|error| Error::io(path, "cannot be written", error))
    }
}

/// A name as CSV has it, with quotation marks where it needs them.
fn quoted(name: &str) -> Cow<'_, str> {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")).into(),
        false => name.into(),
    }
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// What is gathered while a call is recorded.
#[derive(Default)]
struct Watch {
    /// Where in the network the call is.
    path: Vec<String>,
    layers: Vec<Layer>,
}

/// A layer of neurons, and one size of input.
struct Layer {
    path: String,
    /// Which of those at its path it is, from 1.
    ordinal: usize,
    /// Tells neurons at one path apart.
    node: usize,
    tally: Tally,
}

impl Layer {
    fn name(&self) -> String {
        match self.ordinal {
            1 => self.path.clone(),
            ordinal => format!("{}#{ordinal}", self.path),
        }
    }
}

/// Runs `body` with a watch on this thread; a watch around it goes on afterwards.
fn recorded<T>(body: impl FnOnce() -> T) -> (T, Vec<Layer>) {
    let mut former = Some(WATCH.replace(Some(Watch::default())));
    let _restore = AtEnd(|| former.take().into_iter().for_each(|former| WATCH.set(former)));
    let result = body();
    let layers = WATCH.with_borrow_mut(|watch| watch.take()).map_or_else(Vec::new, |watch| watch.layers);
    (result, layers)
}

/// Runs `body`, a module's step, as the part `part` of what is around it.
pub(crate) fn within<T>(part: &str, body: impl FnOnce() -> T) -> T {
    let depth = WATCH.with_borrow_mut(|watch| {
        let path = &mut watch.as_mut()?.path;
        path.push(part.to_owned());
        Some(path.len() - 1)
    });
    let _leave = AtEnd(|| {
        let Some(depth) = depth else { return };
        WATCH.with_borrow_mut(|watch| watch.iter_mut().for_each(|watch| watch.path.truncate(depth)));
    });
    body()
}

/// Takes note of steps of a layer of neurons, if they are watched.
///
/// `spike` `[time_steps * N, ...]` is not 0 where a neuron fired; `v` `[N, ...]`; `node` tells layers apart.
pub(crate) fn note(node: usize, spike: &Tensor, v: Option<&Tensor>) -> Result<()> {
    WATCH.with_borrow_mut(|watch| match watch {
        Some(watch) => watch.note(node, spike, v),
        None => Ok(()),
    })
}

impl Watch {
    fn note(&mut self, node: usize, spike: &Tensor, v: Option<&Tensor>) -> Result<()> {
        let Some(v) = v.filter(|v| v.dim() > 0 && v.numel() > 0) else { return Ok(()) };
        let _no_grad = tch::no_grad_guard();
        let path = self.path.join(".");
        let size = v.size();
        let here = |layer: &&mut Layer| layer.path == path;
        let same = |layer: &&mut Layer| layer.node == node && here(layer) && layer.tally.size() == size[1..];
        if let Some(layer) = self.layers.iter_mut().find(same) {
            return layer.tally.add(spike, v);
        }
        let ordinal = 1 + self.layers.iter_mut().filter(here).count();
        let mut tally = Tally::new(v)?;
        tally.add(spike, v)?;
        self.layers.push(Layer { path, ordinal, node, tally });
        Ok(())
    }
}
