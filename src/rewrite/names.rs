//! New names that collide with none in the file.

use std::collections::{HashMap, HashSet};

use crate::proto::onnx::{GraphProto, ModelProto};

/// All names of a model, its subgraphs included.
pub(super) struct Names {
    taken: HashSet<String>,
    /// How many names were made of each base, so that a base in much use is not counted through from one every time.
    made: HashMap<String, usize>,
}

impl Names {
    pub(super) fn of(model: &ModelProto) -> Self {
        let mut names = Self { taken: HashSet::new(), made: HashMap::new() };
        if let Some(graph) = &model.graph {
            names.graph(graph);
        }
        names
    }

    /// A name made of `base` that nothing else has.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let made = self.made.entry(base.to_owned()).or_default();
        loop {
            *made += 1;
            let name = format!("{base}_pruned{}", if *made == 1 { String::new() } else { made.to_string() });
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    fn graph(&mut self, graph: &GraphProto) {
        self.taken.extend(graph.initializer.iter().map(|t| t.name().to_owned()));
        self.taken
            .extend(graph.input.iter().chain(&graph.output).chain(&graph.value_info).map(|v| v.name().to_owned()));
        for node in &graph.node {
            self.taken.extend(node.input.iter().chain(&node.output).cloned());
            self.taken.insert(node.name().to_owned());
            for inner in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
                self.graph(inner);
            }
        }
    }
}
