//! Pooling over height and width.

use tch::Tensor;

use super::check::expect_image;
use crate::error::{Error, Result};
use crate::ffi::shape;
use crate::module::{Layer, Part, Properties};

/// Where the windows of a pooling lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolConfig {
    /// Distance between windows; the kernel's size if not given.
    pub stride: Option<i64>,
    /// Rows and columns added on each side. Default: 0.
    pub padding: i64,
    /// Whether a last, smaller window counts. Default: false.
    pub ceil_mode: bool,
}

/// The kernel and config of one pooling, checked.
#[derive(Debug, Clone, Copy)]
struct Window {
    ksize: i64,
    stride: i64,
    padding: i64,
    ceil_mode: bool,
}

impl Window {
    fn new(layer: &str, ksize: i64, config: PoolConfig) -> Result<Self> {
        let PoolConfig { stride, padding, ceil_mode } = config;
        let stride = stride.unwrap_or(ksize);
        for (name, value) in [("ksize", ksize), ("stride", stride)] {
            if value < 1 {
                return Err(Error::argument(&format!("{layer}'s {name}"), "at least 1", value));
            }
        }
        if padding < 0 || padding > ksize / 2 {
            let expected = format!("from 0 to half of ksize, {}", ksize / 2);
            return Err(Error::argument(&format!("{layer}'s padding"), &expected, padding));
        }
        Ok(Self { ksize, stride, padding, ceil_mode })
    }

    fn check(&self, layer: &str, x: &Tensor) -> Result<()> {
        expect_image(layer, x)?;
        let size = shape(x);
        let smallest = size[size.len() - 2..].iter().min().copied().unwrap_or(0);
        // Padding is at most half of ksize.
        let least = self.ksize - 2 * self.padding;
        if smallest < least {
            let expected = format!("height and width of at least {least}");
            return Err(Error::shape(&format!("{layer}'s input"), expected, x, "use fewer poolings"));
        }
        Ok(())
    }
}

/// Both are windows, from each of which `|x, window| ...` makes one number.
macro_rules! pools {
    ($($(#[$doc:meta])* $pool:ident |$x:ident, $window:pat_param| $pooled:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $pool(Window);

        impl $pool {
            /// Square windows of `ksize`.
            ///
            /// # Errors
            /// When the window's size, stride or padding is out of range.
            pub fn new(ksize: i64, config: PoolConfig) -> Result<Self> {
                Window::new(stringify!($pool), ksize, config).map(Self)
            }
        }

        impl Part for $pool {
            fn name(&self) -> String {
                format!("{}({})", stringify!($pool), self.0.ksize)
            }

            fn properties(&self) -> Properties {
                Properties::default().samplewise().any_layout()
            }
        }

        impl Layer for $pool {
            fn forward(&mut self, $x: &Tensor, _train: bool) -> Result<Tensor> {
                self.0.check(stringify!($pool), $x)?;
                let $window = self.0;
                Ok($pooled?)
            }
        }
    )*};
}

pools! {
    /// The mean of each window.
    ///
    /// # Shapes
    /// `[N, C, H, W]` or `[C, H, W]`; H becomes floor((H + 2 padding - ksize) / stride) + 1, and W likewise.
    AvgPool2d |x, Window { ksize, stride, padding, ceil_mode }| {
        x.f_avg_pool2d([ksize; 2], [stride; 2], [padding; 2], ceil_mode, true, None)
    };

    /// The largest value of each window.
    ///
    /// # Shapes
    /// As [`AvgPool2d`].
    MaxPool2d |x, Window { ksize, stride, padding, ceil_mode }| {
        x.f_max_pool2d([ksize; 2], [stride; 2], [padding; 2], [1, 1], ceil_mode)
    };
}

/// The mean of windows chosen so that the output has a given height and width.
///
/// # Shapes
/// `[N, C, H, W]` or `[C, H, W]` to the same with the given height and width.
#[derive(Debug, Clone, Copy)]
pub struct AdaptiveAvgPool2d {
    output: [i64; 2],
}

impl AdaptiveAvgPool2d {
    /// Pools to `output` = `[height, width]`.
    ///
    /// # Errors
    /// When one of the two is below 1.
    pub fn new(output: [i64; 2]) -> Result<Self> {
        if output.iter().any(|&size| size < 1) {
            let got = format!("{output:?}");
            return Err(Error::argument("AdaptiveAvgPool2d's output", "two sizes of at least 1", got));
        }
        Ok(Self { output })
    }
}

impl Part for AdaptiveAvgPool2d {
    fn name(&self) -> String {
        format!("AdaptiveAvgPool2d({:?})", self.output)
    }

    fn properties(&self) -> Properties {
        Properties::default().samplewise().any_layout()
    }
}

impl Layer for AdaptiveAvgPool2d {
    fn forward(&mut self, x: &Tensor, _train: bool) -> Result<Tensor> {
        expect_image("AdaptiveAvgPool2d", x)?;
        Ok(x.f_adaptive_avg_pool2d(self.output)?)
    }
}
