//! Insert: gates between the channels of groups and what contracts them.
//!
//! A gate is 1 and multiplies the channels on their way to the nodes that contract them, not on other ways that lead
//! from the same value, whose own gates stand where they are contracted; so no path is counted twice. Groups that no
//! weight contracts are gated on every way. Invariant: with gates of 1 the model computes what it did.

use std::collections::{BTreeMap, BTreeSet};

use crate::calibration::Taps;
use crate::engine::{ElementType, InputFact, Value, value::from_vec};
use crate::grad::{Fact, Facts};
use crate::graph::{Graph, MAIN};
use crate::proto::build::declaration;
use crate::proto::onnx::{ModelProto, NodeProto};
use crate::{Error, Result};

/// The gate of a tap.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// The graph input that holds it.
    pub(super) input: String,
    /// The values that it multiplies, each with the product; more than one if other gates come first on some ways.
    pub(super) values: Vec<(String, String)>,
    pub(super) element: ElementType,
    pub(super) rank: usize,
    pub(super) axis: usize,
    pub(super) extent: usize,
    /// How many entries of the first axis belong to each sample; none where the first axis does not count samples, so
    /// that samples run one by one.
    pub(super) per_sample: Option<usize>,
    /// How many values of each channel a sample has.
    pub(super) positions: usize,
}

impl Gate {
    /// Its type and shape for so many samples.
    fn shape(&self, samples: usize) -> Vec<usize> {
        let mut shape = vec![1; self.rank];
        if let (Some(rows), Some(first)) = (self.per_sample, shape.first_mut()) {
            *first = rows.saturating_mul(samples);
        }
        if let Some(extent) = shape.get_mut(self.axis) {
            *extent = self.extent;
        }
        shape
    }

    /// Ones.
    pub(super) fn open(&self, samples: usize) -> Result<Value> {
        let shape = self.shape(samples);
        let ones = vec![1.0f32; shape.iter().product()];
        Value::from(from_vec(&shape, ones)?).cast(self.element)
    }
}

/// The model of a graph with a gate at every tap, by tap; none where the value holds no floating-point numbers or is read
/// inside of bodies alone. `facts` tells of the tapped values when so many samples were run.
///
/// # Errors
/// A name that is taken.
pub(super) fn insert(
    graph: &Graph,
    taps: &Taps,
    facts: &Facts,
    samples: usize,
    one_by_one: bool,
) -> Result<(ModelProto, Vec<Option<Gate>>)> {
    let mut model = graph.model.clone();
    let mut names = BTreeSet::new();
    let Some(main) = &mut model.graph else { return Err(Error::input("the model has no graph")) };
    crate::calibration::collect_names(main, &mut names);
    // What a reader reads by now in place of a value.
    let mut current: BTreeMap<(usize, String), String> = BTreeMap::new();
    let mut products: BTreeMap<usize, Vec<NodeProto>> = BTreeMap::new();
    let mut gates = Vec::with_capacity(taps.taps.len());
    for (index, tap) in taps.taps.iter().enumerate() {
        let Some(fact) = facts.get(&tap.name).filter(|fact| fact.is_float()) else {
            gates.push(None);
            continue;
        };
        // By what they read now: the readers.
        let mut readers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for position in readers_of(graph, taps, index) {
            let name = current.get(&(position, tap.name.clone())).unwrap_or(&tap.name);
            readers.entry(name.clone()).or_default().push(position);
        }
        let mut gate = gate(tap.axis, tap.extent, fact, samples, format!("gate/{}/{}", tap.name, tap.axis));
        gate.per_sample = gate.per_sample.filter(|_| !one_by_one);
        if readers.is_empty() || !names.insert(gate.input.clone()) {
            gates.push(None);
            continue;
        }
        for (number, (value, positions)) in readers.into_iter().enumerate() {
            let product = format!("{}/{number}", gate.input.replacen("gate/", "gated/", 1));
            if !names.insert(product.clone()) {
                return Err(Error::input("this name is needed for a gated value and is taken").tensor(&product));
            }
            let first = positions.iter().copied().min().unwrap_or(0);
            products.entry(first).or_default().push(NodeProto {
                op_type: Some("Mul".to_owned()),
                name: Some(product.clone()),
                input: vec![value.clone(), gate.input.clone()],
                output: vec![product.clone()],
                ..Default::default()
            });
            for position in positions {
                current.insert((position, tap.name.clone()), product.clone());
            }
            gate.values.push((value, product));
        }
        let shape = crate::proto::build::signed(&gate.shape(samples));
        let mut info = declaration(&gate.input, gate.element as i32, &shape);
        open_first(&mut info);
        main.input.push(info);
        gates.push(Some(gate));
    }
    for ((position, value), product) in &current {
        let inputs = main.node.get_mut(*position).map(|node| &mut node.input);
        for input in inputs.into_iter().flatten().filter(|input| *input == value) {
            input.clone_from(product);
        }
    }
    let nodes = std::mem::take(&mut main.node);
    for (position, node) in nodes.into_iter().enumerate() {
        main.node.extend(products.remove(&position).unwrap_or_default());
        main.node.push(node);
    }
    Ok((model, gates))
}

fn gate(axis: usize, extent: usize, fact: &Fact, samples: usize, input: String) -> Gate {
    let first = fact.shape.first().copied().unwrap_or(1);
    let per_sample = (axis > 0 && samples > 0 && first.is_multiple_of(samples)).then(|| first / samples.max(1));
    let all: usize = fact.shape.iter().product();
    Gate {
        input,
        values: Vec::new(),
        element: fact.element,
        rank: fact.shape.len(),
        axis,
        extent,
        per_sample,
        positions: all / extent.saturating_mul(samples).max(1),
    }
}

/// The positions of the nodes of the main graph that contract a tap, or else of all that read it.
fn readers_of(graph: &Graph, taps: &Taps, tap: usize) -> BTreeSet<usize> {
    let own = taps.groups.iter().flatten().filter(|at| at.tap == tap);
    let contracting: BTreeSet<_> = own.flat_map(|at| &at.weights).map(|weight| weight.node).collect();
    let id = taps.taps.get(tap).map(|tap| tap.value);
    let readers = id.map(|id| graph.value(id).readers.iter().map(|(node, _)| *node).collect::<BTreeSet<_>>());
    let chosen = if contracting.is_empty() { readers.unwrap_or_default() } else { contracting };
    chosen.into_iter().map(|id| graph.node(id)).filter(|node| node.scope == MAIN).map(|node| node.position).collect()
}

/// The first axis left open, because batches may differ.
pub(super) fn open_first(info: &mut crate::proto::onnx::ValueInfoProto) {
    use crate::proto::onnx::type_proto::Value::TensorType;
    if let Some(TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut())
        && let Some(first) = tensor.shape.as_mut().and_then(|shape| shape.dim.first_mut())
    {
        first.value = None;
    }
}

/// Inputs as they are declared and fed.
pub(super) fn declared(fact: &InputFact) -> crate::proto::onnx::ValueInfoProto {
    let mut info = declaration(&fact.name, fact.element as i32, &crate::proto::build::signed(&fact.shape));
    open_first(&mut info);
    info
}
