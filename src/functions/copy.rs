//! A function's nodes as one call means them: renamed, with the call's attributes put in.
//!
//! Invariants: every node and every inner tensor of a copy has a name that nothing else in the model has, made of the
//! call's first output and its own name, so that two runs name alike; names inside bodies are looked up from the
//! inside.

use std::collections::{HashMap, HashSet};

use super::bodies;
use crate::proto::onnx::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};

/// All names of a model.
pub(super) struct Names {
    taken: HashSet<String>,
    /// The last number given to each name that was wished for again.
    numbers: HashMap<String, u64>,
}

impl Names {
    pub(super) fn of(model: &ModelProto) -> Self {
        let mut names = Self { taken: HashSet::new(), numbers: HashMap::new() };
        model.graph.iter().for_each(|graph| names.graph(graph));
        names
    }

    fn graph(&mut self, graph: &GraphProto) {
        self.taken.extend(graph.initializer.iter().map(|t| t.name().to_owned()));
        self.taken
            .extend(graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(|v| v.name().to_owned()));
        self.taken.extend(graph.input.iter().chain(&graph.output).map(|v| v.name().to_owned()));
        for node in &graph.node {
            self.taken.insert(node.name().to_owned());
            self.taken.extend(node.output.iter().cloned());
            bodies(node).for_each(|body| self.graph(body));
        }
    }

    fn fresh(&mut self, wish: String) -> String {
        if self.taken.insert(wish.clone()) {
            return wish;
        }
        let number = self.numbers.entry(wish.clone()).or_insert(1);
        loop {
            *number += 1;
            let name = format!("{wish}_{number}");
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// The nodes of `function` as `call` means them. Calls among them stay calls.
pub(super) fn instantiate(call: &NodeProto, function: &FunctionProto, names: &mut Names) -> Vec<NodeProto> {
    let base = call.output.iter().find(|o| !o.is_empty()).cloned().unwrap_or_else(|| call.name().to_owned());
    let mut outer: HashMap<&str, String> = HashMap::new();
    for (slot, input) in function.input.iter().enumerate() {
        outer.insert(input, call.input.get(slot).cloned().unwrap_or_default());
    }
    let produced: HashSet<&str> = function.node.iter().flat_map(|n| &n.output).map(String::as_str).collect();
    // Outputs that are inputs, or that are returned twice, need a node of their own.
    let mut passed: Vec<(&str, &String)> = Vec::new();
    for (inner, output) in function.output.iter().zip(&call.output).filter(|(_, output)| !output.is_empty()) {
        if produced.contains(inner.as_str()) && !outer.contains_key(inner.as_str()) {
            outer.insert(inner, output.clone());
        } else {
            passed.push((inner, output));
        }
    }
    let mut attributes: HashMap<&str, &AttributeProto> =
        function.attribute_proto.iter().map(|a| (a.name(), a)).collect();
    attributes.extend(call.attribute.iter().map(|a| (a.name(), a)));
    let mut copy = Copy { base: &base, names, attributes, scopes: vec![outer] };
    let mut nodes: Vec<NodeProto> = function.node.iter().map(|node| copy.node(node)).collect();
    for (inner, output) in passed {
        nodes.push(NodeProto {
            name: Some(copy.names.fresh(format!("{base}/{IDENTITY}"))),
            op_type: Some(IDENTITY.to_owned()),
            input: vec![copy.read(inner)],
            output: vec![output.clone()],
            ..Default::default()
        });
    }
    nodes
}

/// What hands an input of a function on as an output.
const IDENTITY: &str = "Identity";

struct Copy<'a> {
    base: &'a str,
    names: &'a mut Names,
    attributes: HashMap<&'a str, &'a AttributeProto>,
    /// New names by old ones: the function's own, then those of the bodies that are open.
    scopes: Vec<HashMap<&'a str, String>>,
}

impl<'a> Copy<'a> {
    fn node(&mut self, node: &'a NodeProto) -> NodeProto {
        let name = if node.name().is_empty() { node.op_type() } else { node.name() };
        let name = self.names.fresh(format!("{}/{name}", self.base));
        // Bodies read what stands before them, this node's outputs excluded.
        let input = node.input.iter().map(|name| self.read(name)).collect();
        let attribute = node.attribute.iter().filter_map(|a| self.attribute(a)).collect();
        let output = node.output.iter().map(|name| self.define(name)).collect();
        NodeProto { name: Some(name), input, output, attribute, ..shell(node) }
    }

    /// The new name of a tensor that is read. A name that is not known yet is defined further down.
    fn read(&mut self, name: &'a str) -> String {
        if name.is_empty() {
            return String::new();
        }
        match self.scopes.iter().rev().find_map(|scope| scope.get(name)) {
            Some(known) => known.clone(),
            None => {
                let new = self.names.fresh(format!("{}/{name}", self.base));
                if let Some(scope) = self.scopes.first_mut() {
                    scope.insert(name, new.clone());
                }
                new
            }
        }
    }

    /// The new name of a tensor that is made here.
    fn define(&mut self, name: &'a str) -> String {
        if name.is_empty() {
            return String::new();
        }
        if let Some(known) = self.scopes.last().and_then(|scope| scope.get(name)) {
            return known.clone();
        }
        let new = self.names.fresh(format!("{}/{name}", self.base));
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, new.clone());
        }
        new
    }

    /// An attribute with what it refers to put in; `None` if the call leaves that out.
    fn attribute(&mut self, attribute: &'a AttributeProto) -> Option<AttributeProto> {
        let mut copy = match attribute.ref_attr_name() {
            "" => attribute.clone(),
            referred => {
                let given = (*self.attributes.get(referred)?).clone();
                return Some(AttributeProto { name: attribute.name.clone(), ..given });
            }
        };
        for (target, body) in copy.g.iter_mut().chain(&mut copy.graphs).zip(attribute.g.iter().chain(&attribute.graphs))
        {
            *target = self.body(body);
        }
        Some(copy)
    }

    fn body(&mut self, body: &'a GraphProto) -> GraphProto {
        self.scopes.push(HashMap::new());
        let mut copy = body.clone();
        for (target, tensor) in copy.initializer.iter_mut().zip(&body.initializer) {
            target.name = Some(self.define(tensor.name()));
        }
        let sparse = copy.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut());
        for (target, values) in sparse.zip(body.sparse_initializer.iter().filter_map(|s| s.values.as_ref())) {
            target.name = Some(self.define(values.name()));
        }
        for (target, input) in copy.input.iter_mut().zip(&body.input) {
            target.name = Some(self.define(input.name()));
        }
        // Names of the body hide those of the graphs around it from its first node on.
        for name in body.node.iter().flat_map(|n| &n.output) {
            self.define(name);
        }
        copy.node = body.node.iter().map(|node| self.node(node)).collect();
        for (target, info) in copy.output.iter_mut().zip(&body.output) {
            target.name = Some(self.read(info.name()));
        }
        for (target, info) in copy.value_info.iter_mut().zip(&body.value_info) {
            target.name = Some(self.read(info.name()));
        }
        self.scopes.pop();
        copy
    }
}

/// A node without what a copy replaces.
fn shell(node: &NodeProto) -> NodeProto {
    NodeProto {
        op_type: node.op_type.clone(),
        domain: node.domain.clone(),
        overload: node.overload.clone(),
        doc_string: node.doc_string.clone(),
        metadata_props: node.metadata_props.clone(),
        ..Default::default()
    }
}
