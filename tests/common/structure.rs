//! Changes of a model's structure: what another exporter, another tool or a slip of the pen could make of a file.

use onnx_mtprune::proto::onnx::{ModelProto, TensorProto, tensor_shape_proto::dimension::Value, type_proto};

use super::random_graph::Random;

const NUMBERS: [i64; 14] = [0, 1, -1, 2, 3, 4, 5, 7, 16, 64, 255, 1 << 33, i64::MAX, i64::MIN];

/// One change.
pub fn mutate(model: &mut ModelProto, other: &ModelProto, random: &mut Random) {
    let Some(graph) = model.graph.as_mut() else { return };
    if graph.node.is_empty() {
        return;
    }
    let names: Vec<String> = graph.node.iter().flat_map(|n| n.input.iter().chain(&n.output)).cloned().collect();
    let at = random.below(graph.node.len());
    match random.below(24) {
        // Nodes: dropped and bridged, duplicated, moved, swapped, another operator.
        0 => {
            let node = graph.node.remove(at);
            if let (Some(from), Some(to)) = (node.input.first(), node.output.first()) {
                rename_readers(graph, to, from);
            }
        }
        1 => {
            let mut node = graph.node[at].clone();
            let old = node.output.first().cloned().unwrap_or_default();
            node.output.iter_mut().filter(|o| !o.is_empty()).for_each(|o| o.push_str("_twin"));
            let twin = node.output.first().cloned().unwrap_or_default();
            graph.node.insert(at + 1, node);
            // One later reader takes the twin.
            let readers: Vec<usize> =
                (at + 2..graph.node.len()).filter(|i| graph.node[*i].input.contains(&old)).collect();
            if !readers.is_empty() {
                let reader = random.pick(&readers);
                graph.node[reader].input.iter_mut().filter(|i| **i == old).for_each(|i| i.clone_from(&twin));
            }
        }
        2 => {
            let to = random.below(graph.node.len());
            graph.node.swap(at, to);
        }
        3 | 4 => {
            let slot = random.below(graph.node[at].input.len().max(1));
            let name = random.pick(&names);
            if let Some(input) = graph.node[at].input.get_mut(slot) {
                *input = name;
            }
        }
        5 => {
            let slot = random.below(graph.node[at].input.len().max(1));
            if let Some(input) = graph.node[at].input.get_mut(slot) {
                input.clear();
            }
        }
        6 => {
            let operators = ["Relu", "Add", "Mul", "Concat", "Softmax", "Transpose", "Reshape", "Identity", "Nothing"];
            graph.node[at].op_type = Some(random.pick(&operators).to_owned());
        }
        7 => graph.node[at].domain = Some(random.pick(&["", "ai.onnx", "com.microsoft", "nowhere"]).to_owned()),
        // A value seen by the outside.
        8 => {
            if let Some(output) = graph.node[at].output.first().cloned()
                && let Some(mut declaration) = graph.output.first().cloned()
            {
                declaration.name = Some(output);
                if let Some(type_proto::Value::TensorType(tensor)) =
                    declaration.r#type.as_mut().and_then(|t| t.value.as_mut())
                {
                    tensor.shape = None;
                }
                graph.output.push(declaration);
            }
        }
        9 if graph.output.len() > 1 => {
            let index = random.below(graph.output.len());
            graph.output.remove(index);
        }
        // Attributes.
        10..=12 => {
            let number = random.pick(&NUMBERS);
            let attributes = &mut graph.node[at].attribute;
            if attributes.is_empty() {
                return;
            }
            let index = random.below(attributes.len());
            match random.below(4) {
                0 => drop(attributes.remove(index)),
                1 => attributes[index].i = Some(number),
                2 if !attributes[index].ints.is_empty() => {
                    let entry = random.below(attributes[index].ints.len());
                    attributes[index].ints[entry] = number;
                }
                _ => {
                    let length = random.below(6);
                    attributes[index].ints.resize(length, 1);
                }
            }
        }
        // Shapes that are declared.
        13 | 14 => {
            let inputs = graph.input.len();
            let all = graph.input.iter_mut().chain(&mut graph.value_info);
            let infos: Vec<_> = all.take(inputs + 50).collect();
            let index = random.below(infos.len().max(1));
            let number = random.pick(&NUMBERS);
            let kind = random.below(4);
            if let Some(info) = infos.into_iter().nth(index)
                && let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut())
            {
                match (kind, tensor.shape.as_mut().map(|s| &mut s.dim)) {
                    (0, _) => tensor.shape = None,
                    (1, Some(dims)) if !dims.is_empty() => {
                        let axis = random.below(dims.len());
                        dims[axis].value = Some(Value::DimValue(number));
                    }
                    (2, Some(dims)) if !dims.is_empty() => {
                        let axis = random.below(dims.len());
                        dims[axis].value = Some(Value::DimParam(random.pick(&["n", "s", "?"]).to_owned()));
                    }
                    (_, Some(dims)) => drop(dims.pop()),
                    _ => {}
                }
            }
        }
        // Weights: shapes, types, data that is cut off or too long, a swap, a copy from another model.
        15..=20 if !graph.initializer.is_empty() => {
            let index = random.below(graph.initializer.len());
            let twin = random.below(graph.initializer.len());
            let stranger = other.graph.iter().flat_map(|g| &g.initializer).nth(index).cloned();
            let kind = random.below(8);
            if kind == 7 {
                let name = graph.initializer[twin].name.clone();
                let old = std::mem::replace(&mut graph.initializer[index].name, name);
                graph.initializer[twin].name = old;
                return;
            }
            weight(&mut graph.initializer[index], stranger, kind, random);
        }
        // A weight that two nodes share.
        21 if graph.initializer.len() > 1 => {
            let from = random.pick(&graph.initializer).name().to_owned();
            let same: Vec<String> = graph
                .initializer
                .iter()
                .filter(|t| graph.initializer.iter().any(|f| f.name() == from && f.dims == t.dims))
                .map(|t| t.name().to_owned())
                .collect();
            if !same.is_empty() {
                let to = random.pick(&same);
                rename_readers(graph, &from, &to);
            }
        }
        22 => graph.node[at].output.push("spare".to_owned()),
        _ => {
            if let Some(opset) = model.opset_import.first_mut() {
                opset.version = Some(random.pick(&[1, 5, 7, 9, 10, 11, 12, 13, 14, 17, 18, 20, 22, 23, 24, -1]));
            }
        }
    }
}

