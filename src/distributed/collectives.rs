//! What processes that work together can do together.

use std::fmt::Debug;

use tch::{Device, Tensor};

use crate::error::Result;

/// How [`all_reduce`](Collectives::all_reduce) joins the numbers of all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// Their sum.
    Sum,
    /// Their product.
    Product,
    /// The least.
    Min,
    /// The largest.
    Max,
}

/// Several processes, of which this is one. All call the same functions in the same order.
pub trait Collectives: Debug {
    /// Which process this is, from 0 on.
    fn rank(&self) -> i64;

    /// How many there are.
    fn world_size(&self) -> i64;

    /// Where tensors for the others lie: a GPU with NCCL, the CPU else.
    fn device(&self) -> Device {
        Device::Cpu
    }

    /// Joins `tensor` with those of the other processes, in place: all hold the same bits then.
    ///
    /// # Errors
    /// When a process is gone or stays away, calls something else, or its tensor has another shape or kind.
    fn all_reduce(&self, tensor: &mut Tensor, op: ReduceOp) -> Result<()>;

    /// Copies `tensor` of process `root` over those of the others.
    ///
    /// # Errors
    /// As [`all_reduce`](Collectives::all_reduce).
    fn broadcast(&self, tensor: &mut Tensor, root: i64) -> Result<()>;

    /// Returns when all have called it.
    ///
    /// # Errors
    /// As [`all_reduce`](Collectives::all_reduce).
    fn barrier(&self) -> Result<()>;

    /// `all_reduce` by [`ReduceOp::Sum`] where all are known to come with dense tensors of one size.
    #[doc(hidden)]
    fn sum_alike(&self, tensor: &mut Tensor) -> Result<()> {
        self.all_reduce(tensor, ReduceOp::Sum)
    }

    /// The sums of numbers over all processes, for instance of hits and images.
    ///
    /// # Errors
    /// As [`all_reduce`](Collectives::all_reduce).
    fn sum(&self, numbers: &[f64]) -> Result<Vec<f64>> {
        let mut tensor = Tensor::from_slice(numbers).to_device(self.device());
        self.all_reduce(&mut tensor, ReduceOp::Sum)?;
        Ok(Vec::try_from(&tensor)?)
    }
}

/// One process by itself: what it holds is what all hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleProcess;

impl Collectives for SingleProcess {
    fn rank(&self) -> i64 {
        0
    }

    fn world_size(&self) -> i64 {
        1
    }

    fn all_reduce(&self, _: &mut Tensor, _: ReduceOp) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _: &mut Tensor, _: i64) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}
