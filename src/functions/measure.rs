//! How much a function writes out, and whether it can be followed at all.
//!
//! Invariants: every function is measured once; the walk is no deeper than [`MAX_DEPTH`]; a function that calls itself,
//! by whatever way, has no measure.

use std::collections::HashMap;

use super::{Key, bodies, for_each_node, imports, key, owned, plain};
use crate::proto::onnx::{FunctionProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};

/// How deep calls may be nested.
const MAX_DEPTH: usize = 32;

/// What any file may write out: as much as a network of this many nodes.
const BUDGET: usize = 1 << 18;

/// How many times its own size a file may write out, if that is more.
const GROWTH: usize = 8;

/// What all calls of a model may cost together.
pub(super) fn budget(model: &ModelProto) -> usize {
    let nodes = model.graph.iter().map(|g| &g.node).chain(model.functions.iter().map(|f| &f.node));
    let size = nodes.flatten().map(cost).fold(0usize, usize::saturating_add);
    size.saturating_mul(GROWTH).max(BUDGET)
}

/// What a node costs to copy: itself and the numbers that are not shared with the file.
fn cost(node: &NodeProto) -> usize {
    let tensor = |t: &TensorProto| {
        t.float_data.len()
            + t.int32_data.len()
            + t.int64_data.len()
            + t.double_data.len()
            + t.uint64_data.len()
            + t.string_data.len()
    };
    let mut all = 1usize;
    for a in &node.attribute {
        let lists = a.floats.len() + a.ints.len() + a.strings.len();
        let tensors = a.t.iter().chain(&a.tensors).map(tensor).sum::<usize>();
        all = all.saturating_add((lists + tensors) / 16);
    }
    for body in bodies(node) {
        let nodes = body.node.iter().map(cost).fold(0usize, usize::saturating_add);
        let constants = body.initializer.iter().map(|t| 1 + tensor(t) / 16).sum::<usize>();
        all = all.saturating_add(nodes).saturating_add(constants);
    }
    all
}

enum State {
    Open,
    /// Cost and height.
    Known(usize, usize),
    Refused,
}

/// The measures of all functions of a model.
pub(super) struct Measures {
    states: HashMap<(String, String, String), State>,
    missing: Vec<OperatorSetIdProto>,
}

impl Measures {
    pub(super) fn of(model: &ModelProto, functions: &HashMap<Key<'_>, &FunctionProto>) -> Self {
        let mut measures = Self { states: HashMap::new(), missing: Vec::new() };
        let versions: HashMap<&str, i64> =
            model.opset_import.iter().map(|o| (plain(o.domain()), o.version())).collect();
        for function in &model.functions {
            measures.measure(function, functions, &versions, 0);
        }
        // Domains of the functions that can be followed, each with the version that all of them agree on.
        let mut seen: HashMap<&str, i64> = versions;
        for function in &model.functions {
            let mut fits = true;
            for import in imports(function).filter(|i| uses(function, i.domain(), functions)) {
                fits &= *seen.entry(plain(import.domain())).or_insert_with(|| {
                    measures.missing.push(import.clone());
                    import.version()
                }) == import.version();
            }
            if !fits {
                let key = owned(key(function.domain(), function.name(), function.overload()));
                measures.states.insert(key, State::Refused);
            }
        }
        measures
    }

    /// What the call of a function writes out; `None` if it cannot be followed.
    pub(super) fn cost(&self, node: &NodeProto) -> Option<usize> {
        match self.states.get(&owned(key(node.domain(), node.op_type(), node.overload())))? {
            State::Known(cost, _) => Some(*cost),
            _ => None,
        }
    }

    /// Operator sets that functions need and the model does not import.
    pub(super) fn missing_imports(&self, _model: &ModelProto) -> Vec<OperatorSetIdProto> {
        self.missing.clone()
    }

    fn measure(
        &mut self,
        function: &FunctionProto,
        functions: &HashMap<Key<'_>, &FunctionProto>,
        versions: &HashMap<&str, i64>,
        depth: usize,
    ) -> Option<(usize, usize)> {
        let id = owned(key(function.domain(), function.name(), function.overload()));
        match self.states.get(&id) {
            Some(State::Known(cost, height)) => return Some((*cost, *height)),
            Some(_) => return None,
            None if depth > MAX_DEPTH => return None,
            None => {}
        }
        self.states.insert(id.clone(), State::Open);
        let mut inner = Vec::new();
        for_each_node(&function.node, &mut |node| {
            inner.extend(functions.get(&key(node.domain(), node.op_type(), node.overload())).copied());
        });
        let mut measured = Some((function.node.iter().map(cost).fold(0usize, usize::saturating_add), 0));
        for called in inner {
            let (Some((cost, height)), Some((c, h))) = (measured, self.measure(called, functions, versions, depth + 1))
            else {
                measured = None;
                break;
            };
            measured = Some((cost.saturating_add(c), height.max(h + 1)));
        }
        let measured = measured.filter(|(_, height)| *height < MAX_DEPTH);
        let state = measured.map_or(State::Refused, |(cost, height)| State::Known(cost, height));
        self.states.insert(id, state);
        measured
    }
}

/// True if a function has operators of a domain; calls of other functions do not count.
fn uses(function: &FunctionProto, domain: &str, functions: &HashMap<Key<'_>, &FunctionProto>) -> bool {
    let mut found = false;
    for_each_node(&function.node, &mut |node| {
        let is_call = functions.contains_key(&key(node.domain(), node.op_type(), node.overload()));
        found |= !is_call && plain(node.domain()) == plain(domain);
    });
    found
}
