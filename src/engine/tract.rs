//! The built-in engine: tract, in pure Rust, on the CPU, single-threaded per run.
//!
//! Invariants: declared shapes of inner values are not believed (pruned files may carry stale ones, and exporters'
//! symbols contradict concrete inputs); every input has a concrete shape; a panic inside the runtime becomes an error.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use half::f16;
use prost::Message;
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::{InferenceFact, InferenceModelExt};
use tract_onnx::tract_hir::internal::{bail, format_err};

use super::{Description, Device, ElementType, Engine, InputFact, Session, Value};
use crate::proto::build::float;
use crate::proto::onnx::tensor_proto::DataLocation;
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use crate::{Error, Result};

/// The built-in engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tract;

/// The version that is built in.
pub const VERSION: &str = "0.23.9";

/// A model whose tensors take more than this together is not run: the process would rather be killed than fail.
const MOST_BYTES: usize = 64 << 30;

/// Tensors from this size on are handed over one by one instead of being encoded with the model.
const WEIGHT_BYTES: usize = 1 << 16;

/// From this size of all weights on, memory counts for more than a second attempt.
const LARGE_BYTES: usize = 1 << 30;

/// The runtime wants external data to lie in a folder that exists; nothing is read from it.
const ANY_FOLDER: &str = "/";

