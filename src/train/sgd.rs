//! Stochastic gradient descent in one kernel over all parameters.

use tch::Tensor;

use super::laid_out::LaidOut;
use super::optimizer::{expect_from_0, expect_names, forget_grads, lr_of, Optimizer};
use super::parameters::expect_parameters;
use crate::check::expect_like;
use crate::error::{Error, Result};
use crate::ffi::{copy_like, fused_sgd, SgdOptions};
use crate::state_dict::StateDict;

/// Options of [`Sgd`], with PyTorch's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdConfig {
    /// Learning rate. Default: 1e-3.
    pub lr: f64,
    /// Share of the last move that is kept. Default: 0.
    pub momentum: f64,
    /// Share of the gradient that does not enter the momentum. Default: 0.
    pub dampening: f64,
    /// Pull of the parameters towards 0, as part of the gradient. Default: 0.
    pub weight_decay: f64,
    /// Whether the momentum looks one move ahead. Default: false.
    pub nesterov: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { lr: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

/// SGD through libtorch's fused kernel: one pass over gradient, momentum and parameter.
///
/// ```text
/// g = grad + weight_decay p
/// b = momentum b + (1 - dampening) g            (b = g at the first step)
/// p = p - lr (nesterov: g + momentum b, else b)
/// ```
///
/// With [`Update::EveryStep`](super::Update::EveryStep) an optimizer runs at each time step: what it costs is
/// part of the step. So numbers below the smallest normal one count as 0 in it, on x86 processors: a momentum without
/// gradient fades into them, and Intel's are slow there (an online step of batch 1 took 1.6 times as long).
///
/// The kernel goes through memory by address. A parameter, gradient or momentum that has gaps or lies otherwise than the
/// parameter takes part as a copy, and so does half precision on the CPU, which is computed in single precision. A step
/// that fails leaves parameters and momentum as they were.
///
/// # Source
/// PyTorch's `torch.optim.SGD(..., fused=True)`, whose parameters after any number of steps are the same.
///
/// ```
/// use spiketrace::train::{Optimizer, Sgd, SgdConfig};
/// use tch::{Kind, Tensor};
/// let p = Tensor::from_slice(&[1.0f32, -2.0]).set_requires_grad(true);
/// let mut sgd = Sgd::new([&p], SgdConfig { lr: 0.5, ..Default::default() })?;
/// (&p * &p).sum(Kind::Float).f_backward()?;
/// sgd.step()?;
/// assert_eq!(p, Tensor::from_slice(&[0.0f32, 0.0]));
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[derive(Debug)]
pub struct Sgd {
    parameters: Vec<Tensor>,
    config: SgdConfig,
    buffers: Vec<Option<Tensor>>,
}

impl Sgd {
    /// An optimizer of `parameters`, for instance `&vs.trainable_variables()`.
    ///
    /// A tensor that comes twice, as a weight with two places in a network does, counts once, and so do the numbers in
    /// the names of its [`state`](Optimizer::state), as in PyTorch.
    ///
    /// # Errors
    /// When there is no parameter, one is not a leaf or of no floating-point kind, an option is out of range, or elements
    /// share memory: those of an expanded parameter, or of two parameters.
    pub fn new<'a>(parameters: impl IntoIterator<Item = &'a Tensor>, config: SgdConfig) -> Result<Self> {
        let SgdConfig { lr, momentum, dampening, weight_decay, nesterov } = config;
        let from_0 =
            [("lr", lr), ("momentum", momentum), ("dampening", dampening), ("weight_decay", weight_decay)];
        for (name, value) in from_0 {
            expect_from_0(&format!("Sgd's {name}"), value)?;
        }
        if nesterov && (momentum == 0.0 || dampening != 0.0) {
            let got = format!("{momentum}, with dampening {dampening}");
            return Err(Error::argument("Sgd's momentum", "above 0 without dampening for nesterov", got));
        }
        let parameters = expect_parameters("Sgd", parameters)?;
        let buffers = parameters.iter().map(|_| None).collect();
        Ok(Self { parameters, config, buffers })
    }

    /// The options.
    pub fn config(&self) -> SgdConfig {
        self.config
    }

    /// Sets the learning rate.
    ///
    /// # Errors
    /// When it is not a finite number from 0 on; the former one stays.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        expect_from_0("Sgd's lr", lr)?;
        self.config.lr = lr;
        Ok(())
    }

    /// The momentum b of each parameter; `None` before its first step, and without momentum.
    pub fn momentum_buffers(&self) -> &[Option<Tensor>] {
        &self.buffers
    }

    /// Sets the momentum of all parameters, which is copied.
    ///
    /// # Errors
    /// When the count is not that of the parameters, or a buffer is not like its parameter.
    pub fn set_momentum_buffers(&mut self, buffers: &[Option<Tensor>]) -> Result<()> {
        if buffers.len() != self.parameters.len() {
            let expected = format!("{}, one for each parameter", self.parameters.len());
            return Err(Error::argument("the count of momentum buffers", &expected, buffers.len()));
        }
        for (i, (buffer, parameter)) in buffers.iter().zip(&self.parameters).enumerate() {
            if let Some(buffer) = buffer {
                expect_like(format_args!("momentum buffer {i}"), buffer, "its parameter", parameter)?;
            }
        }
        let own = |(buffer, parameter): (&Option<Tensor>, &Tensor)| {
            buffer.as_ref().map(|buffer| copy_like(parameter, buffer)).transpose()
        };
        self.buffers = buffers.iter().zip(&self.parameters).map(own).collect::<Result<_>>()?;
        Ok(())
    }
}

