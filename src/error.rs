//! The one error type: sentences that say where, what was expected, what came, and how to mend it.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, TchError, Tensor};

/// What spiketrace's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, in sentences.
///
/// An error's `Display` says all of it, and its `source()` is `None`: whether a program prints `{}`, anyhow's `{:#}`
/// or returns it from `main` through anyhow, each sentence is there once. What a program wants to decide by is in the
/// variants' fields.
///
/// ```
/// use std::io::ErrorKind;
/// use spiketrace::{Error, StateDict};
/// let state = match StateDict::read("no/such/file.safetensors") {
///     Err(Error::Data { io: Some(error), .. }) if error.kind() == ErrorKind::NotFound => StateDict::default(),
///     other => other?,
/// };
/// assert!(state.is_empty());
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error inside a container, with the layer that met it.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Name of the layer in its container, with its name where `source` does not begin with it: `2: Linear(64 -> 10)`.
        layer: String,
        /// What went wrong in it.
        // Raw, so that thiserror does not make it the `source()` too: it would be printed twice.
        r#source: Box<Error>,
    },

    /// A tensor has the wrong shape.
    #[error("{what} has shape {got:?}, expected {expected}; {fix}")]
    Shape {
        /// Which tensor.
        what: String,
        /// The shape wanted, in words or brackets.
        expected: String,
        /// The shape that came.
        got: Vec<i64>,
        /// The likely cause and what to do.
        fix: String,
    },

    /// A tensor has the wrong element type.
    #[error("{what} holds {got:?}, expected {expected}; convert it with to_kind()")]
    Kind {
        /// Which tensor.
        what: String,
        /// The kinds that would do.
        expected: String,
        /// The kind that came.
        got: Kind,
    },

    /// A tensor lies on the wrong device.
    #[error("{what} lies on {got:?}, expected {expected:?}; move it with to_device()")]
    Device {
        /// Which tensor.
        what: String,
        /// The device wanted.
        expected: Device,
        /// The device that came.
        got: Device,
    },

    /// CUDA is asked for and not to be had.
    #[error("there is no CUDA: {0}; or use the device cpu")]
    NoCuda(String),

    /// An option or argument is outside its range.
    #[error("{name} is {got}, expected {expected}")]
    Argument {
        /// The argument's name.
        name: String,
        /// Its range, in words.
        expected: String,
        /// The value that came.
        got: String,
    },

    /// State that was left by an earlier sequence does not fit the input.
    #[error(
        "{what} was left by an input of shape {state:?} ({state_kind:?}), but the input now has shape \
         {input:?} ({input_kind:?}); call reset() between sequences"
    )]
    StaleState {
        /// The state's name.
        what: String,
        /// The state's shape.
        state: Vec<i64>,
        /// The state's element type.
        state_kind: Kind,
        /// The input's shape.
        input: Vec<i64>,
        /// The input's element type.
        input_kind: Kind,
    },

    /// A module cannot take several time steps in one pass.
    #[error(
        "{module} takes one time step at a time: it may keep a state or mix samples; set steps_per_pass to 1, \
         or say in its properties that it takes several (Properties::samplewise, Properties::steps_at_once)"
    )]
    SeveralSteps {
        /// The module's name.
        module: String,
    },

    /// A gradient is missing or wrong.
    #[error("{0}")]
    Gradient(String),

    /// A user's code panicked; the panic was caught.
    #[error("{what} panicked: {message}")]
    Panic {
        /// Whose code.
        what: String,
        /// The panic's message.
        message: String,
    },

    /// Processes that work together lost each other, or never met.
    #[error("{action} failed on rank {rank} of {world_size}: {problem}")]
    Distributed {
        /// The collective with its tensor, or `joining the group`.
        action: String,
        /// This process's rank.
        rank: i64,
        /// The count of processes.
        world_size: i64,
        /// What went wrong, the likely cause and what to do.
        problem: String,
    },

    /// A data file cannot be used.
    #[error("{}: {problem}{}", path.display(), after_colon(io))]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
        /// What the operating system said, where it refused something; `problem` does not repeat it.
        io: Option<io::Error>,
    },

    /// A state dict does not fit the model it was to be loaded into; nothing was changed.
    #[error("the state dict does not fit the model, nothing was changed: {0}")]
    StateDict(String),

    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),

    /// tch refused an operation.
    // Not transparent: its texts show their sources, which would be printed again.
    #[error("{0}")]
    Tch(TchError),
}

impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        match error {
            TchError::Torch(text) => Self::Torch(first_paragraph(&text).to_owned()),
            other => Self::Tch(other),
        }
    }
}

