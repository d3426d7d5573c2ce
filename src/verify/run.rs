//! Run: the original model with inputs that it takes, made up or given, and what it says of the activations that get
//! smaller.
//!
//! Invariant: the first inputs that the engine runs with serve; what a model does not declare is found by trying.

use std::collections::BTreeSet;

use super::masked::Facts;
use super::{VerifyOptions, output_names, structure};
use crate::engine::{Engine, Feeds, InputFact, Value, inputs::input_shapes, samples::random_feeds};
use crate::kept::Kept;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{ModelProto, TypeProto, tensor_shape_proto::dimension, type_proto};
use crate::{Error, Result};

/// A run of the original.
pub(super) struct Run {
    /// Everything that is fed to both models.
    pub(super) feeds: Vec<Feeds>,
    /// The types and shapes of the activations that get smaller.
    pub(super) facts: Facts,
    /// What comes out.
    pub(super) dense: Vec<Value>,
}

/// The inputs that the original runs with, the types and shapes of the activations that get smaller, and what comes
/// out. The inner error is the engine's reason.
pub(super) fn run_original(
    original: &ModelProto,
    kept: &Kept,
    engine: &dyn Engine,
    options: &VerifyOptions,
) -> Result<std::result::Result<Run, String>> {
    let reachable: BTreeSet<&str> =
        original.graph.iter().flat_map(|g| &g.node).flat_map(|n| &n.output).map(String::as_str).collect();
    let (taps, nested): (Vec<&String>, Vec<&String>) =
        kept.activations.keys().partition(|name| reachable.contains(name.as_str()));
    let mut facts = Facts::new();
    let declared = structure::declared_types(original);
    for name in nested {
        // An engine cannot return a value of a nested graph, so its declaration or else the recorded extents have to
        // do.
        if let Some(fact) = declared.get(name.as_str()).and_then(|t| concrete(t)) {
            facts.insert(name.clone(), fact);
        } else if !kept.extents.contains_key(name) {
            let what = "the original has no such activation, or its shape is not known";
            return Err(Error::verification(what).tensor(name));
        }
    }
    let wanted: Vec<String> = output_names(original).into_iter().chain(taps.iter().map(|t| (*t).clone())).collect();
    let n_outputs = wanted.len() - taps.len();
    let mut reason = None;
    for feeds in candidates(original, options)? {
        let feeds = match feeds {
            Ok(feeds) => feeds,
            // Text, for example: no number can be made up for it.
            Err(e) => {
                reason = reason.or(Some(e.to_string()));
                continue;
            }
        };
        let Some(first) = feeds.first() else { continue };
        match crate::engine::run_once(engine, original, first, &wanted) {
            Ok(mut values) => {
                let tapped = taps.iter().zip(values.iter().skip(n_outputs));
                facts.extend(tapped.map(|(name, v)| ((*name).clone(), (v.element(), v.shape().to_vec()))));
                values.truncate(n_outputs);
                return Ok(Ok(Run { feeds, facts, dense: values }));
            }
            // The first shape is the likeliest, so its reason tells most.
            Err(e) => reason = reason.or(Some(e.to_string())),
        }
    }
    Ok(Err(reason.unwrap_or_else(|| "there is no input to run it with".into())))
}

/// Inputs to try, one list of feeds for each shape; or why there is none of a shape.
fn candidates(original: &ModelProto, options: &VerifyOptions) -> Result<Vec<Result<Vec<Feeds>>>> {
    if let Some(samples) = options.samples.as_ref().filter(|s| !s.is_empty()) {
        return Ok(vec![Ok(vec![samples.feeds(original, 0)?])]);
    }
    let of_shape = |facts: Vec<InputFact>| Ok(vec![random_feeds(&facts, options.seed)?]);
    Ok(input_shapes(original, &options.shapes)?.into_iter().map(of_shape).collect())
}

fn concrete(declared: &TypeProto) -> Option<(DataType, Vec<usize>)> {
    let Some(type_proto::Value::TensorType(tensor)) = &declared.value else { return None };
    let extents = tensor.shape.as_ref()?.dim.iter().map(|d| match d.value {
        Some(dimension::Value::DimValue(n)) => usize::try_from(n).ok(),
        // Only axes that get smaller are looked at, and those are never symbolic.
        _ => Some(1),
    });
    Some((DataType::try_from(tensor.elem_type()).ok()?, extents.collect::<Option<_>>()?))
}
