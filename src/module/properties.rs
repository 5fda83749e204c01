//! What others may rely on.

/// What a container and a training loop may rely on of a part; without a claim they take the way that is right for all.
///
/// A claim that is not true gives wrong numbers. One follows another: `Properties::default().samplewise().any_layout()`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Properties {
    pub(crate) layout: Layout,
    pub(crate) is_affine: bool,
    pub(crate) is_samplewise: bool,
    pub(crate) takes_steps: bool,
    /// It takes a constant as it is, and its answer changes with time: a neuron, a container.
    pub(crate) takes_constant: bool,
    /// What it has to do with a factor, by the name of the type that says so: a part around another one may hand on the
    /// other's properties, but not this.
    pub(crate) folds: Option<(&'static str, Folds)>,
    /// Its memories carry no graph from one step to the next, unless the pass says so.
    pub(crate) cuts: bool,
    /// What a spike with its trace meets around it.
    pub(crate) wrapper: Wrapper,
}

/// A layer that only multiplies may be left out after a neuron that does it in its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Folds {
    /// It multiplies by this and does nothing else.
    Factor(f64),
    /// It can multiply its output itself, by the pass's factor.
    Multiplies,
}

/// How the images of a batch `[N, C, H, W]` lie in memory; shapes and values are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Layout {
    /// Row after row, channel after channel: what `view()` needs.
    #[default]
    Contiguous,
    /// As they come.
    Any,
    /// All channels of a pixel together, which 2-dimensional convolutions on the CPU are fastest on.
    ChannelsLast,
}

/// What a spike with its trace meets around a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wrapper {
    /// The module takes the pair itself.
    #[default]
    None,
    GradWithTrace,
    SpikeTraceOp,
}

impl Properties {
    /// Its forward is one linear or convolution operation of libtorch on the input itself. The weight may come from
    /// anywhere.
    ///
    /// Such a layer runs once in training, not twice: its operation keeps the trace in the spike's place.
    pub fn affine(self) -> Self {
        Self { is_affine: true, ..self.samplewise() }
    }

    /// Each sample of a batch is treated by itself, and alike at every step: no batch statistics, no noise.
    ///
    /// Then a layer without memories takes several time steps in one pass, and a constant input once.
    pub fn samplewise(self) -> Self {
        Self { is_samplewise: true, ..self }
    }

    /// `P` has to do with a factor.
    pub(crate) fn folds<P: ?Sized>(self, folds: Folds) -> Self {
        Self { folds: Some((std::any::type_name::<P>(), folds)), ..self }
    }

    /// It takes several time steps in one pass by itself, as [`Pass::time_steps`](crate::Pass::time_steps) says.
    pub fn steps_at_once(self) -> Self {
        Self { takes_steps: true, ..self }
    }

    /// Images may lie in memory as they come. Without a claim they are made contiguous.
    pub fn any_layout(self) -> Self {
        Self { layout: Layout::Any, ..self }
    }

    /// It is fastest on images with all channels of a pixel together.
    pub fn channels_last(self) -> Self {
        Self { layout: Layout::ChannelsLast, ..self }
    }
}
