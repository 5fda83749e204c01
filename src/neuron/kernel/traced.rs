//! The trace of a signal that is given, a_t = leak a_{t-1} + x_t: the neuron's, without the neuron.

use tch::{Device, Kind, Tensor};

use super::request::{join, row};
use super::sweep::in_rows;
use crate::error::Result;
use crate::ffi::{sweep, vectorized};
use crate::module::Memory;
use crate::numeric::Real;
use crate::setting::fast_paths;

/// The traces of the steps of x `[time_steps * N, ...]`, without a graph; moves `trace`, a_t of the step before.
pub(in crate::neuron) fn traced(
    x: &Tensor,
    time_steps: i64,
    leak: f64,
    trace: &mut Memory,
) -> Result<Tensor> {
    let data = x.f_detach()?;
    let able = fast_paths().fused_neuron && x.device() == Device::Cpu && !x.is_neg() && x.dim() > 0;
    match x.f_kind()? {
        Kind::Float if able => swept::<f32>(data, time_steps, leak, trace),
        Kind::Double if able => swept::<f64>(data, time_steps, leak, trace),
        _ => composed(&data, time_steps, leak, trace),
    }
}

fn composed(data: &Tensor, time_steps: i64, leak: f64, trace: &mut Memory) -> Result<Tensor> {
    let (mut traces, mut a) = (Vec::new(), trace.get().map(Tensor::detach));
    for t in 0..time_steps {
        let x = row(data, time_steps, t)?;
        let next = match &a {
            Some(a) => a.f_mul_scalar(leak)?.f_add(&x)?,
            // In memory of its own: whoever gave the input may change it.
            None => x.copy(),
        };
        traces.push(next.shallow_clone());
        a = Some(next);
    }
    let joined = join(traces)?.unwrap_or_default();
    *trace = a.into();
    Ok(joined)
}

fn swept<R: Real>(data: Tensor, time_steps: i64, leak: f64, trace: &mut Memory) -> Result<Tensor> {
    let data = in_rows(data)?;
    let (silent, keep) = (trace.get().is_none(), R::of(leak));
    let state = trace.to_write(&row(&data, time_steps, 0)?)?;
    let traces = data.f_empty_like()?;
    sweep::<R, 2, 1>([Some(&state), Some(&traces)], [Some(&data)], |[mut state, mut traces], [x]| {
        for k in 0..time_steps as usize {
            let (state, traces, x) = (state.row(0), traces.row(k), x.row(k));
            vectorized(
                #[inline(always)]
                move || {
                    for ((a, &x), trace) in state.iter_mut().zip(x).zip(traces) {
                        *a = if silent && k == 0 { x } else { *a * keep + x };
                        *trace = *a;
                    }
                },
            );
        }
    })?;
    *trace = state.into();
    Ok(traces)
}
