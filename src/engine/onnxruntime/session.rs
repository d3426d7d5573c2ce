//! One model that is open in ONNX Runtime.
//!
//! Invariants: runs of one session wait for each other, because each of them uses all threads already; values come back
//! on the host, whatever device computed them.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{RunOptions, SessionInputValue};

use super::super::{InputFact, Session, Value};
use super::library::Library;
use super::message::guarded;
use super::model::Prepared;
use super::placement::{Counts, Listener};
use super::tensor::{self, Lent};
use super::{Device, cuda};
use crate::{Error, Result};

/// A session, the shapes that it takes and the values that it gives.
pub(super) struct Opened {
    /// Nothing where no value is computed.
    session: Option<Mutex<ort::session::Session>>,
    inputs: Vec<InputFact>,
    wanted: Vec<String>,
    placed: Counts,
}

impl Opened {
    /// How many nodes each provider got.
    pub(super) fn placed(&self) -> Counts {
        self.placed.clone()
    }
}

/// Builds a session on the device.
pub(super) fn open(library: &Library, device: Device, prepared: Prepared) -> Result<Opened> {
    let Prepared { bytes, weights, inputs, wanted, computed } = prepared;
    let listener = Listener::default();
    let session = if computed.is_empty() {
        None
    } else {
        let build = || -> ort::Result<ort::session::Session> {
            let heard = listener.clone();
            let hear = move |_: LogLevel, _: &str, _: &str, _: &str, message: &str| heard.hear(message);
            // The level above this one is for half precision alone, and 1.31 dies in it where a product of a transposed
            // value is an output. Libraries that do not know this level get all there is.
            let builder = ort::session::Session::builder(library.environment())?;
            let builder = match builder.with_optimization_level(GraphOptimizationLevel::Level3) {
                Ok(builder) => builder,
                Err(error) => error.recover().with_optimization_level(GraphOptimizationLevel::All)?,
            };
            let mut builder = builder
                .with_logger(Arc::new(hear))?
                // Where nodes are placed is told at this level alone.
                .with_log_level(LogLevel::Verbose)?;
            if let Device::Cuda(number) = device {
                builder = builder.with_execution_providers([cuda::provider(number)])?;
            }
            for (name, value) in weights {
                builder = builder.with_external_initializer(name, value)?;
            }
            builder.commit_from_memory(&bytes)
        };
        Some(Mutex::new(guarded("ONNX Runtime cannot load the model", build)?))
    };
    Ok(Opened { session, inputs, wanted, placed: listener.counts() })
}

impl Session for Opened {
    fn run(&self, feeds: &[(String, Value)]) -> Result<Vec<Value>> {
        let fed = self.inputs.iter().map(|input| fed(input, feeds)).collect::<Result<Vec<&Value>>>()?;
        let Some(session) = &self.session else {
            return self.wanted.iter().map(|name| self.passed_through(name, &fed)).collect();
        };
        let lent: Vec<Lent> = fed.iter().map(|value| Lent::new(value)).collect();
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let mut values: Vec<(Cow<str>, SessionInputValue)> = Vec::with_capacity(lent.len());
            for (input, value) in self.inputs.iter().zip(&lent) {
                values.push((Cow::Borrowed(input.name.as_str()), value.input()?));
            }
            let mut options = RunOptions::new()?;
            options.set_log_level(LogLevel::Fatal)?;
            let outputs = session.run_with_options(values, &options)?;
            Ok(self
                .wanted
                .iter()
                .map(|name| match outputs.get(name) {
                    Some(value) => tensor::output(name, value),
                    None => self.passed_through(name, &fed),
                })
                .collect::<Result<Vec<Value>>>())
        };
        guarded("ONNX Runtime cannot run the model", run)?
    }
}

impl Opened {
    /// A wanted input is what was fed.
    fn passed_through(&self, name: &str, fed: &[&Value]) -> Result<Value> {
        let found = self.inputs.iter().zip(fed).find(|(input, _)| input.name == name);
        found
            .map(|(_, value)| (*value).clone())
            .ok_or_else(|| Error::engine("ONNX Runtime did not return a value").tensor(name))
    }
}

fn fed<'a>(input: &InputFact, feeds: &'a [(String, Value)]) -> Result<&'a Value> {
    let value = feeds.iter().find_map(|(name, value)| (*name == input.name).then_some(value));
    let value = value.ok_or_else(|| Error::input("no value for a graph input").tensor(&input.name))?;
    if value.element() == input.element && value.shape() == input.shape {
        return Ok(value);
    }
    Err(Error::input(format!(
        "an input of {} {:?} was opened as {} {:?}",
        value.element().as_str_name(),
        value.shape(),
        input.element.as_str_name(),
        input.shape
    ))
    .tensor(&input.name))
}
