//! Files that are there whole or not at all.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Writes a file under a temporary name in its folder, forces it to the disk and renames it.
///
/// A crash at any moment leaves the former file whole, and perhaps `.NAME.ID.partial` beside it, which
/// [`remove_leftovers`] knows from the file of a writer at work. Of several that write one file at a time, the last to
/// end wins. A link stays a link: what it leads to is replaced. The file keeps its owner and its mode, and at no
/// moment may anybody read more than before. Pipes, terminals and the like are written to as they are.
pub(crate) fn write_atomically<E: From<io::Error>>(
    path: &Path,
    body: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    // Of the path as it was given: links like /dev/stdout may lead to what has no path of its own.
    let former = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        former => Some(former?),
    };
    if former.as_ref().is_some_and(|former| !former.is_file()) {
        let mut writer = BufWriter::new(OpenOptions::new().write(true).open(path)?);
        body(&mut writer)?;
        return Ok(writer.flush()?);
    }
    let path = end_of_links(path);
    // Opened first: what can fail is better tried before the file is replaced. Windows does not open folders.
    let folder = match File::open(folder_of(&path)) {
        // One may write to a folder that one may not list.
        Err(error) if cfg!(not(unix)) || error.kind() == ErrorKind::PermissionDenied => None,
        folder => Some(folder?),
    };
    let (partial, file) = Partial::create(&path, former.as_ref())?;
    let mut writer = BufWriter::with_capacity(1 << 18, file);
    body(&mut writer)?;
    let file = writer.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    fs::rename(&partial.0, &path)?;
    // Makes the rename itself last.
    folder.iter().try_for_each(File::sync_all)?;
    Ok(())
}

/// As [`write_atomically`], of bytes at hand.
pub(crate) fn write_bytes_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically(path, |file| file.write_all(bytes))
}