impl Error {
    pub(crate) fn argument(name: &str, expected: &str, got: impl ToString) -> Self {
        Self::Argument { name: name.to_owned(), expected: expected.to_owned(), got: got.to_string() }
    }

    pub(crate) fn shape(what: &str, expected: impl ToString, got: &Tensor, fix: &str) -> Self {
        if !got.defined() {
            return Self::argument(
                what,
                &format!("a tensor of shape {}", expected.to_string()),
                "an undefined tensor",
            );
        }
        Self::Shape {
            what: what.to_owned(),
            expected: expected.to_string(),
            got: got.size(),
            fix: fix.to_owned(),
        }
    }

    pub(crate) fn data(path: &Path, problem: impl Into<String>) -> Self {
        Self::Data { path: path.to_owned(), problem: problem.into(), io: None }
    }

    /// Of a file that the operating system refused to read or write.
    pub(crate) fn io(path: &Path, problem: impl Into<String>, error: io::Error) -> Self {
        Self::Data { path: path.to_owned(), problem: problem.into(), io: Some(error) }
    }
}

fn after_colon(error: &Option<io::Error>) -> String {
    error.as_ref().map_or_else(String::new, |error| format!(": {error}"))
}

/// libtorch's texts end in a C++ backtrace that helps nobody here.
fn first_paragraph(text: &str) -> &str {
    let ends = ["\nException raised from", "\nframe #0"].into_iter().filter_map(|end| text.find(end));
    text[..ends.min().unwrap_or(text.len())].trim_end()
}

/// Runs code that may panic (a user's, or tch's infallible interface) and turns a panic into an error.
pub(crate) fn catch_panic<T>(what: impl Display, body: impl FnOnce() -> T) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).map_err(|payload| {
        let message = panic_message(&*payload);
        match libtorchs_words(&message) {
            Some(words) => Error::Torch(format!("{what}: {words}")),
            None => Error::Panic { what: what.to_string(), message },
        }
    })
}

/// [`catch_panic`] for code that returns a result of its own.
///
/// Also for tch's fallible operations on numbers, `f_mul_scalar` and its kin: where libtorch fails, out of
/// memory for instance, they panic, since the number's destructor meets the error before they do.
pub(crate) fn guarded<T>(what: impl Display, body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_panic(what, body).and_then(|result| result)
}

/// Of a fused operation that is differentiated twice.
pub(crate) fn no_second_derivative(what: &str) -> Error {
    Error::Gradient(format!(
        "{what} has no second derivative in one sweep; run it in with_fast_paths(FastPaths::NONE, ..)"
    ))
}

/// What libtorch said, of the message of tch's panic about it.
fn libtorchs_words(panic: &str) -> Option<String> {
    let words = panic.strip_prefix("called `Result::unwrap()` on an `Err` value: Torch(\"")?;
    let words = words.trim_end_matches("\")").replace("\\\"", "\"").replace("\\n", "\n");
    Some(first_paragraph(&words).replace('\n', " "))
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("(no message)");
    first_paragraph(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let error = catch_panic("the loss", || panic!("no {}", "luck")).unwrap_err();
        assert_eq!(error.to_string(), "the loss panicked: no luck");
    }

    #[test]
    fn tchs_panic_becomes_libtorchs_error() {
        let panics = || Tensor::from_slice(&[1.0]).view([7, 7]);
        let error = catch_panic("the layer", panics).unwrap_err();
        assert_eq!(error.to_string(), "libtorch: the layer: shape '[7, 7]' is invalid for input of size 1");
    }

    #[test]
    fn each_sentence_is_printed_once_however_it_is_printed() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let errors: [fn(io::Error) -> Error; 3] = [
            |error| Error::io(Path::new("w.pt"), "cannot be read", error),
            |error| Error::Tch(TchError::Io(error)),
            |error| Error::Layer {
                layer: "2: Mine".into(),
                source: Box::new(Error::Tch(TchError::Io(error))),
            },
        ];
        let words = missing().to_string();
        for error in errors {
            let text = error(missing()).to_string();
            let [short, full] = [format!("{:#}", anyhow::Error::from(error(missing()))), {
                format!("{:?}", anyhow::Error::from(error(missing())).context("the training stopped"))
            }];
            assert_eq!(short, text);
            assert!(full.lines().any(|line| line.trim() == text), "{full}");
            for text in [text, short, full] {
                assert_eq!(text.matches(&words).count(), 1, "{text}");
            }
        }
    }

    #[test]
    fn libtorchs_backtrace_is_cut() {
        let error = Error::from(TchError::Torch("bad\nException raised from f at x.cpp".into()));
        assert_eq!(error.to_string(), "libtorch: bad");
    }
}
