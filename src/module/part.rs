//! What a part of a network is.

use std::fmt::Debug;

use tch::Tensor;

use super::{Memory, Properties};

/// What a part of a network is; what it does is said by [`Layer`](crate::Layer) or
/// [`OnlineModule`](crate::OnlineModule).
///
/// The first four methods say everything, and each has a default: a part without weights and without a state is
/// `impl Part for Double {}`. The others read what these say. A part whose state is no tensor, a counter for instance, adds
/// to [`reset`](Part::reset) what that takes, and calls it for the parts in it.
pub trait Part: Debug + Send {
    /// A short name for tables and errors, for instance `Linear(64 -> 10)`. Default: the type's name.
    fn name(&self) -> String {
        short_type_name::<Self>()
    }

    /// The tensors that a [`StateDict`](crate::StateDict) of the part holds. Default: none.
    fn variables(&self) -> Vec<Variable> {
        Vec::new()
    }

    /// What the part carries from one time step to the next, in a fixed order. Default: nothing.
    fn memories(&mut self) -> Vec<&mut Memory> {
        Vec::new()
    }

    /// What others may rely on. A container asks once, when the part is added. Default: nothing is claimed.
    fn properties(&self) -> Properties {
        Properties::default()
    }

    /// The variables that learn, also those that ask for no gradient.
    fn parameters(&self) -> Vec<Variable> {
        self.variables().into_iter().filter(|variable| variable.role == Role::Parameter).collect()
    }

    /// Forgets the past: to be called between sequences.
    #[doc(alias = "reset_net")]
    fn reset(&mut self) {
        self.memories().into_iter().for_each(Memory::forget);
    }

    /// Cuts what is carried over from the graph that made it.
    ///
    /// The neurons of this crate never carry a graph; a part of your own may.
    #[doc(alias = "detach_net")]
    fn detach(&mut self) {
        self.memories().into_iter().for_each(Memory::detach);
    }
}

/// A tensor of a part, by its name.
#[derive(Debug)]
#[non_exhaustive]
pub struct Variable {
    /// PyTorch's name for it: `weight`, `bias`, in containers `0.weight`.
    pub name: String,
    /// The tensor itself, not a copy.
    pub tensor: Tensor,
    /// What it is there for.
    pub role: Role,
}

/// What a variable is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A weight, whether or not it asks for a gradient.
    Parameter,
    /// State that no optimizer moves: running statistics.
    Buffer,
}

impl Variable {
    /// A parameter that shares `tensor`.
    pub fn parameter(name: impl Into<String>, tensor: &Tensor) -> Self {
        Self { name: name.into(), tensor: tensor.shallow_clone(), role: Role::Parameter }
    }

    /// A buffer that shares `tensor`.
    pub fn buffer(name: impl Into<String>, tensor: &Tensor) -> Self {
        Self { role: Role::Buffer, ..Self::parameter(name, tensor) }
    }
}

impl Clone for Variable {
    /// Another handle of the same tensor.
    fn clone(&self) -> Self {
        Self { role: self.role, ..Self::parameter(self.name.clone(), &self.tensor) }
    }
}

/// The last part of a type's path, without its generic arguments.
fn short_type_name<T: ?Sized>() -> String {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

/// What a part around another one says as the other does.
macro_rules! said_by {
    ($self:ident => $part:expr) => {
        fn name(&$self) -> String {
            $part.name()
        }

        fn variables(&$self) -> Vec<$crate::module::Variable> {
            $part.variables()
        }

        fn memories(&mut $self) -> Vec<&mut $crate::module::Memory> {
            $part.memories()
        }

        fn reset(&mut $self) {
            $part.reset();
        }

        fn detach(&mut $self) {
            $part.detach();
        }
    };
}
pub(crate) use said_by;
