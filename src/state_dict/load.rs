//! A state dict into a model, and the report of it.

use std::fmt;

use tch::{Kind, Tensor};

use super::names::{matched, shown};
use super::StateDict;
use crate::check::expect_defined;
use crate::error::{guarded, Error, Result};
use crate::ffi::{layout, Layout};
use crate::module::Variable;

/// How [`StateDict::load_into`] loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadConfig {
    /// Whether all names, shapes and kinds must fit. Otherwise what fits is loaded, converted to the model's kind where
    /// that differs. Default: true.
    pub strict: bool,
}

impl Default for LoadConfig {
    fn default() -> Self {
        Self { strict: true }
    }
}

/// A tensor of the file that is not like the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit<T> {
    /// The model's name for it.
    pub name: String,
    /// What the model has.
    pub model: T,
    /// What the file has.
    pub file: T,
}

/// What became of each name; shown as a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The model's names that were, or would be, loaded.
    pub loaded: Vec<String>,
    /// Names of the model that the file does not have.
    pub missing: Vec<String>,
    /// Names of the file that the model does not have.
    pub unexpected: Vec<String>,
    /// Tensors of another shape, which stay as they were.
    pub other_shape: Vec<Misfit<Vec<i64>>>,
    /// Tensors of another kind, which are converted where that is allowed.
    pub other_kind: Vec<Misfit<Kind>>,
    /// What the file has besides that is no tensor: name and sort. It bothers nobody.
    pub others: Vec<(String, String)>,
}

impl LoadReport {
    /// Whether all names, shapes and kinds fit.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.other_shape.is_empty()
            && self.other_kind.is_empty()
    }
}

/// One line in sum, then one for each name that did not fit.
impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loaded, missing, unexpected, other_shape, other_kind, others } = self;
        let sums = [
            (loaded.len(), "fit"),
            (missing.len(), "missing"),
            (unexpected.len(), "unexpected"),
            (other_shape.len(), "of another shape"),
            (other_kind.len(), "of another kind"),
        ];
        let sums = sums.iter().enumerate().filter(|(i, (count, _))| *i == 0 || *count > 0);
        let sums: Vec<String> = sums.map(|(_, (count, what))| format!("{count} {what}")).collect();
        write!(f, "{}", sums.join(", "))?;
        let bare = |name| (name, String::new());
        let shapes = other_shape.iter().map(|m| (&m.name, format!("model {:?}, file {:?}", m.model, m.file)));
        let kinds = other_kind.iter().map(|m| (&m.name, format!("model {:?}, file {:?}", m.model, m.file)));
        lines(f, "missing", missing.iter().map(bare))?;
        lines(f, "unexpected", unexpected.iter().map(bare))?;
        lines(f, "other shape", shapes)?;
        lines(f, "other kind", kinds)?;
        lines(f, "no tensor", others.iter().map(|(name, what)| (name, what.clone())))
    }
}

/// How many names of a sort are shown.
const SHOWN: usize = 10;

fn lines<'a>(
    f: &mut fmt::Formatter<'_>,
    sort: &str,
    rows: impl ExactSizeIterator<Item = (&'a String, String)>,
) -> fmt::Result {
    let rest = rows.len().saturating_sub(SHOWN);
    let rows: Vec<_> = rows.take(SHOWN).collect();
    let width = rows.iter().map(|(name, _)| shown(name).chars().count()).max().unwrap_or(0);
    for (name, what) in &rows {
        let (name, what) = (shown(name), shown(what));
        write!(f, "\n{}", format!("  {sort:<11}  {name:<width$}  {what}").trim_end())?;
    }
    match rest {
        0 => Ok(()),
        rest => write!(f, "\n  {sort:<11}  and {rest} more"),
    }
}

/// A count of batches that PyTorch's batch normalization keeps and tch's does not.
const COUNTER: &str = "num_batches_tracked";

impl StateDict {
    /// Copies the tensors into a module's [`variables`](crate::Part::variables), or its parameters alone.
    ///
    /// Names may differ by what Python's wrappers add: `module.` (DistributedDataParallel, SpikingJelly's
    /// GradwithTrace), `_orig_mod.` (torch.compile), `op.` (the OTTT authors' code). The counter
    /// `num_batches_tracked`, which tch does not have, is passed over.
    ///
    /// # Errors
    /// With [`strict`](LoadConfig::strict), when a name is missing or unexpected or a shape or kind differs; always
    /// when a name stands twice. On any error nothing is changed.
    pub fn load_into(&self, parameters: &[Variable], config: LoadConfig) -> Result<LoadReport> {
        let plan = self.plan(parameters, config)?;
        plan.apply()
    }

    /// What [`load_into`](StateDict::load_into) would do; nothing is changed.
    pub fn compare(&self, parameters: &[Variable]) -> Result<LoadReport> {
        Ok(self.plan(parameters, LoadConfig { strict: false })?.report)
    }

    /// Everything that can fail.
    pub(crate) fn plan<'a>(&'a self, parameters: &'a [Variable], config: LoadConfig) -> Result<Plan<'a>> {
        Self::of(parameters).expect_names_once("the model")?;
        self.expect_names_once("the state dict")?;
        let places = matched(parameters.iter().map(|p| p.name.as_str()), self.names());
        let mut report = LoadReport { others: self.others.clone(), ..Default::default() };
        let mut copies = Vec::new();
        let mut used = vec![false; self.len()];
        for (Variable { name, tensor, .. }, place) in parameters.iter().zip(places) {
            expect_defined(format_args!("the model's {}", shown(name)), tensor)?;
            let Some(place) = place else {
                report.missing.push(name.clone());
                continue;
            };
            if !matches!(layout(tensor), Layout::Dense | Layout::Apart) {
                let expected =
                    "a tensor whose elements each have a place in memory: a copy() of an expanded one";
                let what = format!("the model's {}", shown(name));
                return Err(Error::argument(&what, expected, "one whose elements share memory"));
            }
            used[place] = true;
            let (own, source) = &self.tensors[place];
            expect_defined(format_args!("the state dict's {}", shown(own)), source)?;
            let (model, file) = (tensor.size(), source.size());
            if model != file {
                report.other_shape.push(Misfit { name: name.clone(), model, file });
                continue;
            }
            let (model, file) = (tensor.f_kind()?, source.f_kind()?);
            if model != file {
                report.other_kind.push(Misfit { name: name.clone(), model, file });
            }
            report.loaded.push(name.clone());
            copies.push((tensor, source));
        }
        let unused = self.names().zip(used).filter(|(name, used)| !used && !name.ends_with(COUNTER));
        report.unexpected.extend(unused.map(|(name, _)| name.to_owned()));
        if config.strict && !report.is_exact() {
            return Err(Error::StateDict(report.to_string()));
        }
        let converted = |(to, from): (&'a Tensor, &Tensor)| {
            let from = guarded("a conversion", || {
                Ok(from.f_detach()?.f_to_device(to.device())?.f_to_kind(to.f_kind()?)?)
            })?;
            Ok((to, from))
        };
        let copies = copies.into_iter().map(converted).collect::<Result<_>>()?;
        Ok(Plan { report, copies })
    }
}

/// What remains to be copied.
pub(crate) struct Plan<'a> {
    report: LoadReport,
    copies: Vec<(&'a Tensor, Tensor)>,
}

impl Plan<'_> {
    pub(crate) fn apply(self) -> Result<LoadReport> {
        guarded("the copy of weights", || {
            tch::no_grad(|| {
                for (to, from) in &self.copies {
                    to.shallow_clone().f_copy_(from)?;
                }
                Ok(self.report)
            })
        })
    }
}
