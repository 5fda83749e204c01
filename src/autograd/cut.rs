//! A value that is cut from its graph, gathers its gradient, and joins the graph again.
//!
//! A value that many passes need and that does not change between them is made once: with m = f(w), each pass computes with a
//! leaf that has m's values, and its backward ends there. Joining then passes the sum of all gradients through f, once:
//!
//! ```text
//! dL/dw = f'(w)^T Σ_k dL_k/dm
//! ```
//!
//! f's backward is linear in the upstream gradient, so the sum is what the passes would have given one by one.

use tch::Tensor;

use crate::error::Result;
use crate::fast::fast_paths;
use crate::ffi::{backward_from, forget_grad, grad_enabled, is_sole_handle};

/// A [`Cut`] that serves as long as somebody holds its sources still.
///
/// Holds nest. Each release passes on what was gathered so far and ends the value, since its sources are about to move.
/// Nothing that was gathered, or that a graph may still send, is dropped: a value that a graph still leads to waits for
/// the next hold or release, and where a new one is wanted meanwhile, there is none.
#[derive(Debug, Default)]
pub(crate) struct Held {
    holds: usize,
    cut: Option<Cut>,
}

impl Held {
    /// Begins one hold. A gradient that came after the last release passes on.
    pub(crate) fn hold(&mut self) -> Result<()> {
        self.holds += 1;
        match &self.cut {
            Some(cut) if cut.ended => self.pass_on(),
            _ => Ok(()),
        }
    }

    /// Ends one hold. The gradient passes on to the value's sources.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.holds = self.holds.saturating_sub(1);
        self.pass_on()
    }

    /// Passes on what was gathered, and ends the value.
    fn pass_on(&mut self) -> Result<()> {
        let Some(cut) = &mut self.cut else { return Ok(()) };
        cut.ended = true;
        let joined = cut.join();
        if !cut.is_awaited() {
            self.cut = None;
        }
        joined
    }

    /// Whether there is a value, also one that only waits.
    pub(crate) fn has_value(&self) -> bool {
        self.cut.is_some()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.holds > 0 && fast_paths().held_weights
    }

    /// The value to compute with, made by `make` if need be, for instance where what `is_same` says is false; `None`
    /// where the caller has to do without: nobody holds, or the present value is still in use.
    pub(crate) fn value(
        &mut self,
        is_same: bool,
        make: impl FnOnce() -> Result<Cut>,
    ) -> Result<Option<Tensor>> {
        if !self.is_held() {
            return Ok(None);
        }
        match &self.cut {
            Some(cut) if is_same && cut.stands() => {}
            Some(cut) if cut.is_awaited() => return Ok(None),
            _ => self.cut = Some(make()?),
        }
        Ok(self.cut.as_ref().map(|cut| cut.leaf.shallow_clone()))
    }
}

/// A value and the leaf that stands in for it.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The value with its graph.
    made: Tensor,
    /// The same values without a graph.
    leaf: Tensor,
    /// Whether a graph was recorded.
    recorded: bool,
    /// Whether it serves no more, since a hold of its sources has ended.
    ended: bool,
    sources: Vec<Source>,
    /// The leaf's version: whoever computes with it must not change it.
    version: i64,
}

/// A tensor that the value was made of, as it was then.
#[derive(Debug)]
struct Source {
    tensor: Tensor,
    version: i64,
    place: usize,
    learns: bool,
}

impl Source {
    fn new(tensor: Tensor) -> Result<Self> {
        let (version, place) = (tensor.f_internal_version()?, tensor.data_ptr() as usize);
        Ok(Self { version, place, learns: tensor.requires_grad(), tensor })
    }

    /// libtorch counts the changes in place; a tensor that moves to another device or kind gets other memory.
    fn is_unchanged(&self) -> bool {
        self.tensor.data_ptr() as usize == self.place
            && self.tensor.requires_grad() == self.learns
            && self.tensor.f_internal_version().is_ok_and(|version| version == self.version)
    }
}

impl Cut {
    /// Cuts `made`, which depends on `sources` and nothing else that moves.
    pub(crate) fn new(made: Tensor, sources: impl IntoIterator<Item = Tensor>) -> Result<Self> {
        let leaf = made.f_detach()?.f_set_requires_grad(made.requires_grad())?;
        let sources = sources.into_iter().map(Source::new).collect::<Result<_>>()?;
        let version = leaf.f_internal_version()?;
        Ok(Self { made, leaf, recorded: grad_enabled(), ended: false, sources, version })
    }

    /// Passes what was gathered on to the value's own graph, which is kept where more may come.
    fn join(&self) -> Result<()> {
        let grad = self.leaf.f_grad()?;
        if grad.defined() {
            forget_grad(&self.leaf)?;
            backward_from(&self.made, &grad, !is_sole_handle(&self.leaf))?;
        }
        Ok(())
    }

    /// Whether the value is what would be made now.
    fn stands(&self) -> bool {
        !self.ended
            && (self.recorded || !grad_enabled())
            && self.leaf.f_internal_version().is_ok_and(|version| version == self.version)
            && self.sources.iter().all(Source::is_unchanged)
    }

