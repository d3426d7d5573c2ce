//! Local functions: calls are written out for the analysis, and put back where nothing inside has changed.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/IR.md#functions>. A call means the nodes of its function, with
//! the call's tensors for the function's inputs and outputs, the call's attributes (or their defaults) where nodes
//! refer to them, and new names for everything else. Every call gets nodes of its own, so that a cut in one changes no
//! other.
//!
//! Invariants: a function that calls itself, that is nested too deep, that would write out more than a file of this
//! size justifies, or that is for another operator set than the model is not followed, and its calls stay calls; a
//! model written out and put back unchanged is the model.

mod copy;
mod measure;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::proto::Output;
use crate::proto::onnx::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use copy::Names;
use measure::Measures;

/// A function's identity: domain, name, overload.
type Key<'m> = (&'m str, &'m str, &'m str);

/// A model without calls of local functions, and what is needed to put them back.
#[derive(Debug)]
pub struct Inlined<'m> {
    /// The model with its calls written out; the model itself where there are none.
    pub model: Cow<'m, ModelProto>,
    /// The calls that were written out, inner ones before those around them.
    calls: Vec<Call>,
    original: &'m ModelProto,
}

/// A call and the nodes that it means, in which inner calls are still calls.
#[derive(Debug)]
struct Call {
    node: NodeProto,
    steps: Vec<NodeProto>,
}

/// Writes out every call that can be followed.
pub fn inline(model: &ModelProto) -> Inlined<'_> {
    let untouched = Inlined { model: Cow::Borrowed(model), calls: Vec::new(), original: model };
    if model.functions.is_empty() {
        return untouched;
    }
    let functions = model.functions.iter().map(|f| (key(f.domain(), f.name(), f.overload()), f)).collect();
    let measures = Measures::of(model, &functions);
    let budget = measure::budget(model);
    let mut inliner = Inliner { functions, measures, budget, names: Names::of(model), calls: Vec::new() };
    let mut target = model.clone();
    if let Some(graph) = &mut target.graph {
        graph.node = inliner.expand(std::mem::take(&mut graph.node));
    }
    let Inliner { calls, measures, .. } = inliner;
    if calls.is_empty() {
        return untouched;
    }
    target.opset_import.extend(measures.missing_imports());
    Inlined { model: Cow::Owned(target), calls, original: model }
}

impl Inlined<'_> {
    /// The model with its calls.
    pub fn original(&self) -> &ModelProto {
        self.original
    }

    /// Puts calls back into a model made from this one, where what they mean is as it was; `None` where there are none.
    /// Functions that nothing calls any more go.
    pub fn fold(&self, output: &Output) -> Option<Output> {
        if self.calls.is_empty() {
            return None;
        }
        let mut folded = output.clone();
        let firsts: HashMap<&str, usize> =
            self.calls.iter().enumerate().filter_map(|(i, c)| Some((c.steps.first()?.name(), i))).collect();
        let model = &mut folded.model;
        if let Some(graph) = &mut model.graph {
            self.fold_graph(graph, &firsts);
        }
        forget_uncalled(model, self.original);
        let has = called(model);
        let key_of = |f: &FunctionProto| owned(key(f.domain(), f.name(), f.overload()));
        let is_changed = model.graph != self.original.graph || !folded.slices.is_empty();
        if is_changed {
            // What is declared inside was true of all calls; tensors may have become smaller in one.
            model.functions.iter_mut().filter(|f| has.contains(&key_of(f))).for_each(|f| f.value_info.clear());
        }
        let used = domains(model);
        let original: HashSet<&str> = self.original.opset_import.iter().map(|o| plain(o.domain())).collect();
        model.opset_import.retain(|o| original.contains(plain(o.domain())) || used.contains(plain(o.domain())));
        Some(folded)
    }

    fn fold_graph(&self, graph: &mut GraphProto, firsts: &HashMap<&str, usize>) {
        for node in &mut graph.node {
            bodies_mut(node).for_each(|body| self.fold_graph(body, firsts));
        }
        let mut nodes: Vec<Option<NodeProto>> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut candidates: BTreeSet<usize> = BTreeSet::new();
        for (place, node) in nodes.iter().enumerate() {
            let name = node.as_ref().map_or("", |n| n.name());
            if let Some(call) = firsts.get(name) {
                places.insert(name.to_owned(), place);
                candidates.insert(*call);
            }
        }
        while let Some(candidate) = candidates.pop_first() {
            let Some(call) = self.calls.get(candidate) else { continue };
            let first = call.steps.first().and_then(|step| places.get(step.name())).copied();
            let Some(place) = first else { continue };
            let Some(found) = matched(&nodes, place, &call.steps) else { continue };
            found.into_iter().for_each(|at| nodes[at] = None);
            if let Some(outer) = firsts.get(call.node.name()) {
                places.insert(call.node.name().to_owned(), place);
                candidates.insert(*outer);
            }
            nodes[place] = Some(call.node.clone());
        }
        graph.node = nodes.into_iter().flatten().collect();
    }
}

