//! Adam and AdamW in one kernel over all parameters.

use tch::{Kind, Tensor};

use super::laid_out::LaidOut;
use super::optimizer::{expect_from_0, expect_names, forget_grads, lr_of, Optimizer};
use super::parameters::expect_parameters;
use crate::check::expect_like;
use crate::error::{Error, Result};
use crate::ffi::{copy_like, fused_adam, AdamOptions};
use crate::state_dict::StateDict;

/// Options of [`Adam`], with PyTorch's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamConfig {
    /// Learning rate. Default: 1e-3.
    pub lr: f64,
    /// Decay of the averages of gradient and squared gradient; 0.9 and 0.999.
    pub betas: (f64, f64),
    /// Added to the root of the squared average. Default: 1e-8.
    pub eps: f64,
    /// Pull of the parameters towards 0. Default: 0.
    pub weight_decay: f64,
    /// Whether that pull acts on the parameters themselves, which is AdamW, instead of on the gradient. Default: false.
    pub decoupled_weight_decay: bool,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, decoupled_weight_decay: false }
    }
}

impl AdamConfig {
    /// AdamW, with PyTorch's default weight decay of 1e-2.
    pub fn adamw() -> Self {
        Self { weight_decay: 1e-2, decoupled_weight_decay: true, ..Self::default() }
    }
}

/// What Adam keeps of a parameter, under PyTorch's names.
#[derive(Debug)]
pub struct AdamState {
    /// Steps taken: one number.
    pub step: Tensor,
    /// Running average of the gradient.
    pub exp_avg: Tensor,
    /// Running average of its square.
    pub exp_avg_sq: Tensor,
}

/// Adam or AdamW through libtorch's fused kernel.
///
/// ```text
/// m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
/// p = p - lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// As in [`Sgd`](super::Sgd), numbers below the smallest normal one count as 0 in a step on x86 processors, what does not
/// lie in memory as the kernel needs it takes part as a copy, and a step that fails changes nothing.
///
/// # Source
/// Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv 1711.05101; PyTorch's
/// `torch.optim.Adam(..., fused=True)`.
///
/// ```
/// use spiketrace::train::{Adam, AdamConfig, Optimizer};
/// use tch::{Kind, Tensor};
/// let p = Tensor::from_slice(&[1.0f32, -2.0]).set_requires_grad(true);
/// let mut adam = Adam::new([&p], AdamConfig { lr: 0.25, ..Default::default() })?;
/// (&p * &p).sum(Kind::Float).f_backward()?;
/// adam.step()?;
/// assert!(p.allclose(&Tensor::from_slice(&[0.75f32, -1.75]), 1e-6, 0.0, false));
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[doc(alias = "AdamW")]
#[derive(Debug)]
pub struct Adam {
    parameters: Vec<Tensor>,
    config: AdamConfig,
    states: Vec<AdamState>,
}

