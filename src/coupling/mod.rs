//! Coupling: signatures in, axes of every tensor out. One algorithm for all operators; it never sees an operator type.
//!
//! Nodes are visited in topological order; each one's signature is unified with the axes of its inputs and gives the
//! axes of its outputs. Whatever cannot be described is locked, with a reason.
//!
//! Invariants: graph inputs and outputs are locked on every axis; a value whose rank is unknown has no axes, and
//! whoever reads it is opaque; locking is always sound, because unshrunk axes satisfy every equation.

mod apply;
mod declared;
mod repeated;

use std::cell::RefCell;
use std::collections::HashSet;

use crate::axes::{Expr, Extent, LockId, Space, Symbols};
use crate::graph::{Graph, NodeId, Passage, Pins, Source, ValueId};
use crate::ops::{InputView, Integers, NodeView, Part, Refusal, Row, Signature, rule_for};
use crate::proto::tensor;
use declared::Types;
use repeated::Changing;

/// Why, and where, an axis was locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The sentence.
    pub why: String,
    /// The node that caused it.
    pub node: Option<NodeId>,
    /// The tensor at which it was caused.
    pub value: Option<ValueId>,
}

/// What a constant's axis is to the node that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Channels the node makes: rows of a weight.
    Produced,
    /// Channels the node contracts: columns of a weight.
    Contracted,
    /// One number per channel: a bias, a slope, statistics.
    PerChannel,
    /// One number per channel that scales it: the gamma of a normalisation.
    Scale,
    /// One number per channel that is state and no parameter: running statistics.
    Statistic,
}

/// One reading of a constant by a node, with the role of each of its axes.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Who reads.
    pub node: NodeId,
    /// What is read.
    pub value: ValueId,
    /// One role per axis.
    pub roles: Vec<Role>,
}

/// How many mask entries all unlocked axes of a model may have together; the largest models need a thousandth of it.
const MASK_BUDGET: usize = 1 << 26;

/// Finds the row of an operator by domain and name; `None` = opaque. Tests pass their own to show that a wrong rule is
/// caught.
pub type Rules = fn(&str, &str) -> Option<&'static Row>;

/// How to couple.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the rules come from.
    pub rules: Rules,
    /// True if axes over which statistics are taken may shrink, which equals no masked original.
    pub allow_approximate: bool,
    /// Shapes given for what the file leaves open.
    pub pins: Pins,
}

impl Default for Options {
    fn default() -> Self {
        Self { rules: rule_for, allow_approximate: false, pins: Pins::default() }
    }
}

/// The axes of every value of one graph.
#[derive(Debug)]
pub struct Coupling {
    /// How they were coupled.
    pub options: Options,
    /// All axis expressions.
    pub space: Space,
    /// The symbols in their extents.
    pub symbols: RefCell<Symbols>,
    /// The axes by value; `None` where the rank is unknown.
    pub axes: Vec<Option<Vec<Expr>>>,
    /// Entries of small integer tensors, where known.
    pub integers: Vec<Option<Integers>>,
    /// The reasons, by `LockId`.
    pub locks: Vec<Lock>,
    /// All readings of constants.
    pub readings: Vec<Reading>,
    /// The axes over which nodes take statistics, and the sentence for the lock that follows unless approximations are
    /// allowed.
    pub approximate: Vec<(NodeId, Expr, String)>,
    /// What axes are in the attention products of the model, one list per product.
    pub parts: Vec<Vec<(Expr, Part)>>,
    /// Multiply-accumulates by node.
    pub macs: Vec<Option<Extent>>,
    /// Why a node is opaque, by node.
    pub opaque: Vec<Option<String>>,
    /// What changes from one iteration of a body to the next.
    changing: Changing,
    /// The number that stands for zero, by value, as those say who sum over it; `None` = 0, or nobody does.
    pub zeros: Vec<Option<StoredZero>>,
}

/// The stored number that stands for zero in a quantised value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredZero {
    /// This number.
    Known(i64),
    /// What this scalar holds when the model runs.
    Computed(ValueId),
}

impl Coupling {
    /// Couples all axes of the graph.
    pub fn of(graph: &Graph) -> Self {
        Self::with_options(graph, &Options::default())
    }

    /// Couples all axes of the graph in other ways than by default.
    pub fn with_options(graph: &Graph, options: &Options) -> Self {
        repeated::settle(|changing| Self::once(graph, options, changing))
    }

