//! Files of a run: which may not be the same, and how small ones are written.
//!
//! Invariants: no output is ever the input or a data file of the input, under whatever name; a file is replaced by a
//! rename or not at all.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::{Error, Result, proto};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// A file that a run writes, and the option that names it.
pub(crate) struct Written<'a> {
    pub(crate) path: &'a Path,
    pub(crate) what: &'static str,
}

/// Refuses outputs that cannot be written or would overwrite an input or each other.
pub(crate) fn check(inputs: &[&Path], outputs: &[Written]) -> Result<()> {
    for (index, output) in outputs.iter().enumerate() {
        if output.path == Path::new("-") {
            let error = Error::input(format!("{} cannot be `-`: a file is put in place as a whole", output.what));
            return Err(error.help("name a file"));
        }
        for input in inputs {
            if is_same(input, output.path) {
                return Err(Error::input(format!(
                    "{} is the same file as an input, `{}`",
                    output.what,
                    input.display()
                ))
                .file(output.path)
                .help("choose another name"));
            }
        }
        if let Some(other) = outputs.iter().take(index).find(|other| is_same(other.path, output.path)) {
            return Err(Error::input(format!("{} is the same file as {}", output.what, other.what))
                .file(output.path)
                .help("choose another name"));
        }
        let folder = folder(output.path);
        if !folder.is_dir() {
            return Err(Error::input("the folder to write into does not exist").file(folder).help("create it first"));
        }
        if output.path.is_dir() {
            return Err(Error::input("is a folder, not a file to write").file(output.path).help("add a file name"));
        }
        if fs::metadata(output.path).is_ok_and(|m| !m.is_file()) {
            let error = Error::input("exists and is not a regular file").file(output.path);
            return Err(error.help("choose another file name"));
        }
    }
    Ok(())
}

/// The data files of a model that was read from `path`.
pub(crate) fn data_files(model: &ModelProto, path: &Path) -> Vec<PathBuf> {
    proto::data_locations(model).into_iter().map(|location| folder(path).join(location)).collect()
}

/// The data file that would stand beside a model.
pub(crate) fn data_file_of(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".data");
    PathBuf::from(name)
}

/// True if both names lead to one file: equal paths, links of either kind, or the same file to be.
fn is_same(a: &Path, b: &Path) -> bool {
    if let (Ok(a), Ok(b)) = (fs::canonicalize(a), fs::canonicalize(b))
        && a == b
    {
        return true;
    }
    #[cfg(unix)]
    if let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) {
        use std::os::unix::fs::MetadataExt;
        return (a.dev(), a.ino()) == (b.dev(), b.ino());
    }
    let place = |p: &Path| fs::canonicalize(folder(p)).ok().zip(p.file_name().map(ToOwned::to_owned));
    place(a).is_some_and(|place_a| Some(place_a) == place(b))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A small file that is whole in a temporary one beside its target and waits to be put in place.
pub(crate) struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Opens the temporary file, so that a folder that cannot be written to is found before the model is written.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".onnx-mtprune-").suffix(".tmp");
        // Temporary files are private by default; this one becomes an ordinary file, so the umask alone decides.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder(path)).map_err(|e| failed(path, e))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Fills the temporary file.
    pub(crate) fn fill(&mut self, contents: impl AsRef<[u8]>) -> Result<()> {
        self.file.write_all(contents.as_ref()).map_err(|e| failed(&self.path, e))?;
        self.file.as_file().sync_all().map_err(|e| failed(&self.path, e))
    }

    /// Puts it in place if nothing is there; false if something is, which is then untouched.
    pub(crate) fn commit_new(self) -> Result<bool> {
        let path = self.path;
        match self.file.persist_noclobber(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed(&path, error.error)),
        }
    }

    /// Puts it in place.
    pub(crate) fn commit(self) -> Result<()> {
        let path = self.path;
        self.file.persist(&path).map(drop).map_err(|e| failed(&path, e.error))
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::input("cannot be written").file(path).because(error).help("check the folder, its permissions and its space")
}

/// The SHA-256 of a file's bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_file_is_put_in_place_once() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("mask.json");
        let stage = |text: &str| {
            let mut staged = Staged::new(&path).unwrap();
            staged.fill(text).unwrap();
            staged
        };
        // Both began before either was done.
        let (first, second) = (stage("first"), stage("second"));
        assert!(first.commit_new().unwrap());
        assert!(!second.commit_new().unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        stage("third").commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third");
    }
}