impl Adam {
    /// An optimizer of `parameters`, for instance `&vs.trainable_variables()`.
    ///
    /// # Errors
    /// As [`Sgd::new`](super::Sgd::new), which also says what becomes of a tensor that comes twice.
    pub fn new<'a>(parameters: impl IntoIterator<Item = &'a Tensor>, config: AdamConfig) -> Result<Self> {
        for (name, value) in [("lr", config.lr), ("eps", config.eps), ("weight_decay", config.weight_decay)] {
            expect_from_0(&format!("Adam's {name}"), value)?;
        }
        for beta in [config.betas.0, config.betas.1] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::argument("Adam's beta", "from 0 to below 1", beta));
            }
        }
        let parameters = expect_parameters("Adam", parameters)?;
        let state = |p: &Tensor| {
            let zeros = || p.detach().f_zeros_like();
            let step = Tensor::f_zeros([], (Kind::Float, p.device()))?;
            Ok(AdamState { step, exp_avg: zeros()?, exp_avg_sq: zeros()? })
        };
        let states = parameters.iter().map(state).collect::<Result<_>>()?;
        Ok(Self { parameters, config, states })
    }

    /// The options.
    pub fn config(&self) -> AdamConfig {
        self.config
    }

    /// Sets the learning rate.
    ///
    /// # Errors
    /// When it is not a finite number from 0 on; the former one stays.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        expect_from_0("Adam's lr", lr)?;
        self.config.lr = lr;
        Ok(())
    }

    /// What is kept of each parameter.
    pub fn states(&self) -> &[AdamState] {
        &self.states
    }

    /// Sets what is kept of each parameter, which is copied.
    ///
    /// # Errors
    /// When the count is not that of the parameters, a tensor does not fit its parameter, or a step is no count.
    pub fn set_states(&mut self, states: &[AdamState]) -> Result<()> {
        if states.len() != self.parameters.len() {
            let expected = format!("{}, one for each parameter", self.parameters.len());
            return Err(Error::argument("the count of Adam's states", &expected, states.len()));
        }
        for (i, (new, own)) in states.iter().zip(&self.states).enumerate() {
            for (name, new, own) in [
                ("step", &new.step, &own.step),
                ("exp_avg", &new.exp_avg, &own.exp_avg),
                ("exp_avg_sq", &new.exp_avg_sq, &own.exp_avg_sq),
            ] {
                expect_like(format_args!("{name} of state {i}"), new, "what it replaces", own)?;
            }
            expect_from_0(&format!("step of state {i}"), new.step.f_double_value(&[])?)?;
        }
        let copies = states.iter().zip(&self.states).map(|(new, own)| {
            Ok(AdamState {
                step: copy_like(&own.step, &new.step)?,
                exp_avg: copy_like(&own.exp_avg, &new.exp_avg)?,
                exp_avg_sq: copy_like(&own.exp_avg_sq, &new.exp_avg_sq)?,
            })
        });
        self.states = copies.collect::<Result<_>>()?;
        Ok(())
    }
}

impl Optimizer for Adam {
    fn state(&self) -> Result<StateDict> {
        let mut state = StateDict::default();
        state.insert("lr", &Tensor::from(self.config.lr));
        for (i, AdamState { step, exp_avg, exp_avg_sq }) in self.states.iter().enumerate() {
            state.insert(format!("{i}.step"), step);
            state.insert(format!("{i}.exp_avg"), exp_avg);
            state.insert(format!("{i}.exp_avg_sq"), exp_avg_sq);
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &StateDict) -> Result<()> {
        let lr = lr_of("Adam", state)?;
        expect_names("Adam", state, self.parameters.len(), &["step", "exp_avg", "exp_avg_sq"])?;
        let states = self.parameters.iter().enumerate().map(|(i, parameter)| {
            let get = |part: &str| {
                let name = format!("{i}.{part}");
                let missing = || Error::argument("Adam's state", &format!("a tensor {name} in it"), "none");
                Ok::<_, Error>(state.get(&name).ok_or_else(missing)?.f_to_device(parameter.device())?)
            };
            Ok(AdamState { step: get("step")?, exp_avg: get("exp_avg")?, exp_avg_sq: get("exp_avg_sq")? })
        });
        self.set_states(&states.collect::<Result<Vec<_>>>()?)?;
        self.set_lr(lr)
    }

    fn parameters(&self) -> Vec<Tensor> {
        self.parameters.iter().map(Tensor::shallow_clone).collect()
    }

    fn zero_grad(&mut self) -> Result<()> {
        forget_grads(&self.parameters)
    }

    fn step(&mut self) -> Result<()> {
        let AdamConfig { lr, betas, eps, weight_decay, decoupled_weight_decay: decoupled } = self.config;
        let options = AdamOptions { lr, beta1: betas.0, beta2: betas.1, eps, weight_decay, decoupled };
        let _no_grad = tch::no_grad_guard();
        let mut laid_out = LaidOut::new("Adam");
        for (i, (parameter, state)) in self.parameters.iter().zip(&self.states).enumerate() {
            let grad = parameter.f_grad()?;
            if grad.defined() {
                let averages = [("exp_avg", &state.exp_avg), ("exp_avg_sq", &state.exp_avg_sq)];
                laid_out.add(i, parameter, grad, &averages, false)?;
            }
        }
        laid_out.run(|group| {
            let steps: Vec<Tensor> =
                group.members.iter().map(|&i| self.states[i].step.shallow_clone()).collect();
            let [parameters, grads, exp_avgs, exp_avg_sqs] = &group.columns[..] else {
                unreachable!("two states each")
            };
            fused_adam(parameters, grads, exp_avgs, exp_avg_sqs, &steps, options)
        })
    }
}
