//! Real data sets, as tch's own [`Dataset`](tch::vision::dataset::Dataset) (feature `data`).
//!
//! Images are floats in 0..=1, `[N, C, H, W]`; labels are class indices, Int64.

mod digits;
mod idx;

pub use digits::digits;
pub use idx::{mnist, read_idx};