/// Removes what killed writers of files whose names begin with `start` left in a folder.
///
/// A writer's lock on its file ends with it, so that a file without one is nobody's. What cannot be removed stays.
#[cfg(feature = "files")]
pub(crate) fn remove_leftovers(folder: &Path, start: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name.strip_prefix('.').is_some_and(|name| name.starts_with(start));
        // To open something else than a file could take for ever.
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_ours && is_file && name.ends_with(ENDING) {
            let Ok(file) = File::open(entry.path()) else { continue };
            // Held until the file is removed: who made it at this moment then sees that it is lost.
            if file.try_lock().is_ok() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

const ENDING: &str = ".partial";

/// A temporary file's name; removes the file when dropped, unless it was renamed.
struct Partial(PathBuf);

impl Partial {
    /// A new file beside `path` that no other writer has.
    fn create(path: &Path, former: Option<&Metadata>) -> io::Result<(Self, File)> {
        let name =
            path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "names no file"))?;
        loop {
            // Nobody can guess it and lay a link there, and machines that share a folder do not meet.
            let id = RandomState::new().hash_one(());
            // Cut short: what is added must not make a long name too long.
            let name: String = name.to_string_lossy().chars().take(50).collect();
            let path = path.with_file_name(format!(".{name}.{id:016x}{ENDING}"));
            let file = match create_new(&path, former) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            let partial = Self(path);
            // Who removes leftovers may have found it before it was locked. Where a filesystem knows no locks,
            // nobody removes any.
            let is_lost = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            if is_lost || !partial.0.exists() {
                continue;
            }
            if let Some(former) = former {
                keep_access(&file, former)?;
            }
            return Ok((partial, file));
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // The error that led here says more than one about this.
        let _ = fs::remove_file(&self.0);
    }
}

/// Creates a file where there is none; a link is not followed. One that replaces a former file is at first readable by
/// its owner alone.
fn create_new(path: &Path, former: Option<&Metadata>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if let Some(former) = former {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
        options.mode(former.mode() & 0o700);
    }
    #[cfg(not(unix))]
    let _ = former;
    options.open(path)
}

/// Gives a file the owner, group and mode of the former one, as far as that is allowed.
#[cfg(unix)]
fn keep_access(file: &File, former: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{fchown, MetadataExt, PermissionsExt};
    let (owner, group) = (former.uid(), former.gid());
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (owner, group) && fchown(file, Some(owner), Some(group)).is_err() {
        // Only root may give files away.
        let _ = fchown(file, None, Some(group));
    }
    let own = file.metadata()?;
    let mut mode = former.mode() & 0o777;
    if own.gid() != group {
        // Who is in neither group is now what the former group was, and the other way round.
        let both = mode & (mode >> 3) & 0o7;
        mode = mode & 0o700 | both << 3 | both;
    }
    // Not every filesystem has modes to be set.
    match own.mode() & 0o777 == mode {
        true => Ok(()),
        false => file.set_permissions(fs::Permissions::from_mode(mode)),
    }
}

#[cfg(not(unix))]
fn keep_access(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

/// What a path leads to by links, whether it is there or not.
fn end_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // As many as Linux follows; reading what lies in a circle is an error.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(to) => path = folder_of(&path).join(to),
            Err(_) => break,
        }
    }
    path
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_former_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_bytes_atomically(&path, b"old").unwrap();
        let error = write_atomically(&path, |file| {
            file.write_all(b"new")?;
            Err::<(), _>(io::Error::other("no more"))
        });
        assert_eq!(error.unwrap_err().to_string(), "no more");
        let panicked = std::panic::catch_unwind(|| {
            write_atomically::<io::Error>(&path, |_| panic!("in the middle of it"))
        });
        panicked.unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["weights"]);
    }

    #[test]
    fn a_write_replaces_the_former_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        for bytes in [b"old", b"new"] {
            write_bytes_atomically(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(names(folder.path()), ["weights"]);
    }

    #[test]
    fn two_that_write_one_file_at_a_time_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        write_atomically(&path, |first| {
            first.write_all(b"first")?;
            write_bytes_atomically(&path, b"second")?;
            assert_eq!(fs::read(&path).unwrap(), b"second");
            Ok::<_, io::Error>(())
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(names(folder.path()), ["weights"]);
    }

    #[test]
    fn leftovers_are_removed_but_not_what_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [".weights-1.17.partial", ".others.17.partial", "weights-2.partial"] {
            fs::write(at(name), b"half of").unwrap();
        }
        write_atomically(&at("weights-3"), |file| {
            remove_leftovers(folder.path(), "weights-");
            file.write_all(b"whole")
        })
        .unwrap();
        assert_eq!(names(folder.path()), [".others.17.partial", "weights-2.partial", "weights-3"]);
        assert_eq!(fs::read(at("weights-3")).unwrap(), b"whole");
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{symlink, PermissionsExt};

        use super::*;

        fn mode(path: &Path) -> u32 {
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        }

        #[test]
        fn a_file_keeps_its_mode_and_never_shows_more_than_before() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("weights");
            for private in [0o600, 0o640, 0o666, 0o400, 0o604] {
                write_bytes_atomically(&path, b"old").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(private)).unwrap();
                let former = fs::metadata(&path).unwrap();
                let at_first = folder.path().join("at first");
                create_new(&at_first, Some(&former)).unwrap();
                assert_eq!(mode(&at_first) & !(private & 0o700), 0);
                fs::remove_file(at_first).unwrap();
                write_atomically(&path, |file| {
                    let partial = names(folder.path()).remove(0);
                    assert_eq!(mode(&folder.path().join(partial)), private);
                    file.write_all(b"new")
                })
                .unwrap();
                assert_eq!(mode(&path), private);
                fs::remove_file(&path).unwrap();
            }
        }

        /// Tries it where this is root.
        #[test]
        fn a_file_keeps_its_owner() {
            use std::os::unix::fs::{chown, MetadataExt};
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("weights");
            write_bytes_atomically(&path, b"old").unwrap();
            if chown(&path, Some(12345), Some(54321)).is_ok() {
                write_bytes_atomically(&path, b"new").unwrap();
                let found = fs::metadata(&path).unwrap();
                assert_eq!((found.uid(), found.gid()), (12345, 54321));
            }
        }

        #[test]
        fn a_new_file_has_the_mode_that_any_new_file_has() {
            let folder = tempfile::tempdir().unwrap();
            let (ours, any) = (folder.path().join("ours"), folder.path().join("any"));
            write_bytes_atomically(&ours, b"").unwrap();
            fs::write(&any, b"").unwrap();
            assert_eq!(mode(&ours), mode(&any));
        }

        #[test]
        fn a_link_under_the_temporary_name_is_not_followed() {
            let folder = tempfile::tempdir().unwrap();
            let (victim, trap) = (folder.path().join("victim"), folder.path().join("trap"));
            fs::write(&victim, b"precious").unwrap();
            symlink(&victim, &trap).unwrap();
            assert_eq!(create_new(&trap, None).unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&victim).unwrap(), b"precious");
        }

        #[test]
        fn a_link_stays_a_link_also_where_it_leads_to_no_file_yet() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::create_dir(at("elsewhere")).unwrap();
            symlink("second", at("first")).unwrap();
            symlink("elsewhere/weights", at("second")).unwrap();
            for bytes in [b"old", b"new"] {
                write_bytes_atomically(&at("first"), bytes).unwrap();
                assert_eq!(fs::read_link(at("first")).unwrap(), Path::new("second"));
                assert_eq!(fs::read(at("elsewhere/weights")).unwrap(), bytes);
            }
            assert_eq!(names(folder.path()), ["elsewhere", "first", "second"]);
            symlink("circle", at("circle")).unwrap();
            write_bytes_atomically(&at("circle"), b"nowhere").unwrap_err();
            assert!(at("circle").is_symlink());
        }

        #[test]
        fn a_device_is_written_to_and_stays_one() {
            use std::os::unix::fs::FileTypeExt;
            write_bytes_atomically(Path::new("/dev/null"), b"nothing").unwrap();
            assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
            write_bytes_atomically(&std::env::temp_dir(), b"a folder").unwrap_err();
        }
    }
}
