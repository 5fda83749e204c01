//! What is decided about a part when it is added, and not asked again.

use crate::module::{Folds, Layout, Part, Properties, Role, Wrapper};

/// What a container knows of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// What a spike with its trace meets around it.
    pub(super) wrapper: Wrapper,
    pub(super) layout: Layout,
    pub(super) is_affine: bool,
    /// Whether several time steps may go through it together.
    pub(super) takes_steps: bool,
    /// Whether it takes a constant as it is.
    pub(super) takes_constant: bool,
    /// Whether its answer to a constant is constant.
    pub(super) keeps_constant: bool,
    /// What it has to do with a factor.
    pub(super) folds: Option<Folds>,
    /// Whether it carries no graph from one step to the next, unless it is to.
    pub(super) cuts: bool,
}

impl Plan {
    /// Of a layer: its parameters decide what a spike with its trace meets, whether or not they ask for a gradient.
    pub(super) fn of_layer(layer: &mut (impl Part + ?Sized)) -> Self {
        let weighted = layer.variables().iter().any(|variable| variable.role == Role::Parameter);
        let wrapper = if weighted { Wrapper::GradWithTrace } else { Wrapper::SpikeTraceOp };
        let is_stateless = layer.memories().is_empty();
        let keeps_constant = layer.properties().is_samplewise && is_stateless;
        let module = Self::of_module(layer);
        let (takes_constant, cuts) = (module.takes_constant || keeps_constant, module.cuts || is_stateless);
        Self { wrapper, keeps_constant, takes_constant, cuts, ..module }
    }

    pub(super) fn of_module(module: &mut (impl Part + ?Sized)) -> Self {
        let is_stateless = module.memories().is_empty();
        let properties = module.properties();
        let Properties { wrapper, layout, is_affine, takes_constant, cuts, folds, .. } = properties;
        Self {
            wrapper,
            layout,
            is_affine,
            takes_steps: properties.takes_steps || (properties.is_samplewise && is_stateless),
            takes_constant,
            keeps_constant: false,
            folds: folds.map(|(_, folds)| folds),
            cuts,
        }
    }

    /// The properties of `P`, a wrapper that is put around the layer by hand.
    pub(super) fn by_hand<P>(&self) -> Properties {
        let Self { wrapper, layout, takes_steps, cuts, .. } = *self;
        let properties = Properties { wrapper, layout, takes_steps, cuts, ..Properties::default() };
        match self.folds {
            // With the gradient by the trace, what comes out has no trace.
            Some(folds) if wrapper == Wrapper::SpikeTraceOp => properties.folds::<P>(folds),
            _ => properties,
        }
    }
}