    /// One pass over the graph, given which extents change from one iteration to the next.
    fn once(graph: &Graph, options: &Options, changing: Changing) -> Self {
        let count = graph.values.len();
        let mut coupling = Coupling {
            options: options.clone(),
            space: Space::default(),
            symbols: RefCell::default(),
            axes: vec![None; count],
            integers: vec![None; count],
            locks: Vec::new(),
            readings: Vec::new(),
            approximate: Vec::new(),
            parts: Vec::new(),
            macs: vec![None; graph.nodes.len()],
            opaque: vec![None; graph.nodes.len()],
            changing,
            zeros: vec![None; count],
        };
        let declared = declared::types(graph);
        for id in graph.value_ids() {
            coupling.source(graph, id, &declared);
        }
        for id in &graph.order {
            coupling.node(graph, *id, &declared);
        }
        for output in &graph.outputs {
            coupling.lock_value(*output, None, "graph output");
            coupling.lock_arithmetic(graph, *output, "a graph output is computed from its extent");
        }
        coupling.lock_approximate();
        coupling.lock_endless();
        coupling
    }

    /// Locks what only statistics stand against, unless approximations are allowed. The last of the locks that a person
    /// can do something about, so that this reason is given only where lifting it would help.
    fn lock_approximate(&mut self) {
        for (node, axis, why) in self.approximate.clone() {
            if !self.options.allow_approximate {
                self.lock_axis(axis, Some(node), None, &format!("{why} (unlock with --allow-approximate)"));
            }
        }
    }

    /// Locks axes that are too long to keep a mask for, so that a few numbers in a file cannot fill the memory, and those
    /// for which none can be written down, as a dynamic batch and heads in one axis.
    fn lock_endless(&mut self) {
        let mut seen = HashSet::new();
        let mut budget = MASK_BUDGET;
        for index in 0..self.axes.len() {
            for axis in self.axes[index].clone().unwrap_or_default() {
                if !seen.insert(self.space.resolve(axis)) || self.space.is_locked(axis) {
                    continue;
                }
                let Some(extent) = self.space.extent(axis).size() else {
                    self.lock_axis(axis, None, None, "one axis holds it and one of unknown extent (see --input-shape)");
                    continue;
                };
                match budget.checked_sub(extent) {
                    Some(rest) => budget = rest,
                    None => self.lock_axis(axis, None, None, "its axes are too long to be tracked"),
                }
            }
        }
    }

    /// The extents of a value, if its rank is known.
    pub fn shape(&self, value: ValueId) -> Option<Vec<Extent>> {
        let axes = self.axes.get(value.0 as usize)?.as_ref()?;
        Some(axes.iter().map(|axis| self.space.extent(*axis).clone()).collect())
    }

    /// The reason behind a lock.
    pub fn lock(&self, id: LockId) -> Option<&Lock> {
        self.locks.get(id.0 as usize)
    }

    /// The signature of a node, as its rule gives it once all axes are coupled.
    ///
    /// # Errors
    /// The refusal that made the node opaque.
    pub fn signature(&self, graph: &Graph, id: NodeId) -> Result<Signature, Refusal> {
        if let Some(why) = &self.opaque[id.0 as usize] {
            return Err(Refusal::new(why.clone()));
        }
        let node = graph.node(id);
        let row = (self.options.rules)(node.domain(), node.op_type());
        let row = row.ok_or_else(|| Refusal::new("this operator is not known to the pruner"))?;
        row.rule.signature(&self.view(graph, id))
    }

    /// A node as its rule sees it.
    pub fn view<'a>(&'a self, graph: &'a Graph, id: NodeId) -> NodeView<'a> {
        let node = graph.node(id);
        let inputs = node.inputs.iter().take(node.input_count).map(|input| {
            input.map(|value| InputView {
                shape: self.shape(value),
                constant: graph.value(value).constant().map(|c| c.tensor.as_ref()),
                integers: self.integers[value.0 as usize].clone(),
                axes: self.axes[value.0 as usize].as_deref(),
            })
        });
        let inputs = inputs.collect();
        NodeView { node, inputs, outputs: node.outputs.len(), symbols: &self.symbols, space: Some(&self.space) }
    }

    /// Gives graph inputs and constants their axes.
    fn source(&mut self, graph: &Graph, id: ValueId, declared: &Types) {
        let value = graph.value(id);
        let index = id.0 as usize;
        match &value.source {
            Source::Input(_) => {
                let lock = self.reason(None, Some(id), "graph input");
                self.axes[index] = self.declared_axes(value, declared, lock);
            }
            Source::Constant(constant) => {
                let extents: Option<Vec<usize>> =
                    constant.tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
                self.axes[index] =
                    extents.map(|extents| extents.into_iter().map(|e| self.space.atom(Extent::from(e))).collect());
                self.integers[index] = Integers::from_tensor(&constant.tensor)
                    .or_else(|| Integers::from_floats(&constant.tensor, &mut self.symbols.borrow_mut()));
                if tensor::element_bits(constant.tensor.data_type()).is_none() {
                    self.lock_value(id, None, "tensors of this type cannot be sliced");
                }
            }
            Source::OpaqueConstant | Source::Node(..) => {}
        }
    }

