//! What is decided about a part when it is added, and not asked again.

use crate::module::{Layout, Part, Properties, Wrapper};

/// What a container knows of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    properties: Properties,
    is_layer: bool,
    /// What a spike with its trace meets around it.
    pub(super) wrapper: Wrapper,
    is_stateless: bool,
}

impl Plan {
    /// Of a layer: its parameters decide what a spike with its trace meets, whether or not they ask for a gradient.
    pub(super) fn of_layer(layer: &mut (impl Part + ?Sized)) -> Self {
        let wrapper = match layer.parameters().is_empty() {
            true => Wrapper::SpikeTraceOp,
            false => Wrapper::GradWithTrace,
        };
        Self { is_layer: true, wrapper, ..Self::of_module(layer) }
    }

    pub(super) fn of_module(module: &mut (impl Part + ?Sized)) -> Self {
        let properties = module.properties();
        let is_stateless = module.memories().is_empty();
        Self { properties, is_layer: false, wrapper: properties.wrapper, is_stateless }
    }

    /// The same around which `wrapper` is put by hand.
    pub(super) fn wrapped(self, wrapper: Wrapper) -> Self {
        Self { wrapper, ..self }
    }

    /// The properties of a layer with its wrapper.
    pub(super) fn by_hand(&self) -> Properties {
        Properties { wrapper: self.wrapper, takes_steps: self.takes_steps(), ..self.properties }
    }

    pub(super) fn layout(&self) -> Layout {
        self.properties.layout
    }

    pub(super) fn is_affine(&self) -> bool {
        self.properties.is_affine
    }

    /// Whether several time steps may go through it together.
    pub(super) fn takes_steps(&self) -> bool {
        self.properties.takes_steps || (self.properties.is_samplewise && self.is_stateless)
    }

    /// Whether it takes a constant as it is.
    pub(super) fn takes_constant(&self) -> bool {
        self.properties.takes_constant || self.keeps_constant()
    }

    /// Whether its answer to a constant is constant.
    pub(super) fn keeps_constant(&self) -> bool {
        self.is_layer && self.properties.is_samplewise && self.is_stateless
    }

    /// What it multiplies by, where it does nothing else.
    pub(super) fn factor(&self) -> Option<f64> {
        // One that f32 has no normal number for would not give the same numbers in the neuron's place.
        self.properties.factor.filter(|factor| (*factor as f32).is_normal())
    }

    /// Whether it can multiply its output itself.
    pub(super) fn multiplies(&self) -> bool {
        self.properties.multiplies
    }

    /// Whether it carries no graph from one step to the next, unless it is to.
    pub(super) fn cuts(&self) -> bool {
        self.properties.cuts || self.is_stateless
    }
}
