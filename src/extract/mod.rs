//! Extraction: some of the outputs of a model, and what they need.
//!
//! Nodes, constants, graph inputs, parts of bodies and local functions that only the other outputs needed go, and so do
//! channels that nobody reads any more: a part of a split, a slice or a concatenation whose readers are gone.
//!
//! Invariants: the remaining outputs are computed by the same nodes from the same numbers, so they are what they were;
//! names, types and order of what stays are kept; every node that stays feeds an output; a graph input goes only if
//! something that went has read it.

mod reach;
mod unread;

use std::collections::BTreeSet;

use crate::functions;
use crate::graph::Graph;
use crate::kept::Kept;
use crate::proto::Output;
use crate::proto::onnx::ModelProto;
use crate::rewrite::Rewritten;
use crate::{Error, Result};

/// A part of a model.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// The part, a model of its own.
    pub model: ModelProto,
    /// What remains of the tensors that got smaller because nobody reads all of their channels any more.
    pub kept: Kept,
    /// Constants whose values follow from that: shapes, split sizes, indices.
    pub altered: BTreeSet<String>,
    /// The graph outputs that stay, in order.
    pub outputs: Vec<String>,
    /// The graph inputs that went.
    pub dropped_inputs: Vec<String>,
    /// How many nodes of the main graph went, calls of local functions counted as what they mean.
    pub dropped_nodes: usize,
    /// How many channels nobody reads any more.
    pub dropped_channels: usize,
}

/// What remains of the original's tensors, and which constants hold other values, after a cut of a model or, where only
/// a part was cut, of its part.
pub fn together(part: Option<&Extracted>, rewritten: &Rewritten) -> (Kept, BTreeSet<String>) {
    let Some(part) = part else { return (rewritten.kept.clone(), rewritten.altered.clone()) };
    (part.kept.followed_by(&rewritten.kept), part.altered.union(&rewritten.altered).cloned().collect())
}

/// Takes the part of a model that computes `outputs`.
///
/// # Errors
/// No outputs at all, or one that the model does not have; a graph that is not well formed.
pub fn extract(model: &ModelProto, outputs: &[String]) -> Result<Extracted> {
    let inlined = functions::inline(model);
    let (nodes_before, inputs_before) = (count(&inlined.model), inputs(&inlined.model));
    let mut part = needed(&inlined.model, outputs)?;
    let (mut kept, mut altered, mut dropped_channels) = (Kept::default(), BTreeSet::new(), 0);
    // What goes may have been the last reader of more.
    while let Some(narrowed) = unread::narrowed(&part)? {
        part = narrowed.rewritten.output.materialise()?;
        part.graph.iter_mut().for_each(reach::reduce);
        kept = kept.followed_by(&narrowed.rewritten.kept);
        altered.extend(narrowed.rewritten.altered);
        dropped_channels += narrowed.channels;
    }
    let dropped_nodes = nodes_before.saturating_sub(count(&part));
    let inputs_after: BTreeSet<String> = inputs(&part).into_iter().collect();
    let dropped_inputs = inputs_before.into_iter().filter(|name| !inputs_after.contains(name)).collect();
    let output = Output { model: part, ..Output::default() };
    let mut model = match inlined.fold(&output) {
        Some(folded) => folded.model,
        None => output.model,
    };
    functions::forget_uncalled(&mut model, inlined.original());
    Graph::new(&functions::inline(&model).model)?;
    let outputs = model.graph.iter().flat_map(|g| &g.output).map(|output| output.name().to_owned()).collect();
    Ok(Extracted { model, kept, altered, outputs, dropped_inputs, dropped_nodes, dropped_channels })
}

/// The nodes, constants and inputs that `outputs` need, with all of their channels.
///
/// # Errors
/// As [`extract`].
pub fn needed(model: &ModelProto, outputs: &[String]) -> Result<ModelProto> {
    let mut part = model.clone();
    let graph = part.graph.as_mut().ok_or_else(|| Error::input("the model has no graph"))?;
    let missing = outputs.iter().find(|name| !graph.output.iter().any(|output| output.name() == **name));
    if let Some(name) = missing {
        return Err(Error::input("the model has no such output").tensor(name));
    }
    graph.output.retain(|output| outputs.iter().any(|name| name == output.name()));
    if graph.output.is_empty() {
        return Err(Error::input("no output is to be kept").help("name a task at least"));
    }
    reach::reduce(graph);
    Ok(part)
}

fn count(model: &ModelProto) -> usize {
    model.graph.as_ref().map_or(0, |graph| graph.node.len())
}