    fn node(&mut self, graph: &Graph, id: NodeId, declared: &Types) {
        let node = graph.node(id);
        let row = (self.options.rules)(node.domain(), node.op_type());
        let outcome = match row {
            _ if node.is_function => Err(Refusal::new(
                "it calls a local function that cannot be followed (recursive, too large, or for another operator set)",
            )),
            _ if node.passage != Passage::Whole && self.changing.is_endless() => {
                Err(Refusal::new("the shapes inside its body do not settle"))
            }
            None => Err(Refusal::new("this operator is not known to the pruner")),
            Some(row) => self.describe(graph, id, row),
        };
        // What a subgraph captures keeps its meaning only if it does not change.
        for captured in node.inputs.iter().skip(node.input_count).flatten() {
            self.lock_value(*captured, Some(id), "read inside a subgraph");
            self.lock_arithmetic(graph, *captured, "a subgraph reads what is computed from its extent");
        }
        // So do integers that a body returns: they are known inside it only.
        for returned in node.inputs.get(node.returned.clone()).unwrap_or_default().iter().flatten() {
            self.lock_arithmetic(graph, *returned, "a subgraph returns what is computed from its extent");
        }
        if let Err(Refusal(why)) = outcome {
            for input in node.inputs.iter().flatten() {
                self.lock_value(*input, Some(id), &why);
            }
            for output in node.outputs.iter().flatten() {
                let lock = self.reason(Some(id), Some(*output), &why);
                self.axes[output.0 as usize] = self.declared_axes(graph.value(*output), declared, lock);
            }
            self.opaque[id.0 as usize] = Some(why);
        } else if node.passage == Passage::Entry {
            // What the rule does not know of a body's inputs (the rank of a counter), the body may say.
            for output in node.outputs.iter().flatten() {
                if self.axes[output.0 as usize].is_some() {
                    continue;
                }
                let lock = self.reason(Some(id), Some(*output), "it comes from outside the body");
                self.axes[output.0 as usize] = self.declared_axes(graph.value(*output), declared, lock);
            }
        }
    }

    /// Asks the rule and applies what it says.
    fn describe(&mut self, graph: &Graph, id: NodeId, row: &Row) -> Result<(), Refusal> {
        let (signature, integers) = {
            let view = self.view(graph, id);
            (row.rule.signature(&view)?, row.rule.evaluate(&view))
        };
        self.apply(graph, id, &signature)?;
        let outputs: Vec<Option<Vec<Extent>>> =
            graph.node(id).outputs.iter().map(|o| o.and_then(|value| self.shape(value))).collect();
        let macs = row.rule.macs(&self.view(graph, id), &outputs);
        self.macs[id.0 as usize] = macs;
        if let Some(integers) = integers {
            for (output, integers) in graph.node(id).outputs.iter().zip(integers) {
                if let Some(output) = output {
                    self.integers[output.0 as usize] = integers;
                }
            }
        }
        Ok(())
    }

    /// Notes a reason and gives its id.
    fn reason(&mut self, node: Option<NodeId>, value: Option<ValueId>, why: &str) -> LockId {
        let id = LockId(u32::try_from(self.locks.len()).unwrap_or(u32::MAX));
        self.locks.push(Lock { why: why.to_owned(), node, value });
        id
    }

    /// Locks every axis of a value.
    fn lock_value(&mut self, value: ValueId, node: Option<NodeId>, why: &str) {
        let axes = self.axes[value.0 as usize].clone().unwrap_or_default();
        for axis in axes {
            self.lock_axis(axis, node, Some(value), why);
        }
    }

    /// Locks every axis whose extent flows into an integer value that must not change.
    fn lock_arithmetic(&mut self, graph: &Graph, value: ValueId, why: &str) {
        let mut stack = vec![value];
        let mut seen = std::collections::BTreeSet::new();
        while let Some(value) = stack.pop() {
            let computed = self.integers[value.0 as usize].is_some();
            let Source::Node(producer, _) = graph.value(value).source else { continue };
            if computed && seen.insert(producer) {
                for input in graph.node(producer).inputs.iter().flatten() {
                    self.lock_value(*input, Some(producer), why);
                    stack.push(*input);
                }
            }
        }
    }

    /// Locks one axis, unless it is locked as a whole.
    fn lock_axis(&mut self, axis: Expr, node: Option<NodeId>, value: Option<ValueId>, why: &str) {
        if !self.space.is_locked(axis) {
            let lock = self.reason(node, value, why);
            self.space.lock(axis, lock);
        }
    }
}
