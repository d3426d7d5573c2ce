//! Samples: what a model is fed with, real arrays or seeded random numbers.
//!
//! Invariant: the same seed gives the same numbers on every machine (only additions of exact integers, no library
//! functions).

use std::collections::BTreeMap;

use half::f16;
use ndarray::Axis;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::inputs::{InputDeclaration, declared_inputs};
use super::value::from_vec;
use super::{ElementType, Feeds, InputFact, Value};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};

/// Arrays by the name of the graph input they belong to; the first axis counts samples.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    arrays: BTreeMap<String, Value>,
}

impl Samples {
    /// Samples from arrays in memory.
    ///
    /// # Errors
    /// When an array has no sample axis, or the arrays hold different numbers of samples.
    pub fn new(arrays: BTreeMap<String, Value>) -> Result<Self> {
        let mut first: Option<(&String, usize)> = None;
        for (name, value) in &arrays {
            let Some(n) = value.shape().first().copied() else {
                return Err(Error::input("an array of samples needs a first axis that counts them").tensor(name));
            };
            let (other, expected) = *first.get_or_insert((name, n));
            if n != expected {
                return Err(Error::input(format!("{n} samples, but `{other}` has {expected}")).tensor(name));
            }
        }
        Ok(Self { arrays })
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.arrays.values().next().map_or(0, |v| v.shape().first().copied().unwrap_or(0))
    }

    /// True when there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The arrays by name.
    pub fn arrays(&self) -> &BTreeMap<String, Value> {
        &self.arrays
    }

    /// Sample `index` as a batch of one for every input of `model`, cast to the declared element types. An array
    /// with one axis more than its input holds whole inputs; otherwise its first axis becomes the batch axis,
    /// and the sample is repeated where the batch is fixed to more than one.
    ///
    /// # Errors
    /// When an input has no array, or its sample does not fit the declared type and shape.
    pub fn feeds(&self, model: &ModelProto, index: usize) -> Result<Feeds> {
        declared_inputs(model)?
            .into_iter()
            .map(|input| {
                let array = self.arrays.get(&input.name).ok_or_else(|| {
                    let names: Vec<&str> = self.arrays.keys().map(String::as_str).collect();
                    Error::input(format!("the samples hold no array for a graph input, only {names:?}"))
                        .tensor(&input.name)
                })?;
                let value = one_sample(array, &input, index)?.cast(input.element)?;
                Ok((input.name, value))
            })
            .collect()
    }
}

fn one_sample(array: &Value, input: &InputDeclaration, index: usize) -> Result<Value> {
    let sample = array.select(0, &[index]).map_err(|_| {
        Error::input(format!("there is no sample {index}, the file has {}", array.shape().first().unwrap_or(&0)))
            .tensor(&input.name)
    })?;
    let Some(declared) = &input.shape else { return Ok(sample) };
    let sample = if array.shape().len() == declared.len() + 1 {
        let inner = sample.shape().get(1..).unwrap_or_default().to_vec();
        sample.reshape(&inner)?
    } else {
        match declared.first().map(|d| d.extent()) {
            Some(Some(batch)) if batch > 1 => sample.select(0, &vec![0; batch])?,
            _ => sample,
        }
    };
    let fits = sample.shape().len() == declared.len()
        && declared.iter().zip(sample.shape()).all(|(d, n)| d.extent().is_none_or(|extent| extent == *n));
    if fits {
        Ok(sample)
    } else {
        let want: Vec<String> = declared.iter().map(ToString::to_string).collect();
        Err(Error::input(format!(
            "a sample of shape {:?} does not fit the input [{}]",
            sample.shape(),
            want.join(", ")
        ))
        .tensor(&input.name))
    }
}

/// Random values for inputs of the given types and shapes: floats nearly normal with mean 0 and variance 1, integers
/// 0 to 4 (small enough for any vocabulary), all ones for inputs named after a mask, all true for bool.
///
/// # Errors
/// When an input is too large to be plausible, or of a type without numbers.
pub fn random_feeds(inputs: &[InputFact], seed: u64) -> Result<Feeds> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    inputs
        .iter()
        .map(|input| {
            let value = random_value(input, &mut random).map_err(|e| e.tensor(&input.name))?;
            Ok((input.name.clone(), value))
        })
        .collect()
}

