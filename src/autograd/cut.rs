//! A value that is cut from its graph, gathers its gradient, and joins the graph again.
//!
//! A value that many passes need and that does not change between them is made once: with m = f(w), each pass computes with
//! a leaf that has m's values, and its backward ends there. Joining then passes the sum of all gradients through f, once:
//!
//! ```text
//! dL/dw = f'(w)^T Σ_k dL_k/dm
//! ```
//!
//! f's backward is linear in the upstream gradient, so the sum is what the passes would have given one by one.
//!
//! Two values are made so: standardized weights, and what the first layers of a container make of an input that is
//! the same at every step. The second is made of the first, so they join in the opposite order of their making: the
//! gradient of one may still have to pass through the leaf of another.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use tch::{Kind, Tensor};

use crate::error::{guarded, Result};
use crate::ffi::{backward_from, grad_enabled};

/// The values that are made once for as long as the weights stand still: a training loop has one for the passes of a
/// sequence after which the weights move.
///
/// It belongs to the loop, not to the parts whose values it keeps. So a loop inside a loop, the evaluation of a network in
/// the middle of a sequence, or a sequence that ends in an error meet nothing that another one has left.
#[derive(Debug, Default)]
pub(crate) struct Hold(RefCell<Vec<(Key, Cut)>>);

/// Which value it is: whose, and under which circumstances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Key {
    pub(crate) owner: u64,
    /// The identity of the input that it was made of; 0 where weights are all.
    pub(crate) input: usize,
    pub(crate) train: bool,
    /// The reduced precision that it was made in.
    pub(crate) kind: Option<Kind>,
}

/// The number by which a [`Hold`] knows a part: an address would change with a part that is moved.
#[derive(Debug)]
pub(crate) struct Owner(u64);

impl Default for Owner {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Owner {
    /// The key of a value that weights alone make.
    pub(crate) fn key(&self) -> Key {
        Key { owner: self.0, input: 0, train: true, kind: None }
    }
}

impl Hold {
    /// The value to compute with; `make` makes it if there is none that still is what would be made now.
    pub(crate) fn value(&self, key: Key, make: impl FnOnce() -> Result<Cut>) -> Result<Tensor> {
        let leaf = |(_, cut): &(Key, Cut)| cut.leaf.shallow_clone();
        let stands = |(other, cut): &&(Key, Cut)| *other == key && cut.stands();
        if let Some(leaf) = self.0.borrow().iter().rev().find(stands).map(leaf) {
            return Ok(leaf);
        }
        // Making it may ask for other values, which come before it in the list.
        let made = (key, make()?);
        let value = leaf(&made);
        self.0.borrow_mut().push(made);
        Ok(value)
    }

    /// Passes the gathered gradients on, from the last value made to the first.
    ///
    /// All have their turn; an error is the first one's. A graph that is gone through backwards later ends at a leaf that
    /// nobody asks any more, which is why loops go through theirs before.
    pub(crate) fn release(self) -> Result<()> {
        let mut result = Ok(());
        for (_, cut) in self.0.into_inner().into_iter().rev() {
            let joined = guarded("a held value", || cut.join());
            result = result.and(joined);
        }
        result
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
        Ok(Self { made, leaf, recorded: grad_enabled(), sources, version })
    }

    /// Passes what was gathered on to the value's own graph.
    fn join(self) -> Result<()> {
        let grad = self.leaf.f_grad()?;
        if grad.defined() {
            backward_from(&self.made, &grad, false)?;
        }
        Ok(())
    }

