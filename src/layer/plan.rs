//! What is decided about a part when it is added, and not asked again.

use crate::module::{Layout, Part, Properties, Wrapper};

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
    /// What it multiplies by, where it does nothing else.
    pub(super) factor: Option<f64>,
    /// Whether it can multiply its output itself.
    pub(super) multiplies: bool,
    /// Whether it carries no graph from one step to the next, unless it is to.
    pub(super) cuts: bool,
}

impl Plan {
    /// Of a layer: its parameters decide what a spike with its trace meets, whether or not they ask for a gradient.
    pub(super) fn of_layer(layer: &mut (impl Part + ?Sized)) -> Self {
        let wrapper = match layer.parameters().is_empty() {
            true => Wrapper::SpikeTraceOp,
            false => Wrapper::GradWithTrace,
        };
        let keeps_constant = layer.properties().is_samplewise && layer.memories().is_empty();
        let module = Self::of_module(layer);
        Self { wrapper, keeps_constant, takes_constant: module.takes_constant || keeps_constant, ..module }
    }

    pub(super) fn of_module(module: &mut (impl Part + ?Sized)) -> Self {
        let is_stateless = module.memories().is_empty();
        let properties = module.properties();
        let Properties { wrapper, layout, is_affine, takes_constant, factor, multiplies, .. } = properties;
        Self {
            wrapper,
            layout,
            is_affine,
            takes_steps: properties.takes_steps || (properties.is_samplewise && is_stateless),
            takes_constant,
            keeps_constant: false,
            // One that f32 has no normal number for would not give the same numbers in the neuron's place.
            factor: factor.filter(|factor| (*factor as f32).is_normal()),
            multiplies,
            cuts: properties.cuts || is_stateless,
        }
    }

    /// The properties of a layer around which a wrapper is put by hand.
    pub(super) fn by_hand(&self) -> Properties {
        let Self { wrapper, layout, takes_steps, factor, cuts, .. } = *self;
        Properties { wrapper, layout, takes_steps, factor, cuts, ..Properties::default() }
    }
}
