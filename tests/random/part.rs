//! The description of a random network. It fits any input, so that parts may be taken out of it.

use proptest::collection::vec;
use proptest::prelude::*;

/// A part of a network. Sizes that do not fit what comes in are made to fit by the builder.
#[derive(Debug, Clone)]
pub enum Part {
    /// tch's linear layer.
    Linear {
        out: i64,
        bias: bool,
        frozen: bool,
    },
    /// The weight of the last linear layer of the same sizes once more, else a new one that maps the input to its size.
    Shared,
    /// A linear layer with standardized weights.
    WsLinear {
        out: i64,
        gain: bool,
    },
    /// A convolution of as many dimensions as the input has; a linear layer where there are none.
    Conv(Conv),
    /// A normalization by tch.
    Norm(Norm),
    Neuron(Neuron),
    /// Layers without weights.
    Plain(Plain),
    /// A user's own affine layer, which says so.
    OwnAffine {
        out: i64,
    },
    /// A user's own layer with a weight and a memory.
    OwnStateful,
    /// A module of Python, scripted: two linear layers and what is between.
    Script,
    /// A wrapper by hand around a linear layer, or around a factor.
    ByHand {
        weighted: bool,
    },
    /// A container, its parts named or not.
    Nested {
        named: bool,
        parts: Vec<Part>,
    },
    /// A block whose output comes back.
    /// A skip connection around a block that is led back to its input's size; through a layer, or not.
    Residual {
        block: Vec<Part>,
        linear: bool,
    },
    Feedback {
        connection: Vec<Part>,
        block: Vec<Part>,
    },
}

#[derive(Debug, Clone, Copy)]
pub struct Conv {
    pub out: i64,
    pub kernel: i64,
    pub stride: i64,
    pub padding: i64,
    /// Whether each channel goes by itself, where the counts allow it.
    pub grouped: bool,
    pub kind: ConvKind,
    pub bias: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum ConvKind {
    Plain,
    Transposed,
    Standardized,
}

#[derive(Debug, Clone, Copy)]
pub enum Norm {
    Batch,
    Layer,
    Group,
}

#[derive(Debug, Clone, Copy)]
pub enum Plain {
    Scale(f64),
    Dropout,
    Dropout2d,
    AvgPool,
    MaxPool,
    AdaptivePool,
    Flatten,
    Identity,
    /// Where no trace has come so far.
    InputTrace,
    /// A closure of the user's.
    Tanh,
    /// A closure that treats samples by themselves, and says so.
    Samplewise,
}

#[derive(Debug, Clone, Copy)]
pub enum Rule {
    Ottt,
    Sltt,
    Ndot,
}

#[derive(Debug, Clone, Copy)]
pub enum Derivative {
    Sigmoid,
    ATan,
    /// A user's own, known in libtorch's operations only.
    Own,
}

#[derive(Debug, Clone)]
pub struct Neuron {
    pub rule: Rule,
    pub tau: f64,
    pub decay_input: bool,
    pub v_threshold: f64,
    pub v_reset: Option<f64>,
    pub derivative: Derivative,
}

fn neuron() -> impl Strategy<Value = Neuron> {
    let rule = prop_oneof![3 => Just(Rule::Ottt), 1 => Just(Rule::Sltt), 1 => Just(Rule::Ndot)];
    let derivative =
        prop_oneof![3 => Just(Derivative::Sigmoid), 1 => Just(Derivative::ATan), 1 => Just(Derivative::Own)];
    let reset = prop_oneof![2 => Just(None), 1 => (-0.4..0.1).prop_map(Some)];
    (rule, 1.0..5.0, any::<bool>(), 0.11..0.8, reset, derivative).prop_map(
        |(rule, tau, decay_input, v_threshold, v_reset, derivative)| Neuron {
            rule,
            tau,
            decay_input,
            v_threshold,
            v_reset,
            derivative,
        },
    )
}

fn conv() -> impl Strategy<Value = Conv> {
    let kind = prop_oneof![
        2 => Just(ConvKind::Plain),
        1 => Just(ConvKind::Transposed),
        2 => Just(ConvKind::Standardized)
    ];
    (1i64..5, 1i64..4, 1i64..3, 0i64..2, any::<bool>(), kind, any::<bool>()).prop_map(
        |(out, kernel, stride, padding, grouped, kind, bias)| Conv {
            out,
            kernel,
            stride,
            padding,
            grouped,
            kind,
            bias,
        },
    )
}

fn leaf() -> impl Strategy<Value = Part> {
    let norm = prop_oneof![Just(Norm::Batch), Just(Norm::Layer), Just(Norm::Group)];
    let plain = prop_oneof![
        3 => prop_oneof![Just(2.74), Just(-0.5), Just(0.0), 0.5..3.0].prop_map(Plain::Scale),
        1 => Just(Plain::Dropout),
        1 => Just(Plain::Dropout2d),
        1 => Just(Plain::AvgPool),
        1 => Just(Plain::MaxPool),
        1 => Just(Plain::AdaptivePool),
        1 => Just(Plain::Flatten),
        1 => Just(Plain::Identity),
        2 => Just(Plain::InputTrace),
        1 => Just(Plain::Tanh),
        1 => Just(Plain::Samplewise),
    ];
    prop_oneof![
        8 => neuron().prop_map(Part::Neuron),
        4 => (1i64..7, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(out, bias, frozen)| Part::Linear { out, bias, frozen }),
        1 => Just(Part::Shared),
        2 => (1i64..7, any::<bool>()).prop_map(|(out, gain)| Part::WsLinear { out, gain }),
        3 => conv().prop_map(Part::Conv),
        1 => norm.prop_map(Part::Norm),
        5 => plain.prop_map(Part::Plain),
        1 => (1i64..6).prop_map(|out| Part::OwnAffine { out }),
        1 => Just(Part::OwnStateful),
        1 => Just(Part::Script),
        1 => any::<bool>().prop_map(|weighted| Part::ByHand { weighted }),
    ]
}

/// A part, nested to depth 3.
fn part() -> impl Strategy<Value = Part> {
    leaf().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            3 => (any::<bool>(), vec(inner.clone(), 1..5))
                .prop_map(|(named, parts)| Part::Nested { named, parts }),
            1 => (vec(inner.clone(), 0..4), any::<bool>())
                .prop_map(|(block, linear)| Part::Residual { block, linear }),
            1 => (vec(inner.clone(), 0..2), vec(inner, 1..4))
                .prop_map(|(connection, block)| Part::Feedback { connection, block }),
        ]
    })
}

/// The parts of a network.
pub fn parts() -> impl Strategy<Value = Vec<Part>> {
    vec(part(), 1..7)
}
