//! A state dict into a file.

use std::path::Path;

use super::safetensors;
#[cfg(feature = "pytorch")]
use super::torch;
use crate::atomic_file::write_atomically;
use crate::check::expect_defined;
use crate::error::{Error, Result};
use crate::state_dict::names::shown;
use crate::state_dict::StateDict;

impl StateDict {
    /// Writes a file of the format that its name ends in: `.safetensors`, or `.pt`, `.pth` or `.bin` (feature
    /// `pytorch`), which `torch.load(path, weights_only=True)` reads as an `OrderedDict` of tensors.
    ///
    /// It is written under a temporary name beside its own, forced to the disk and renamed: a crash leaves the
    /// former file whole. Tensors are written contiguously, those of CUDA by way of the CPU. In a `.pt`, equal
    /// views of one memory (tied weights) are written once; safetensors has no such thing.
    ///
    /// # Errors
    /// When the file cannot be written, its name has another ending, two tensors have one name, or one has a kind
    /// that the format lacks.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let write = match ending {
            "safetensors" => safetensors::write,
            #[cfg(feature = "pytorch")]
            "pt" | "pth" | "bin" => torch::write,
            #[cfg(not(feature = "pytorch"))]
            "pt" | "pth" | "bin" => {
                return Err(Error::argument(
                    "the file's ending",
                    ".safetensors without the feature pytorch",
                    ending,
                ))
            }
            _ => {
                return Err(Error::argument(
                    "the file's ending",
                    ".safetensors, .pt, .pth or .bin",
                    format!("{ending:?}"),
                ))
            }
        };
        self.expect_names_once("the state dict")?;
        for (name, tensor) in self.iter() {
            expect_defined(format_args!("the state dict's {}", shown(name)), tensor)?;
        }
        write_atomically(path, |file| write(self, file)).map_err(|problem| problem.at(path))
    }
}
