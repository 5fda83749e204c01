//! One network on many processes, each with its part of the batch.

use tch::{Device, Kind, Tensor};

use super::agreement::{expect_alike, expect_identical, share_state, share_values};
use super::collectives::Collectives;
use crate::check::expect_defined;
use crate::error::{guarded, Error, Result};
use crate::ffi::{is_dense, set_grad};
use crate::module::{OnlineModule, Role, Variable};
use crate::state_dict::StateDict;
use crate::train::Optimizer;

/// An optimizer whose steps go by the gradient of the whole batch, of which each process has a part.
///
/// The training loops take it as any other optimizer. Before each step the gradients of all ranks are averaged,
///
/// ```text
/// g = Σ_r n_r g_r / Σ_r n_r,
/// ```
///
/// where rank r's gradient g_r is the mean over its n_r samples; the counts travel with the gradients. So the
/// step is that of one process with the whole batch, as far as the loss is a mean over samples and no layer mixes
/// them (batch normalization does, each rank by itself) and nothing is drawn (masks of dropout and steps of SLTT-K
/// are, by each rank). All ranks get the same gradients, bit for bit, and so stay alike, on processors of one kind.
///
/// A parameter that some rank has no gradient for counts as 0 there; one that no rank has stays without.
///
/// A loop of your own calls [`set_samples`](Optimizer::set_samples) before each batch, unless all ranks always have as
/// many samples. Behind a step the gradients lie in memory that the next one uses again.
///
/// # Cost
/// Per step one all-reduce a dtype, of all parameters' numbers and a few more; the
/// [module](crate::distributed) says what that means for the network. It runs between backward and step and does
/// not overlap with either. Half-precision gradients travel as f32. One process by itself pays nothing.
///
/// ```
/// use spiketrace::distributed::{from_env_or_single, DataParallel};
/// use spiketrace::train::{Sgd, SgdConfig};
/// use spiketrace::OtttSequential;
/// use tch::{nn, Device};
///
/// let group = from_env_or_single(std::time::Duration::from_secs(60))?;
/// let vs = nn::VarStore::new(Device::Cpu);
/// let net = OtttSequential::new().add(nn::linear(vs.root(), 8, 4, Default::default()));
/// let sgd = Sgd::new(&vs.trainable_variables(), SgdConfig::default())?;
/// let mut optimizer = DataParallel::new(&*group, &net, sgd)?;
/// // ottt_online_training(&mut net, &mut optimizer, ...)
/// optimizer.inner_mut().set_lr(0.01)?;
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "DistributedDataParallel")]
#[derive(Debug)]
pub struct DataParallel<'a, O> {
    group: &'a dyn Collectives,
    optimizer: O,
    /// All that must be the same on all ranks.
    parameters: Vec<Variable>,
    /// Those with gradients.
    trained: Vec<Tensor>,
    buckets: Vec<Bucket>,
    /// Where the header lies: the count of samples, then for each parameter how many samples have a gradient.
    header: Tensor,
    samples: i64,
}

/// Gradients of one dtype in one piece of memory.
#[derive(Debug)]
struct Bucket {
    flat: Tensor,
    /// Place in `trained`, and the gradient's room in `flat`.
    slots: Vec<(usize, Tensor)>,
}

impl<'a, O: Optimizer> DataParallel<'a, O> {
    /// Takes over `optimizer`, which moves parameters of `net`.
    ///
    /// Rank 0's parameters, buffers and optimizer state become those of all ranks, so that a checkpoint need be
    /// restored on rank 0 alone. What stays each rank's own: membranes, random generators, and the state of tch's
    /// optimizers, which cannot be read.
    ///
    /// # Errors
    /// On all ranks, when `net` has other parameters or buffers on one of them, the optimizer other parameters or
    /// the same in another order, or it cannot take the state of rank 0's: the message names the rank. When the
    /// optimizer has no parameter, or a parameter's memory is not dense.
    pub fn new(
        group: &'a dyn Collectives,
        net: &(impl OnlineModule + ?Sized),
        mut optimizer: O,
    ) -> Result<Self> {
        let trained = optimizer.parameters();
        if trained.is_empty() {
            return Err(Error::argument("DataParallel's optimizer", "one with parameters", "one with none"));
        }
        let (mut parameters, mut order) = (net.parameters(), Vec::new());
        for (i, tensor) in trained.iter().enumerate() {
            let name = format!("parameter {i} of the optimizer");
            expect_defined(&name, tensor)?;
            let known = parameters.iter().position(|known| known.tensor.data_ptr() == tensor.data_ptr());
            let place = known.unwrap_or(parameters.len());
            if known.is_none() {
                parameters.push(Variable::parameter(name, tensor));
            }
            let name = format!("number {i} of the optimizer, {}", parameters[place].name);
            order.push(Variable::parameter(name, tensor));
        }
        // Running statistics are each rank's own later on.
        let buffers = net.variables().into_iter().filter(|variable| variable.role == Role::Buffer);
        let buffers: Vec<Variable> = buffers.collect();
        expect_alike(group, parameters.iter().chain(&buffers))?;
        expect_alike(group, &order)?;
        if let Some(odd) = parameters.iter().find(|parameter| !is_dense(&parameter.tensor)) {
            let what = format!("DataParallel's parameter {}", odd.name);
            return Err(Error::shape(&what, "dense memory", &odd.tensor, "make it contiguous()"));
        }
        let (buckets, header) = match group.world_size() {
            1 => (Vec::new(), Tensor::new()),
            _ => {
                share_values(group, parameters.iter().chain(&buffers))?;
                share_state(group, &mut optimizer)?;
                guarded("DataParallel", || buckets(&trained))?
            }
        };
        Ok(Self { group, optimizer, parameters, trained, buckets, header, samples: 1 })
    }

