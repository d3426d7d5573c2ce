//! What a model costs: parameters by stored constant, multiply-accumulates by node, both by the tasks they feed.
//!
//! Parameters are the elements of constants of rank 1 or more that hold weights: floating-point numbers and the 8-bit
//! and 4-bit integers of quantised weights. Each stored constant counts once, however often it is read. Running
//! statistics are state and no parameters, so a constant that is read as nothing else does not count; torchvision's
//! ResNet-18 has 11,689,512 parameters by this rule as by theirs. Constants inside bodies count like others; those
//! inside a local function once per call, because each call may keep another part.

use std::collections::{BTreeMap, BTreeSet};

use crate::axes::Extent;
use crate::coupling::{Coupling, Role};
use crate::graph::{Graph, MAIN, NodeId, Place, ValueId};
use crate::proto::Slice;
use crate::proto::onnx::tensor_proto::DataType;
use crate::tasks::{TaskSet, Tasks};

/// Parameters and multiply-accumulates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) parameters: u64,
    pub(super) macs: u64,
}

/// A constant that holds parameters.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Its name in the file.
    pub(super) name: String,
    /// The values that stand for it, one per reading where readings are apart.
    pub(super) values: Vec<ValueId>,
    /// How many parameters it holds.
    pub(super) elements: u64,
    /// The tasks that it feeds.
    pub(super) tasks: TaskSet,
}

/// Input slots through which nodes read running statistics: the node's first output, which pruning does not rename, and
/// the slot.
pub(super) type Statistics = BTreeSet<(String, usize)>;

/// Where running statistics are read.
pub(super) fn statistics(graph: &Graph, coupling: &Coupling) -> Statistics {
    let readings = coupling.readings.iter();
    let of_state = readings.filter(|r| !r.roles.is_empty() && r.roles.iter().all(|role| *role == Role::Statistic));
    of_state
        .flat_map(|reading| {
            let readers = graph.value(reading.value).readers.iter();
            readers.filter(|(node, _)| *node == reading.node).map(|(node, slot)| (first_output(graph, *node), *slot))
        })
        .collect()
}

/// The constants that hold parameters, in the order of the file. `slices` says what remains of initializers.
pub(super) fn stored(
    graph: &Graph,
    tasks: &Tasks,
    statistics: &Statistics,
    slices: &BTreeMap<usize, Slice>,
) -> Vec<Stored> {
    let mut places: BTreeMap<Place, Vec<ValueId>> = BTreeMap::new();
    for id in graph.value_ids() {
        if let Some(constant) = graph.value(id).constant() {
            places.entry(constant.place).or_default().push(id);
        }
    }
    let hold = places.into_iter().filter_map(|(place, values)| {
        let value = graph.value(*values.first()?);
        let tensor = &value.constant()?.tensor;
        if tensor.dims.is_empty() || !is_weight_type(tensor.data_type()) {
            return None;
        }
        let readers: Vec<(NodeId, usize)> =
            values.iter().flat_map(|v| graph.value(*v).readers.iter().copied()).collect();
        let is_state = |(node, slot): &(NodeId, usize)| statistics.contains(&(first_output(graph, *node), *slot));
        if !readers.is_empty() && readers.iter().all(is_state) {
            return None;
        }
        let slice = match place {
            Place::Initializer(MAIN, index) => slices.get(&index),
            // Constants elsewhere are sliced at once.
            _ => None,
        };
        let elements = match slice {
            Some(slice) => elements(slice.dims_after().into_iter().map(|d| u64::try_from(d).ok())),
            None => elements(tensor.dims.iter().map(|d| u64::try_from(*d).ok())),
        };
        let mut fed = TaskSet::default();
        readers.iter().for_each(|(node, _)| fed.extend(tasks.of_node(*node)));
        for (index, task) in tasks.tasks.iter().enumerate() {
            if values.iter().any(|v| task.outputs.contains(v)) {
                fed.insert(index);
            }
        }
        Some(Stored { name: value.name.to_owned(), values, elements, tasks: fed })
    });
    hold.collect()
}

/// Parameters and multiply-accumulates by the set of tasks they feed; `macs` are by node of the original graph.
pub(super) fn by_tasks(stored: &[Stored], tasks: &Tasks, macs: &[Option<Extent>]) -> BTreeMap<TaskSet, Cost> {
    let mut costs: BTreeMap<TaskSet, Cost> = BTreeMap::new();
    for constant in stored {
        let cost = costs.entry(constant.tasks.clone()).or_default();
        cost.parameters = cost.parameters.saturating_add(constant.elements);
    }
    for (set, macs) in tasks.by_node.iter().zip(macs) {
        if let Some(macs) = macs {
            let cost = costs.entry(set.clone()).or_default();
            cost.macs = cost.macs.saturating_add(count(macs));
        }
    }
    costs
}

/// Multiply-accumulates with every symbol taken as 1.
pub(super) fn count(macs: &Extent) -> u64 {
    u64::try_from(macs.per_symbol()).unwrap_or(0)
}

/// True if a number of multiply-accumulates depends on a dynamic axis.
pub(super) fn is_symbolic(macs: &[Option<Extent>]) -> bool {
    macs.iter().flatten().any(|m| m.value().is_none())
}

/// An exit or entry has the outputs of its part, so that the two parts of a node are not taken for each other.
fn first_output(graph: &Graph, node: NodeId) -> String {
    graph.node(node).outputs.iter().flatten().next().map_or_else(String::new, |output| graph.key(*output))
}

fn elements(mut dims: impl Iterator<Item = Option<u64>>) -> u64 {
    dims.try_fold(1u64, |product, extent| product.checked_mul(extent?)).unwrap_or(0)
}

fn is_weight_type(data_type: i32) -> bool {
    use DataType::*;
    matches!(
        DataType::try_from(data_type),
        Ok(Float | Double | Float16 | Bfloat16 | Int8 | Uint8 | Int4 | Uint4)
            | Ok(Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float4e2m1)
    )
}
