//! Graph inputs as the file declares them, and concrete shapes for those it leaves open.
//!
//! Invariants: initializers listed among the inputs are not inputs; equal symbols get equal extents; an extent that a
//! person gave always wins.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{ElementType, InputFact};
use crate::proto::onnx::tensor_shape_proto::dimension::Value as DimValue;
use crate::proto::onnx::{ModelProto, ValueInfoProto, type_proto};
use crate::{Error, Result};

/// The extents tried for axes that the file leaves open, in this order: pictures, sentences and windows of the usual
/// sizes.
const EXTENTS: [usize; 6] = [32, 64, 128, 224, 256, 16];

/// One declared extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// A number.
    Known(usize),
    /// A name; the same name means the same extent.
    Symbol(String),
    /// Nothing is said.
    Unknown,
}

impl Dimension {
    /// The extent, where it is a number.
    pub fn extent(&self) -> Option<usize> {
        match self {
            Self::Known(n) => Some(*n),
            _ => None,
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(n) => write!(f, "{n}"),
            Self::Symbol(s) => write!(f, "{s}"),
            Self::Unknown => write!(f, "?"),
        }
    }
}

/// A graph input as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputDeclaration {
    /// Name.
    pub name: String,
    /// Element type.
    pub element: ElementType,
    /// Extents, when the rank is declared.
    pub shape: Option<Vec<Dimension>>,
}

/// The inputs that must be fed: graph inputs without an initializer of the same name, in order.
///
/// # Errors
/// When the model has no graph, or an input is not a tensor of a known element type.
pub fn declared_inputs(model: &ModelProto) -> Result<Vec<InputDeclaration>> {
    let graph = model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
    let initializers: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    graph.input.iter().filter(|i| !initializers.contains(i.name())).map(declaration).collect()
}

fn declaration(info: &ValueInfoProto) -> Result<InputDeclaration> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(Error::input("a graph input that is not a tensor cannot be fed").tensor(info.name()));
    };
    let element = ElementType::try_from(tensor.elem_type())
        .map_err(|e| Error::input("a graph input has an unknown element type").tensor(info.name()).because(e))?;
    let shape = tensor.shape.as_ref().map(|shape| {
        let dimension = |value: &Option<DimValue>| match value {
            // Some exporters write -1 or 0 where they mean "any".
            Some(DimValue::DimValue(n)) => match usize::try_from(*n) {
                Ok(n) if n > 0 => Dimension::Known(n),
                _ => Dimension::Unknown,
            },
            Some(DimValue::DimParam(name)) if !name.is_empty() && name != "?" => Dimension::Symbol(name.clone()),
            _ => Dimension::Unknown,
        };
        shape.dim.iter().map(|d| dimension(&d.value)).collect()
    });
    Ok(InputDeclaration { name: info.name().to_string(), element, shape })
}

