//! The models and samples that are measured, and the engines that are there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onnx_mtprune::calibration::batching::{Feeder, FeederOptions};
use onnx_mtprune::calibration::source::{self, SourceOptions};
use onnx_mtprune::calibration::{Batch, Batches, Source};
use onnx_mtprune::engine::{Device, Engine, Feeds, InputFact, OnnxRuntime, Tract, Value, inputs, samples};
use onnx_mtprune::proto::onnx::ModelProto;

use crate::Outcome;

/// Samples at a time, where a model leaves that open.
pub(crate) const BATCH: usize = 16;

/// Different samples where random ones are made; they are fed again and again.
const RANDOM: usize = 32;

/// The engines on this machine: the built-in one, and ONNX Runtime where its library is named.
pub(crate) fn engines(only: &str) -> Outcome<Vec<Box<dyn Engine>>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(Tract)];
    match library() {
        Some(path) => engines.push(Box::new(OnnxRuntime::load(&path, Device::Cpu)?)),
        None => println!("skipped: ONNX Runtime, because ORT_DYLIB_PATH does not name its library"),
    }
    engines.retain(|engine| engine.name().contains(only));
    if engines.is_empty() {
        return Err(format!("no engine is called `{only}`").into());
    }
    Ok(engines)
}

/// The library of ONNX Runtime.
pub(crate) fn library() -> Option<PathBuf> {
    std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).filter(|path| path.is_file())
}

/// A folder of models that come with this repository.
pub(crate) fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx-models").join(name)
}

/// A folder of models beside this repository.
pub(crate) fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models").join(name)
}

/// A ResNet-50 for pictures of 224 x 224, which is too big to lie in the repository.
pub(crate) fn resnet50() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/resnet50.onnx");
    let path = std::env::var_os("RESNET50").map_or(default, PathBuf::from);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: ResNet-50, because there is no {}; benches/calibration/resnet50.py writes it", path.display());
    None
}

/// The samples of a file.
pub(crate) fn from_file(path: &Path, model: &ModelProto) -> Outcome<Arc<dyn Source>> {
    Ok(Arc::from(source::open(path, model, &SourceOptions::new(std::env::temp_dir()))?))
}

/// Random samples of the size that a model declares.
pub(crate) fn random(model: &ModelProto, count: usize) -> Outcome<Arc<dyn Source>> {
    let facts = inputs::input_shapes(model, &BTreeMap::new())?.into_iter().next().ok_or("no shape fits the model")?;
    let one = |fact: InputFact| InputFact { shape: fact.shape.get(1..).unwrap_or_default().to_vec(), ..fact };
    let facts: Vec<InputFact> = facts.into_iter().map(one).collect();
    let different = (0..count.min(RANDOM)).map(|seed| samples::random_feeds(&facts, seed as u64));
    Ok(Arc::new(Random { different: different.collect::<Result<_, _>>()?, count }))
}

struct Random {
    different: Vec<Feeds>,
    count: usize,
}

impl Source for Random {
    fn len(&self) -> usize {
        self.count
    }

    fn sample(&self, index: usize) -> onnx_mtprune::Result<Feeds> {
        Ok(self.different[index % self.different.len()].clone())
    }
}

/// Batches of the samples.
pub(crate) fn batches(source: Arc<dyn Source>, model: &ModelProto, max_samples: Option<usize>) -> Outcome<Feeder> {
    let options = FeederOptions { batch_size: BATCH, max_samples, ..FeederOptions::default() };
    Ok(Feeder::new(source, model, &options)?)
}

/// The names of the outputs.
pub(crate) fn outputs(model: &ModelProto) -> Vec<String> {
    model.graph.iter().flat_map(|graph| &graph.output).map(|output| output.name().to_owned()).collect()
}

/// Runs every batch, and gives the outputs to nobody.
pub(crate) fn infer(plain: &mut Plain<'_>, batches: &dyn Batches) -> Outcome<()> {
    for index in 0..batches.len() {
        let Batch { feeds, .. } = batches.batch(index)?;
        std::hint::black_box(plain.run(&feeds)?);
    }
    Ok(())
}

/// A model as anybody would run it: opened once for each shape of its inputs.
pub(crate) struct Plain<'a> {
    engine: &'a dyn Engine,
    model: &'a ModelProto,
    wanted: Vec<String>,
    open: Vec<(Vec<InputFact>, Box<dyn onnx_mtprune::engine::Session>)>,
}

impl<'a> Plain<'a> {
    pub(crate) fn new(engine: &'a dyn Engine, model: &'a ModelProto) -> Self {
        Self { engine, model, wanted: outputs(model), open: Vec::new() }
    }

    fn run(&mut self, feeds: &Feeds) -> Outcome<Vec<Value>> {
        let facts = onnx_mtprune::engine::facts_of(feeds);
        if let Some((_, session)) = self.open.iter().find(|(known, _)| *known == facts) {
            return Ok(session.run(feeds)?);
        }
        let session = self.engine.open(self.model, &facts, &self.wanted)?;
        let values = session.run(feeds)?;
        self.open.push((facts, session));
        Ok(values)
    }
}
