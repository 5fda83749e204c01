//! What containers do with their parts, each under a name.

use super::layout::arranged;
use crate::error::{guarded, Error, Result};
use crate::module::{OnlineModule, Parameter};
use crate::monitor::within;
use crate::signal::Signal;

/// What `of` says of every part, the part's name in front of each.
pub(super) fn named<'a>(
    parts: impl IntoIterator<Item = (&'a str, &'a dyn OnlineModule)>,
    of: impl Fn(&dyn OnlineModule) -> Vec<Parameter>,
) -> Vec<Parameter> {
    let named = parts.into_iter().flat_map(|(part, module)| {
        of(module).into_iter().map(move |p| Parameter { name: format!("{part}.{}", p.name), ..p })
    });
    named.collect()
}

/// Does `what` with every part; an error says which of them met it, and comes after the last.
pub(super) fn each<'a>(
    parts: impl IntoIterator<Item = (&'a str, &'a mut dyn OnlineModule)>,
    what: impl Fn(&mut dyn OnlineModule) -> Result<()>,
) -> Result<()> {
    let mut first = Ok(());
    for (part, module) in parts {
        // A panic of one must not keep the others from their turn.
        let done = guarded(part, || what(module));
        first = first.and(done.map_err(|source| in_layer(part, module, source)));
    }
    first
}

/// Gives the signal to a part, laid out as it asks; a panic and an error get its name.
pub(super) fn step(
    part: &str,
    module: &mut dyn OnlineModule,
    x: &Signal,
    run: impl FnOnce(&mut dyn OnlineModule, &Signal) -> Result<Signal>,
) -> Result<Signal> {
    guarded("step", || {
        let x = arranged(x, module.layout())?;
        within(part, || run(module, &x))
    })
    .map_err(|source| in_layer(part, module, source))
}

/// Names the layer that met an error.
fn in_layer(part: &str, module: &dyn OnlineModule, source: Error) -> Error {
    let name = module.name();
    // Many a sentence begins with the layer's name: once is enough.
    let named = source.to_string().starts_with(&name);
    let layer = if named { part.to_owned() } else { format!("{part}: {name}") };
    Error::Layer { layer, source: Box::new(source) }
}
