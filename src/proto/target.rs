//! The files that are being written: temporary ones beside the target, renamed when they are whole.
//!
//! Invariants: on any error nothing new is left in the folder and what was there before is there still; a model never
//! stands beside the data file of another one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::{Error, Result};

/// A place to write a model to.
pub(crate) struct Target<'a> {
    path: &'a Path,
    folder: &'a Path,
    /// The name of the data file, which stands beside the model.
    pub(crate) data_name: String,
}

impl<'a> Target<'a> {
    /// Refuses what cannot become a file, before any work is done.
    pub(crate) fn new(path: &'a Path) -> Result<Self> {
        let name = path.file_name().filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/"));
        let Some(name) = name.filter(|_| !path.is_dir()) else {
            return Err(Error::input("is a folder, not a file to write").file(path).help("add a file name"));
        };
        refuse_special(path)?;
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(Error::input("the folder to write into does not exist").file(folder).help("create it first"));
        }
        Ok(Self { path, folder, data_name: format!("{}.data", name.to_string_lossy()) })
    }

    /// The path of the data file. Refuses a name that a model cannot refer to.
    pub(crate) fn data_path(&self) -> Result<PathBuf> {
        if self.path.file_name().and_then(|name| name.to_str()).is_none() {
            let error = Error::input("the name is not UTF-8, so the model cannot name its data file").file(self.path);
            return Err(error.help("choose another name"));
        }
        let path = self.folder.join(&self.data_name);
        refuse_special(&path)?;
        Ok(path)
    }

    /// A new temporary file in the folder of the target, deleted when dropped.
    pub(crate) fn create(&self) -> Result<NamedTempFile> {
        let mut builder = temporary();
        // Temporary files are private by default; this one becomes an ordinary file, so the umask alone decides.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(self.folder).map_err(|error| self.failed(error))
    }

    /// What the file system said, in terms of the target.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        let (what, help) = match error.kind() {
            io::ErrorKind::StorageFull => ("the disk is full", "free some space or write to another disk"),
            io::ErrorKind::QuotaExceeded => ("the disk quota is used up", "free some space or write to another disk"),
            io::ErrorKind::FileTooLarge => ("the file is larger than the disk allows", "write to another disk"),
            io::ErrorKind::NotFound => ("the folder to write into does not exist", "create it first"),
            io::ErrorKind::PermissionDenied => ("no permission to write into the folder", "write to another folder"),
            io::ErrorKind::ReadOnlyFilesystem => ("the file system is read-only", "write to another disk"),
            _ => {
                return Error::input("cannot be written")
                    .file(self.path)
                    .because(error)
                    .help("write to another folder");
            }
        };
        Error::input(what).file(self.path).help(help)
    }

    /// Puts the finished files in place, the data file first.
    pub(crate) fn commit(&self, model: NamedTempFile, data: Option<NamedTempFile>) -> Result<()> {
        let failed = |error: io::Error| self.failed(error);
        model.as_file().sync_all().map_err(failed)?;
        if let Some(data) = data {
            let data_path = self.data_path()?;
            data.as_file().sync_all().map_err(failed)?;
            let previous = if data_path.exists() { Some(self.set_aside(&data_path)?) } else { None };
            let moved = data.persist(&data_path).map_err(|error| failed(error.error)).map(drop);
            if let Err(error) = moved.and_then(|()| self.rename(model)) {
                // Best effort: the first error is the one to report.
                let _ = match previous {
                    Some(previous) => fs::rename(previous.path(), &data_path),
                    None => fs::remove_file(&data_path),
                };
                return Err(error);
            }
        } else {
            self.rename(model)?;
        }
        // Makes the new names survive a power cut; not every file system lets a folder be synchronised.
        if let Ok(folder) = fs::File::open(self.folder) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    fn rename(&self, model: NamedTempFile) -> Result<()> {
        model.persist(self.path).map(drop).map_err(|error| self.failed(error.error))
    }

    /// Gives an existing data file a second, temporary name from which it can come back.
    fn set_aside(&self, data_path: &Path) -> Result<NamedTempFile<()>> {
        let second_name = |path: &Path| match fs::hard_link(data_path, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(data_path, path),
            linked => linked,
        };
        temporary().make_in(self.folder, second_name).map_err(|error| self.failed(error))
    }
}

fn temporary() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".onnx-mtprune-").suffix(".tmp");
    builder
}

/// Renaming over a device or a pipe would replace it.
fn refuse_special(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(Error::input("exists and is not a regular file").file(path).help("choose another file name"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_failed_rename_brings_the_old_data_file_back() {
        for existed in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("m.onnx");
            let data_path = folder.path().join("m.onnx.data");
            let target = Target::new(&path).unwrap();
            if existed {
                fs::write(&data_path, "old").unwrap();
            }
            let (model, data) = (target.create().unwrap(), target.create().unwrap());
            // A folder appears in the way after the check.
            fs::create_dir(&path).unwrap();
            assert!(target.commit(model, Some(data)).is_err());
            assert_eq!(fs::read_to_string(&data_path).ok().as_deref(), existed.then_some("old"));
            let left = fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left, 1 + usize::from(existed), "temporary files are gone");
        }
    }
}
