//! Left: contractions behind what was removed that no fit reaches, named with the reason, so that nobody takes a model
//! for repaired where it is not.
//!
//! What contracts is read off the rules: a constant of which an axis meets the data and is summed away. Invariants: no
//! operator is named here; bodies and the insides of local functions are looked at as well.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Left, Plan, label};
use super::wiring::Wiring;
use crate::Result;
use crate::coupling::{Coupling, Role};
use crate::graph::{Graph, MAIN, Node, NodeId, ValueId};
use crate::kept::Kept;
use crate::proto::onnx::ModelProto;

/// Nodes of the dense model, calls written out, that hold matrices, read what pruning has changed, and are neither
/// fitted nor refused by the plan; each once, in the order of the file.
///
/// # Errors
/// A model that is not well formed.
pub(super) fn unfitted(
    dense: &ModelProto,
    kept: &Kept,
    pruned: &ModelProto,
    wiring: &Wiring,
    plan: &Plan,
) -> Result<Vec<Left>> {
    let graph = Graph::new(dense)?;
    let coupling = Coupling::of(&graph);
    let changed = changed(&graph, kept);
    let reads_changed = |node: &Node<'_>| node.inputs.iter().flatten().any(|value| changed.contains(value));
    // What each such node multiplies with, or why nothing is known of it.
    let mut found: BTreeMap<NodeId, String> = BTreeMap::new();
    for reading in coupling.readings.iter().filter(|reading| reading.roles.contains(&Role::Contracted)) {
        let (node, constant) = (graph.node(reading.node), graph.value(reading.value).name);
        if reads_changed(node) {
            let operator = node.op_type();
            found.entry(reading.node).or_insert_with(|| format!("no fit is known for {operator} with `{constant}`"));
        }
    }
    for (node, (index, why)) in graph.nodes.iter().zip((0u32..).zip(&coupling.opaque)) {
        let Some(why) = why.as_ref().filter(|_| reads_changed(node) && holds_matrix(&graph, node)) else { continue };
        found.entry(NodeId(index)).or_insert_with(|| format!("no rule describes what it computes: {why}"));
    }
    let nodes = pruned.graph.as_ref().map_or(&[][..], |g| &g.node);
    let fitted: BTreeSet<usize> = plan.contractions.iter().map(|c| c.node).collect();
    let refused: BTreeSet<&str> = plan.left.iter().map(|left| left.node.as_str()).collect();
    let mut left = Vec::new();
    for (id, why) in found {
        let node = graph.node(id);
        if node.scope != MAIN {
            let why = "it lies in a body, and only the main graph is fitted".to_owned();
            left.push(Left { node: node.label(), why });
            continue;
        }
        let output = node.proto.output.iter().find(|name| !name.is_empty());
        let position = output.and_then(|name| wiring.producer.get(name));
        let here = position.and_then(|position| nodes.get(*position));
        // The output of a call may be that of the last node inside.
        let Some(here) = here.filter(|here| here.op_type() == node.op_type()) else {
            let why = "it lies in a local function, and only the main graph is fitted".to_owned();
            left.push(Left { node: node.label(), why });
            continue;
        };
        if position.is_some_and(|position| !fitted.contains(position)) && !refused.contains(label(here).as_str()) {
            left.push(Left { node: node.label(), why });
        }
    }
    Ok(left)
}

/// The values that got smaller, and those that depend on such values.
fn changed(graph: &Graph<'_>, kept: &Kept) -> BTreeSet<ValueId> {
    let mut changed: BTreeSet<ValueId> =
        graph.value_ids().filter(|id| kept.activations.contains_key(&graph.key(*id))).collect();
    for id in &graph.order {
        let node = graph.node(*id);
        if node.inputs.iter().flatten().any(|value| changed.contains(value)) {
            changed.extend(node.outputs.iter().flatten());
        }
    }
    changed
}

