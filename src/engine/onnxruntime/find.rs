//! Where the library of ONNX Runtime may lie, likeliest first.
//!
//! The environment is not read here: what it says comes in as [`Places`]. Invariants: what a person named comes alone,
//! so that it is used or an error; the order is fixed, and a file is listed once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What is known about this machine.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// What was named on the command line: a library or a folder with one.
    pub argument: Option<PathBuf>,
    /// The same from the variable `ORT_DYLIB_PATH`.
    pub variable: Option<PathBuf>,
    /// The running program.
    pub program: Option<PathBuf>,
    /// The folder that the program was started in.
    pub working: Option<PathBuf>,
    /// The folders of active Python environments.
    pub environments: Vec<PathBuf>,
    /// The folder of the package `onnxruntime`, where Python imports it from.
    pub package: Option<PathBuf>,
    /// Whether the system's loader may be asked.
    pub system: bool,
}

impl Places {
    /// True if a person said where the library is.
    pub fn is_named(&self) -> bool {
        self.argument.is_some() || self.variable.is_some()
    }
}

/// A library that may be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The file, or the bare name that the system's loader looks for.
    pub path: PathBuf,
    /// How it was found, as in `beside the program`.
    pub origin: &'static str,
}

/// All candidates in the order in which to try them.
pub fn candidates(places: &Places) -> Vec<Candidate> {
    for (named, origin) in [(&places.argument, "--onnxruntime"), (&places.variable, "ORT_DYLIB_PATH")] {
        if let Some(path) = named {
            let inside = if path.is_dir() { library_under(path) } else { None };
            return vec![Candidate { path: inside.unwrap_or_else(|| path.clone()), origin }];
        }
    }
    let mut found = Vec::new();
    let mut add = |folder: PathBuf, origin| {
        found.extend(library_in(&folder).map(|path| Candidate { path, origin }));
    };
    if let Some(folder) = places.program.as_ref().and_then(|program| program.parent()) {
        add(folder.to_path_buf(), "beside the program");
        add(folder.join("../lib"), "in ../lib of the program");
    }
    if let Some(working) = &places.working {
        add(working.join(".ort").join(CAPI), "in ./.ort");
    }
    for environment in &places.environments {
        packages(environment).into_iter().for_each(|site| add(site.join(CAPI), "in the active Python environment"));
    }
    for name in [".venv", "venv"] {
        let environment = places.working.as_ref().map(|working| working.join(name));
        let sites = environment.map(|e| packages(&e)).unwrap_or_default();
        sites.into_iter().for_each(|site| add(site.join(CAPI), "in the Python environment of this folder"));
    }
    if let Some(package) = &places.package {
        add(package.join("capi"), "in the package that python3 imports");
    }
    if places.system {
        let names = SYSTEM_NAMES.iter().map(|name| Candidate { path: name.into(), origin: "from the system" });
        found.extend(names);
    }
    let mut seen = BTreeSet::new();
    found.retain(|c| seen.insert(c.path.canonicalize().unwrap_or_else(|_| c.path.clone())));
    found
}

/// Where the wheel has its libraries.
const CAPI: &str = "onnxruntime/capi";

#[cfg(target_os = "macos")]
const SYSTEM_NAMES: &[&str] = &["libonnxruntime.dylib"];
#[cfg(windows)]
const SYSTEM_NAMES: &[&str] = &["onnxruntime.dll"];
#[cfg(not(any(windows, target_os = "macos")))]
const SYSTEM_NAMES: &[&str] = &["libonnxruntime.so.1", "libonnxruntime.so"];

/// `site-packages` of a Python environment, the newest Python first.
fn packages(environment: &Path) -> Vec<PathBuf> {
    let mut sites = vec![environment.join("Lib/site-packages")];
    let versions = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut versions: Vec<PathBuf> = versions
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python3")))
        .map(|path| path.join("site-packages"))
        .collect();
    versions.sort_by_key(|path| std::cmp::Reverse(numbers(&path.to_string_lossy())));
    sites.splice(0..0, versions);
    sites
}

