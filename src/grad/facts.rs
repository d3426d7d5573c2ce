//! Facts: the element type and the shape of every value, found by running the model once.
//!
//! Invariants: an open batch axis gets the extent 2 where the model runs with it, so that it is not mistaken for an axis
//! along which something is broadcast; ranks and all extents but that of the batch hold for every run of these shapes.
//! Numbers are known of what no graph input has a part in, and only of what may be a setting of an operator.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::inputs::{declared_inputs, input_shapes};
use crate::engine::samples::random_feeds;
use crate::engine::{ElementType, Engine, InputFact, Value, run_once};
use crate::proto::onnx::{GraphProto, ModelProto};
use crate::{Error, Result};

/// What is known of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Element type.
    pub element: ElementType,
    /// Extents, all concrete.
    pub shape: Vec<usize>,
    /// The numbers, of small values that are computed from constants alone.
    pub known: Option<Vec<f64>>,
}

/// Larger values are no settings of operators.
const SMALL: usize = 1 << 10;

impl Fact {
    /// A type and a shape.
    pub fn new(element: ElementType, shape: &[usize]) -> Self {
        Self { element, shape: shape.to_vec(), known: None }
    }

    /// The type and the shape of a value.
    pub fn of(value: &Value) -> Self {
        Self::new(value.element(), value.shape())
    }

    /// True for the types that gradients are computed in.
    pub fn is_float(&self) -> bool {
        matches!(self.element, ElementType::Float | ElementType::Double | ElementType::Float16)
    }
}

/// Facts by the name of the value.
pub type Facts = BTreeMap<String, Fact>;

/// Runs `model`, whose local functions must be written out, on random numbers and notes the type and shape of every
/// value of its main graph. `shapes` gives the shapes of inputs that the file leaves open.
///
/// # Errors
/// When the engine cannot run the model with any of the shapes that were tried.
pub fn measure(model: &ModelProto, shapes: &BTreeMap<String, Vec<usize>>, engine: &dyn Engine) -> Result<Facts> {
    let mut failure = None;
    for inputs in attempts(model, shapes)? {
        let feeds = random_feeds(&inputs, 0)?;
        match facts_of_run(model, &feeds, engine) {
            Ok(facts) => return Ok(facts),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| Error::engine("the model was not run")))
}

/// As [`measure`], run once on given values, which should be two samples or more where the batch is open.
///
/// # Errors
/// When the engine cannot run the model.
pub fn facts_of_run(model: &ModelProto, feeds: &[(String, Value)], engine: &dyn Engine) -> Result<Facts> {
    let graph = model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
    let outputs = graph.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty());
    let wanted: Vec<String> = outputs.cloned().collect();
    let values = run_once(engine, model, feeds, &wanted)?;
    let mut facts: Facts = feeds.iter().map(|(name, value)| (name.clone(), Fact::of(value))).collect();
    for tensor in &graph.initializer {
        let Ok(element) = ElementType::try_from(tensor.data_type()) else { continue };
        let shape: Vec<usize> = tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
        facts.insert(tensor.name().to_owned(), Fact::new(element, &shape));
    }
    let fed = fed(graph);
    let fact = |name: &String, value: &Value| {
        let is_setting = !fed.contains(name.as_str()) && value.shape().iter().product::<usize>() <= SMALL;
        Fact { known: is_setting.then(|| value.to_f64()), ..Fact::of(value) }
    };
    facts.extend(wanted.iter().zip(&values).map(|(name, value)| (name.clone(), fact(name, value))));
    Ok(facts)
}

/// What may be another number in another run: all that graph inputs, random numbers or bodies have a part in.
fn fed(graph: &GraphProto) -> BTreeSet<&str> {
    let stored: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    let mut fed: BTreeSet<&str> = graph.input.iter().map(|i| i.name()).filter(|name| !stored.contains(name)).collect();
    for node in &graph.node {
        let is_source = node.input.iter().all(String::is_empty) && node.op_type() != "Constant";
        let draws = node.op_type().starts_with("Random") || matches!(node.op_type(), "Bernoulli" | "Multinomial");
        let has_body = node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty());
        if is_source || draws || has_body || node.input.iter().any(|name| fed.contains(name.as_str())) {
            fed.extend(node.output.iter().map(String::as_str));
        }
    }
    fed
}

/// Shapes to try: first with an open batch axis of 2, then as every other stage does.
fn attempts(model: &ModelProto, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Vec<Vec<InputFact>>> {
    let declared = declared_inputs(model)?;
    let candidates = input_shapes(model, shapes)?;
    let mut doubled = candidates.clone();
    for (input, declaration) in doubled.iter_mut().flat_map(|inputs| inputs.iter_mut().zip(&declared)) {
        let first = declaration.shape.as_ref().and_then(|s| s.first());
        let is_open = first.is_some_and(|d| d.extent().is_none()) && !shapes.contains_key(&input.name);
        if let Some(extent) = input.shape.first_mut().filter(|_| is_open) {
            *extent = 2;
        }
    }
    doubled.extend(candidates);
    Ok(doubled)
}