/// The inputs that are no constants with a name among the inputs.
fn inputs(model: &ModelProto) -> Vec<String> {
    let Some(graph) = &model.graph else { return Vec::new() };
    let constants: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    let inputs = graph.input.iter().map(|input| input.name());
    inputs.filter(|name| !constants.contains(name)).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::text;

    fn part(text: &str, outputs: &[&str]) -> Extracted {
        let outputs: Vec<String> = outputs.iter().map(ToString::to_string).collect();
        extract(&text::parse(text).unwrap(), &outputs).unwrap()
    }

    fn operators(model: &ModelProto) -> Vec<&str> {
        model.graph.iter().flat_map(|g| &g.node).map(|node| node.op_type()).collect()
    }

    fn dims<'m>(model: &'m ModelProto, name: &str) -> &'m [i64] {
        let graph = model.graph.as_ref().unwrap();
        &graph.initializer.iter().find(|tensor| tensor.name() == name).unwrap().dims
    }

    #[test]
    fn what_only_others_need_goes() {
        let extracted = part(
            "in x [1,3]
             in only_b [1,4]
             in nobody [1,4]
             t = Gemm(x, w0[3,4])
             a = Gemm(t, w1[4,2])
             u = Add(t, only_b)
             b = Gemm(u, w2[4,2])
             dead = Relu(t)
             out a, b",
            &["a"],
        );
        let graph = extracted.model.graph.as_ref().unwrap();
        assert_eq!(operators(&extracted.model), ["Gemm", "Gemm"]);
        assert_eq!(graph.initializer.iter().map(|t| t.name()).collect::<Vec<_>>(), ["w0", "w1"]);
        assert_eq!(graph.input.iter().map(|i| i.name()).collect::<Vec<_>>(), ["x", "nobody"]);
        assert_eq!(extracted.dropped_inputs, ["only_b"]);
        assert_eq!((extracted.dropped_nodes, extracted.dropped_channels), (3, 0));
    }

    const SPLIT: &str = "opset 13
        in x [1,3,8,8]
        t = Conv(x, w[12,3,1,1], bias[12])
        r = Relu(t)
        p, q, s = Split(r, {4,5,3}, axis=1)
        a = Conv(p, wa[2,4,1,1])
        b = Conv(q, wb[2,5,1,1])
        c = Conv(s, wc[2,3,1,1])
        out a, b, c";

    #[test]
    fn parts_of_a_split_that_nobody_reads_go() {
        let extracted = part(SPLIT, &["a", "c"]);
        assert_eq!(dims(&extracted.model, "w"), [7, 3, 1, 1]);
        assert_eq!(dims(&extracted.model, "bias"), [7]);
        assert_eq!(extracted.dropped_channels, 5);
        let split = &extracted.model.graph.as_ref().unwrap().node[2];
        assert_eq!(split.output, ["p", "s"]);
        let kept = extracted.kept.constants["w"][0].clone().unwrap();
        assert_eq!(kept.to_vec(), [0, 1, 2, 3, 9, 10, 11]);
    }

    #[test]
    fn slices_that_nobody_takes_go() {
        let text = "in x [1,3,8,8]
             t = Conv(x, w[12,3,1,1])
             a = Slice(t, {0}, {7}, {1})
             y = Conv(a, wa[2,7,1,1])
             b = Slice(t, {5}, {12}, {1})
             z = Conv(b, wb[2,7,1,1])
             out y, z";
        let extracted = part(text, &["z"]);
        assert_eq!(dims(&extracted.model, "w"), [7, 3, 1, 1]);
        assert_eq!(extracted.dropped_channels, 5);
    }

    #[test]
    fn pieces_of_a_concatenation_go_with_what_computes_them() {
        let text = "opset 13
             in x [1,3,8,8]
             m = Conv(x, wm[6,3,1,1])
             p = Conv(m, wp[4,6,1,1])
             q0 = Conv(x, wq0[7,3,1,1])
             q = Conv(q0, wq[5,7,1,1])
             t = Concat(p, q, axis=1)
             u = Relu(t)
             a0, b0 = Split(u, {4,5}, axis=1)
             a = Conv(a0, wa[2,4,1,1])
             b = Conv(b0, wb[2,5,1,1])
             out a, b";
        let extracted = part(text, &["a"]);
        assert_eq!(operators(&extracted.model), ["Conv", "Conv", "Concat", "Relu", "Split", "Conv"]);
        let concat = &extracted.model.graph.as_ref().unwrap().node[2];
        assert_eq!(concat.input, ["p"]);
        // The five of `q`, and the seven that only they read.
        assert_eq!(extracted.dropped_channels, 5);
        let extracted = part(text, &["b"]);
        assert_eq!(operators(&extracted.model), ["Conv", "Conv", "Concat", "Relu", "Split", "Conv"]);
    }

    #[test]
    fn one_channel_stays_where_none_cannot_be_spelled() {
        // The sum of squares would do without its second half, but the product in between needs a channel.
        let text = "in x [1,8]
             t = Gemm(x, w[8,6])
             a0 = Slice(t, {0}, {3}, {1})
             b0 = Slice(t, {3}, {6}, {1})
             m = Concat(a0, b0, axis=1)
             a1 = Slice(m, {0}, {3}, {1})
             a = Gemm(a1, wa[3,2])
             b1 = Slice(m, {3}, {6}, {1})
             b = Gemm(b1, wb[3,2])
             out a, b";
        let extracted = part(text, &["a"]);
        assert_eq!(dims(&extracted.model, "w"), [8, 3]);
        assert_eq!(operators(&extracted.model).iter().filter(|o| **o == "Slice").count(), 2);
    }

    #[test]
    fn an_unknown_output_is_an_error() {
        let model = text::parse(SPLIT).unwrap();
        assert!(extract(&model, &["z".to_owned()]).is_err());
        assert!(extract(&model, &[]).is_err());
    }
}
