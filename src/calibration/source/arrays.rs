//! Arrays of one file as samples, matched with the inputs of a model by name.
//!
//! Invariants: all arrays hold the same number of samples; an array is taken under another name only where there is no
//! choice, and that is said.

use std::path::{Path, PathBuf};

use super::array::Array;
use crate::calibration::Source;
use crate::engine::Feeds;
use crate::engine::inputs::InputDeclaration;
use crate::{Error, Result};

/// Which arrays of a file feed which inputs: pairs of both names, and what a person should know about the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) pairs: Vec<(String, String)>,
    pub(super) notes: Vec<String>,
}

/// Matches the arrays of a file with the inputs of a model.
pub(super) fn select(arrays: &[String], inputs: &[InputDeclaration]) -> Result<Selection> {
    let missing: Vec<&str> =
        inputs.iter().map(|i| i.name.as_str()).filter(|name| !arrays.iter().any(|a| a == name)).collect();
    if let ([array], [input], [_]) = (arrays, inputs, missing.as_slice()) {
        let note = format!("the only array, `{array}`, is taken for the only input, `{}`", input.name);
        return Ok(Selection { pairs: vec![(array.clone(), input.name.clone())], notes: vec![note] });
    }
    if let Some(first) = missing.first() {
        let all: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
        let what = format!("no array for a graph input, only {arrays:?}; the inputs are {all:?}");
        return Err(Error::input(what).tensor(*first).help("name every array after its input"));
    }
    let unused: Vec<&String> = arrays.iter().filter(|a| !inputs.iter().any(|i| i.name == **a)).collect();
    let notes = match unused.as_slice() {
        [] => Vec::new(),
        unused => vec![format!("arrays that no graph input is named after are not used: {unused:?}")],
    };
    Ok(Selection { pairs: inputs.iter().map(|i| (i.name.clone(), i.name.clone())).collect(), notes })
}

/// The arrays of one file by the names of the inputs they feed.
pub(super) struct Arrays {
    arrays: Vec<(String, Array)>,
    len: usize,
    notes: Vec<String>,
    file: Option<PathBuf>,
}

impl Arrays {
    /// The same, as what a file holds.
    pub(super) fn of_file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_path_buf());
        self
    }

    pub(super) fn new(arrays: Vec<(String, Array)>, notes: Vec<String>) -> Result<Self> {
        if let Some((name, _)) = arrays.iter().find(|(_, array)| array.is_text()) {
            let error = Error::input("samples cannot have the element type STRING").tensor(name);
            return Err(error.help("save numbers, such as the indices of tokens"));
        }
        let len = arrays.first().map_or(0, |(_, array)| array.len());
        let first = arrays.first().map_or("", |(name, _)| name.as_str());
        if let Some((name, array)) = arrays.iter().find(|(_, array)| array.len() != len) {
            let what = format!("{} samples, but `{first}` has {len}", array.len());
            return Err(Error::input(what).tensor(name));
        }
        if len == 0 {
            return Err(Error::input("holds no samples"));
        }
        Ok(Self { arrays, len, notes, file: None })
    }
}

impl Source for Arrays {
    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize) -> Result<Feeds> {
        let read = |(name, array): &(String, Array)| {
            let value = array.sample(index).map_err(|e| e.tensor(name))?;
            Ok((name.clone(), value))
        };
        self.arrays.iter().map(read).collect()
    }

    fn file(&self, _index: usize) -> Option<&Path> {
        self.file.as_deref()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::engine::ElementType;

    fn inputs(names: &[&str]) -> Vec<InputDeclaration> {
        let input = |name: &&str| InputDeclaration { name: name.to_string(), element: ElementType::Float, shape: None };
        names.iter().map(input).collect()
    }

    fn selected(arrays: &[&str], names: &[&str]) -> Result<Selection> {
        let arrays: Vec<String> = arrays.iter().map(ToString::to_string).collect();
        select(&arrays, &inputs(names))
    }

    #[test]
    fn names_decide_unless_there_is_no_choice() {
        let both = selected(&["labels", "x", "y"], &["y", "x"]).unwrap();
        assert_eq!(both.pairs, [("y", "y"), ("x", "x")].map(|(a, b)| (a.to_string(), b.to_string())));
        assert!(both.notes[0].contains("not used: [\"labels\"]"), "{:?}", both.notes);
        let only = selected(&["arr_0"], &["image"]).unwrap();
        assert_eq!(only.pairs, [("arr_0".to_string(), "image".to_string())]);
        assert!(only.notes[0].contains("`arr_0`, is taken for the only input, `image`"));
        assert!(selected(&["x"], &["x"]).unwrap().notes.is_empty());
    }

    #[test]
    fn wrong_names_are_listed() {
        let error = selected(&["a", "b"], &["image"]).unwrap_err().to_string();
        assert!(error.contains("only [\"a\", \"b\"]") && error.contains("(tensor `image`)"), "{error}");
        assert!(selected(&["x"], &["x", "y"]).unwrap_err().to_string().contains("(tensor `y`)"));
        assert!(selected(&[], &["x"]).is_err());
    }
}
