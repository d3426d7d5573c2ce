//! Messages of ONNX Runtime, cut down to what a person can use.
//!
//! Invariants: one line, never empty; a panic of the binding becomes an error like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Error, Result};

/// Runs `f`; its errors and panics become one line that begins with `what`.
pub(super) fn guarded<T>(what: &str, f: impl FnOnce() -> ort::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::engine(format!("{what}: {}", shortened(error.message())))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Error::engine(format!("{what}, it panicked: {}", shortened(text))))
        }
    }
}

/// The first line without the place in the sources of ONNX Runtime that it was raised at.
pub(super) fn shortened(message: &str) -> String {
    let mut text = message;
    // What a provider's library said stands at the end of what ONNX Runtime says about loading it.
    for mark in ["with error: ", "error: code=", "CUDA failure "] {
        if let Some(at) = text.find(mark) {
            text = &text[if mark.starts_with("with") { at + mark.len() } else { at }..];
        }
    }
    let mut line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message");
    for source in [".cc:", ".h:", ".cu:"] {
        if let Some(at) = line.find(source).filter(|_| line.contains("onnxruntime")) {
            let (before, after) = line.split_at(at);
            let before = before.rfind(' ').map_or("", |space| &before[..space]);
            let after = behind_signature(after);
            line = if after.is_empty() { before } else { after };
        }
    }
    let line = line.trim().trim_end_matches('.');
    if line.is_empty() { "no message".to_owned() } else { line.to_owned() }
}

/// What follows the line number and the function's signature, as in `.cc:12 void f(int) [with T = int] text`.
fn behind_signature(text: &str) -> &str {
    let Some(open) = text.find('(') else { return text.split_once(' ').map_or("", |(_, rest)| rest) };
    let mut depth = 0usize;
    for (at, mark) in text.char_indices().skip_while(|(at, _)| *at < open) {
        match mark {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            let rest = text[at + 1..].trim_start();
            let rest = rest.strip_prefix("const ").unwrap_or(rest);
            return match rest.strip_prefix("[with ") {
                Some(types) => types.split_once("] ").map_or(rest, |(_, rest)| rest),
                None => rest,
            };
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn places_in_the_sources_are_left_out() {
        let version = "/onnxruntime_src/onnxruntime/core/graph/model.cc:182 onnxruntime::Model::Model(onnx::ModelProto&&, \
                       const PathString&) Unsupported model IR version: 99, max supported IR version: 13\n";
        assert_eq!(shortened(version), "Unsupported model IR version: 99, max supported IR version: 13");
        let provider = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1778 onnxruntime::Provider& \
                        onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
                        /a/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file";
        assert_eq!(shortened(provider), "libcublasLt.so.13: cannot open shared object file");
        let driver = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, \
                      common::Status> onnxruntime::CudaCall(ERRTYPE, const char*) [with ERRTYPE = cudaError] CUDA \
                      failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1";
        assert!(shortened(driver).starts_with("CUDA failure 35: CUDA driver"), "{}", shortened(driver));
        assert_eq!(shortened("Got invalid dimensions for input: x"), "Got invalid dimensions for input: x");
        assert_eq!(shortened(" \n"), "no message");
    }

    #[test]
    fn a_panic_is_an_error() {
        let error = guarded::<()>("cannot load", || panic!("out of luck")).map_err(|e| e.to_string());
        assert_eq!(error, Err("cannot load, it panicked: out of luck".to_owned()));
    }
}
