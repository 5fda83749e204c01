//! Weights by name, in files that PyTorch reads and writes too.
//!
//! | file | read | written |
//! |---|---|---|
//! | `.safetensors` | yes | yes |
//! | `.pt`, `.pth`, `.bin` of `torch.save(model.state_dict(), ..)` or of a checkpoint with it in (feature `pytorch`) | yes | yes |
//! | whole modules, TorchScript, files from before PyTorch 1.6 | no: the error says what to do in Python | no |
//!
//! What a file is, its content says, not its name. No code in a pickle is ever run. A file is not believed:
//! lengths, shapes, strides and offsets are checked, the storages of torch.save against their checksums, and
//! no more memory is taken than the file is long, beside what [`StateDict::read`] names.

#[cfg(feature = "files")]
mod contents;
mod load;
mod names;
#[cfg(feature = "files")]
mod read;
mod state;
#[cfg(feature = "files")]
mod write;

pub use load::{LoadConfig, LoadReport, Misfit};
#[cfg(feature = "files")]
pub use read::ReadConfig;
pub use state::StateDict;
