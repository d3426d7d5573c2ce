//! Repaired: is a repaired model the pruned one with other numbers in the constants that the repair names, and nothing
//! else?
//!
//! Statement. Let P be a pruned model and R what a repair made of it, with the constants that it says it changed and
//! those that it says it added, each with the one input slot of the one node that reads it. R is sound when
//!
//! ```text
//! R without numbers of changed constants, added constants and the slots that read them
//!                    = P without the same, field by field, nodes and constants in their order
//! constant(R, c)     = constant(P, c)                         bit by bit, for every other constant
//! constant(R, c)       has type and shape of constant(P, c)   for every changed constant, and is finite
//! output(R, x, o)      is finite where output(P, x, o) is     for every graph output o and one real input x
//! ```
//!
//! Invariant: nothing here knows how a repair works or what operators mean; what a repair says about itself is a
//! permission for those places only.

use std::collections::{BTreeMap, BTreeSet};

use super::unchanged::deviation;
use super::{Outcome, output_names};
use crate::engine::{Engine, Value, run_once};
use crate::functions;
use crate::proto::onnx::ModelProto;

/// What a repair says that it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Constants of the main graph that have other numbers.
    pub changed: BTreeSet<String>,
    /// New constants of the main graph, each with its only reader: the position of the node and its input slot.
    pub added: BTreeMap<String, (usize, usize)>,
}

/// Judges a repaired model. `feeds` is one batch of real inputs.
pub fn verify_repair(
    pruned: &ModelProto,
    repaired: &ModelProto,
    declared: &Declared,
    engine: &dyn Engine,
    feeds: &[(String, Value)],
) -> Outcome {
    if let Some(reason) = deviation(pruned, repaired, declared) {
        return Outcome::Failed { reason, first: None };
    }
    runs(pruned, repaired, engine, feeds)
}

