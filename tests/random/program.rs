//! A random program: a network, and what is done to it.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::part::{parts, Part};

/// One thing done to a network.
#[derive(Debug, Clone)]
pub enum Action {
    Step {
        train: bool,
        constant: bool,
    },
    Steps {
        count: i64,
        constant: bool,
    },
    /// A step, and backward from its output.
    Learn {
        constant: bool,
    },
    /// A training loop; its loss fails, by an error or a panic, at the call of that number.
    Sequence {
        every_step: bool,
        steps_per_pass: i64,
        still: bool,
        fails: Option<(usize, bool)>,
    },
    Evaluate,
    Reset,
    Detach,
    /// The module of the user's panics at its next call.
    Arm,
    /// Takes handles of the state, or puts such back.
    Take,
    Put {
        which: usize,
    },
    Save,
    Restore {
        which: usize,
        by_file: bool,
    },
    BatchSize(i64),
    Move,
}

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    let fails = prop_oneof![2 => Just(None), 1 => (0usize..4, any::<bool>()).prop_map(Some)];
    prop_oneof![
        4 => (any::<bool>(), any::<bool>()).prop_map(|(train, constant)| Step { train, constant }),
        2 => (1i64..4, any::<bool>()).prop_map(|(count, constant)| Steps { count, constant }),
        5 => any::<bool>().prop_map(|constant| Learn { constant }),
        6 => (any::<bool>(), 1i64..4, any::<bool>(), fails).prop_map(|(every_step, steps_per_pass, still, fails)| {
            Sequence { every_step, steps_per_pass, still, fails }
        }),
        2 => Just(Evaluate),
        2 => Just(Reset),
        1 => Just(Detach),
        1 => Just(Arm),
        2 => Just(Take),
        2 => (0usize..3).prop_map(|which| Put { which }),
        1 => Just(Save),
        1 => (0usize..3, prop::bool::weighted(0.3)).prop_map(|(which, by_file)| Restore { which, by_file }),
        1 => (1i64..4).prop_map(BatchSize),
        1 => Just(Move),
    ]
}

#[derive(Debug, Clone)]
pub struct Program {
    pub before: Vec<Part>,
    pub after: Vec<Part>,
    pub size: Vec<i64>,
    pub actions: Vec<Action>,
}

pub fn programs() -> impl Strategy<Value = Program> {
    let size = prop_oneof![(2i64..6).prop_map(|n| vec![n]), Just(vec![2, 4, 3])];
    (parts(), parts(), size, vec(action(), 1..30)).prop_map(|(before, after, size, actions)| Program {
        before,
        after,
        size,
        actions,
    })
}
