//! Shapes that a person gives for what the file leaves open.
//!
//! Invariants: a pin never contradicts what the file declares; a symbol that one input's pin makes known is known
//! everywhere.

use std::collections::BTreeMap;

use crate::proto::onnx::{ModelProto, tensor_shape_proto::dimension, type_proto};
use crate::{Error, Result};

/// Whole shapes of graph inputs, and the symbols that become known by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    inputs: BTreeMap<String, Vec<i64>>,
    symbols: BTreeMap<String, i64>,
}

impl Pins {
    /// Checks `shapes`, by input name, against the declarations of `model`.
    ///
    /// # Errors
    /// A name that is no graph input, a shape that contradicts the declared one, two extents for one symbol.
    pub fn of(model: &ModelProto, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Self> {
        let mut pins = Self::default();
        let inputs = model.graph.as_ref().map(|g| g.input.as_slice()).unwrap_or_default();
        for (name, shape) in shapes {
            let input = inputs.iter().find(|i| i.name() == name).ok_or_else(|| {
                let names: Vec<&str> = inputs.iter().map(|i| i.name()).collect();
                Error::input(format!("a shape is given for `{name}`, but the graph inputs are {names:?}"))
                    .help("give --input-shape the name of a graph input")
            })?;
            let extents: Vec<i64> = shape.iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect();
            if let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref())
                && let Some(declared) = &tensor.shape
            {
                let values: Vec<_> = declared.dim.iter().map(|d| d.value.as_ref()).collect();
                pins.agree(&values, &extents).map_err(|what| {
                    Error::input(what).tensor(name).help("give --input-shape what the model declares, or leave it out")
                })?;
            }
            pins.inputs.insert(name.clone(), extents);
        }
        Ok(pins)
    }

    /// True when nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The pinned shape of an input.
    pub fn input(&self, name: &str) -> Option<&[i64]> {
        self.inputs.get(name).map(Vec::as_slice)
    }

    /// The extent that a symbol has by a pin.
    pub fn symbol(&self, name: &str) -> Option<i64> {
        self.symbols.get(name).copied()
    }

    fn agree(&mut self, declared: &[Option<&dimension::Value>], shape: &[i64]) -> std::result::Result<(), String> {
        let text = |value: &Option<&dimension::Value>| match value {
            Some(dimension::Value::DimValue(n)) => n.to_string(),
            Some(dimension::Value::DimParam(name)) => name.clone(),
            None => "?".to_owned(),
        };
        let contradiction = || {
            let declared: Vec<String> = declared.iter().map(text).collect();
            format!("the given shape {shape:?} contradicts the declared [{}]", declared.join(", "))
        };
        if declared.len() != shape.len() {
            return Err(contradiction());
        }
        for (value, extent) in declared.iter().zip(shape) {
            match value {
                Some(dimension::Value::DimValue(n)) if *n > 0 && n != extent => return Err(contradiction()),
                Some(dimension::Value::DimParam(name)) if is_a_name(name) => {
                    let known = *self.symbols.entry(name.clone()).or_insert(*extent);
                    if known != *extent {
                        return Err(format!("the given shapes make `{name}` both {known} and {extent}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Exporters write `?`, `-1` and the like for dimensions that have nothing in common.
pub fn is_a_name(text: &str) -> bool {
    text.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_') && !text.starts_with("unk__")
}