fn rename_readers(graph: &mut onnx_mtprune::proto::onnx::GraphProto, old: &str, new: &str) {
    let inputs = graph.node.iter_mut().flat_map(|n| &mut n.input);
    inputs.filter(|i| *i == old).for_each(|i| *i = new.to_owned());
}

fn weight(tensor: &mut TensorProto, stranger: Option<TensorProto>, kind: usize, random: &mut Random) {
    match kind {
        0 if !tensor.dims.is_empty() => {
            let axis = random.below(tensor.dims.len());
            tensor.dims[axis] = random.pick(&NUMBERS);
        }
        1 => tensor.data_type = Some(random.below(28) as i32),
        2 => tensor.dims.reverse(),
        3 => {
            let raw = tensor.raw_data.clone().unwrap_or_default();
            tensor.raw_data = Some(raw.slice(..random.below(raw.len() + 1)));
        }
        4 => {
            let mut raw = tensor.raw_data.clone().unwrap_or_default().to_vec();
            raw.extend(vec![0; random.below(1000)]);
            tensor.raw_data = Some(raw.into());
        }
        5 => tensor.dims.push(1),
        _ => {
            if let Some(mut stranger) = stranger {
                stranger.name.clone_from(&tensor.name);
                *tensor = stranger;
            }
        }
    }
}
