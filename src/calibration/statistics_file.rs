//! Statistics as files: kept for later runs, continued after an interruption, merged from parts.
//!
//! Spec: <https://huggingface.co/docs/safetensors/index>. The one metadata entry, `onnx-mtprune`, is JSON: the format,
//! the SHA-256 of the model, how the samples were cut into batches, the engines that measured with version and device,
//! which batches are in, and the taps. Tensors are named
//! after the number of their tap: `3.sum` and other added measures hold four integers per position of the tap's axis (the
//! state of an exact sum, see `sums`), `3.minimum` and `3.maximum` one number per position, `3.products.K` four integers
//! per entry of the upper triangle of the products of the channels in segments K, `3.features` one number per sample and
//! position, and `3.samples` the numbers of those samples.
//!
//! Invariants: equal statistics of the same engines are equal files, byte by byte, in whatever order they were measured;
//! nothing of a file is believed before it is checked against what the file holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::{Measure, Segment, Statistics, Sums, TapStatistics, WORDS};
use crate::engine::Description;
use crate::{Error, Result};

const FORMAT: u32 = 1;
const ENTRY: &str = "onnx-mtprune";

/// More batches than this are not believed: a few bytes could stand for any number.
const MOST_BATCHES: usize = 1 << 24;

/// What was measured, and of what.
#[derive(Clone, Debug, PartialEq)]
pub struct StatisticsFile {
    /// The model and the cut of its samples.
    pub origin: Origin,
    /// What was measured so far.
    pub statistics: Statistics,
    /// What measured it: several engines where parts of different machines were merged, none in files of programs that
    /// did not say so.
    pub engines: BTreeSet<Measurer>,
}

/// An engine that measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurer {
    /// Its name.
    pub engine: String,
    /// The version of its library, if it has one of its own.
    pub version: Option<String>,
    /// Where it computed, as in `CPU` or `CUDA:0`.
    pub device: String,
}

impl From<&Description> for Measurer {
    fn from(engine: &Description) -> Self {
        Self { engine: engine.runtime().to_owned(), version: engine.version.clone(), device: engine.device.clone() }
    }
}

impl std::fmt::Display for Measurer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
        write!(f, "{}{version} ({})", self.engine, self.device)
    }
}

/// Of what statistics are: parts merge only where all of this is equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The SHA-256 of the model file, in hexadecimal.
    pub model: String,
    /// The number of samples of all batches.
    pub samples: usize,
    /// The number of batches.
    pub batches: usize,
    /// How the samples were picked and cut, in words.
    pub cut: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    origin: Origin,
    #[serde(default)]
    engines: BTreeSet<Measurer>,
    samples: u64,
    /// Runs of batches, first and last.
    batches: Vec<[usize; 2]>,
    taps: Vec<TapHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TapHeader {
    name: String,
    axis: usize,
    extent: usize,
    count: u64,
    measures: Vec<String>,
    products: Vec<String>,
    features: usize,
}

impl StatisticsFile {
    /// True if all batches are in.
    pub fn is_complete(&self) -> bool {
        self.statistics.batches.len() == self.origin.batches
    }

    /// Refuses statistics of another model.
    ///
    /// # Errors
    /// When the SHA-256 differs.
    pub fn check_model(&self, sha256: &str) -> Result<()> {
        if self.origin.model == sha256 {
            return Ok(());
        }
        let error = Error::input("the statistics are of another model");
        Err(error.help("give the model that they were measured on, or measure this one with `calibrate`"))
    }

