//! What the tests of criteria share: a model of given weights, measured on given samples.
#![allow(clippy::unwrap_used)]

use super::CriterionRow;
use crate::calibration::{Batch, Batches, Gathering, MEASURES, Shard, Statistics, Wish};
use crate::engine::{Tract, inputs, value};
use crate::proto::onnx::ModelProto;
use crate::proto::tensor;
use crate::prune::{Analysis, PruneConfig};
use crate::{Result, text};

/// A model and what was measured of it.
pub(super) struct Measured {
    model: ModelProto,
    statistics: Statistics,
}

struct One(Batch);

impl Batches for One {
    fn len(&self) -> usize {
        1
    }

    fn samples(&self) -> usize {
        self.0.samples.len()
    }

    fn batch(&self, _: usize) -> Result<Batch> {
        Ok(self.0.clone())
    }
}

/// A model of these weights.
pub(super) fn model(text: &str, weights: &[(&str, &[f32])]) -> ModelProto {
    let mut model = text::parse(text).unwrap();
    for (name, values) in weights {
        let tensors = &mut model.graph.as_mut().unwrap().initializer;
        let slot = tensors.iter_mut().find(|t| t.name() == *name).unwrap();
        *slot = tensor::from_f32(name, &slot.dims.clone(), values);
    }
    model
}

/// Measures everything on one batch; `x` holds the values of the only input.
pub(super) fn measured(text: &str, weights: &[(&str, &[f32])], x: &[f32]) -> Measured {
    let model = model(text, weights);
    let fact = inputs::input_shapes(&model, &Default::default()).unwrap().remove(0).remove(0);
    let samples = (0..fact.shape[0]).collect();
    let feeds = vec![(fact.name, value::from_vec(&fact.shape, x.to_vec()).unwrap().into())];
    let statistics = {
        let analysis = Analysis::of(&model, &[]).unwrap();
        let taps = analysis.taps();
        let measures = MEASURES.iter().map(|(measure, _)| *measure).collect();
        let wish = Wish { measures, products: true, features: true };
        let mut statistics = Statistics::empty(&taps);
        let batches = One(Batch { feeds, samples, filler: 0 });
        Gathering::new(&model, &taps, &wish, &Tract)
            .run(&batches, Shard::ALL, &mut statistics, &mut |_| Ok(()))
            .unwrap();
        statistics
    };
    Measured { model, statistics }
}

/// The scores of the first group that may shrink.
pub(super) fn scores(measured: &Measured, row: &CriterionRow) -> Vec<f64> {
    let without = Analysis::of(&measured.model, &[]).unwrap().score(&config(row.name));
    assert_eq!(without.is_err(), row.needs_statistics || row.gradients.is_some());
    first(&measured.model, row.name, Some(&measured.statistics))
}

/// The same by a criterion that looks at weights alone.
pub(super) fn by_weights(model: &ModelProto, name: &str) -> Vec<f64> {
    first(model, name, None)
}

fn config(name: &str) -> PruneConfig {
    PruneConfig { criterion: name.to_owned(), ..PruneConfig::default() }
}

fn first(model: &ModelProto, name: &str, statistics: Option<&Statistics>) -> Vec<f64> {
    let analysis = Analysis::of(model, &[]).unwrap();
    let scores = analysis.score_with(&config(name), statistics).unwrap();
    let free = analysis.groups.iter().position(|g| g.lock.is_none()).unwrap();
    scores[free].clone()
}