/// True if a node reads a constant that is longer than 1 along two axes.
fn holds_matrix(graph: &Graph<'_>, node: &Node<'_>) -> bool {
    let mut constants = node.inputs.iter().flatten().filter_map(|value| graph.value(*value).constant());
    constants.any(|constant| constant.tensor.dims.iter().filter(|d| **d > 1).count() > 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::constants::Constants;
    use super::super::plan::plan;
    use super::*;
    use crate::functions;
    use crate::prune::{Analysis, Options, PruneConfig};

    /// What is left of a model pruned by half.
    fn left(text: &str) -> Vec<(String, String)> {
        let model = crate::text::parse(text).unwrap();
        let inlined = functions::inline(&model);
        let analysis = Analysis::of_inlined(&inlined, &Options::default()).unwrap();
        let config = PruneConfig { ratio: 0.5, ..PruneConfig::default() };
        let rewritten = analysis.apply(&analysis.plan(&config).unwrap()).unwrap();
        assert!(!rewritten.kept.is_empty(), "nothing is pruned");
        let pruned = rewritten.output.materialise().unwrap();
        let (dense_wiring, wiring) = (Wiring::of(&inlined.model).unwrap(), Wiring::of(&pruned).unwrap());
        let names = dense_wiring.producer.keys().cloned().collect();
        let found = plan(&pruned, &wiring, &Constants::of(&pruned), &rewritten.kept, &names);
        let left = unfitted(&inlined.model, &rewritten.kept, &pruned, &wiring, &found).unwrap();
        left.into_iter().map(|left| (left.node, left.why)).collect()
    }

    fn one(node: &str, why: &str) -> Vec<(String, String)> {
        vec![(node.to_owned(), why.to_owned())]
    }

    #[test]
    fn what_is_fitted_or_does_not_contract_is_not_named() {
        let text =
            "in x [4,6]\na = Gemm(x, w[6,8])\nb = Add(a, p[4,8])\nc = PRelu(b, s[4,8])\ny = MatMul(c, v[8,3])\nout y";
        assert!(left(text).is_empty());
    }

    #[test]
    fn products_without_a_fit_are_named_whether_they_lost_inputs_or_not() {
        let text = "in x [4,6]
            a = Gemm(x, w[6,8])
            b = Einsum(a, v[8,3,2], equation=\"ij,jkl->ikl\")
            c = Flatten(b)
            d = com.microsoft.FusedGemm(c, u[6,5], activation=\"Relu\")
            e = Einsum(x, t[6,2,2], equation=\"ij,jkl->ikl\")
            out d, e";
        let why = |operator: &str, name: &str| format!("no fit is known for {operator} with `{name}`");
        let expected = [one("Einsum:b", &why("Einsum", "v")), one("FusedGemm:d", &why("FusedGemm", "u"))].concat();
        // What does not lie behind anything removed stays what it was.
        assert_eq!(left(text), expected);
    }

    #[test]
    fn what_no_rule_describes_is_named_if_it_holds_a_matrix() {
        let text = "in x [4,6]\na = Gemm(x, w[6,8])\nb = Gemm(a, v[8,4])\nc = my.Mystery(b, m[4,4])\nd = my.Other(b, n[4])\nout c, d";
        let found = left(text);
        assert!(
            matches!(found.as_slice(), [(node, why)] if node == "Mystery:c" && why.starts_with("no rule")),
            "{found:?}"
        );
    }

    #[test]
    fn bodies_and_functions_are_looked_into() {
        let body = "in x [4,6]
            in g bool []
            a = Gemm(x, w[6,8])
            y = If(g)
            then_branch {
              b = MatMul(a, v[8,3])
              out b
            }
            else_branch {
              c = MatMul(a, u[8,3])
              out c
            }
            out y";
        let why = "it lies in a body, and only the main graph is fitted";
        assert_eq!(left(body), [one("MatMul:b", why), one("MatMul:c", why)].concat());
        let function = "in x [4,6]
            a = Gemm(x, w[6,8])
            b = Gemm(a, v[8,3])
            y = local.Block(b, u[3,3])
            function local.Block(x, w) -> y {
              z = MatMul(x, w)
              y = MatMul(z, w)
            }
            out y";
        let found = left(function);
        assert!(found.len() == 2 && found.iter().all(|(_, why)| why.contains("local function")), "{found:?}");
    }
}
