//! Element-wise work in Rust on the memory of CPU tensors, cut up for libtorch's own threads.

use std::ffi::{c_char, c_void};
use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor};

use super::{check, raw, List};
use crate::error::{Error, Result};

/// An element type that Rust and libtorch share.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    const KIND: Kind;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
}

impl Element for f64 {
    const KIND: Kind = Kind::Double;
}

/// Elements below which libtorch does not cut: its own grain for element-wise operations.
const GRAIN: i64 = 32768;

/// Calls `body` with pieces of the outputs and inputs, which lie at the same place in each tensor.
///
/// # Errors
/// When shapes, kinds or devices differ or are not those of CPU tensors of `T`, or `body` panicked.
pub(crate) fn sweep<T: Element, const O: usize, const I: usize>(
    outputs: [&Tensor; O],
    inputs: [&Tensor; I],
    body: impl Fn([&mut [T]; O], [&[T]; I]) + Sync,
) -> Result<()> {
    for tensor in outputs.iter().chain(&inputs) {
        let fits = tensor.size() == outputs[0].size();
        if !fits || tensor.f_kind()? != T::KIND || tensor.device() != Device::Cpu {
            return Err(Error::Torch("a sweep takes CPU tensors of one shape and kind".to_owned()));
        }
    }
    for (i, output) in outputs.iter().enumerate() {
        let mut others = outputs[i + 1..].iter().chain(&inputs);
        if others.any(|other| other.data_ptr() == output.data_ptr()) {
            return Err(Error::Torch("an output of a sweep shares memory with another tensor".to_owned()));
        }
    }
    let list: List = outputs.iter().chain(&inputs).map(|&tensor| Some(tensor)).collect();
    let call = Call::<T, O, I> { body: &body, panicked: AtomicBool::new(false) };
    let data = std::ptr::from_ref(&call).cast();
    // SAFETY: `call` lives through this call and is Sync; `run` is its callback. Kinds, shapes and device
    // were checked above, so every piece holds values of T. No output is another tensor whole (checked
    // above) or in part (libtorch refuses that).
    check(unsafe { raw::spiketrace_sweep(list.0, O, GRAIN, run::<T, O, I>, data) })?;
    if call.panicked.into_inner() {
        return Err(Error::Panic { what: "an element-wise kernel".into(), message: "see above".into() });
    }
    Ok(())
}

/// What is done with a piece of each output and input.
type Body<'a, T, const O: usize, const I: usize> = &'a (dyn Fn([&mut [T]; O], [&[T]; I]) + Sync);

struct Call<'a, T, const O: usize, const I: usize> {
    body: Body<'a, T, O, I>,
    panicked: AtomicBool,
}

/// One piece: `n` elements of every tensor, the outputs first.
unsafe extern "C" fn run<T: Element, const O: usize, const I: usize>(
    call: *const c_void,
    data: *const *mut c_char,
    strides: *const i64,
    n: i64,
) {
    // SAFETY: `sweep` passed exactly this type, and waits for all pieces.
    let call = unsafe { &*call.cast::<Call<'_, T, O, I>>() };
    // SAFETY: libtorch gives O + I pointers and strides, of tensors that hold T.
    let (data, strides) = unsafe { (from_raw_parts(data, O + I), from_raw_parts(strides, O + I)) };
    let dense = n == 1 || strides.iter().all(|&stride| stride == size_of::<T>() as i64);
    // Strided pieces go through element by element: right, and rare.
    let (pieces, length) = if dense { (1, n as usize) } else { (n as usize, 1) };
    for piece in 0..pieces {
        let at = |i: usize| data[i].wrapping_offset(strides[i] as isize * piece as isize).cast::<T>();
        // SAFETY: `length` values from there on belong to output i; pieces and outputs do not overlap.
        let outputs = std::array::from_fn(|i| unsafe { from_raw_parts_mut(at(i), length) });
        // SAFETY: the same of input i, which nobody writes: it is no output, or libtorch had refused.
        let inputs = std::array::from_fn(|i| unsafe { from_raw_parts(at(O + i), length) });
        let body = std::panic::AssertUnwindSafe(|| (call.body)(outputs, inputs));
        if std::panic::catch_unwind(body).is_err() {
            call.panicked.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs a loop compiled for the widest vectors that both this crate and the processor know.
///
/// `body` must be `#[inline(always)]`, or it stays compiled for the narrowest.
#[inline(always)]
pub(crate) fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        unsafe fn avx2<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { avx2(body) };
        }
    }
    body()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let out = a.f_empty_like()?;
        sweep([&out], [a, b], |[out], [a, b]: [&[f32]; 2]| {
            out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = a + b);
        })?;
        Ok(out)
    }

    #[test]
    fn every_element_is_met_once_whatever_the_layout() {
        let a = Tensor::rand([50, 40, 70], FLOAT);
        for b in [
            a.copy(),
            a.transpose(0, 2).contiguous().transpose(0, 2),
            Tensor::rand([50, 1, 70], FLOAT).expand([50, 40, 70], false),
        ] {
            assert_eq!(add(&a, &b).unwrap(), &a + &b);
        }
        assert_eq!(add(&a.i((.., 1, ..)), &a.i((.., 2, ..))).unwrap(), a.i((.., 1, ..)) + a.i((.., 2, ..)));
    }

    #[test]
    fn wrong_tensors_and_panics_are_errors() {
        let a = Tensor::rand([4], FLOAT);
        assert!(add(&a, &Tensor::rand([5], FLOAT)).is_err());
        assert!(add(&a, &a.to_kind(Kind::Double)).is_err());
        let shared = sweep([&a], [&a], |_: [&mut [f32]; 1], _: [&[f32]; 1]| ());
        assert!(shared.unwrap_err().to_string().contains("shares memory"));
        let panics = sweep([&a.empty_like()], [&a], |_: [&mut [f32]; 1], _| panic!("no"));
        assert!(panics.unwrap_err().to_string().contains("panicked"));
    }

    use tch::IndexOp;
}
