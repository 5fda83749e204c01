//! State dicts into files that PyTorch reads.

mod file;
mod plain;
mod safetensors;
#[cfg(feature = "pytorch")]
mod torch;
