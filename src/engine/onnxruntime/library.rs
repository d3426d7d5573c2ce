//! The shared library of ONNX Runtime: loading it once per process, and its version.
//!
//! ONNX Runtime allows one environment per process, and a library that was loaded cannot be taken back, so both live in
//! a static: the only one of this crate. Invariants: the library is loaded from an explicit file, because the binding
//! panics where it has to search; nothing but a regular file is opened, because a pipe would be waited for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::LoadDynamicError;
use ort::environment::{Environment, GlobalThreadPoolOptions};

use super::message::guarded;
use crate::{Error, Result};

/// How to get a library that works.
const HELP: &str = "install one with `pip install onnxruntime`, or use --engine tract";

/// The library of this process and what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Library {
    path: PathBuf,
    version: String,
    environment: Environment,
}

static LOADED: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// Loads `path`, a file or a bare name that the system knows.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let path = place(path)?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.as_ref() {
            if library.path == path {
                return Ok(library.clone());
            }
            let what = format!("ONNX Runtime was already loaded from `{}`", library.path.display());
            return Err(Error::engine(what).file(&path).help("one process can use one library"));
        }
        if let Some((needed, there)) = super::elf::missing_bytes(&path) {
            let what = format!("this library is cut off: it has {there} bytes of {needed}");
            return Err(Error::input(what).file(&path).help(HELP));
        }
        let builder = ort::init_from(&path).map_err(|e| unusable(e, &path))?;
        let environment = guarded("ONNX Runtime does not start", || {
            // One pool for all sessions, and threads that wait quietly: many sessions are open at the same time here.
            let threads = GlobalThreadPoolOptions::default().with_intra_threads(0)?.with_spin_control(false)?;
            // All that is worth knowing comes back as an error; its own log would go to the terminal.
            let silent = Arc::new(|_: ort::logging::LogLevel, _: &str, _: &str, _: &str, _: &str| {});
            let builder = builder.with_name("onnx-mtprune").with_telemetry(false).with_logger(silent);
            builder.with_global_thread_pool(threads).build()
        })
        .map_err(|e| e.file(&path).help(HELP))?;
        let library = Self { version: version(&path), path, environment };
        *loaded = Some(library.clone());
        Ok(library)
    }

    /// The file, or the name that the system found it under.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// As in `1.31.1`; fewer numbers where the library tells no more.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// What sessions are built in.
    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// The file behind all links. Bare names are left to the system.
fn place(path: &Path) -> Result<PathBuf> {
    if path.parent().is_some_and(|folder| folder.as_os_str().is_empty()) && !path.exists() {
        return Ok(path.to_path_buf());
    }
    let wrong = |what: &str| Error::input(what).file(path).help(HELP);
    let real = path.canonicalize().map_err(|e| wrong("cannot load ONNX Runtime").because(e))?;
    match real.metadata() {
        Ok(data) if data.is_file() => Ok(real),
        Ok(data) if data.is_dir() => Err(wrong("cannot load ONNX Runtime: this is a folder, name the library in it")),
        _ => Err(wrong("cannot load ONNX Runtime: this is not a regular file")),
    }
}

fn unusable(error: LoadDynamicError, path: &Path) -> Error {
    let what = match error {
        LoadDynamicError::Dlopen { error, .. } => {
            // The loader's own words are one level down, and name the file once more.
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let why = why.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&why).to_owned();
            format!("cannot load ONNX Runtime: {why}")
        }
        LoadDynamicError::MissingApi { .. } => "this library is not ONNX Runtime".to_owned(),
        LoadDynamicError::BadVersion { version_str, .. } => {
            format!("this is ONNX Runtime {version_str}, which is too old, 1.{} or later is needed", ort::MINOR_VERSION)
        }
        other => format!("cannot load ONNX Runtime: {other}"),
    };
    Error::input(what).file(path).help(HELP)
}

/// From the name of the file, or else from what the library says about its build.
fn version(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let in_name = super::find::version_in(&name).filter(|numbers| numbers.len() > 1);
    let joined = |numbers: Vec<u64>| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
    in_name.map(joined).or_else(|| released(ort::info())).unwrap_or_else(|| {
        ort::util::probe(path).map_or_else(|| "of unknown version".to_owned(), |minor| format!("1.{minor}"))
    })
}

/// The version in `ORT Build Info: git-branch=rel-1.19.0, …`.
fn released(info: &str) -> Option<String> {
    let (_, branch) = info.split_once("git-branch=rel-")?;
    let version: String = branch.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    (!version.is_empty()).then_some(version)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Library::load(path).unwrap_err().to_string();
        assert!(refused(&folder.path().join("absent.so")).contains("absent.so: cannot load ONNX Runtime"));
        assert!(refused(folder.path()).contains("this is a folder"));
        let text = folder.path().join("libonnxruntime.so");
        std::fs::write(&text, "text").unwrap();
        let error = refused(&text);
        assert!(error.contains("cannot load ONNX Runtime") && error.contains("pip install onnxruntime"), "{error}");
    }

    #[test]
    fn the_version_of_a_release_is_read() {
        let info = "ORT Build Info: git-branch=rel-1.19.0, git-commit-id=26250ae, build type=Release";
        assert_eq!(released(info).as_deref(), Some("1.19.0"));
        assert_eq!(released("ORT Build Info: git-branch=main"), None);
    }
}