impl Engine for Tract {
    fn name(&self) -> &'static str {
        "tract (CPU)"
    }

    fn describe(&self) -> Description {
        Description {
            name: self.name(),
            version: Some(VERSION.to_owned()),
            library: None,
            device: Device::Cpu.to_string(),
            nodes: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn open(&self, model: &ModelProto, inputs: &[InputFact], wanted: &[String]) -> Result<Box<dyn Session>> {
        guarded("load", || open(model, inputs, wanted))
    }
}

struct TractSession {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<InputFact>,
}

impl Session for TractSession {
    fn run(&self, feeds: &[(String, Value)]) -> Result<Vec<Value>> {
        let mut tensors: TVec<TValue> = tvec!();
        for input in &self.inputs {
            let value = feeds
                .iter()
                .find_map(|(name, value)| (*name == input.name).then_some(value))
                .ok_or_else(|| Error::input("no value for a graph input").tensor(&input.name))?;
            if value.element() != input.element || value.shape() != input.shape {
                return Err(Error::input(format!(
                    "an input of {} {:?} was opened as {} {:?}",
                    value.element().as_str_name(),
                    value.shape(),
                    input.element.as_str_name(),
                    input.shape
                ))
                .tensor(&input.name));
            }
            tensors.push(to_tensor(value.clone()).into());
        }
        guarded("run", || self.plan.run(tensors)?.into_iter().map(|t| from_tensor(&t)).collect())
    }
}

fn open(model: &ModelProto, inputs: &[InputFact], wanted: &[String]) -> TractResult<Box<dyn Session>> {
    if let Some((node, attribute)) = model.graph.as_ref().and_then(ignored_in) {
        bail!("node `{node}` has attribute `{attribute}`, which this engine ignores");
    }
    let (encoded, weights) = self_contained(model);
    let large = weights.bytes() > LARGE_BYTES;
    let proto = tract_onnx::pb::ModelProto::decode(encoded.as_slice())?;
    drop(encoded);
    let mut framework = tract_onnx::onnx().with_ignore_value_info(true);
    framework.provider = Arc::new(weights);
    let mut parsed = framework.parse(&proto, Some(ANY_FOLDER))?;
    drop((proto, framework));
    if let Some(name) = parsed.unresolved_inputs.first() {
        bail!("nothing produces the value `{name}`");
    }
    let mut in_order = Vec::new();
    for (position, outlet) in parsed.model.input_outlets()?.to_vec().into_iter().enumerate() {
        // The node of a graph input carries the name of the input.
        let name = parsed.model.node(outlet.node).name.clone();
        let Some(input) = inputs.iter().find(|i| i.name == name) else {
            bail!("no shape is known for the graph input `{name}`");
        };
        let fact = InferenceFact::dt_shape(datum_type(input.element)?, input.shape.as_slice());
        parsed.model.set_input_fact(position, fact)?;
        in_order.push(input.clone());
    }
    let mut outlets = Vec::new();
    for name in wanted {
        match parsed.outlets_by_name.get(name) {
            Some(outlet) => outlets.push(*outlet),
            None => bail!("the model has no value `{name}`"),
        }
    }
    parsed.model.select_output_outlets(&outlets)?;
    let typed = parsed.model.into_typed()?;
    let bytes = typed.nodes.iter().flat_map(|n| &n.outputs).fold(0usize, |all, output| {
        let shape = output.fact.shape.as_concrete().unwrap_or_default();
        let elements = shape.iter().fold(1usize, |n, d| n.saturating_mul(*d));
        all.saturating_add(elements.saturating_mul(output.fact.datum_type.size_of()))
    });
    if bytes > MOST_BYTES {
        bail!("its tensors take {} GB, which is more than this engine is trusted with", bytes >> 30);
    }
    if large {
        // A second model to fall back on would hold all weights a second time.
        return Ok(Box::new(TractSession { plan: typed.into_optimized()?.into_runnable()?, inputs: in_order }));
    }
    // Optimised plans are several times faster, but a rewrite that fails must not cost us the model.
    let plan = typed.clone().into_optimized().and_then(|m| m.into_runnable());
    let plan = match plan {
        Ok(plan) => plan,
        Err(_) => typed.into_runnable()?,
    };
    Ok(Box::new(TractSession { plan, inputs: in_order }))
}

/// What LSTM, GRU and RNN use in each direction unless told otherwise.
const DEFAULT_ACTIVATIONS: [&[&str]; 3] = [&["Sigmoid", "Tanh", "Tanh"], &["Sigmoid", "Tanh"], &["Tanh"]];

/// The first node, bodies included, with an attribute that is read over; node and attribute.
fn ignored_in(graph: &GraphProto) -> Option<(&str, &str)> {
    graph.node.iter().find_map(|node| {
        let mut bodies = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
        ignored(node).or_else(|| bodies.find_map(ignored_in))
    })
}

/// An attribute that tract 0.23 reads over: recurrent cells that run backwards only, clip, tie two gates, or use functions
/// of their own; outputs of transposed convolutions of said extents, of which it cuts off other ends; pictures with
/// channels last, because tract knows operators by their names and not by their domains. Both models would be misread
/// alike, and equality would mean nothing.
fn ignored(node: &NodeProto) -> Option<(&str, &str)> {
    let attribute = node.attribute.iter().find(|a| match a.name() {
        "direction" => a.s() == b"reverse",
        "activations" => !DEFAULT_ACTIVATIONS.iter().any(|usual| {
            let repeated = usual.iter().map(|name| name.as_bytes()).cycle();
            a.strings.len().is_multiple_of(usual.len())
                && a.strings.iter().map(Vec::as_slice).eq(repeated.take(a.strings.len()))
        }),
        "clip" => a.f() != 0.0,
        "channels_last" | "input_forget" => a.i() != 0,
        "output_shape" => !a.ints.is_empty(),
        _ => false,
    })?;
    Some((if node.name().is_empty() { node.output.first()? } else { node.name() }, attribute.name()))
}

/// What com.microsoft's normalisations over a sum use where nothing is said; tract takes 1e-5 for them as well.
const SKIP_EPSILON: f32 = 1e-12;

fn say_epsilon(node: &mut NodeProto) {
    let is_skip = matches!(node.op_type(), "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization");
    if is_skip && !node.attribute.iter().any(|a| a.name() == "epsilon") {
        node.attribute.push(float("epsilon", SKIP_EPSILON));
    }
}

/// Drops names of nodes that say nothing of their own: tract calls nodes, inputs and constants by name and refuses a model
/// in which two are called alike, while the specification leaves the names of nodes open.
fn drop_repeated_names(graph: &mut GraphProto) {
    let values = graph.input.iter().map(ValueInfoProto::name).chain(graph.initializer.iter().map(TensorProto::name));
    let mut taken: BTreeSet<String> = values.map(str::to_owned).collect();
    for node in &mut graph.node {
        if node.name.as_ref().is_some_and(|name| !name.is_empty() && !taken.insert(name.clone())) {
            node.name = None;
        }
    }
}

/// The encoded model without big weights, and those. The reader has resolved external data into `raw_data`, but the
/// marks stay in place so that the file can be written as it was, and the runtime would go looking for the data files.
/// Here big tensors say that they are external and where in [`Weights`] they lie, so that they are copied once and no
/// more.
fn self_contained(model: &ModelProto) -> (Vec<u8>, Weights) {
    let mut copy = model.clone();
    let mut weights = Weights::default();
    if let Some(graph) = &mut copy.graph {
        weights.take_graph(graph);
    }
    (copy.encode_to_vec(), weights)
}

/// The bytes of big tensors; the `offset` of such a tensor is its place in the list.
#[derive(Default)]
struct Weights(Vec<Bytes>);

impl Weights {
    fn bytes(&self) -> usize {
        self.0.iter().fold(0, |all, bytes| all.saturating_add(bytes.len()))
    }

    fn take_graph(&mut self, graph: &mut GraphProto) {
        graph.initializer.iter_mut().for_each(|tensor| self.take(tensor));
        graph.node.iter_mut().for_each(say_epsilon);
        drop_repeated_names(graph);
        for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
            attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(|tensor| self.take(tensor));
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(|graph| self.take_graph(graph));
        }
    }

    fn take(&mut self, tensor: &mut TensorProto) {
        let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= WEIGHT_BYTES) else {
            if tensor.raw_data.is_some() {
                tensor.data_location = None;
                tensor.external_data.clear();
            }
            return;
        };
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        tensor.external_data = vec![entry("location", ".".to_owned()), entry("offset", self.0.len().to_string())];
        tensor.set_data_location(DataLocation::External);
        self.0.push(raw);
    }
}

