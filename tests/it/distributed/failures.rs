use spiketrace::Result;
use std::path::Path;
pub fn job(name: &str, _argument: &str, _folder: &Path) -> Result<()> {
    panic!("no job {name}")
}