impl Optimizer for Sgd {
    fn state(&self) -> Result<StateDict> {
        let mut state = StateDict::default();
        state.insert("lr", &Tensor::from(self.config.lr));
        for (i, buffer) in self.buffers.iter().enumerate() {
            buffer.iter().for_each(|buffer| drop(state.insert(format!("{i}.momentum_buffer"), buffer)));
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &StateDict) -> Result<()> {
        let lr = lr_of("Sgd", state)?;
        expect_names("Sgd", state, self.parameters.len(), &["momentum_buffer"])?;
        let buffers = self.parameters.iter().enumerate().map(|(i, parameter)| {
            let buffer = state.get(&format!("{i}.momentum_buffer"));
            Ok(buffer.map(|buffer| buffer.f_to_device(parameter.device())).transpose()?)
        });
        self.set_momentum_buffers(&buffers.collect::<Result<Vec<_>>>()?)?;
        self.set_lr(lr)
    }

    fn parameters(&self) -> Vec<Tensor> {
        self.parameters.iter().map(Tensor::shallow_clone).collect()
    }

    fn zero_grad(&mut self) -> Result<()> {
        forget_grads(&self.parameters)
    }

    fn step(&mut self) -> Result<()> {
        let SgdConfig { lr, momentum, dampening, weight_decay, nesterov } = self.config;
        let options = SgdOptions { lr, momentum, dampening, weight_decay, nesterov };
        let _no_grad = tch::no_grad_guard();
        let mut laid_out = LaidOut::new("Sgd");
        let mut made = Vec::new();
        for (i, parameter) in self.parameters.iter().enumerate() {
            let grad = parameter.f_grad()?;
            if !grad.defined() {
                continue;
            }
            let first = self.buffers[i].is_none();
            if momentum == 0.0 {
                laid_out.add(i, parameter, grad, &[], first)?;
                continue;
            }
            if first {
                made.push((i, parameter.f_detach()?.f_zeros_like()?));
            }
            let buffer = self.buffers[i].as_ref().or(made.last().map(|(_, buffer)| buffer));
            let states = buffer.map(|buffer| ("momentum", buffer));
            laid_out.add(i, parameter, grad, states.as_slice(), first)?;
        }
        laid_out.run(|group| {
            let buffers = group.columns.get(2).map_or(&[][..], Vec::as_slice);
            fused_sgd(&group.columns[0], &group.columns[1], buffers, options, group.first)
        })?;
        // Kept only now: after a step that failed there is no momentum of it.
        made.into_iter().for_each(|(i, buffer)| self.buffers[i] = Some(buffer));
        Ok(())
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::ffi::sweep;

    #[test]
    fn momentum_fades_to_0_and_all_else_keeps_its_smallest_numbers() {
        // Enough for all of libtorch's threads.
        let full = |value: f32| Tensor::full([1 << 18], f64::from(value), (Kind::Float, Device::Cpu));
        let p = full(1.0).set_requires_grad(true);
        let mut sgd = Sgd::new([&p], SgdConfig { momentum: 0.5, ..Default::default() }).unwrap();
        sgd.set_momentum_buffers(&[Some(full(f32::MIN_POSITIVE))]).unwrap();
        let halves = || full(f32::MIN_POSITIVE) * 0.5;
        let before = halves();
        (&p * 0.0).sum(Kind::Float).backward();
        sgd.step().unwrap();
        assert_eq!(sgd.momentum_buffers()[0].as_ref().unwrap(), &full(0.0));
        assert!(before.double_value(&[0]) > 0.0);
        assert_eq!(halves(), before);
        assert!(std::hint::black_box(f32::MIN_POSITIVE) * 0.5 > 0.0);
    }

    /// There, a thread that asks for several gets one, and that one is libtorch's.
    #[test]
    fn a_step_on_a_thread_of_libtorchs_leaves_it_as_it_was() {
        let full = |value: f64| Tensor::full([1 << 18], value, (Kind::Float, Device::Cpu));
        let (out, x) = (full(0.0), full(f64::from(f32::MIN_POSITIVE)));
        sweep::<f32, 1, 1>([Some(&out)], [Some(&x)], |[mut out], [x]| {
            let p = Tensor::ones([1 << 16], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let mut sgd = Sgd::new([&p], SgdConfig { momentum: 0.5, ..Default::default() }).unwrap();
            (&p * 1.0).sum(Kind::Float).backward();
            sgd.step().unwrap();
            out.row(0).iter_mut().zip(x.row(0)).for_each(|(out, x)| *out = x * std::hint::black_box(0.5));
        })
        .unwrap();
        assert!(out.gt(0.0).all().int64_value(&[]) != 0);
    }
}
