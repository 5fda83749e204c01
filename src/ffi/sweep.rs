//! Element-wise work in Rust on the memory of CPU tensors, cut up for libtorch's own threads.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor};

use super::{check, elements, raw, shape, strides};
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

/// Elements of a piece: what a body touches stays in the cache while it works there.
pub(crate) const PIECE: usize = 512;

/// A piece of an input: the same elements of each of its rows.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    start: *const T,
    count: usize,
    stride: usize,
    len: usize,
    _tensor: PhantomData<&'a [T]>,
}

impl<'a, T> Rows<'a, T> {
    pub(crate) fn row(&self, i: usize) -> &'a [T] {
        assert!(i < self.count, "no such row");
        // SAFETY: `sweep` made this of a tensor with `count` rows, which lives through the sweep, and which
        // nobody writes meanwhile.
        unsafe { from_raw_parts(self.start.wrapping_add(i * self.stride), self.len) }
    }
}

/// A piece of an output, likewise.
pub(crate) struct RowsMut<'a, T> {
    start: *mut T,
    count: usize,
    stride: usize,
    len: usize,
    _tensor: PhantomData<&'a mut [T]>,
}

impl<T> RowsMut<'_, T> {
    /// Whether there is such a tensor.
    pub(crate) fn exists(&self) -> bool {
        self.count > 0
    }

    /// Row `i`, where there is one.
    pub(crate) fn get(&mut self, i: usize) -> Option<&mut [T]> {
        (i < self.count).then(|| self.row(i))
    }

    pub(crate) fn row(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.count, "no such row");
        // SAFETY: as for `Rows`; these elements are this piece's alone, and the borrow of self keeps it so.
        unsafe { from_raw_parts_mut(self.start.wrapping_add(i * self.stride), self.len) }
    }

    /// Row `i` to write, and the one before it to read.
    pub(crate) fn row_and_before(&mut self, i: usize) -> (&mut [T], &[T]) {
        assert!(0 < i && self.len <= self.stride);
        let before = self.row(i - 1).as_ptr();
        // SAFETY: as in `row`; two rows of a piece do not overlap.
        let before = unsafe { from_raw_parts(before, self.len) };
        (self.row(i), before)
    }
}

/// Calls `body` with pieces of the outputs and inputs, which lie at the same place in each row.
///
/// A tensor is as many rows as it holds the first output's number of elements: that output is one row, a
/// tensor of several time steps one row a step, and one that is `None` has no row. Elements are met in the
/// order of memory, so tensors must be laid out alike, which is for the caller to see to.
///
/// # Errors
/// When a tensor is not dense CPU memory of `T` in whole rows, an output overlaps another tensor, or `body`
/// panicked.
pub(crate) fn sweep<T: Element, const O: usize, const I: usize>(
    outputs: [Option<&Tensor>; O],
    inputs: [Option<&Tensor>; I],
    body: impl Fn([RowsMut<'_, T>; O], [Rows<'_, T>; I]) + Sync,
) -> Result<()> {
    let Some(first) = outputs[0].filter(|first| elements(first) > 0) else {
        return Err(Error::Torch("a sweep's first output has no elements".to_owned()));
    };
    let row = elements(first);
    expect_apart::<T, O, I>(outputs, inputs, row)?;
    let (to, from) = (outputs.map(|t| Whole::<T>::of(t, row)), inputs.map(|t| Whole::<T>::of(t, row)));
    let result = in_pieces(first, GRAIN, &|begin, n| {
        for at in (begin..begin + n).step_by(PIECE) {
            // Pieces do not overlap, and stay within the rows.
            let len = PIECE.min(begin + n - at);
            let outputs = to.each_ref().map(|whole| {
                let start = whole.start.wrapping_add(at);
                RowsMut { start, count: whole.rows, stride: row, len, _tensor: PhantomData }
            });
            let inputs = from.each_ref().map(|whole| {
                let start = whole.start.wrapping_add(at).cast_const();
                Rows { start, count: whole.rows, stride: row, len, _tensor: PhantomData }
            });
            body(outputs, inputs);
        }
    });
    outputs.into_iter().flatten().for_each(written);
    result
}

/// Lets libtorch know that the memory of a tensor was written: its check of saved tensors goes by that.
fn written(tensor: &Tensor) {
    // SAFETY: a tensor that lives through the call; C++ counts its version up.
    unsafe { raw::spiketrace_written(tensor.as_ptr()) }
}

