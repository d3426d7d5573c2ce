//! Engine: the one module that knows a runtime. Everything else sees models, values and these two traits.
//!
//! Invariants: an engine never falls back to another device silently, never panics on a file, and returns the wanted
//! values in the order asked for, whatever they are: outputs, inner activations, inputs or initializers.

mod fallover;
pub mod inputs;
pub mod onnxruntime;
pub mod samples;
pub mod tract;
pub mod value;

pub use fallover::Fallover;
pub use onnxruntime::{Device, OnnxRuntime};
pub use samples::Samples;
pub use tract::Tract;
pub use value::{ElementType, Value};

use std::path::PathBuf;

use serde::Serialize;

use crate::Result;
use crate::proto::onnx::ModelProto;

/// The type and shape of an input that is going to be fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFact {
    /// Name of the graph input.
    pub name: String,
    /// Element type.
    pub element: ElementType,
    /// Extents, all concrete.
    pub shape: Vec<usize>,
}

/// Values by name, as they are fed to a session.
pub type Feeds = Vec<(String, Value)>;

/// The facts of feeds, in the same order.
pub fn facts_of(feeds: &[(String, Value)]) -> Vec<InputFact> {
    feeds
        .iter()
        .map(|(name, value)| InputFact { name: name.clone(), element: value.element(), shape: value.shape().to_vec() })
        .collect()
}

/// What a report says about an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// The name that reports show.
    pub name: &'static str,
    /// The version of the runtime, if it has one of its own.
    pub version: Option<String>,
    /// The library that was loaded.
    pub library: Option<PathBuf>,
    /// Where it computes, as in `CPU` or `CUDA:0`.
    pub device: String,
    /// How many nodes of the largest model so far each provider ran; empty where that is not known.
    pub nodes: Vec<(String, usize)>,
    /// What a person should know about how the engine was chosen.
    pub notes: Vec<String>,
}

impl Description {
    /// The name without what stands behind it in brackets.
    pub fn runtime(&self) -> &'static str {
        self.name.split(" (").next().unwrap_or(self.name)
    }

    /// The name with the version, and with the share of the nodes that ran where they should, if not all did.
    pub fn label(&self) -> String {
        let Some(version) = &self.version else { return self.name.to_owned() };
        let runtime = self.runtime();
        let provider = self.device.split(':').next().unwrap_or(&self.device);
        let all: usize = self.nodes.iter().map(|(_, nodes)| nodes).sum();
        let there = self.nodes.iter().find(|(name, _)| name == provider).map_or(0, |(_, nodes)| *nodes);
        let share = if all == there { String::new() } else { format!(", {there} of {all} nodes there") };
        format!("{runtime} {version} ({}{share})", self.device)
    }
}

/// A runtime that can run ONNX models.
pub trait Engine: Sync {
    /// The name that reports show.
    fn name(&self) -> &'static str;

    /// Everything that is known about the engine, also from the models that it has opened.
    fn describe(&self) -> Description {
        Description {
            name: self.name(),
            version: None,
            library: None,
            device: Device::Cpu.to_string(),
            nodes: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Prepares `model` for inputs of exactly the given types and shapes; `run` will return the `wanted` values.
    ///
    /// # Errors
    /// When the runtime does not accept the model, an input is not among `inputs`, or a wanted value does not exist.
    fn open(&self, model: &ModelProto, inputs: &[InputFact], wanted: &[String]) -> Result<Box<dyn Session>>;
}

/// A model ready to run. Several threads may run one session at the same time.
pub trait Session: Send + Sync {
    /// Runs once; the values come back in the order of `wanted`.
    ///
    /// # Errors
    /// When an input is missing or the runtime fails.
    fn run(&self, feeds: &[(String, Value)]) -> Result<Vec<Value>>;
}

/// Opens and runs once.
///
/// # Errors
/// Those of [`Engine::open`] and [`Session::run`].
pub fn run_once(
    engine: &dyn Engine,
    model: &ModelProto,
    feeds: &[(String, Value)],
    wanted: &[String],
) -> Result<Vec<Value>> {
    engine.open(model, &facts_of(feeds), wanted)?.run(feeds)
}
