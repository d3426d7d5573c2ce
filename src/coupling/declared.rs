//! Shapes as the file declares them: for graph inputs, and for outputs of operators that no rule describes.
//!
//! Invariant: declared extents are only ever given to locked axes, so a file that lies about an inner shape cannot
//! make a wrong cut, only a missed one.

use std::collections::HashMap;

use super::Coupling;
use crate::axes::{Expr, Extent, LockId};
use crate::graph::{Graph, MAIN, ScopeId, Value, is_a_name};
use crate::proto::onnx::{TypeProto, tensor_shape_proto::dimension, type_proto};

/// The declared types of one model, by scope and name.
pub(super) type Types<'m> = HashMap<(ScopeId, &'m str), &'m TypeProto>;

/// The declared type of every tensor that has one.
pub(super) fn types<'m>(graph: &Graph<'m>) -> Types<'m> {
    let mut types = Types::new();
    for (index, graph) in graph.scope_graphs().into_iter().enumerate() {
        let scope = ScopeId(u32::try_from(index).unwrap_or(u32::MAX));
        let infos = graph.iter().flat_map(|g| g.value_info.iter().chain(&g.output).chain(&g.input));
        types.extend(infos.filter_map(|info| Some(((scope, info.name()), info.r#type.as_ref()?))));
    }
    types
}

impl Coupling {
    /// Locked axes as declared for a value, or `None` if no rank is declared.
    pub(super) fn declared_axes(&mut self, value: &Value, types: &Types, lock: LockId) -> Option<Vec<Expr>> {
        if let Some(pinned) = self.options.pins.input(value.name).filter(|_| value.scope == MAIN) {
            let extents: Vec<Extent> = pinned.iter().map(|n| Extent::known(*n)).collect();
            return Some(extents.into_iter().map(|extent| self.space.locked_atom(extent, lock)).collect());
        }
        let Some(type_proto::Value::TensorType(tensor)) = types.get(&(value.scope, value.name))?.value.as_ref() else {
            return None;
        };
        let shape = tensor.shape.as_ref()?;
        let mut axes = Vec::with_capacity(shape.dim.len());
        for dim in &shape.dim {
            let extent = match &dim.value {
                Some(dimension::Value::DimValue(n)) if *n > 0 => Extent::known(*n),
                Some(dimension::Value::DimParam(name)) if is_a_name(name) => match self.options.pins.symbol(name) {
                    Some(pinned) => Extent::known(pinned),
                    None => self.symbols.borrow_mut().named(name),
                },
                _ => self.symbols.borrow_mut().fresh("?"),
            };
            axes.push(self.space.locked_atom(extent, lock));
        }
        Some(axes)
    }
}