    /// Adds the batches of another part.
    ///
    /// # Errors
    /// When it is of another model or cut, or has a batch that is in already.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        other.check_model(&self.origin.model)?;
        if self.origin != other.origin {
            let (own, other) = (&self.origin, &other.origin);
            let what = format!(
                "the parts were cut in different ways: {} samples, {}, and {} samples, {}",
                own.samples, own.cut, other.samples, other.cut
            );
            return Err(Error::input(what).help("give all shards the same samples and options"));
        }
        self.statistics.merge(&other.statistics)?;
        self.engines.extend(other.engines.iter().cloned());
        Ok(())
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// None that statistics can cause; serialisation is fallible by type only.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut taps = Vec::new();
        for (number, tap) in self.statistics.taps.iter().enumerate() {
            let mut integers = |name: String, sums: &Sums| {
                let bytes = sums.words().iter().flat_map(|word| word.to_le_bytes()).collect();
                tensors.push((format!("{number}.{name}"), Dtype::I64, vec![sums.len(), WORDS], bytes));
            };
            tap.sums.iter().for_each(|(measure, sums)| integers(measure.name().to_owned(), sums));
            tap.moments.iter().for_each(|(key, sums)| integers(format!("products.{key}"), sums));
            for (measure, numbers) in &tap.extremes {
                let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
                tensors.push((format!("{number}.{}", measure.name()), Dtype::F64, vec![numbers.len()], bytes));
            }
            if !tap.features.is_empty() {
                let count = tap.features.len();
                let means = tap.features.values().flatten().flat_map(|n| n.to_le_bytes()).collect();
                tensors.push((format!("{number}.features"), Dtype::F32, vec![count, tap.extent], means));
                let samples = tap.features.keys().flat_map(|n| (*n as u64).to_le_bytes()).collect();
                tensors.push((format!("{number}.samples"), Dtype::U64, vec![count], samples));
            }
            taps.push(TapHeader {
                name: tap.name.clone(),
                axis: tap.axis,
                extent: tap.extent,
                count: tap.count,
                measures: tap.sums.keys().chain(tap.extremes.keys()).map(|m| m.name().to_owned()).collect(),
                products: tap.moments.keys().cloned().collect(),
                features: tap.features.len(),
            });
        }
        let failed = |e: &dyn std::fmt::Display| Error::input(format!("the statistics cannot be written: {e}"));
        let header = Header {
            format: FORMAT,
            origin: self.origin.clone(),
            engines: self.engines.clone(),
            samples: self.statistics.samples,
            batches: runs(&self.statistics.batches),
            taps,
        };
        let text = serde_json::to_string(&header).map_err(|e| failed(&e))?;
        let views = tensors.iter().map(|(name, kind, shape, bytes)| {
            let view = TensorView::new(*kind, shape.clone(), bytes).map_err(|e| failed(&e))?;
            Ok((name.clone(), view))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        // One entry only: the order of several would be that of a hash table.
        safetensors::serialize(views, Some(HashMap::from([(ENTRY.to_owned(), text)]))).map_err(|e| failed(&e))
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// What is no statistics file, or one of another version; contents that contradict one another.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let none = || Error::input("this is no statistics file").help("write one with `calibrate`");
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| none().because(e.to_string()))?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(ENTRY)).ok_or_else(none)?;
        let header: Header = serde_json::from_str(text).map_err(|e| none().because(e))?;
        if header.format != FORMAT {
            let what = format!("the statistics have format {}, this program reads {FORMAT}", header.format);
            return Err(Error::input(what).help("measure anew with `calibrate`"));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| none().because(e.to_string()))?;
        let mut statistics = Statistics { samples: header.samples, ..Statistics::default() };
        let mut next = 0;
        for [first, last] in &header.batches {
            // In order, so that no batch is listed twice: few bytes could stand for endless work.
            if *first < next || first > last || *last >= header.origin.batches.min(MOST_BATCHES) {
                return Err(Error::input("the statistics list batches that do not exist, or one twice"));
            }
            next = last + 1;
            statistics.batches.extend(*first..=*last);
        }
        if header.samples > header.origin.samples as u64 {
            return Err(Error::input("the statistics count more samples than there were"));
        }
        for (number, tap) in header.taps.iter().enumerate() {
            statistics.taps.push(read_tap(&tensors, number, tap).map_err(|e| e.tensor(&tap.name).axis(tap.axis))?);
        }
        Ok(Self { origin: header.origin, statistics, engines: header.engines })
    }
}

