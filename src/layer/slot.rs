//! A part in its place in a container.

use super::layout::arranged;
use super::online::pass_through;
use super::plan::Plan;
use crate::error::{guarded, Error, Result};
use crate::module::{Memory, OnlineModule, Part, Pass, Variable};
use crate::monitor::within;
use crate::signal::Signal;

/// A part under its name, with what was asked of it when it came.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) module: Box<dyn OnlineModule>,
    pub(super) plan: Plan,
}

impl Slot {
    pub(super) fn new<M: OnlineModule + 'static>(name: impl Into<String>, mut module: M) -> Self {
        let own = module.properties().folds.is_some_and(|(of, _)| of == std::any::type_name::<M>());
        let mut plan = match module.as_layer() {
            Some(layer) => Plan::of_layer(layer),
            None => Plan::of_module(&mut module),
        };
        plan.folds = plan.folds.filter(|_| own);
        Self { name: name.into(), module: Box::new(module), plan }
    }

    /// Gives the signal to the part, laid out as it asks; a panic and an error get its name.
    pub(super) fn pass(&mut self, x: &Signal, pass: &Pass<'_>) -> Result<Signal> {
        let Self { name, module, plan } = self;
        let result = guarded("step", || {
            if pass.time_steps > 1 && !plan.takes_steps {
                return Err(Error::SeveralSteps { module: module.name() });
            }
            let x = arranged(x, plan.layout)?;
            within(name, || match module.as_layer() {
                Some(layer) => pass_through(layer, plan, &x, pass),
                None => module.pass(&x, pass),
            })
        });
        result.map_err(|source| self.error(source))
    }

    /// Names the part that met an error.
    fn error(&self, source: Error) -> Error {
        let name = self.module.name();
        // Many a sentence begins with the layer's name: once is enough.
        let named = source.to_string().starts_with(&name);
        let layer = if named { self.name.clone() } else { format!("{}: {name}", self.name) };
        Error::Layer { layer, source: Box::new(source) }
    }
}

/// The variables of all parts, the part's name in front of each.
pub(super) fn variables<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> Vec<Variable> {
    let named = slots.into_iter().flat_map(|slot| {
        let variables = slot.module.variables().into_iter();
        variables.map(|variable| Variable { name: format!("{}.{}", slot.name, variable.name), ..variable })
    });
    named.collect()
}

/// The memories of all parts.
pub(super) fn memories<'a>(slots: impl IntoIterator<Item = &'a mut Slot>) -> Vec<&'a mut Memory> {
    slots.into_iter().flat_map(|slot| slot.module.memories()).collect()
}