    /// Whether a gradient has come, or a graph that may still send one holds the leaf.
    fn is_awaited(&self) -> bool {
        self.leaf.requires_grad() && (self.leaf.grad().defined() || !is_sole_handle(&self.leaf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Tensor {
        Tensor::from_slice(&[value])
    }

    /// w², held.
    fn square(held: &mut Held, w: &Tensor) -> Option<Tensor> {
        held.value(true, || Cut::new(w.square(), [w.shallow_clone()])).unwrap()
    }

    fn held() -> Held {
        Held { holds: 1, cut: None }
    }

    fn grad(w: &Tensor) -> f64 {
        w.grad().double_value(&[0])
    }

    #[test]
    fn gradients_gather_and_pass_once() {
        let (w, mut held) = (number(3.0).set_requires_grad(true), held());
        for upstream in [1.0, 10.0] {
            (square(&mut held, &w).unwrap() * upstream).backward();
        }
        assert!(!w.grad().defined());
        held.release().unwrap();
        assert_eq!(grad(&w), 66.0);
        assert!(square(&mut held, &w).is_none(), "nobody holds");
    }

    #[test]
    fn a_hold_inside_a_hold_passes_on_and_ends_nothing() {
        let (w, mut held) = (number(3.0).set_requires_grad(true), held());
        let y = square(&mut held, &w).unwrap();
        y.backward();
        held.hold().unwrap();
        let late = square(&mut held, &w).unwrap() * 10.0;
        held.release().unwrap();
        assert_eq!(grad(&w), 6.0);
        assert!(square(&mut held, &w).is_none(), "the value has ended, and a graph still leads to it");
        late.backward();
        held.release().unwrap();
        assert_eq!(grad(&w), 66.0);
        held.release().unwrap();
        assert_eq!(grad(&w), 66.0, "one release too many does nothing");
    }

    #[test]
    fn a_gradient_that_comes_after_the_last_release_waits_for_the_next_hold() {
        let (w, mut held) = (number(3.0).set_requires_grad(true), held());
        let y = square(&mut held, &w).unwrap() * 10.0;
        held.release().unwrap();
        y.backward();
        drop(y);
        held.hold().unwrap();
        assert_eq!(grad(&w), 60.0);
        assert!(square(&mut held, &w).is_some());
    }

    /// Not every change of a source counts its version up: tch's own SGD writes past it.
    #[test]
    fn a_release_ends_the_value_also_where_no_version_tells() {
        let (w, mut held) = (number(3.0).set_requires_grad(true), held());
        held.hold().unwrap();
        assert_eq!(square(&mut held, &w).unwrap().double_value(&[0]), 9.0);
        held.release().unwrap();
        let _ = w.data().fill_(4.0);
        assert_eq!(square(&mut held, &w).unwrap().double_value(&[0]), 16.0);
    }

    #[test]
    fn a_source_that_is_thawed_or_a_leaf_that_is_written_to_makes_a_new_value() {
        let (w, mut held) = (number(3.0), held());
        let frozen = square(&mut held, &w).unwrap();
        let _ = frozen.shallow_clone().fill_(7.0);
        drop(frozen);
        assert_eq!(square(&mut held, &w).unwrap().double_value(&[0]), 9.0);
        let w = w.set_requires_grad(true);
        assert!(square(&mut held, &w).unwrap().requires_grad());
    }

    #[test]
    fn a_value_is_made_again_when_its_source_changed_and_nobody_waits_for_it() {
        let (w, mut held) = (number(3.0).set_requires_grad(true), held());
        let mut value = || square(&mut held, &w).map(|value| value.double_value(&[0]));
        let set = |value: f64| drop(tch::no_grad(|| w.shallow_clone().fill_(value)));
        assert_eq!(value(), Some(9.0));
        set(4.0);
        assert_eq!(value(), Some(16.0));
    }

    #[test]
    fn a_value_in_use_is_not_replaced() {
        let (w, mut held) = (number(3.0).set_requires_grad(true), held());
        let set = |value: f64| drop(tch::no_grad(|| w.shallow_clone().fill_(value)));
        // The square saves w itself, which must not change before its backward: as in plain libtorch.
        let product = |held: &mut Held| held.value(true, || Cut::new(&w * 2.0, [w.shallow_clone()])).unwrap();
        let y = product(&mut held).unwrap() * 1.0;
        set(5.0);
        assert!(product(&mut held).is_none(), "a graph holds the leaf");
        y.backward();
        drop(y);
        assert!(product(&mut held).is_none(), "a gradient has come");
        held.hold().unwrap();
        held.release().unwrap();
        assert_eq!(grad(&w), 2.0);
        assert_eq!(product(&mut held).unwrap().double_value(&[0]), 10.0);
    }

    #[test]
    fn a_value_without_a_graph_is_made_again_with_one() {
        let (w, mut held) = (number(3.0).set_requires_grad(true), held());
        let mut gathers = || square(&mut held, &w).unwrap().requires_grad();
        assert!(!tch::no_grad(&mut gathers));
        assert!(gathers());
        assert!(tch::no_grad(&mut gathers), "one with a graph serves both");
    }
}