    /// Whether the value is what would be made now. The graph's end is part of it: one made without a graph teaches
    /// nothing.
    fn stands(&self) -> bool {
        (self.recorded || !grad_enabled())
            && self.leaf.f_internal_version().is_ok_and(|version| version == self.version)
            && self.sources.iter().all(Source::is_unchanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Tensor {
        Tensor::from_slice(&[value])
    }

    fn weight(value: f64) -> Tensor {
        number(value).set_requires_grad(true)
    }

    /// w², held.
    fn square(hold: &Hold, owner: &Owner, w: &Tensor) -> Tensor {
        hold.value(owner.key(), || Cut::new(w.square(), [w.shallow_clone()])).unwrap()
    }

    fn grad(w: &Tensor) -> f64 {
        w.grad().double_value(&[0])
    }

    #[test]
    fn gradients_gather_and_pass_once() {
        let (w, hold, owner) = (weight(3.0), Hold::default(), Owner::default());
        for upstream in [1.0, 10.0] {
            (square(&hold, &owner, &w) * upstream).backward();
        }
        assert!(!w.grad().defined());
        hold.release().unwrap();
        assert_eq!(grad(&w), 66.0);
    }

    #[test]
    fn a_value_made_of_another_joins_before_it() {
        let (w, hold, owners) = (weight(3.0), Hold::default(), [Owner::default(), Owner::default()]);
        let outer = || {
            let made = || {
                let inner = square(&hold, &owners[0], &w);
                Cut::new(&inner * 2.0, [inner.shallow_clone()])
            };
            hold.value(owners[1].key(), made).unwrap()
        };
        for upstream in [1.0, 10.0] {
            (outer() * upstream).backward();
        }
        (square(&hold, &owners[0], &w) * 100.0).backward();
        hold.release().unwrap();
        assert_eq!(grad(&w), 6.0 * (2.0 * 11.0 + 100.0));
    }

    #[test]
    fn one_hold_inside_another_takes_and_leaves_nothing_of_it() {
        let (w, outer, owner) = (weight(3.0), Hold::default(), Owner::default());
        let y = square(&outer, &owner, &w);
        let inner = Hold::default();
        square(&inner, &owner, &w).backward();
        inner.release().unwrap();
        assert_eq!(grad(&w), 6.0);
        (y * 10.0).backward();
        outer.release().unwrap();
        assert_eq!(grad(&w), 66.0);
    }

    #[test]
    fn a_hold_that_is_abandoned_passes_nothing_on() {
        let (w, owner) = (weight(3.0), Owner::default());
        square(&Hold::default(), &owner, &w).backward();
        assert!(!w.grad().defined());
    }

    #[test]
    fn an_error_of_one_value_does_not_keep_the_others_from_their_gradient() {
        let (w, broken, hold) = (weight(3.0), weight(2.0), Hold::default());
        let owners = [Owner::default(), Owner::default()];
        (square(&hold, &owners[0], &w) * square(&hold, &owners[1], &broken)).backward();
        // The square keeps its weight, which must not change before its backward.
        let _ = tch::no_grad(|| broken.shallow_clone().fill_(1.0));
        let error = hold.release().unwrap_err().to_string();
        assert!(error.contains("modified by an inplace operation"), "{error}");
        assert_eq!(grad(&w), 6.0 * 4.0);
    }

    #[test]
    fn a_source_that_changed_was_thawed_or_lost_its_leaf_makes_a_new_value() {
        let (w, hold, owner) = (number(3.0), Hold::default(), Owner::default());
        let value = || square(&hold, &owner, &w).double_value(&[0]);
        let frozen = square(&hold, &owner, &w);
        let _ = frozen.shallow_clone().fill_(7.0);
        assert_eq!(value(), 9.0);
        let _ = w.shallow_clone().fill_(4.0);
        assert_eq!(value(), 16.0);
        let w = w.shallow_clone().set_requires_grad(true);
        assert!(square(&hold, &owner, &w).requires_grad());
    }

    #[test]
    fn a_value_without_a_graph_is_made_again_with_one() {
        let (w, hold, owner) = (weight(3.0), Hold::default(), Owner::default());
        let gathers = || square(&hold, &owner, &w).requires_grad();
        assert!(!tch::no_grad(gathers));
        assert!(gathers());
        assert!(tch::no_grad(gathers), "one with a graph serves both");
    }
}