fn read_tap(tensors: &SafeTensors, number: usize, header: &TapHeader) -> Result<TapStatistics> {
    let mut tap = TapStatistics {
        name: header.name.clone(),
        axis: header.axis,
        extent: header.extent,
        count: header.count,
        ..TapStatistics::default()
    };
    let wrong = |name: &str| Error::input(format!("the statistics file lacks `{number}.{name}` or it is damaged"));
    let words = |name: &str, kind: Dtype| -> Result<Vec<[u8; 8]>> {
        let view = tensors.tensor(&format!("{number}.{name}")).map_err(|_| wrong(name))?;
        let (chunks, rest) = view.data().as_chunks::<8>();
        if view.dtype() != kind || !rest.is_empty() { Err(wrong(name)) } else { Ok(chunks.to_vec()) }
    };
    let sums = |name: &str| -> Result<Sums> {
        let words: Vec<i64> = words(name, Dtype::I64)?.into_iter().map(i64::from_le_bytes).collect();
        let is_finite = |sums: &Sums| sums.values().iter().all(|sum| sum.is_finite());
        Sums::from_words(&words).filter(is_finite).ok_or_else(|| wrong(name))
    };
    for name in &header.measures {
        let measure = Measure::of_name(name).ok_or_else(|| wrong(name))?;
        let count = if measure.is_extreme() {
            let numbers: Vec<f64> = words(name, Dtype::F64)?.into_iter().map(f64::from_le_bytes).collect();
            if !numbers.iter().all(|number| number.is_finite()) {
                return Err(wrong(name));
            }
            let count = numbers.len();
            tap.extremes.insert(measure, numbers);
            count
        } else {
            let sums = sums(name)?;
            let count = sums.len();
            tap.sums.insert(measure, sums);
            count
        };
        if count != header.extent {
            return Err(wrong(name));
        }
    }
    for key in &header.products {
        let (products, channels) = (sums(&format!("products.{key}"))?, Segment::channels_of(key));
        // The upper triangle of a matrix.
        let expected = channels.and_then(|n| Some(n.checked_mul(n.checked_add(1)?)? / 2));
        if expected != Some(products.len()) {
            return Err(wrong(&format!("products.{key}")));
        }
        tap.moments.insert(key.clone(), products);
    }
    if header.features > 0 {
        let samples: Vec<u64> = words("samples", Dtype::U64)?.into_iter().map(u64::from_le_bytes).collect();
        let view = tensors.tensor(&format!("{number}.features")).map_err(|_| wrong("features"))?;
        let cells = view.data().as_chunks::<4>().0;
        let fits = samples.len().checked_mul(header.extent) == Some(cells.len()) && view.dtype() == Dtype::F32;
        if !fits || samples.len() != header.features || header.extent == 0 {
            return Err(wrong("features"));
        }
        for (sample, row) in samples.into_iter().zip(cells.chunks(header.extent)) {
            let sample = usize::try_from(sample).map_err(|_| wrong("samples"))?;
            tap.features.insert(sample, row.iter().map(|cell| f32::from_le_bytes(*cell)).collect());
        }
    }
    Ok(tap)
}

/// Ascending numbers as runs of neighbours, first and last.
fn runs(numbers: &BTreeSet<usize>) -> Vec<[usize; 2]> {
    let mut runs: Vec<[usize; 2]> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some([_, last]) if *last + 1 == *number => *last = *number,
            _ => runs.push([*number, *number]),
        }
    }
    runs
}

/// Merges parts, in any order.
///
/// # Errors
/// None or incompatible parts, see [`StatisticsFile::merge`]; each comes with a name for the message.
pub fn merge_all(parts: &BTreeMap<String, StatisticsFile>) -> Result<StatisticsFile> {
    let mut parts = parts.iter();
    let (_, first) = parts.next().ok_or_else(|| Error::input("there is nothing to merge"))?;
    let mut merged = first.clone();
    for (name, part) in parts {
        merged.merge(part).map_err(|e| e.file(name))?;
    }
    Ok(merged)
}
