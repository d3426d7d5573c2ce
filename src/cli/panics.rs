//! Panics: engines have some that the library turns into errors; nothing of those reaches the terminal. Any other becomes
//! an error like all errors, with the place in the sources.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

use onnx_mtprune::{Error, Result};

/// What the last panic said, and where it happened.
static LAST: Mutex<String> = Mutex::new(String::new());

/// Runs `work`; a panic becomes an error.
pub(super) fn guarded(work: impl FnOnce() -> Result<()>) -> Result<()> {
    set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
        let what = panic.payload_as_str().unwrap_or("no message");
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = format!("{what}{place}");
    }));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    // Back to what Rust has, for whatever runs after this.
    drop(take_hook());
    outcome.unwrap_or_else(|_| {
        let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(Error::engine(format!("the program panicked: {last}")).help("report this as a bug with the model"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_where() {
        let error = guarded(|| panic!("the {} is gone", 3)).unwrap_err().to_string();
        assert!(error.contains("panicked: the 3 is gone at ") && error.contains("panics.rs"), "{error}");
    }
}
