//! Samples whose numbers are scaled before a model sees them, as pictures kept in bytes are.
//!
//! Invariant: only the inputs that are named change; they become single precision.

use std::collections::BTreeMap;
use std::path::Path;

use crate::calibration::Source;
use crate::engine::value::from_vec;
use crate::engine::{ElementType, Feeds, Value};
use crate::{Error, Result};

/// A source with factors for some of its inputs.
pub struct Scaled {
    inner: Box<dyn Source>,
    factors: BTreeMap<String, f64>,
}

impl Scaled {
    /// Multiplies the values of every input named in `factors`.
    ///
    /// # Errors
    /// A factor for an input that the samples do not have.
    pub fn new(inner: Box<dyn Source>, factors: BTreeMap<String, f64>) -> Result<Self> {
        let known: Vec<String> = inner.sample(0)?.into_iter().map(|(name, _)| name).collect();
        match factors.keys().find(|name| !known.contains(name)) {
            Some(name) => Err(Error::input("there is a scale for an input that the samples do not have")
                .tensor(name)
                .help(format!("they have {known:?}"))),
            None => Ok(Self { inner, factors }),
        }
    }
}

impl Source for Scaled {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn sample(&self, index: usize) -> Result<Feeds> {
        let scaled = |(name, value): (String, Value)| {
            let Some(factor) = self.factors.get(&name) else { return Ok((name, value)) };
            // As frameworks do it: in single precision.
            let numbers = value.to_f64().into_iter().map(|x| x as f32 * *factor as f32).collect();
            Ok((name, Value::from(from_vec(value.shape(), numbers)?).cast(ElementType::Float)?))
        };
        self.inner.sample(index)?.into_iter().map(scaled).collect()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.inner.file(index)
    }

    fn notes(&self) -> &[String] {
        self.inner.notes()
    }
}