impl ModelDataResolver for Weights {
    fn read_bytes_from_path(&self, to: &mut Vec<u8>, _: &Path, offset: usize, _: Option<usize>) -> TractResult<()> {
        let bytes = self.0.get(offset).ok_or_else(|| format_err!("there is no weight {offset}"))?;
        to.extend_from_slice(bytes);
        Ok(())
    }
}

fn datum_type(element: ElementType) -> TractResult<DatumType> {
    let proto = tract_onnx::pb::tensor_proto::DataType::try_from(element as i32)
        .map_err(|e| format_err!("unknown element type: {e}"))?;
    DatumType::try_from(proto)
}

fn to_tensor(value: Value) -> Tensor {
    match value {
        Value::F32(a) => a.into(),
        Value::F64(a) => a.into(),
        Value::F16(a) => a.into(),
        Value::I8(a) => a.into(),
        Value::I16(a) => a.into(),
        Value::I32(a) => a.into(),
        Value::I64(a) => a.into(),
        Value::U8(a) => a.into(),
        Value::U16(a) => a.into(),
        Value::U32(a) => a.into(),
        Value::U64(a) => a.into(),
        Value::Bool(a) => a.into(),
    }
}

fn from_tensor(tensor: &Tensor) -> TractResult<Value> {
    // Shape arithmetic runs on symbolic dimensions; at run time they are plain numbers.
    if tensor.datum_type() == TDim::datum_type() {
        let numbers = tensor.cast_to::<i64>()?;
        return Ok(Value::I64(numbers.to_plain_array_view::<i64>()?.to_owned()));
    }
    macro_rules! array {
        ($scalar:ty) => {
            tensor.to_plain_array_view::<$scalar>()?.to_owned().into()
        };
    }
    Ok(match tensor.datum_type().unquantized() {
        DatumType::F32 => array!(f32),
        DatumType::F64 => array!(f64),
        DatumType::F16 => array!(f16),
        DatumType::I8 => array!(i8),
        DatumType::I16 => array!(i16),
        DatumType::I32 => array!(i32),
        DatumType::I64 => array!(i64),
        DatumType::U8 => array!(u8),
        DatumType::U16 => array!(u16),
        DatumType::U32 => array!(u32),
        DatumType::U64 => array!(u64),
        DatumType::Bool => array!(bool),
        other => bail!("a value of type {other:?} cannot be returned"),
    })
}

