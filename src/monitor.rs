//! Looking inside a network while it runs: spikes, membranes, gradients.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::module::OnlineModule;

/// Options of [`Monitor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitorConfig {
    /// Of how many calls of [`Monitor::watch`] one is recorded, the first being the first; 50.
    pub every: u64,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self { every: 50 }
    }
}

/// Records what the neurons of a network do and how large its gradients are.
///
/// Any network of any depth: its neurons report by themselves while a call is watched. Of each layer of neurons
///
/// | quantity | over the watched steps |
/// |---|---|
/// | `rate` | mean of the spikes, 0 to 1 |
/// | `silent` | share of the neurons that never fired, for no sample |
/// | `saturated` | share of the neurons that always fired |
/// | `v_mean`, `v_std`, `v_min`, `v_max` | of the potentials behind each step (with K steps a pass, behind each pass) |
///
/// and of each parameter `grad_norm`, the Euclidean norm of the gradient that is there afterwards. A layer is called
/// by its path, `1.block.0`, as a parameter is. Where one path has several, neurons inside a module of your own or
/// inputs of another size, the second is `1.block.0#2`.
///
/// # Cost
/// None unless a call is recorded. In a recorded step three passes over the output of each layer of neurons; over a
/// training with `every` at 50, about a hundredth of the time (`cargo bench --bench monitor`).
///
/// ```
/// use spiketrace::train::{ottt_online_training, repeat_over_time, Sgd, SgdConfig, Update};
/// use spiketrace::{Monitor, MonitorConfig, OnlineModule, OtttLifNode, OtttSequential};
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
            let (name, numbers) = (layer.name(), layer.numbers()?);
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

    /// Writes `call,name,quantity,value`, one record a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            writeln!(file, "call,name,quantity,value")?;
            for Record { call, name, quantity, value } in &self.records {
                writeln!(file, "{call},{name},{quantity},{value}")?;
            }
            file.flush()
        };
        write().map_err(|error| Error::Data {
            path: path.into(),
            problem: format!("cannot be written: {error}"),
        })
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
    /// Spikes of each neuron, summed over samples and steps.
    spikes: Tensor,
    /// How often each neuron could have fired.
    chances: i64,
    /// Sums over looks of the potentials' mean and mean square, and the least and largest potential.
    mean: Tensor,
    square: Tensor,
    least: Tensor,
    most: Tensor,
    looks: i64,
}

/// Runs `body` with a watch on this thread; a watch around it goes on afterwards.
fn recorded<T>(body: impl FnOnce() -> T) -> (T, Vec<Layer>) {
    /// Restores in a panic, too.
    struct Restore(Option<Watch>);

    impl Drop for Restore {
        fn drop(&mut self) {
            WATCH.set(self.0.take());
        }
    }

    let _restore = Restore(WATCH.replace(Some(Watch::default())));
    let result = body();
    let layers = WATCH.with_borrow_mut(|watch| watch.take()).map_or_else(Vec::new, |watch| watch.layers);
    (result, layers)
}

/// Runs `body`, a module's step, as the part `part` of what is around it.
pub(crate) fn within<T>(part: &str, body: impl FnOnce() -> T) -> T {
    let entered = WATCH.with_borrow_mut(|watch| {
        watch.as_mut().map(|watch| {
            watch.path.push(part.to_owned());
            watch.path.len()
        })
    });
    let result = body();
    if let Some(depth) = entered {
        WATCH.with_borrow_mut(|watch| {
            if let Some(watch) = watch {
                watch.path.truncate(depth - 1);
            }
        });
    }
    result
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
        let Some(v) = v.filter(|v| v.dim() > 0) else { return Ok(()) };
        let _no_grad = tch::no_grad_guard();
        // Half precision counts to a few hundred only.
        let spikes = spike.f_ne(0.0)?.f_sum_dim_intlist(0i64, false, Kind::Float)?;
        let v = if v.f_kind()? == Kind::Double { v.shallow_clone() } else { v.f_to_kind(Kind::Float)? };
        let (var, mean) = v.f_var_mean(false)?;
        let square = mean.f_square()?.f_add(&var)?;
        let (least, most) = v.f_aminmax(None, false)?;
        let path = self.path.join(".");
        let ordinal = 1 + self.layers.iter().filter(|layer| layer.path == path).count();
        let same = |layer: &&mut Layer| {
            (layer.node, &layer.path, layer.spikes.size()) == (node, &path, spikes.size())
        };
        match self.layers.iter_mut().find(same) {
            Some(layer) => {
                layer.spikes = layer.spikes.f_add(&spikes)?;
                layer.mean = layer.mean.f_add(&mean)?;
                layer.square = layer.square.f_add(&square)?;
                layer.least = layer.least.f_minimum(&least)?;
                layer.most = layer.most.f_maximum(&most)?;
                layer.chances += spike.size()[0];
                layer.looks += 1;
            }
            None => {
                let chances = spike.size()[0];
                let looks = 1;
                self.layers.push(Layer {
                    path,
                    ordinal,
                    node,
                    spikes,
                    chances,
                    mean,
                    square,
                    least,
                    most,
                    looks,
                });
            }
        }
        Ok(())
    }
}

impl Layer {
    fn name(&self) -> String {
        match self.ordinal {
            1 => self.path.clone(),
            ordinal => format!("{}#{ordinal}", self.path),
        }
    }

    fn numbers(&self) -> Result<[(&'static str, f64); 7]> {
        let share = |of: Tensor| number(&of.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?);
        let chances = self.chances as f64;
        let silent = share(self.spikes.f_eq(0.0)?)?;
        let saturated = share(self.spikes.f_eq(chances)?)?;
        let rate = share(self.spikes.shallow_clone())? / chances;
        let (mean, square) =
            (number(&self.mean)? / self.looks as f64, number(&self.square)? / self.looks as f64);
        let deviation = (square - mean * mean).max(0.0).sqrt();
        Ok([
            ("rate", rate),
            ("silent", silent),
            ("saturated", saturated),
            ("v_mean", mean),
            ("v_std", deviation),
            ("v_min", number(&self.least)?),
            ("v_max", number(&self.most)?),
        ])
    }
}

fn number(x: &Tensor) -> Result<f64> {
    Ok(x.f_double_value(&[])?)
}
