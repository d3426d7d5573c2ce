//! The CUDA provider: how it is asked for, and the libraries that it needs to find.
//!
//! Docs: <https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html>. Invariant: a provider that
//! cannot be registered is an error and never a silent run on the CPU.

use std::fs;
use std::path::{Path, PathBuf};

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{CUDA, ExecutionProviderDispatch};

/// What to do when CUDA is asked for and does not work.
pub(super) const HELP: &str =
    "install a driver for CUDA and `pip install 'onnxruntime-gpu[cuda,cudnn]'`, or choose --device cpu";

/// The libraries of CUDA and cuDNN, each behind those that it needs itself.
const LIBRARIES: &[&str] = &[
    "cudart",
    "nvJitLink",
    "cublasLt",
    "cublas",
    "nvrtc",
    "curand",
    "cufft",
    "cudnn",
    "cudnn_graph",
    "cudnn_ops",
    "cudnn_heuristic",
    "cudnn_adv",
    "cudnn_cnn",
    "cudnn_engines_precompiled",
    "cudnn_engines_runtime_compiled",
];

/// The provider of one device. Sums in full single precision: TF32 keeps ten bits of a factor, which statistics and
/// comparisons would show. The algorithms of convolutions are chosen by rule, because trying all of them costs seconds
/// per model.
pub(super) fn provider(device: u16) -> ExecutionProviderDispatch {
    CUDA::default()
        .with_device_id(i32::from(device))
        .with_tf32(false)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .build()
        .error_on_failure()
}

/// Loads the CUDA libraries that Python packages bring along, which the system does not look for where they lie. Those
/// that are missing are not: the system may have them, and if not, registering the provider says which.
pub(super) fn preload(library: &Path) {
    let folders = package_folders(library);
    for name in LIBRARIES {
        let found = folders.iter().find_map(|folder| library_in(folder, name));
        if let Some(path) = found {
            // A library that cannot be loaded is named by the provider as well.
            let _ = ort::util::preload_dylib(path);
        }
    }
}

/// `site-packages/nvidia/*/lib` beside `site-packages/onnxruntime/capi/LIBRARY`, in the order of their names.
fn package_folders(library: &Path) -> Vec<PathBuf> {
    let packages = library.ancestors().nth(3).map(|site| site.join("nvidia"));
    let entries = packages.and_then(|folder| fs::read_dir(folder).ok());
    let mut folders: Vec<PathBuf> =
        entries.into_iter().flatten().flatten().map(|entry| entry.path().join("lib")).filter(|f| f.is_dir()).collect();
    folders.sort();
    folders
}

/// `libNAME.so.VERSION`; the last by name where there are several.
fn library_in(folder: &Path, name: &str) -> Option<PathBuf> {
    let start = format!("lib{name}.so.");
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&start))).max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn libraries_of_python_packages_are_found() {
        let site = tempfile::tempdir().unwrap();
        for (package, file) in [("cu13", "libcudart.so.13"), ("cudnn", "libcudnn.so.9"), ("cu13", "libcublas.so.13")] {
            let folder = site.path().join("nvidia").join(package).join("lib");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), "").unwrap();
        }
        let folders = package_folders(&site.path().join("onnxruntime/capi/libonnxruntime.so.1"));
        assert_eq!(folders.len(), 2);
        let found = |name| folders.iter().find_map(|f| library_in(f, name));
        assert!(found("cudart").unwrap().ends_with("cu13/lib/libcudart.so.13"));
        assert!(found("cudnn").unwrap().ends_with("cudnn/lib/libcudnn.so.9"));
        assert_eq!(found("cufft"), None);
        // Files that are none are passed over.
        preload(&site.path().join("onnxruntime/capi/libonnxruntime.so.1"));
    }
}
