//! Engines at the command line: what is not there is said, what was named is used or an error, and nothing hangs.
//!
//! Where ONNX Runtime is needed and `tests/common/runtimes.rs` does not find it, the test is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use common::program::{Folder, Said};
use common::runtimes::library;
use common::skipped;

const PRUNE: [&str; 5] = ["model.onnx", "small.onnx", "--ratio", "0.5", "--dry-run"];

/// Prunes with more words; where the library is, if at all, say the variables alone.
fn prune(folder: &Folder, words: &[&str], variables: &[(&str, &str)]) -> Said {
    folder.run_alone(&[&PRUNE, words].concat(), variables)
}

/// Prunes and expects one error line that holds `part`.
fn refused(folder: &Folder, words: &[&str], variables: &[(&str, &str)], part: &str) {
    let said = prune(folder, words, variables);
    assert_eq!((said.code, said.err.lines().count(), said.out.as_str()), (2, 1, ""), "{words:?}: {said:?}");
    assert!(said.err.contains(part) && !said.err.contains("panicked"), "{words:?}: {said:?}");
}

#[test]
fn what_cannot_be_a_library_is_refused() {
    let folder = Folder::with_model();
    fs::write(folder.file("text.so"), "text").unwrap();
    fs::write(folder.file("empty.so"), "").unwrap();
    for (path, part) in [
        ("folder/nowhere.so", "cannot load ONNX Runtime: No such file or directory"),
        ("nowhere.so", "No such file or directory"),
        ("text.so", "cannot load ONNX Runtime: "),
        ("empty.so", "cannot load ONNX Runtime: "),
        (".", "this is a folder, name the library in it"),
        ("/dev/zero", "this is not a regular file"),
    ] {
        refused(&folder, &["--onnxruntime", path], &[], part);
        refused(&folder, &["--engine", "onnxruntime"], &[("ORT_DYLIB_PATH", path)], part);
        refused(&folder, &["--engine", "auto"], &[("ORT_DYLIB_PATH", path)], part);
        let said = folder.run_alone(&["engines", "--onnxruntime", path], &[]);
        assert!(said.code == 0 && said.out.contains("not usable: ") && said.out.contains(part), "{said:?}");
    }
    // A pipe would be waited for.
    if Command::new("mkfifo").arg(folder.file("pipe.so")).status().is_ok_and(|s| s.success()) {
        refused(&folder, &["--onnxruntime", "pipe.so"], &[], "this is not a regular file");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn other_libraries_are_refused() {
    let folder = Folder::with_model();
    // Any library that this process has loaded.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let other = maps.split_whitespace().find(|word| word.starts_with('/') && word.contains("libc.so"));
    let Some(other) = other else { return skipped("the tests are linked statically") };
    refused(&folder, &["--onnxruntime", other], &[], "this library is not ONNX Runtime; install one with `pip");

    let source = "static const char *version(void) { return \"1.10.0\"; }\n\
                  static const void *api(unsigned v) { (void)v; return 0; }\n\
                  static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = {api, version};\n\
                  const void *OrtGetApiBase(void) { return &base; }\n";
    fs::write(folder.file("old.c"), source).unwrap();
    let build =
        Command::new("cc").args(["-shared", "-fPIC", "-o", "old.so", "old.c"]).current_dir(folder.path()).status();
    if !build.is_ok_and(|status| status.success()) {
        return skipped("there is no C compiler to build an old library with");
    }
    refused(&folder, &["--onnxruntime", "old.so"], &[], "this is ONNX Runtime 1.10.0, which is too old, 1.17 or later");
}

#[test]
fn contradictions_are_refused() {
    let folder = Folder::with_model();
    refused(&folder, &["--engine", "tract", "--device", "cuda"], &[], "tract cannot compute on CUDA:0");
    refused(&folder, &["--engine", "tract", "--onnxruntime", "x"], &[], "--engine tract does not use");
    for (words, part) in [
        (["--device", "gpu"], "write cpu, cuda or cuda:N"),
        (["--device", "cuda:x"], "write cpu, cuda or cuda:N"),
        (["--engine", "onnx"], "[possible values: auto, tract, onnxruntime]"),
    ] {
        let said = prune(&folder, &words, &[]);
        assert!(said.code == 2 && said.err.contains(part), "{said:?}");
    }
}

#[test]
fn without_onnx_runtime_tract_computes_and_says_so() {
    let folder = Folder::with_model();
    let listed = folder.run_alone(&["engines", "--json"], &[]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!((&listed["engines"][0]["name"], &listed["engines"][0]["usable"]), (&"tract (CPU)".into(), &true.into()));
    if listed["engines"][1]["usable"] == true {
        return skipped("the system has an ONNX Runtime of its own");
    }
    assert!(listed["engines"][1]["reason"].as_str().unwrap().contains("no ONNX Runtime was found"), "{listed}");
    refused(&folder, &["--engine", "onnxruntime"], &[], "no ONNX Runtime was found; install it with `pip install");
    let said = prune(&folder, &["--engine", "auto"], &[]);
    assert!(said.code == 0 && said.out.contains("equals the masked original with tract "), "{said:?}");
    assert!(said.err.contains("warning: tract computes, because of this: no ONNX Runtime was found"), "{said:?}");
    let said = prune(&folder, &[], &[]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "tract needs no excuse where nothing was asked for");
}

#[cfg(unix)]
#[test]
fn a_python_that_hangs_is_not_waited_for() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with_model();
    fs::create_dir(folder.file("bin")).unwrap();
    let script = |text: &str| {
        fs::write(folder.file("bin/python3"), text).unwrap();
        fs::set_permissions(folder.file("bin/python3"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = folder.file("bin").display().to_string();
    script("#!/bin/sh\nexec /bin/sleep 60\n");
    let start = Instant::now();
    let said = folder.run_alone(&["engines"], &[("PATH", &path)]);
    assert!(said.code == 0 && start.elapsed() < Duration::from_secs(30), "{said:?} after {:?}", start.elapsed());
    // What it answers is used: here a package whose library is none.
    fs::create_dir(folder.file("capi")).unwrap();
    fs::write(folder.file("capi/libonnxruntime.so.1.31.1"), "text").unwrap();
    script(&format!("#!/bin/sh\necho {}\n", folder.path().display()));
    let said = folder.run_alone(&["engines"], &[("PATH", &path)]);
    assert!(said.out.contains("libonnxruntime.so.1.31.1: cannot load ONNX Runtime"), "{said:?}");
}

#[test]
fn a_library_is_found_and_used() {
    let Some(library) = library() else { return };
    let library = library.display().to_string();
    let folder = Folder::with_model();
    for (words, variables) in [
        (&["--onnxruntime", &library][..], &[][..]),
        (&["--engine", "auto"], &[("ORT_DYLIB_PATH", library.as_str())]),
        (&["--engine", "onnxruntime", "--device", "cpu"], &[("ORT_DYLIB_PATH", library.as_str())]),
    ] {
        let said = prune(&folder, &[words, &["--report", "report.json"]].concat(), variables);
        assert!(said.code == 0 && said.out.contains("equals the masked original with ONNX Runtime 1."), "{said:?}");
        let report: serde_json::Value = serde_json::from_slice(&folder.bytes("report.json")).unwrap();
        let runtime = &report["verification"]["runtime"];
        assert_eq!(runtime["device"], "CPU");
        assert!(runtime["library"].as_str().unwrap().contains("onnxruntime"), "{runtime}");
        assert_eq!(runtime["nodes"][0][0], "CPU");
        assert!(runtime["nodes"][0][1].as_u64().unwrap() > 0, "{runtime}");
    }
    // Where nothing is asked for, what the machine has installed changes nothing.
    let said = prune(&folder, &[], &[("ORT_DYLIB_PATH", &library)]);
    assert!(said.out.contains("equals the masked original with tract "), "{said:?}");
    folder.succeed(&["model.onnx", "small.onnx", "--ratio", "0.5", "--plan-out", "plan.json"]);
    let words = ["verify", "model.onnx", "small.onnx", "--plan", "plan.json", "--onnxruntime", &library];
    let said = folder.run_alone(&words, &[]);
    assert!(said.code == 0 && said.out.contains("with ONNX Runtime 1."), "{said:?}");
}

#[test]
fn a_library_that_is_cut_off_is_refused() {
    let Some(library) = library() else { return };
    let folder = Folder::with_model();
    let whole = fs::read(library).unwrap();
    fs::write(folder.file("cut.so"), &whole[..whole.len() / 2]).unwrap();
    refused(&folder, &["--onnxruntime", "cut.so"], &[], "this library is cut off");
}

#[test]
fn cuda_is_an_error_where_it_is_not() {
    let Some(library) = library() else { return };
    if common::runtimes::cuda().is_some() {
        return skipped("this machine has CUDA");
    }
    let folder = Folder::with_model();
    let library = library.display().to_string();
    for device in ["cuda", "cuda:1"] {
        let words = ["--onnxruntime", &library, "--device", device];
        refused(&folder, &words, &[], &format!("cannot compute on CUDA:{}", if device == "cuda" { 0 } else { 1 }));
        refused(&folder, &[&words[..], &["--engine", "auto"]].concat(), &[], "or choose --device cpu");
    }
}

/// ONNX Runtime 1.31 dies of this model when it may optimise all it can.
#[test]
fn half_precision_products_of_transposed_values_load() {
    let Some(library) = library() else { return };
    let folder = Folder::new();
    let mut model = onnx_mtprune::text::parse(
        "in x float16 [16,1,8]
         h = MatMul(x, w:float16[8,6])
         z = MatMul(h, u:float16[6,3])
         t = Transpose(x, perm=[1,0,2])
         y = MatMul(t, v:float16[8,7])
         out z, y",
    )
    .unwrap();
    for output in &mut model.graph.as_mut().unwrap().output {
        let ty = output.r#type.get_or_insert_default();
        ty.value = Some(onnx_mtprune::proto::onnx::type_proto::Value::TensorType(
            onnx_mtprune::proto::onnx::type_proto::Tensor { elem_type: Some(10), shape: None },
        ));
    }
    folder.proto("model.onnx", &model);
    let said = prune(&folder, &["--engine", "onnxruntime"], &[("ORT_DYLIB_PATH", &library.display().to_string())]);
    assert!(said.code == 0 && said.out.contains("equals the masked original with ONNX Runtime 1."), "{said:?}");
}

#[test]
fn auto_turns_to_the_engine_that_can() {
    let Some(library) = library() else { return };
    let library = library.display().to_string();
    let folder = Folder::with_model();
    let mut future = folder.read("model.onnx");
    future.ir_version = Some(99);
    folder.proto("model.onnx", &future);
    let said = prune(&folder, &["--engine", "auto"], &[("ORT_DYLIB_PATH", &library)]);
    assert!(said.code == 0 && said.out.contains("equals the masked original with tract "), "{said:?}");
    assert!(said.err.contains("tract (CPU) computes, because of this: ONNX Runtime cannot load the model"), "{said:?}");
    let said = prune(&folder, &["--engine", "onnxruntime"], &[("ORT_DYLIB_PATH", &library)]);
    assert!(said.code == 0 && said.err.contains("not verified: ONNX Runtime cannot load the model"), "{said:?}");
    // The reverse: tract does not run what runs backwards only.
    folder.model(
        "model.onnx",
        "in x [5,1,3]\ny, h = GRU(x, w[1,12,3], r[1,12,4], direction=\"reverse\", hidden_size=4)\nout y",
    );
    let said = prune(&folder, &["--engine", "tract"], &[]);
    assert!(said.err.contains("not verified"), "{said:?}");
    // The engine that runs the samples verifies what the built-in one cannot run.
    let mut npz = ndarray_npy::NpzWriter::new(fs::File::create(folder.file("data.npz")).unwrap());
    npz.add_array("x", &ndarray::Array4::<f32>::ones((3, 5, 1, 3))).unwrap();
    npz.finish().unwrap();
    let said = prune(&folder, &["--calibration", "data.npz"], &[("ORT_DYLIB_PATH", &library)]);
    assert!(said.code == 0 && said.out.contains("equals the masked original with ONNX Runtime 1."), "{said:?}");
    assert!(!said.err.contains("not verified"), "{said:?}");
    let said = prune(&folder, &["--engine", "auto"], &[("ORT_DYLIB_PATH", &library)]);
    assert!(said.code == 0 && said.out.contains("equals the masked original with ONNX Runtime 1."), "{said:?}");
    assert_eq!(said.err.matches("computes").count(), 0, "{said:?}");
}
