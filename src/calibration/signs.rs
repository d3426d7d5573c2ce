//! Signs: values of a model that never hold a number below zero, of which magnitudes need not be taken.

use std::collections::BTreeSet;

use crate::ops::sign::is_never_negative;
use crate::proto::onnx::{ModelProto, NodeProto, TensorProto};
use crate::proto::tensor;

/// Constants of more numbers are not read: bounds of activations have one, or one for each channel.
const MOST_NUMBERS: usize = 1 << 16;

/// The names of values of the main graph that are known never to be below zero; nodes are in the order of the data.
pub(super) fn never_negative(model: &ModelProto) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    let Some(graph) = &model.graph else { return known };
    known.extend(graph.initializer.iter().filter(|tensor| is_positive(tensor)).map(TensorProto::name));
    for node in &graph.node {
        let holds = match constant(node) {
            Some(tensor) => is_positive(tensor),
            None => is_never_negative(node, &|slot| node.input.get(slot).is_some_and(|i| known.contains(i.as_str()))),
        };
        if holds {
            known.extend(node.output.iter().map(String::as_str).filter(|name| !name.is_empty()));
        }
    }
    known
}

/// The tensor of a node that is a constant.
fn constant(node: &NodeProto) -> Option<&TensorProto> {
    node.attribute.iter().filter(|_| node.input.is_empty()).find(|a| a.name() == "value")?.t.as_ref()
}

fn is_positive(tensor: &TensorProto) -> bool {
    let is_small = tensor::element_count(&tensor.dims).is_ok_and(|count| count <= MOST_NUMBERS);
    is_small && tensor::to_f32(tensor).is_ok_and(|numbers| numbers.iter().all(|x| *x >= 0.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::text;

    #[test]
    fn signs_follow_the_data() {
        let model = text::parse(
            "in x [1,3,4,4]
             a = Conv(x, w[3,3,1,1])
             b = Relu(a)
             c = MaxPool(b, kernel_shape=[2,2])
             d = Conv(c, v[3,3,1,1])
             e = Concat(b, b, axis=1)
             f = Max(d, <0.5>)
             g = Max(d, <-0.5>)
             out e, f, g",
        )
        .unwrap();
        let known: Vec<&str> = never_negative(&model).into_iter().filter(|n| n.len() == 1).collect();
        assert_eq!(known, ["b", "c", "e", "f"]);
    }
}