/// Calls `body` with each row of the tensors, which are as many rows as the first output has elements.
///
/// # Errors
/// As [`sweep`].
pub(crate) fn sweep_rows<T: Element, const O: usize, const I: usize>(
    outputs: [&Tensor; O],
    inputs: [&Tensor; I],
    body: impl Fn([&mut [T]; O], [&[T]; I]) + Sync,
) -> Result<()> {
    let count = elements(outputs[0]);
    expect_apart::<T, O, I>(outputs.map(Some), inputs.map(Some), count)?;
    let lens = (outputs.map(|t| elements(t) / count), inputs.map(|t| elements(t) / count));
    let starts =
        (outputs.map(|t| Whole::<T>::of(Some(t), count)), inputs.map(|t| Whole::<T>::of(Some(t), count)));
    let longest = lens.0.iter().chain(&lens.1).max().copied().unwrap_or(1).max(1);
    let result = in_pieces(outputs[0], GRAIN / longest as i64, &|begin, n| {
        for i in begin..begin + n {
            let outputs = std::array::from_fn(|k| {
                // SAFETY: row i of a tensor of `count` rows; rows do not overlap, nor do tensors.
                unsafe { from_raw_parts_mut(starts.0[k].start.wrapping_add(i * lens.0[k]), lens.0[k]) }
            });
            let inputs = std::array::from_fn(|k| {
                // SAFETY: the same of an input, which nobody writes.
                unsafe { from_raw_parts(starts.1[k].start.wrapping_add(i * lens.1[k]), lens.1[k]) }
            });
            body(outputs, inputs);
        }
    });
    outputs.into_iter().for_each(written);
    result
}

/// Errors unless all tensors are dense CPU memory of `T` in multiples of `row`, and no output overlaps another.
fn expect_apart<T: Element, const O: usize, const I: usize>(
    outputs: [Option<&Tensor>; O],
    inputs: [Option<&Tensor>; I],
    row: usize,
) -> Result<()> {
    for tensor in outputs.iter().chain(&inputs).copied().flatten() {
        let whole = row > 0 && elements(tensor).is_multiple_of(row) && is_dense(tensor);
        if !whole || tensor.f_kind()? != T::KIND || tensor.device() != Device::Cpu {
            return Err(Error::Torch("a sweep takes dense CPU tensors of one kind in whole rows".to_owned()));
        }
    }
    let memory = |tensor: &Tensor| {
        let start = tensor.data_ptr() as usize;
        start..start + elements(tensor) * size_of::<T>()
    };
    let (outputs, inputs) = (outputs.map(|t| t.map(memory)), inputs.map(|t| t.map(memory)));
    for (i, own) in outputs.iter().enumerate() {
        let Some(own) = own else { continue };
        let mut others = outputs[i + 1..].iter().chain(&inputs).flatten();
        if others.any(|other| other.start < own.end && own.start < other.end) {
            return Err(Error::Torch("an output of a sweep shares memory with another tensor".to_owned()));
        }
    }
    Ok(())
}

/// A tensor's memory.
struct Whole<T> {
    start: *mut T,
    rows: usize,
}

// SAFETY: only an address; what is read and written through it is apart for each piece.
unsafe impl<T: Element> Sync for Whole<T> {}

impl<T> Whole<T> {
    fn of(tensor: Option<&Tensor>, row: usize) -> Self {
        match tensor {
            Some(tensor) => Self { start: tensor.data_ptr().cast(), rows: elements(tensor) / row },
            None => Self { start: std::ptr::null_mut(), rows: 0 },
        }
    }
}

/// A count's pieces: first number and how many.
type Piece<'a> = &'a (dyn Fn(usize, usize) + Sync);

struct Call<'a> {
    body: Piece<'a>,
    panicked: AtomicBool,
}

/// Calls `body` with pieces of at least `grain` elements of `output`, from libtorch's threads.
fn in_pieces(output: &Tensor, grain: i64, body: Piece<'_>) -> Result<()> {
    let call = Call { body, panicked: AtomicBool::new(false) };
    let data = std::ptr::from_ref(&call).cast();
    // SAFETY: `call` lives through this call and is Sync; `run` is its callback.
    check(unsafe { raw::spiketrace_sweep(output.as_ptr(), grain.max(1), run, data) })?;
    if call.panicked.into_inner() {
        return Err(Error::Panic { what: "an element-wise kernel".into(), message: "see above".into() });
    }
    Ok(())
}

unsafe extern "C" fn run(call: *const c_void, begin: i64, n: i64) {
    // SAFETY: `in_pieces` passed exactly this type, and waits for all pieces.
    let call = unsafe { &*call.cast::<Call<'_>>() };
    let body = std::panic::AssertUnwindSafe(|| (call.body)(begin as usize, n as usize));
    if std::panic::catch_unwind(body).is_err() {
        call.panicked.store(true, Ordering::Relaxed);
    }
}

/// Whether a tensor's elements fill a stretch of memory, each place once, in whatever order.
pub(crate) fn is_dense(tensor: &Tensor) -> bool {
    if tensor.is_contiguous() {
        return true;
    }
    let (strides, sizes) = (strides(tensor), shape(tensor));
    let mut dims: Vec<_> = strides.iter().zip(&*sizes).filter(|dim| *dim.1 != 1).collect();
    dims.sort_unstable();
    let mut expected = 1;
    dims.into_iter().all(|(stride, size)| {
        let fits = *stride == expected;
        expected *= size;
        fits
    })
}

/// Runs a loop compiled for AVX2 and FMA where the processor has them.
///
/// `body` must be `#[inline(always)]`, or it stays compiled for the narrowest vectors.
#[inline(always)]
pub(crate) fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA.
            return unsafe { avx2(body) };
        }
    }
    body()
}

