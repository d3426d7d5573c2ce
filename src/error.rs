//! The one error type: what went wrong, where, and what to do about it.
//!
//! Invariants: an error is one line when displayed (its sources add one line each at the command line); it never holds
//! a value that must be looked up to be understood. Refusals of pruning are not errors: they are `Lock`s and reported.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of every fallible stage.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure this is. The command line turns it into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input file, the arguments or the environment are not usable. Exit code 2.
    Input,
    /// The pruned model does not compute what the masked original computes. Exit code 1.
    Verification,
    /// The engine cannot run a model that is otherwise well formed. Exit code 2.
    Engine,
}

/// An error with its place. One pointer wide, because results are passed around everywhere.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    what: String,
    file: Option<PathBuf>,
    node: Option<String>,
    tensor: Option<String>,
    axis: Option<usize>,
    help: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error in the input, the arguments or the environment.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, what)
    }

    /// The pruned model differs from its masked original.
    pub fn verification(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Verification, what)
    }

    /// The engine cannot load or run the model.
    pub fn engine(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Engine, what)
    }

    fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        let what = what.into();
        Self(Box::new(Inner { kind, what, file: None, node: None, tensor: None, axis: None, help: None, source: None }))
    }

    /// Names the file concerned.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.0.file = Some(path.as_ref().to_path_buf());
        self
    }

    /// Names the node concerned.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.0.node = Some(name.into());
        self
    }

    /// Names the tensor concerned.
    #[must_use]
    pub fn tensor(mut self, name: impl Into<String>) -> Self {
        self.0.tensor = Some(name.into());
        self
    }

    /// Names the axis concerned.
    #[must_use]
    pub fn axis(mut self, axis: usize) -> Self {
        self.0.axis = Some(axis);
        self
    }

    /// Says what the user can do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says before what went wrong which of many things it is about, such as "sample 17: ".
    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<str>) -> Self {
        self.0.what.insert_str(0, prefix.as_ref());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The advice, if there is any.
    pub fn advice(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.0.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "{}", self.0.what)?;
        let mut place = Vec::new();
        if let Some(node) = &self.0.node {
            place.push(format!("node `{node}`"));
        }
        if let Some(tensor) = &self.0.tensor {
            place.push(format!("tensor `{tensor}`"));
        }
        if let Some(axis) = self.0.axis {
            place.push(format!("axis {axis}"));
        }
        if !place.is_empty() {
            write!(f, " ({})", place.join(", "))?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        if let Some(help) = &self.0.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_where_and_what_to_do() {
        let error = Error::input("raw data is 10 bytes, its shape needs 12")
            .file("m.onnx")
            .tensor("w")
            .help("export the model again");
        assert_eq!(
            error.to_string(),
            "m.onnx: raw data is 10 bytes, its shape needs 12 (tensor `w`); export the model again"
        );
        assert_eq!(error.kind(), ErrorKind::Input);
    }
}
