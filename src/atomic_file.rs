//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Writes a file under a temporary name in its folder, forces it to the disk and renames it.
///
/// A crash at any moment leaves the former file whole, and perhaps `.NAME.ID.partial` beside it.
pub(crate) fn write_atomically<E: From<io::Error>>(
    path: &Path,
    body: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let partial = partial_name(&path)?;
    let written = (|| {
        let mut writer = BufWriter::with_capacity(1 << 18, File::create(&partial)?);
        body(&mut writer)?;
        let file = writer.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        sync_folder(&path)?;
        Ok(())
    })();
    if written.is_err() {
        // The error that led here says more than one about this.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// As [`write_atomically`], of bytes at hand.
pub(crate) fn write_bytes_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically(path, |file| file.write_all(bytes))
}

fn partial_name(path: &Path) -> io::Result<PathBuf> {
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "names no file"))?;
    let id = std::process::id();
    Ok(path.with_file_name(format!(".{}.{id}.partial", name.to_string_lossy())))
}

/// Makes the rename itself last.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn write_bytes(path: &Path, bytes: &[u8]) -> io::Result<()> {
        write_atomically(path, |file| file.write_all(bytes))
    }

    #[test]
    fn a_failed_write_leaves_the_former_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_bytes(&path, b"old").unwrap();
        let error = write_atomically(&path, |file| {
            file.write_all(b"new")?;
            Err::<(), _>(io::Error::other("no more"))
        });
        assert_eq!(error.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_replaces_the_former_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        for bytes in [b"old", b"new"] {
            write_bytes(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