/// [`vectorized`] for a loop of much arithmetic, which AVX-512 makes faster.
///
/// Tried for the others too: on a Zen 5, a neuron step forward took 110 µs with it and 80 µs without, and the
/// gradient with its exponential 104 and 154 µs.
#[inline(always)]
pub(crate) fn vectorized_wide<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,fma")]
        unsafe fn avx512<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX-512 and FMA.
            return unsafe { avx512(body) };
        }
    }
    vectorized(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let out = a.f_empty_like()?;
        sweep([Some(&out)], [Some(a), Some(b)], |[mut out], [a, b]: [Rows<f32>; 2]| {
            out.row(0).iter_mut().zip(a.row(0)).zip(b.row(0)).for_each(|((out, a), b)| *out = a + b);
        })?;
        Ok(out)
    }

    #[test]
    fn every_element_is_met_once() {
        for size in [&[50, 40, 70][..], &[1], &[3, 1, 5], &[4096], &[2049]] {
            let (a, b) = (Tensor::rand(size, FLOAT), Tensor::rand(size, FLOAT));
            assert_eq!(add(&a, &b).unwrap(), &a + &b);
        }
        let turned = |x: Tensor| x.transpose(0, 2);
        let (a, b) = (turned(Tensor::rand([50, 40, 70], FLOAT)), turned(Tensor::rand([50, 40, 70], FLOAT)));
        assert_eq!(add(&a, &b).unwrap(), &a + &b);
    }

    #[test]
    fn several_rows_go_by_the_first_outputs_size() {
        let (sum, running) = (Tensor::zeros([5000], FLOAT), Tensor::empty([3, 5000], FLOAT));
        let x = Tensor::rand([3, 5000], FLOAT);
        sweep([Some(&sum), Some(&running)], [Some(&x)], |[mut sum, mut running], [x]: [Rows<f32>; 1]| {
            for k in 0..3 {
                sum.row(0).iter_mut().zip(x.row(k)).for_each(|(sum, x)| *sum += x);
                running.row(k).copy_from_slice(sum.row(0));
                if k > 0 {
                    let (row, before) = running.row_and_before(k);
                    assert!(row.iter().zip(before).all(|(row, before)| row >= before));
                }
            }
        })
        .unwrap();
        assert!(running.allclose(&x.cumsum(0, Kind::Float), 1e-6, 1e-6, false));
        assert_eq!(running.get(2), sum);
    }

    #[test]
    fn rows_go_whole() {
        let (sums, doubled) = (Tensor::zeros([300], FLOAT), Tensor::empty([300, 700], FLOAT));
        let x = Tensor::rand([300, 700], FLOAT);
        sweep_rows([&sums, &doubled], [&x], |[sum, doubled], [x]: [&[f32]; 1]| {
            assert_eq!((sum.len(), x.len()), (1, 700));
            sum[0] = x.iter().sum();
            doubled.iter_mut().zip(x).for_each(|(doubled, x)| *doubled = 2.0 * x);
        })
        .unwrap();
        assert!(sums.allclose(&x.sum_dim_intlist(1, false, Kind::Float), 1e-5, 0.0, false));
        assert_eq!(doubled, x * 2.0);
    }

    #[test]
    fn a_change_of_any_output_is_known_to_libtorch() {
        let (first, second, x) =
            (Tensor::zeros([4], FLOAT), Tensor::zeros([4], FLOAT), Tensor::ones([4], FLOAT));
        let w = Tensor::ones([4], FLOAT).set_requires_grad(true);
        let y = (&w * &second).sum(Kind::Float);
        sweep([Some(&first), Some(&second)], [Some(&x)], |[mut first, mut second], [x]: [Rows<f32>; 1]| {
            first.row(0).copy_from_slice(x.row(0));
            second.row(0).copy_from_slice(x.row(0));
        })
        .unwrap();
        let error = y.f_backward().unwrap_err().to_string();
        assert!(error.contains("modified by an inplace operation"), "{error}");
    }

    #[test]
    fn wrong_tensors_and_panics_are_errors() {
        let a = Tensor::rand([4], FLOAT);
        assert!(add(&a, &Tensor::rand([5], FLOAT)).is_err());
        assert!(add(&a, &a.to_kind(Kind::Double)).is_err());
        assert!(add(&a, &Tensor::rand([1], FLOAT).expand([4], false)).is_err());
        let shared =
            |out: &Tensor| sweep([Some(out)], [Some(&a)], |_: [RowsMut<f32>; 1], _: [Rows<f32>; 1]| ());
        assert!(shared(&a).unwrap_err().to_string().contains("shares memory"));
        assert!(shared(&a.narrow(0, 2, 2)).unwrap_err().to_string().contains("shares memory"));
        let panics = sweep([Some(&a.empty_like())], [Some(&a)], |_: [RowsMut<f32>; 1], _| panic!("no"));
        assert!(panics.unwrap_err().to_string().contains("panicked"));
    }
}