/// The library of a folder that a person named: in it, in its `lib`, or in the package or environment that it is.
fn library_under(folder: &Path) -> Option<PathBuf> {
    let nested = ["", "lib", "capi", CAPI].into_iter().map(|inner| folder.join(inner));
    let sites = packages(folder).into_iter().map(|site| site.join(CAPI));
    nested.chain(sites).find_map(|folder| library_in(&folder))
}

/// The newest library in a folder.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let named = entries.filter_map(|entry| {
        let version = version_in(&entry.file_name().to_string_lossy())?;
        Some((version, entry.path()))
    });
    named.max().map(|(_, path)| path)
}

/// The numbers in the name of a library, none if it has none; nothing if it is not ONNX Runtime's.
pub(super) fn version_in(name: &str) -> Option<Vec<u64>> {
    let rest = name.strip_prefix("libonnxruntime.");
    let version = match rest {
        Some("so" | "dylib") => "",
        Some(rest) => rest.strip_prefix("so.").or_else(|| rest.strip_suffix(".dylib"))?,
        None if name == "onnxruntime.dll" => "",
        None => return None,
    };
    if version.is_empty() {
        return Some(Vec::new());
    }
    version.split('.').map(|number| number.parse().ok()).collect()
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(folder: &Path, name: &str) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn names_of_libraries_and_their_versions() {
        assert_eq!(version_in("libonnxruntime.so.1.31.1"), Some(vec![1, 31, 1]));
        assert_eq!(version_in("libonnxruntime.1.31.1.dylib"), Some(vec![1, 31, 1]));
        assert_eq!(version_in("libonnxruntime.so"), Some(vec![]));
        assert_eq!(version_in("onnxruntime.dll"), Some(vec![]));
        for other in ["libonnxruntime_providers_shared.so", "onnxruntime_pybind11_state.so", "libonnxruntime.so.bak"] {
            assert_eq!(version_in(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_is_taken_by_numbers_and_not_by_letters() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "libonnxruntime.so.1.9.0");
        let newest = put(folder.path(), "libonnxruntime.so.1.31.1");
        put(folder.path(), "libonnxruntime_providers_shared.so");
        assert_eq!(library_in(folder.path()), Some(newest));
        for python in ["python3.9", "python3.11"] {
            fs::create_dir_all(folder.path().join("lib").join(python)).unwrap();
        }
        assert!(packages(folder.path())[0].ends_with("python3.11/site-packages"));
    }

    #[test]
    fn what_a_person_named_comes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inside =
            put(&folder.path().join("lib/python3.12/site-packages/onnxruntime/capi"), "libonnxruntime.so.1.30.0");
        let mut places = Places { variable: Some("elsewhere.so".into()), ..Places::default() };
        places.environments.push(folder.path().to_path_buf());
        let one = |path: PathBuf, origin| vec![Candidate { path, origin }];
        assert_eq!(candidates(&places), one("elsewhere.so".into(), "ORT_DYLIB_PATH"));
        places.argument = Some(folder.path().to_path_buf());
        assert_eq!(candidates(&places), one(inside.clone(), "--onnxruntime"));
        (places.argument, places.variable) = (None, None);
        assert_eq!(candidates(&places), one(inside, "in the active Python environment"));
    }

    #[test]
    fn a_library_is_listed_once_and_the_program_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let beside = put(&folder.path().join("bin"), "libonnxruntime.so");
        let capi = folder.path().join(".venv/lib/python3.12/site-packages/onnxruntime/capi");
        let wheel = put(&capi, "libonnxruntime.so.1.30.0");
        let places = Places {
            program: Some(folder.path().join("bin/onnx-mtprune")),
            working: Some(folder.path().to_path_buf()),
            environments: vec![folder.path().join(".venv")],
            system: true,
            ..Places::default()
        };
        let found = candidates(&places);
        assert_eq!((&found[0].path, &found[1].path), (&beside, &wheel));
        assert_eq!(found.len(), 2 + SYSTEM_NAMES.len());
        assert!(candidates(&Places::default()).is_empty());
    }
}
