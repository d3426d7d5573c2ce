//! Scopes: the main graph and the bodies inside it, and the way from the model to each.
//!
//! Spec: <https://github.com/onnx/onnx/blob/main/docs/IR.md> (names of a body may refer to any value of the graphs
//! around it; bodies side by side may use one name). Invariant: a scope stands behind the scope that holds it.

use super::capture::bodies_mut;
use crate::proto::onnx::{GraphProto, ModelProto};

/// A graph of the model: the main graph or a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeId(pub u32);

/// The main graph.
pub const MAIN: ScopeId = ScopeId(0);

/// Where a graph lies.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The graph around it, the position of the node that holds it, and its number among that node's bodies; `None` for
    /// the main graph.
    pub parent: Option<(ScopeId, usize, usize)>,
    /// What tells its names from those of other bodies, see [`crate::kept::prefix`].
    pub prefix: String,
}

/// The graph of a scope in a copy of the model whose nodes are still where they were.
pub fn find_graph_mut<'p>(model: &'p mut ModelProto, scopes: &[Scope], id: ScopeId) -> Option<&'p mut GraphProto> {
    let mut way = Vec::new();
    let mut scope = scopes.get(id.0 as usize)?;
    while let Some((parent, position, number)) = scope.parent {
        way.push((position, number));
        scope = scopes.get(parent.0 as usize)?;
    }
    let mut graph = model.graph.as_mut()?;
    for (position, number) in way.into_iter().rev() {
        graph = bodies_mut(graph.node.get_mut(position)?).nth(number)?;
    }
    Some(graph)
}