/// Concrete shapes to try, likeliest first: one candidate when the file leaves nothing open. An open first axis is the
/// batch and becomes 1; other open axes get one extent after the other. `overrides` gives whole shapes by input name,
/// and with them the extents of the symbols they cover.
///
/// # Errors
/// When an override names no input or contradicts its declaration, or an input has no declared rank and no override.
pub fn input_shapes(model: &ModelProto, overrides: &BTreeMap<String, Vec<usize>>) -> Result<Vec<Vec<InputFact>>> {
    let inputs = declared_inputs(model)?;
    let mut symbols: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, shape) in overrides {
        let input = inputs.iter().find(|i| i.name == *name).ok_or_else(|| {
            let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
            Error::input(format!("a shape is given for `{name}`, but the graph inputs are {names:?}"))
        })?;
        let Some(declared) = &input.shape else { continue };
        let fits = declared.len() == shape.len()
            && declared.iter().zip(shape).all(|(d, n)| d.extent().is_none_or(|extent| extent == *n));
        if !fits {
            let declared: Vec<String> = declared.iter().map(ToString::to_string).collect();
            let what = format!("the given shape {shape:?} contradicts the declared [{}]", declared.join(", "));
            return Err(Error::input(what).tensor(name));
        }
        for (dimension, extent) in declared.iter().zip(shape) {
            if let Dimension::Symbol(symbol) = dimension {
                symbols.insert(symbol, *extent);
            }
        }
    }
    for input in &inputs {
        if let Some(Dimension::Symbol(symbol)) = input.shape.as_ref().and_then(|s| s.first()) {
            symbols.entry(symbol).or_insert(1);
        }
    }
    let mut candidates: Vec<Vec<InputFact>> = Vec::new();
    for extent in EXTENTS {
        let mut candidate = Vec::with_capacity(inputs.len());
        for input in &inputs {
            let shape = match (overrides.get(&input.name), &input.shape) {
                (Some(shape), _) => shape.clone(),
                (None, Some(declared)) => {
                    let concrete = |(axis, dimension): (usize, &Dimension)| match dimension {
                        Dimension::Known(n) => *n,
                        Dimension::Symbol(symbol) => symbols.get(symbol.as_str()).copied().unwrap_or(extent),
                        Dimension::Unknown if axis == 0 => 1,
                        Dimension::Unknown => extent,
                    };
                    declared.iter().enumerate().map(concrete).collect()
                }
                (None, None) => {
                    let error = Error::input("a graph input declares no shape").tensor(&input.name);
                    return Err(error.help("give its shape"));
                }
            };
            candidate.push(InputFact { name: input.name.clone(), element: input.element, shape });
        }
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    Ok(candidates)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::proto::onnx::{GraphProto, TensorProto, TensorShapeProto, TypeProto, tensor_shape_proto};

    /// A model without nodes. Extents that are not numbers are symbols.
    pub(crate) fn model_with_inputs(inputs: &[(&str, ElementType, Option<&[&str]>)]) -> ModelProto {
        let dimension = |text: &&str| tensor_shape_proto::Dimension {
            value: Some(match text.parse() {
                Ok(n) => DimValue::DimValue(n),
                Err(_) => DimValue::DimParam(text.to_string()),
            }),
            ..Default::default()
        };
        let input = inputs.iter().map(|(name, element, shape)| {
            let tensor = type_proto::Tensor {
                elem_type: Some(*element as i32),
                shape: shape.map(|s| TensorShapeProto { dim: s.iter().map(dimension).collect() }),
            };
            ValueInfoProto {
                name: Some(name.to_string()),
                r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() }),
                ..Default::default()
            }
        });
        let graph = GraphProto { input: input.collect(), ..Default::default() };
        ModelProto { graph: Some(graph), ..Default::default() }
    }

    fn shapes(candidate: &[InputFact]) -> Vec<Vec<usize>> {
        candidate.iter().map(|f| f.shape.clone()).collect()
    }

    #[test]
    fn open_axes_get_candidates_and_symbols_agree() {
        let model = model_with_inputs(&[
            ("tokens", ElementType::Int64, Some(&["batch", "time"])),
            ("mask", ElementType::Int64, Some(&["batch", "time"])),
            ("image", ElementType::Float, Some(&["-1", "3", "?", "?"])),
        ]);
        let candidates = input_shapes(&model, &BTreeMap::new()).unwrap();
        assert_eq!(candidates.len(), 6);
        assert_eq!(shapes(&candidates[0]), [vec![1, 32], vec![1, 32], vec![1, 3, 32, 32]]);
        assert_eq!(shapes(&candidates[5]), [vec![1, 16], vec![1, 16], vec![1, 3, 16, 16]]);
        let given = BTreeMap::from([("mask".to_string(), vec![2, 9]), ("image".to_string(), vec![1, 3, 48, 192])]);
        let candidates = input_shapes(&model, &given).unwrap();
        assert_eq!(candidates.len(), 1);
        assert_eq!(shapes(&candidates[0]), [vec![2, 9], vec![2, 9], vec![1, 3, 48, 192]]);
    }

    #[test]
    fn refuses_what_cannot_be_fed() {
        let model = model_with_inputs(&[("x", ElementType::Float, Some(&["n", "3"])), ("y", ElementType::Float, None)]);
        let with = |name: &str, shape: &[usize]| {
            input_shapes(&model, &BTreeMap::from([(name.to_string(), shape.to_vec())])).map(|c| c.len())
        };
        assert!(with("x", &[1, 4]).unwrap_err().to_string().contains("contradicts the declared [n, 3]"));
        assert!(with("z", &[1]).unwrap_err().to_string().contains("the graph inputs are"));
        assert!(with("x", &[1, 3]).unwrap_err().to_string().contains("declares no shape"));
        assert_eq!(with("y", &[4]).unwrap(), 1);
    }

    #[test]
    fn initializers_are_not_inputs() {
        let mut model = model_with_inputs(&[("x", ElementType::Float, Some(&["1"])), ("w", ElementType::Float, None)]);
        let weight = TensorProto { name: Some("w".into()), ..Default::default() };
        model.graph.as_mut().unwrap().initializer.push(weight);
        assert_eq!(declared_inputs(&model).unwrap().len(), 1);
    }
}
