//! External data: tensors whose bytes lie in files beside the model.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/ExternalData.md>. Invariants: no file outside the folder of the
//! model is ever opened, whatever the locations say; every data file is mapped once; `data_location` and
//! `external_data` stay as they were.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::map::Pages;
use super::onnx::tensor_proto::DataLocation;
use super::onnx::{ModelProto, TensorProto};
use super::{tensor, visit};
use crate::{Error, Result};

/// Sets `raw_data` of every external tensor anywhere in the model. Says whether there was one.
pub(crate) fn load(model: &mut ModelProto, model_path: &Path, pages: &mut Pages) -> Result<bool> {
    let mut folder = Folder { model_path, canonical: None, files: BTreeMap::new(), pages };
    let mut found = false;
    visit::tensors_mut(model, &mut |tensor| {
        if is_external(tensor) {
            found = true;
            let data = folder.data(tensor).map_err(|error| error.tensor(tensor.name()))?;
            tensor.raw_data = Some(data);
        }
        Ok(())
    })?;
    Ok(found)
}

/// True when the tensor says that its data lies in another file.
pub(crate) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::External
}

/// Where the external tensors of a model lie, bodies, attributes and functions included: paths relative to its folder.
pub fn data_locations(model: &ModelProto) -> BTreeSet<String> {
    let found = RefCell::new(BTreeSet::new());
    let note = |tensor: &TensorProto| {
        let location = entry(tensor, "location").filter(|_| is_external(tensor));
        found.borrow_mut().extend(location.map(str::to_owned));
        // Go on to the next one.
        false
    };
    model.graph.iter().flat_map(|graph| &graph.initializer).for_each(|tensor| _ = note(tensor));
    visit::any_nested(model, &note);
    found.into_inner()
}

/// The data files of one model, mapped once each.
struct Folder<'a> {
    model_path: &'a Path,
    canonical: Option<PathBuf>,
    files: BTreeMap<PathBuf, Bytes>,
    pages: &'a mut Pages,
}

impl Folder<'_> {
    fn data(&mut self, tensor: &TensorProto) -> Result<Bytes> {
        let location = entry(tensor, "location")
            .ok_or_else(|| self.error("external data without a location").help("export the model again"))?;
        let offset = self.number(tensor, "offset")?.unwrap_or(0);
        let file = self.file(location)?;
        let length = match self.number(tensor, "length")? {
            Some(length) => length,
            None => match tensor::element_bits(tensor.data_type()) {
                Some(bits) => tensor::byte_count(tensor::element_count(&tensor.dims)?, bits).unwrap_or(usize::MAX),
                None => file.len().saturating_sub(offset),
            },
        };
        match offset.checked_add(length).filter(|end| *end <= file.len()) {
            Some(end) => Ok(file.slice(offset..end)),
            None => Err(self
                .error(format!(
                    "data file `{location}` has {} bytes, {length} at offset {offset} are needed",
                    file.len()
                ))
                .help("the data file is cut off or belongs to another model, copy or export both again")),
        }
    }

    fn number(&self, tensor: &TensorProto, key: &str) -> Result<Option<usize>> {
        let Some(text) = entry(tensor, key) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self
                .error(format!("external data has the {key} `{text}`, which is not a number of bytes"))
                .help("export the model again")),
        }
    }

    fn file(&mut self, location: &str) -> Result<Bytes> {
        let relative = Path::new(location);
        let inside = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || location.is_empty() {
            return Err(self.outside(location));
        }
        let folder = match self.model_path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let path = folder.join(relative);
        if self.canonical.is_none() {
            self.canonical = Some(
                folder
                    .canonicalize()
                    .map_err(|error| self.error("cannot find the folder of the model").because(error))?,
            );
        }
        let canonical = path.canonicalize().map_err(|error| {
            let error = match error.kind() {
                std::io::ErrorKind::NotFound => self.error(format!("data file `{location}` is missing")),
                _ => self.error(format!("data file `{location}` cannot be opened")).because(error),
            };
            error.help("put it beside the model, under the name it was exported with")
        })?;
        if !self.canonical.as_ref().is_some_and(|folder| canonical.starts_with(folder)) {
            return Err(self.outside(location));
        }
        if let Some(bytes) = self.files.get(&canonical) {
            return Ok(bytes.clone());
        }
        let bytes = self.pages.map_file(&canonical, "a data file")?;
        self.files.insert(canonical, bytes.clone());
        Ok(bytes)
    }

    fn outside(&self, location: &str) -> Error {
        self.error(format!("data file `{location}` lies outside the folder of the model, which is not safe to read"))
            .help("put the data file into the model's folder and set its location to the bare name")
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::input(what).file(self.model_path)
    }
}

/// The value of one entry of `external_data`.
fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor.external_data.iter().find(|entry| entry.key() == key).map(|entry| entry.value())
}
