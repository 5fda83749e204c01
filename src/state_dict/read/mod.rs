//! Files of weights, read without libtorch and without believing them.

#[cfg(feature = "pytorch")]
mod archive;
mod file;
#[cfg(feature = "pytorch")]
mod globals;
#[cfg(feature = "pytorch")]
mod objects;
#[cfg(feature = "pytorch")]
mod pickle;
mod safetensors;
#[cfg(feature = "pytorch")]
mod torch;
mod watched;

pub use file::ReadConfig;