/// Runs both models.
fn runs(pruned: &ModelProto, repaired: &ModelProto, engine: &dyn Engine, feeds: &[(String, Value)]) -> Outcome {
    let wanted = output_names(pruned);
    // One after the other, so that memory holds the weights of one of them at a time.
    let run = |model: &ModelProto| run_once(engine, functions::inline(model).model.as_ref(), feeds, &wanted);
    let before = match run(pruned) {
        Ok(values) => values,
        Err(e) => return Outcome::CannotRun { reason: format!("the pruned model does not run on samples: {e}") },
    };
    let failed = |reason: String| Outcome::Failed { reason, first: None };
    let after = match run(repaired) {
        Ok(values) => values,
        Err(e) => return failed(format!("the pruned model runs and the repaired one does not: {e}")),
    };
    for (name, (before, after)) in wanted.iter().zip(before.iter().zip(&after)) {
        if before.element() != after.element() {
            return failed(format!("output `{name}` has another element type"));
        }
        if !before.is_float() {
            continue;
        }
        let (old, new) = (before.to_f64(), after.to_f64());
        // A shape may depend on the data. Then what is not finite may not be new altogether.
        let worse = if before.shape() == after.shape() {
            old.iter().zip(&new).any(|(old, new)| old.is_finite() && !new.is_finite())
        } else {
            old.iter().all(|x| x.is_finite()) && !new.iter().all(|x| x.is_finite())
        };
        if worse {
            return failed(format!("output `{name}` is NaN or infinite where the pruned model gives a number"));
        }
    }
    Outcome::Passed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::engine::{Tract, value::from_vec};
    use crate::proto::build::declaration;
    use crate::proto::onnx::tensor_proto::{DataLocation, DataType};
    use crate::proto::onnx::{GraphProto, StringStringEntryProto, TensorProto, ValueInfoProto};
    use crate::proto::tensor::{from_f32, from_raw};

    const PRUNED: &str = "in x [1,2]\na = Gemm(x, w[2,3])\nb = Relu(a)\nc = MatMul(b, v[3,2])\nd = Add(c, e[2])\nout d";

    fn pruned() -> ModelProto {
        crate::text::parse(PRUNED).unwrap()
    }

    /// What an honest repair makes of it: `v` is other, and the first node has got a bias.
    fn repaired() -> (ModelProto, Declared) {
        let mut model = pruned();
        let graph = model.graph.as_mut().unwrap();
        *constant(graph, "v") = from_f32("v", &[3, 2], &[0.5, -1.0, 2.0, 0.25, 3.0, -0.5]);
        graph.initializer.push(from_f32("w/bias", &[3], &[1.0, 2.0, 3.0]));
        graph.node[0].input.push("w/bias".to_owned());
        let declared = Declared {
            changed: BTreeSet::from(["v".to_owned()]),
            added: BTreeMap::from([("w/bias".to_owned(), (0, 2))]),
        };
        (model, declared)
    }

    fn constant<'g>(graph: &'g mut GraphProto, name: &str) -> &'g mut TensorProto {
        graph.initializer.iter_mut().find(|t| t.name() == name).unwrap()
    }

    fn judged(pruned: &ModelProto, model: &ModelProto, declared: &Declared) -> Outcome {
        let feeds = [("x".to_owned(), Value::from(from_vec(&[1, 2], vec![1.0f32, -2.0]).unwrap()))];
        verify_repair(pruned, model, declared, &Tract, &feeds)
    }

    /// Why an honest repair that is then tampered with is refused.
    fn refusal(tamper: impl FnOnce(&mut ModelProto, &mut Declared)) -> String {
        let (mut model, mut declared) = repaired();
        tamper(&mut model, &mut declared);
        match judged(&pruned(), &model, &declared) {
            Outcome::Failed { reason, first: None } => reason,
            other => panic!("{other:?}"),
        }
    }

    fn graph(model: &mut ModelProto) -> &mut GraphProto {
        model.graph.as_mut().unwrap()
    }

    #[test]
    fn an_honest_repair_passes() {
        let (model, declared) = repaired();
        assert_eq!(judged(&pruned(), &model, &declared), Outcome::Passed);
        assert_eq!(judged(&pruned(), &pruned(), &Declared::default()), Outcome::Passed);
    }

    /// As a file has it whose weights lie beside it, at other places than before.
    #[test]
    fn where_data_lies_is_no_matter() {
        let (mut model, declared) = repaired();
        for name in ["w", "v"] {
            let tensor = constant(graph(&mut model), name);
            tensor.set_data_location(DataLocation::External);
            tensor.external_data.push(StringStringEntryProto::default());
        }
        assert_eq!(judged(&pruned(), &model, &declared), Outcome::Passed);
    }

    #[test]
    fn constants_that_are_not_named_stay_bit_by_bit() {
        let why = refusal(|model, _| *constant(graph(model), "e") = from_f32("e", &[2], &[0.0, -0.0]));
        assert_eq!(why, "constant `e` has changed, and the repair does not say so");
        let why = refusal(|_, declared| declared.changed.clear());
        assert_eq!(why, "constant `v` has changed, and the repair does not say so");
        let why = refusal(|model, _| graph(model).initializer.swap(0, 1));
        assert_eq!(why, "constant `w` is gone or stands elsewhere");
        let why = refusal(|model, _| graph(model).initializer.push(from_f32("more", &[1], &[0.0])));
        assert_eq!(why, "constant `more` is new, and the repair does not say so");
    }

    #[test]
    fn changed_constants_keep_type_and_shape_and_are_finite() {
        let why = refusal(|model, _| *constant(graph(model), "v") = from_f32("v", &[2, 3], &[0.0; 6]));
        assert_eq!(why, "constant `v` had the type and shape (1, [3, 2]) and has (1, [2, 3])");
        let why = refusal(|model, _| constant(graph(model), "v").data_type = Some(DataType::Int32 as i32));
        assert_eq!(why, "constant `v` had the type and shape (1, [3, 2]) and has (6, [3, 2])");
        let why = refusal(|model, _| *constant(graph(model), "v") = from_f32("v", &[3, 2], &[f32::NAN; 6]));
        assert_eq!(why, "constant `v` holds NaN or infinity");
        let why = refusal(|model, _| constant(graph(model), "v").raw_data = Some(vec![0; 20].into()));
        assert_eq!(why, "constant `v` holds data that does not fit its shape");
        let why = refusal(|model, _| constant(graph(model), "v").doc_string = Some("new".to_owned()));
        assert_eq!(why, "constant `v` has another name, place or metadata");
    }

    #[test]
    fn integers_that_mean_shapes_never_change() {
        let text = "in x [1,4]\ny = Reshape(x, s{2,2})\nout y";
        let (before, mut after) = (crate::text::parse(text).unwrap(), crate::text::parse(text).unwrap());
        let raw: Vec<u8> = [4i64, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
        *constant(graph(&mut after), "s") = from_raw("s", DataType::Int64, &[2], raw.into());
        let declared = Declared { changed: BTreeSet::from(["s".to_owned()]), ..Declared::default() };
        let reason = "constant `s` is of a type that no repair may change".to_owned();
        assert_eq!(judged(&before, &after, &declared), Outcome::Failed { reason, first: None });
    }

    #[test]
    fn added_constants_are_read_where_the_repair_says_and_nowhere_else() {
        let why = refusal(|_, declared| declared.added.clear());
        assert_eq!(why, "input 2 of node `a` was `` and is `w/bias`");
        let why = refusal(|_, declared| _ = declared.added.insert("w/bias".to_owned(), (0, 1)));
        assert_eq!(why, "input 2 of node `a` was `` and is `w/bias`");
        let why = refusal(|model, _| graph(model).node[3].input[1] = "w/bias".to_owned());
        assert_eq!(why, "input 1 of node `d` was `e` and is `w/bias`");
        let why = refusal(|model, _| graph(model).output[0].name = Some("w/bias".to_owned()));
        assert!(why.starts_with("its graph outputs"), "{why}");
        let why = refusal(|model, _| _ = graph(model).node[0].input.pop());
        assert_eq!(why, "the new constant `w/bias` is read 0 times instead of once");
        let why = refusal(|model, _| _ = graph(model).initializer.pop());
        assert_eq!(why, "constant `w/bias` should have been added and is not there");
        let infinite = from_f32("w/bias", &[3], &[f32::INFINITY, 0.0, 0.0]);
        let why = refusal(|model, _| *constant(graph(model), "w/bias") = infinite);
        assert_eq!(why, "constant `w/bias` holds NaN or infinity");
        let why = refusal(|model, declared| {
            declared.added.insert("late".to_owned(), (3, 0));
            graph(model).node[3].input[0] = "late".to_owned();
            graph(model).initializer.push(from_f32("late", &[2], &[0.0; 2]));
        });
        assert_eq!(why, "input 0 of node `d` was computed as `c`, now it is constant");
        let why = refusal(|model, declared| {
            declared.added = BTreeMap::from([("b".to_owned(), (0, 2))]);
            graph(model).node[0].input[2] = "b".to_owned();
            constant(graph(model), "w/bias").name = Some("b".to_owned());
        });
        assert_eq!(why, "constant `b` is new, but its name is taken");
    }

    #[test]
    fn nodes_interface_and_metadata_stay() {
        let why = refusal(|model, _| _ = graph(model).node.pop());
        assert_eq!(why, "it has 3 nodes instead of 4");
        let why = refusal(|model, _| graph(model).node[1].op_type = Some("Sigmoid".to_owned()));
        assert_eq!(why, "node `b` is not that of the pruned model");
        let why = refusal(|model, _| graph(model).node[1].output[0] = "bb".to_owned());
        assert_eq!(why, "node `b` is not that of the pruned model");
        let why = refusal(|model, _| graph(model).node.swap(0, 1));
        assert!(why.starts_with("input 0 of node `a` was `x`"), "{why}");
        let why = refusal(|model, _| graph(model).input.push(ValueInfoProto::default()));
        assert_eq!(why, "it has the new graph input ``");
        let why = refusal(|model, _| graph(model).input.clear());
        assert_eq!(why, "its graph inputs are not those of the pruned model");
        let why = refusal(|model, _| graph(model).output[0].doc_string = Some("new".to_owned()));
        assert!(why.starts_with("its graph outputs"), "{why}");
        let why = refusal(|model, _| model.opset_import[0].version = Some(18));
        assert!(why.starts_with("its versions, operator sets"), "{why}");
        let why = refusal(|model, _| model.metadata_props.push(StringStringEntryProto::default()));
        assert!(why.starts_with("its versions, operator sets"), "{why}");
        assert_eq!(refusal(|model, _| model.graph = None), "one of the models has no graph");
    }

    #[test]
    fn old_files_list_new_constants_among_the_inputs() {
        let (mut model, declared) = repaired();
        graph(&mut model).input.push(declaration("w/bias", DataType::Float as i32, &[3]));
        assert_eq!(deviation(&pruned(), &model, &declared), None);
        *graph(&mut model).input.last_mut().unwrap() = declaration("w/bias", DataType::Float as i32, &[4]);
        let why = deviation(&pruned(), &model, &declared).unwrap();
        assert_eq!(why, "the new constant `w/bias` is declared with another type or shape");
    }

    #[test]
    fn outputs_that_were_numbers_stay_numbers() {
        let why = refusal(|model, _| *constant(graph(model), "v") = from_f32("v", &[3, 2], &[3e38; 6]));
        assert_eq!(why, "output `d` is NaN or infinite where the pruned model gives a number");
        let why = refusal(|model, _| {
            let bias = from_f32("w/bias", &[5], &[0.0; 5]);
            *constant(graph(model), "w/bias") = bias;
        });
        assert!(why.starts_with("the pruned model runs and the repaired one does not"), "{why}");
    }
}