fn random_value(input: &InputFact, random: &mut ChaCha8Rng) -> Result<Value> {
    const MOST_ELEMENTS: usize = 1 << 28;
    let n = input.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST_ELEMENTS);
    let n = n.ok_or_else(|| Error::input(format!("an input of shape {:?} is too large to be fed", input.shape)))?;
    let is_mask = input.name.to_lowercase().contains("mask");
    let mut floats = |n: usize| (0..n).map(|_| if is_mask { 1.0 } else { normal(random) }).collect::<Vec<f32>>();
    match input.element {
        ElementType::Float => Ok(from_vec(&input.shape, floats(n))?.into()),
        ElementType::Double => Ok(from_vec(&input.shape, floats(n).into_iter().map(f64::from).collect())?.into()),
        ElementType::Float16 => Ok(from_vec(&input.shape, floats(n).into_iter().map(f16::from_f32).collect())?.into()),
        ElementType::Bool => Ok(from_vec(&input.shape, vec![true; n])?.into()),
        other => {
            let data = (0..n).map(|_| if is_mask { 1 } else { (random.next_u32() % 5) as u8 }).collect();
            Value::from(from_vec(&input.shape, data)?).cast(other)
        }
    }
}

/// Nearly normal: the sum of twelve uniform numbers minus six (Irwin-Hall), exact in integers up to the last step.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let sum: u64 = (0..12).map(|_| u64::from(random.next_u32() >> 8)).sum();
    sum as f32 / (1u32 << 24) as f32 - 6.0
}

/// Stacks samples along their first axis. Values of rank 0 cannot be stacked and are refused.
///
/// # Errors
/// When the values differ in type or in any extent but the first.
pub fn concatenate(values: &[Value]) -> Result<Value> {
    macro_rules! stack {
        ($($variant:ident)*) => {
            match values.first() {
                $(Some(Value::$variant(_)) => {
                    let views = values.iter().map(|v| match v {
                        Value::$variant(a) => Ok(a.view()),
                        _ => Err(Error::input("samples of different element types cannot form a batch")),
                    });
                    let views = views.collect::<Result<Vec<_>>>()?;
                    let stacked = ndarray::concatenate(Axis(0), &views);
                    stacked.map(Value::$variant).map_err(|e| Error::input("samples cannot form a batch").because(e))
                })*
                None => Err(Error::input("a batch needs at least one sample")),
            }
        };
    }
    stack!(F32 F64 F16 I8 I16 I32 I64 U8 U16 U32 U64 Bool)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::engine::inputs::tests::model_with_inputs;

    fn fact(name: &str, element: ElementType, shape: &[usize]) -> InputFact {
        InputFact { name: name.into(), element, shape: shape.to_vec() }
    }

    #[test]
    fn random_numbers_are_normal_small_and_repeatable() {
        let facts = [
            fact("x", ElementType::Float, &[100, 100]),
            fact("ids", ElementType::Int64, &[1000]),
            fact("attention_mask", ElementType::Int64, &[4]),
        ];
        let feeds = random_feeds(&facts, 7).unwrap();
        assert_eq!(feeds, random_feeds(&facts, 7).unwrap());
        assert_ne!(feeds, random_feeds(&facts, 8).unwrap());
        let x = feeds[0].1.to_f64();
        let mean = x.iter().sum::<f64>() / 1e4;
        let variance = x.iter().map(|v| v * v).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!(feeds[1].1.to_f64().iter().all(|v| (0.0..5.0).contains(v)));
        assert_eq!(feeds[2].1.to_f64(), [1.0; 4]);
        let huge = fact("x", ElementType::Float, &[1 << 40, 1 << 40]);
        assert!(random_feeds(&[huge], 0).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn a_sample_takes_the_shape_of_its_input() {
        let model = model_with_inputs(&[
            ("image", ElementType::Float, Some(&["2", "3"])),
            ("state", ElementType::Float, Some(&["2", "b", "1"])),
            ("rate", ElementType::Int64, Some(&[])),
        ]);
        let arrays = BTreeMap::from([
            ("image".to_string(), Value::from(from_vec(&[2, 3], vec![1u8, 2, 3, 4, 5, 6]).unwrap())),
            ("state".to_string(), Value::from(from_vec(&[2, 2, 1, 1], vec![1f32, 2.0, 3.0, 4.0]).unwrap())),
            ("rate".to_string(), Value::from(from_vec(&[2], vec![8i32, 16]).unwrap())),
        ]);
        let samples = Samples::new(arrays).unwrap();
        let feeds = samples.feeds(&model, 1).unwrap();
        assert_eq!((feeds[0].1.shape(), feeds[0].1.to_f64()), (&[2, 3][..], vec![4.0, 5.0, 6.0, 4.0, 5.0, 6.0]));
        assert_eq!(feeds[0].1.element(), ElementType::Float);
        assert_eq!((feeds[1].1.shape(), feeds[1].1.to_f64()), (&[2, 1, 1][..], vec![3.0, 4.0]));
        assert_eq!((feeds[2].1.shape(), feeds[2].1.element()), (&[][..], ElementType::Int64));
        assert!(samples.feeds(&model, 2).unwrap_err().to_string().contains("no sample 2, the file has 2"));
        let other = model_with_inputs(&[("wave", ElementType::Float, None)]);
        assert!(samples.feeds(&other, 0).unwrap_err().to_string().contains("no array for a graph input"));
    }
}