/// Drops the functions that `original` calls and `model`, which was made from it, does not.
pub fn forget_uncalled(model: &mut ModelProto, original: &ModelProto) {
    let (had, has) = (called(original), called(model));
    let key_of = |f: &FunctionProto| owned(key(f.domain(), f.name(), f.overload()));
    model.functions.retain(|f| has.contains(&key_of(f)) || !had.contains(&key_of(f)));
}

/// Where the steps stand, if they follow each other from `place` on, unchanged.
fn matched(nodes: &[Option<NodeProto>], place: usize, steps: &[NodeProto]) -> Option<Vec<usize>> {
    let mut found = Vec::with_capacity(steps.len());
    let mut rest = nodes.iter().enumerate().skip(place).filter_map(|(i, n)| Some((i, n.as_ref()?)));
    for step in steps {
        let (at, node) = rest.next()?;
        if node != step {
            return None;
        }
        found.push(at);
    }
    Some(found)
}

struct Inliner<'m> {
    functions: HashMap<Key<'m>, &'m FunctionProto>,
    measures: Measures,
    /// How much may still be written out.
    budget: usize,
    names: Names,
    calls: Vec<Call>,
}

impl Inliner<'_> {
    /// Nodes with all their calls written out, inside bodies too. As deep as functions and bodies are nested.
    fn expand(&mut self, nodes: Vec<NodeProto>) -> Vec<NodeProto> {
        let mut out = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            let function = self.functions.get(&key(node.domain(), node.op_type(), node.overload())).copied();
            let cost = function.and_then(|_| self.measures.cost(&node));
            if let (Some(function), Some(cost)) = (function, cost.filter(|cost| *cost <= self.budget)) {
                let steps = copy::instantiate(&node, function, &mut self.names);
                if !steps.is_empty() {
                    self.budget -= cost;
                    // What is inside has been paid for with the call around it.
                    let before = std::mem::replace(&mut self.budget, usize::MAX);
                    out.extend(self.expand(steps.clone()));
                    self.budget = before;
                    self.calls.push(Call { node, steps });
                    continue;
                }
            }
            for body in bodies_mut(&mut node) {
                body.node = self.expand(std::mem::take(&mut body.node));
            }
            out.push(node);
        }
        out
    }
}

fn key<'m>(domain: &'m str, name: &'m str, overload: &'m str) -> Key<'m> {
    (plain(domain), name, overload)
}

fn owned(key: Key) -> (String, String, String) {
    (key.0.to_owned(), key.1.to_owned(), key.2.to_owned())
}

fn plain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

fn bodies_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
}

/// Calls `f` on every node, bodies included.
fn for_each_node<'m>(nodes: &'m [NodeProto], f: &mut dyn FnMut(&'m NodeProto)) {
    for node in nodes {
        f(node);
        bodies(node).for_each(|body| for_each_node(&body.node, f));
    }
}

/// The functions that the main graph calls, by way of other functions, too.
fn called(model: &ModelProto) -> HashSet<(String, String, String)> {
    let functions: HashMap<_, &FunctionProto> =
        model.functions.iter().map(|f| (owned(key(f.domain(), f.name(), f.overload())), f)).collect();
    let mut found = HashSet::new();
    let mut work: Vec<&[NodeProto]> = model.graph.iter().map(|g| g.node.as_slice()).collect();
    while let Some(nodes) = work.pop() {
        for_each_node(nodes, &mut |node| {
            let key = owned(key(node.domain(), node.op_type(), node.overload()));
            if let Some(function) = functions.get(&key)
                && found.insert(key)
            {
                work.push(&function.node);
            }
        });
    }
    found
}

/// The domains of the nodes of the main graph.
fn domains(model: &ModelProto) -> HashSet<String> {
    let mut found = HashSet::new();
    if let Some(graph) = &model.graph {
        for_each_node(&graph.node, &mut |node| {
            found.insert(plain(node.domain()).to_owned());
        });
    }
    found
}

/// The operator sets that a function is for.
fn imports(function: &FunctionProto) -> impl Iterator<Item = &OperatorSetIdProto> {
    function.opset_import.iter()
}
