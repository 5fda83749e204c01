//! Skip connections.

use super::slot::{self, Slot};
use crate::error::{Error, Result};
use crate::ffi::shape;
use crate::module::{Memory, OnlineModule, Part, Pass, Properties, Variable};
use crate::signal::Signal;

/// A block with a shortcut around it, whose values are added.
///
/// ```text
/// y_t = block(x_t) + shortcut(x_t)          (without a shortcut of its own: + x_t)
/// ```
///
/// The block ends in a weighted layer, so y is dense. A shortcut may be the input itself, layers, or layers without
/// weights. Where it lets a spike with its trace through, the spike is added: y has no trace, and the neuron after it
/// makes its own. Either part may be an [`OtttSequential`](crate::OtttSequential), which may have such blocks in it.
///
/// # Shapes
/// Both give the same shape.
///
/// # Cost
/// One addition beside those of the parts.
///
/// # Source
/// He et al., arXiv 1512.03385; for spiking networks Fang et al., arXiv 2102.04159 (ADD).
///
/// ```
/// use spiketrace::{ws_conv2d, OnlineModule, OtttLifNode, OtttSequential, Residual, WsConv2dConfig};
/// use tch::{nn, Device, Kind, Tensor};
/// let vs = nn::VarStore::new(Device::Cpu);
/// let p = vs.root();
/// let same = WsConv2dConfig { padding: 1, ..Default::default() };
/// let block = OtttSequential::new()
///     .add(ws_conv2d(&p / "a", 8, 16, 3, same)?)
///     .add(OtttLifNode::new(Default::default())?)
///     .add(ws_conv2d(&p / "b", 16, 16, 3, same)?);
/// let mut net = OtttSequential::new()
///     .add(OtttLifNode::new(Default::default())?)
///     .add(Residual::with_shortcut(block, ws_conv2d(&p / "c", 8, 16, 1, Default::default())?))
///     .add(OtttLifNode::new(Default::default())?);
/// let y = net.step(&Tensor::rand([2, 8, 6, 6], (Kind::Float, Device::Cpu)).into(), true)?;
/// assert_eq!(y.value().size(), [2, 16, 6, 6]);
/// # Ok::<(), spiketrace::Error>(())
/// ```
#[derive(Debug)]
pub struct Residual {
    block: Slot,
    /// None where it is the input itself.
    shortcut: Option<Slot>,
}

impl Residual {
    /// `block` with its input added to its output.
    pub fn new(block: impl OnlineModule + 'static) -> Self {
        Self { block: Slot::new("block", block), shortcut: None }
    }

    /// `block` with the output of `shortcut` added to its own.
    pub fn with_shortcut(block: impl OnlineModule + 'static, shortcut: impl OnlineModule + 'static) -> Self {
        Self { shortcut: Some(Slot::new("shortcut", shortcut)), ..Self::new(block) }
    }

    fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        [Some(&mut self.block), self.shortcut.as_mut()].into_iter().flatten()
    }
}

impl Part for Residual {
    fn name(&self) -> String {
        let shortcut = self.shortcut.as_ref().map_or("its input".to_owned(), |slot| slot.module.name());
        format!("Residual({} + {shortcut})", self.block.module.name())
    }

    fn variables(&self) -> Vec<Variable> {
        slot::variables([Some(&self.block), self.shortcut.as_ref()].into_iter().flatten())
    }

    fn memories(&mut self) -> Vec<&mut Memory> {
        slot::memories(self.slots())
    }

    fn reset(&mut self) {
        self.slots().for_each(|slot| slot.module.reset());
    }

    fn detach(&mut self) {
        self.slots().for_each(|slot| slot.module.detach());
    }

    fn properties(&self) -> Properties {
        let cuts = self.block.plan.cuts && self.shortcut.as_ref().is_none_or(|slot| slot.plan.cuts);
        Properties { cuts, ..Properties::default().any_layout().steps_at_once() }
    }
}

impl OnlineModule for Residual {
    fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        let x = &x.shallow_clone().spread(pass.time_steps)?;
        let y = self.block.pass(x, pass)?;
        if y.trace().is_some() {
            let expected = "a dense signal, what a weighted layer at its end gives";
            return Err(Error::argument("what Residual's block gives", expected, "a spike with its trace"));
        }
        let beside = match &mut self.shortcut {
            Some(shortcut) => shortcut.pass(x, pass)?,
            None => x.shallow_clone(),
        };
        let (y, beside) = (y.into_value(), beside.into_value());
        if *shape(&y) != *shape(&beside) {
            let fix = "give it a shortcut, for instance a convolution of 1x1, that makes the block's shape";
            return Err(Error::shape("Residual's shortcut", format!("{:?}", y.size()), &beside, fix));
        }
        Ok(Signal::Dense(y.f_add(&beside)?))
    }
}