/// Runs `f`; errors and panics of the runtime become one line.
fn guarded<T>(doing: &str, f: impl FnOnce() -> TractResult<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let mut lines: Vec<String> = Vec::new();
            for cause in [Some(error.to_string()), Some(error.root_cause().to_string())].into_iter().flatten() {
                let line = cause.lines().next().unwrap_or_default().trim().to_string();
                if !line.is_empty() && !lines.contains(&line) {
                    lines.push(line);
                }
            }
            Err(Error::engine(format!("tract cannot {doing} the model: {}", lines.join(": "))))
        }
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            let line = what.lines().next().unwrap_or_default();
            Err(Error::engine(format!("tract panicked when it tried to {doing} the model: {line}")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::super::{run_once, value::from_vec};
    use super::*;
    use crate::text;

    #[test]
    fn the_version_is_that_of_the_crate() {
        let manifest = include_str!("../../Cargo.toml");
        assert!(manifest.contains(&format!("tract-onnx = \"={VERSION}\"")), "{VERSION}");
    }

    #[test]
    fn what_would_be_misread_is_refused_at_every_depth() {
        let refused = |node: &str, place: &str| {
            let text = match place {
                "body" => format!(
                    "in x [3,1,2]\nin g bool []\ny = If(g)\nthen_branch {{\n{node}\nout h\n}}\nelse_branch {{\nk = Relu(x)\nout k\n}}\nout y"
                ),
                _ => format!("in x [3,1,2]\n{node}\nout h"),
            };
            let error = Tract.open(&text::parse(&text).unwrap(), &[], &[]).err().unwrap().to_string();
            error.contains("which this engine ignores")
        };
        for place in ["main", "body"] {
            for attribute in ["clip=3.0", "input_forget=1", "direction=\"reverse\""] {
                let node = format!("h = LSTM(x, w[1,8,2], r[1,8,2], hidden_size=2, {attribute})");
                assert!(refused(&node, place), "{place}: {attribute}");
            }
            assert!(refused("h = ConvTranspose(x, w[1,2,3], output_shape=[2])", place), "{place}");
            assert!(!refused("h = LSTM(x, w[1,8,2], r[1,8,2], hidden_size=2, direction=\"forward\")", place));
        }
    }

    #[test]
    fn an_epsilon_that_is_not_said_is_that_of_the_specification() {
        let call = "in x [1,2]\nout y\ny = com.microsoft.SkipSimplifiedLayerNormalization(x, x, x)";
        let model = text::parse(call).unwrap();
        // Far below 1e-5 when squared.
        let feeds = [("x".to_owned(), Value::from(from_vec(&[1, 2], vec![1e-4f32; 2]).unwrap()))];
        let value = run_once(&Tract, &model, &feeds, &["y".to_owned()]).unwrap();
        assert!(value[0].to_f64().iter().all(|v| (v - 1e-4).abs() < 1e-8), "{value:?}");
    }

    #[test]
    fn names_of_nodes_may_be_anything() {
        let model = text::parse("in x [1,2]\nout y\na = Relu(x)\nb = Neg(a)\ny = Mul(b, w[2])").unwrap();
        let feeds = [("x".to_owned(), Value::from(from_vec(&[1, 2], vec![1.0f32; 2]).unwrap()))];
        let expected = run_once(&Tract, &model, &feeds, &["y".to_owned()]).unwrap()[0].to_f64();
        for names in [["n", "n", "n"], ["x", "w", "y"], ["y", "n", "n"], ["b", "", "b"], ["a", "a", "a"]] {
            let mut named = model.clone();
            for (node, name) in named.graph.as_mut().unwrap().node.iter_mut().zip(names) {
                node.name = Some(name.to_owned());
            }
            let found = run_once(&Tract, &named, &feeds, &["y".to_owned()]);
            assert_eq!(found.unwrap_or_else(|error| panic!("{names:?}: {error}"))[0].to_f64(), expected);
        }
    }
}