    /// The optimizer inside.
    pub fn inner(&self) -> &O {
        &self.optimizer
    }

    /// The optimizer inside, for instance to set its learning rate: on all ranks alike.
    pub fn inner_mut(&mut self) -> &mut O {
        &mut self.optimizer
    }

    /// Takes part in `steps` steps without samples, where a batch left this rank none.
    ///
    /// As many as the others' training loop makes: one a time step with
    /// [`Update::EveryStep`](crate::train::Update::EveryStep), one with `EndOfSequence`. FPTT averages in between
    /// too, which cannot be sat out: there each rank needs a sample.
    ///
    /// # Errors
    /// As [`step`](Optimizer::step).
    pub fn sit_out(&mut self, steps: i64) -> Result<()> {
        let samples = std::mem::replace(&mut self.samples, 0);
        let done = (0..steps).try_for_each(|_| {
            self.zero_grad()?;
            self.step()
        });
        self.samples = samples;
        done
    }

    /// Errors, on all ranks, unless they hold the same bits. Costs a broadcast of all parameters.
    ///
    /// They do unless something outside changed weights or optimizer on some ranks only, for instance a
    /// checkpoint that only rank 0 read.
    ///
    /// # Errors
    /// As said; the message names rank and parameter.
    pub fn expect_identical(&self) -> Result<()> {
        match self.group.world_size() {
            1 => Ok(()),
            _ => expect_identical(self.group, &self.parameters),
        }
    }

    fn average(&mut self) -> Result<()> {
        let samples = self.samples as f64;
        let mut counts = vec![samples; self.trained.len() + 1];
        for Bucket { slots, .. } in &mut self.buckets {
            for (i, slot) in slots {
                let grad = self.trained[*i].f_grad()?;
                if grad.defined() && samples > 0.0 {
                    let _ = grad.f_to_kind(slot.f_kind()?)?.f_mul_scalar_out(slot, samples)?;
                } else {
                    counts[*i + 1] = 0.0;
                    let _ = slot.f_zero_()?;
                }
            }
        }
        let missing = counts.contains(&0.0);
        match missing {
            true => self.header.f_copy_(&Tensor::from_slice(&counts))?,
            false => drop(self.header.f_fill_(samples)?),
        }
        for Bucket { flat, .. } in &mut self.buckets {
            self.group.sum_alike(flat)?;
        }
        // Looked at only where it matters: on a GPU the host would wait.
        if missing {
            counts = Vec::try_from(&self.header.f_to_kind(Kind::Double)?)?;
            if counts[0] == 0.0 {
                let expected = "at least one over all ranks";
                return Err(Error::argument("the count of samples in a step", expected, 0));
            }
        }
        let total = self.header.f_narrow(0, 0, 1)?.copy();
        for Bucket { flat, slots } in &mut self.buckets {
            let _ = flat.f_div_(&total.f_to_kind(flat.f_kind()?)?.f_to_device(flat.device())?)?;
            for (i, slot) in slots.iter().filter(|(i, _)| counts[i + 1] != 0.0) {
                set_grad(&self.trained[*i], &slot.f_to_kind(self.trained[*i].f_kind()?)?);
            }
        }
        Ok(())
    }
}

impl<O: Optimizer> Optimizer for DataParallel<'_, O> {
    fn parameters(&self) -> Vec<Tensor> {
        self.optimizer.parameters()
    }

    fn zero_grad(&mut self) -> Result<()> {
        self.optimizer.zero_grad()
    }

    fn step(&mut self) -> Result<()> {
        self.average_grads()?;
        self.optimizer.step()
    }

    fn state(&self) -> Result<StateDict> {
        self.optimizer.state()
    }

    /// To be called on all ranks.
    fn load_state(&mut self, state: &StateDict) -> Result<()> {
        self.optimizer.load_state(state)
    }

    fn set_samples(&mut self, samples: i64) {
        self.samples = samples;
        self.optimizer.set_samples(samples);
    }

    fn average_grads(&mut self) -> Result<()> {
        if self.buckets.is_empty() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        guarded("DataParallel", || self.average())
    }
}

/// A bucket a device and kind, and the header at the front of the first.
fn buckets(parameters: &[Tensor]) -> Result<(Vec<Bucket>, Tensor)> {
    let mut groups: Vec<((Device, Kind), Vec<usize>)> = Vec::new();
    for (i, parameter) in parameters.iter().enumerate() {
        // Sums of half-precision numbers lose too much.
        let kind = match parameter.f_kind()? {
            Kind::Half | Kind::BFloat16 => Kind::Float,
            kind => kind,
        };
        let key = (parameter.device(), kind);
        match groups.iter_mut().find(|group| group.0 == key) {
            Some(group) => group.1.push(i),
            None => groups.push((key, vec![i])),
        }
    }
    // The first gradient begins at a multiple of a cache line.
    let counts = parameters.len() as i64 + 1;
    let mut front = (counts + 15) / 16 * 16;
    let mut buckets = Vec::new();
    for ((device, kind), members) in groups {
        let numbers: i64 = members.iter().map(|&i| parameters[i].numel() as i64).sum();
        let flat = Tensor::f_zeros([front + numbers], (kind, device))?;
        let mut offset = front;
        let slots = members.into_iter().map(|i| {
            let parameter = &parameters[i];
            // With the parameter's strides, as fused optimizers want gradients.
            let slot = flat.f_as_strided(parameter.size(), parameter.stride(), offset)?;
            offset += parameter.numel() as i64;
            Ok((i, slot))
        });
        let slots = slots.collect::<Result<_>>()?;
        buckets.push(Bucket { flat, slots });
        front = 0;
    }
    let header = buckets[0].flat.f_narrow(0, 0, counts)?;
    Ok((buckets, header))
}
