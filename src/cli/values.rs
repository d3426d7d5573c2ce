//! Values on the command line, checked before any work is done.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use onnx_mtprune::aggregate::{AGGREGATIONS, Draw, Scope};
use onnx_mtprune::allocate::Choice;
use onnx_mtprune::calibration::Shard;
use onnx_mtprune::engine::Device;
use onnx_mtprune::fidelity;
use onnx_mtprune::losses::{self, LossRequest};
use onnx_mtprune::masks::similarity::{SIMILARITIES, Similarity};
use onnx_mtprune::repair::METHODS;
use onnx_mtprune::score::{CRITERIA, IMPORTANCES, Importance};

use super::neighbours::Chosen;
use super::runtime;

/// `NAME=OUTPUT[,OUTPUT]…`.
pub(crate) type TaskOutputs = (String, Vec<String>);

/// `NAME=DIMS`.
pub(crate) type InputShape = (String, Vec<usize>);

/// A ratio of channels to remove: [0, 1).
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    number(text).filter(|r| (0.0..1.0).contains(r)).ok_or_else(|| "give a number from 0 up to, but below, 1".to_owned())
}

/// A fraction: [0, 1].
pub(crate) fn fraction(text: &str) -> Result<f64, String> {
    number(text).filter(|r| (0.0..=1.0).contains(r)).ok_or_else(|| "give a number from 0 to 1".to_owned())
}

/// A relative difference: finite and not negative.
pub(crate) fn tolerance(text: &str) -> Result<f64, String> {
    number(text).filter(|t| t.is_finite() && *t >= 0.0).ok_or_else(|| "give a number of 0 or more".to_owned())
}

/// A whole number of at least 1.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "give a whole number of 1 or more".to_owned())
}

/// The names of the table of criteria.
pub(crate) fn criteria() -> PossibleValuesParser {
    PossibleValuesParser::new(CRITERIA.iter().map(|row| PossibleValue::new(row.name).help(row.note)))
}

/// The names of the table of aggregations.
pub(crate) fn aggregations() -> PossibleValuesParser {
    let names = |row: &onnx_mtprune::aggregate::AggregationRow| {
        let value = PossibleValue::new(row.name).help(row.note);
        if row.name == "unanimous" { value.alias("disparse") } else { value }
    };
    PossibleValuesParser::new(AGGREGATIONS.iter().map(names))
}

/// Where channels compete.
pub(crate) fn scopes() -> impl TypedValueParser<Value = Scope> {
    PossibleValuesParser::new(["group", "global"])
        .map(|text| if text == "group" { Scope::Group } else { Scope::Global })
}

/// How votes become a choice.
pub(crate) fn draws() -> impl TypedValueParser<Value = Draw> {
    PossibleValuesParser::new(["top", "softmax"]).map(|text| if text == "top" { Draw::Top } else { Draw::Softmax })
}

/// A task and its weight, before and behind the last `=`.
pub(crate) fn task_weight(text: &str) -> Result<(String, f64), String> {
    let wrong = || "write it as TASK=2.5, with a number of 0 or more".to_owned();
    let (task, weight) = text.rsplit_once('=').ok_or_else(wrong)?;
    let weight = number(weight).filter(|weight| weight.is_finite() && *weight >= 0.0).ok_or_else(wrong)?;
    if task.is_empty() { Err(wrong()) } else { Ok((task.to_owned(), weight)) }
}

/// What tells how similar a mask is.
pub(crate) fn similarities() -> impl TypedValueParser<Value = Similarity> {
    PossibleValuesParser::new(SIMILARITIES.iter().map(|(name, _)| *name)).map(|text| {
        let found = SIMILARITIES.iter().find(|(name, _)| *name == text);
        found.map_or(Similarity::Overlap, |(_, similarity)| *similarity)
    })
}

/// `auto:K`, or names of masks with optional weights.
pub(crate) fn neighbours(text: &str) -> Result<Chosen, String> {
    if let Some(count) = text.strip_prefix("auto:") {
        return positive(count).map(Chosen::Nearest);
    }
    let named = |part: &str| -> Result<(String, f64), String> {
        let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
        let weight = number(weight).filter(|weight| weight.is_finite() && *weight > 0.0);
        let weight = weight.ok_or_else(|| format!("the weight of `{name}` must be a number above 0"))?;
        if name.is_empty() {
            Err("write it as auto:5, or as a:0.5,b:0.3".to_owned())
        } else {
            Ok((name.to_owned(), weight))
        }
    };
    let named: Vec<(String, f64)> = text.split(',').map(named).collect::<Result<_, _>>()?;
    match named.iter().enumerate().find(|(at, (name, _))| named.iter().take(*at).any(|(other, _)| other == name)) {
        Some((_, (name, _))) => Err(format!("`{name}` is named twice")),
        None => Ok(Chosen::Named(named)),
    }
}

/// The engines by name.
pub(crate) fn engines() -> impl TypedValueParser<Value = runtime::Choice> {
    PossibleValuesParser::new(["auto", "tract", "onnxruntime"]).map(|text| match text.as_str() {
        "auto" => runtime::Choice::Auto,
        "tract" => runtime::Choice::Tract,
        _ => runtime::Choice::OnnxRuntime,
    })
}

/// `cpu`, `cuda` or `cuda:N`.
pub(crate) fn device(text: &str) -> Result<Device, String> {
    let number = match text {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    number.map(Device::Cuda).ok_or_else(|| "write cpu, cuda or cuda:N, N counting from 0".to_owned())
}

/// What becomes of a part of attention products.
pub(crate) fn choices() -> impl TypedValueParser<Value = Choice> {
    PossibleValuesParser::new(["keep", "prune"]).map(|text| if text == "keep" { Choice::Keep } else { Choice::Prune })
}

/// The names of the ways to repair.
pub(crate) fn repairs() -> PossibleValuesParser {
    PossibleValuesParser::new(METHODS.iter().map(|(name, _)| PossibleValue::new(name)))
}

/// A factor: its input's name before the last `=`.
pub(crate) fn input_scale(text: &str) -> Result<(String, f64), String> {
    let wrong = || "write it as NAME=0.0039".to_owned();
    let (name, factor) = text.rsplit_once('=').ok_or_else(wrong)?;
    let factor = number(factor).filter(|factor| factor.is_finite()).ok_or_else(wrong)?;
    if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), factor)) }
}

/// A task and its metric.
pub(crate) fn task_metric(text: &str) -> Result<(String, String), String> {
    let (task, metric) = text.rsplit_once('=').ok_or_else(|| "write it as TASK=METRIC".to_owned())?;
    let metric = fidelity::metric(metric).map_err(|e| e.to_string())?;
    Ok((task.to_owned(), metric.name.to_owned()))
}

/// A task's ratio: its name before the last `=`.
pub(crate) fn task_ratio(text: &str) -> Result<(String, f64), String> {
    let (task, number) = text.rsplit_once('=').ok_or_else(|| "write it as TASK=0.5".to_owned())?;
    if task.is_empty() { Err("write it as TASK=0.5".to_owned()) } else { Ok((task.to_owned(), ratio(number)?)) }
}

/// A task or output and its loss, with a weight behind a colon if there is one.
pub(crate) fn task_loss(text: &str) -> Result<LossRequest, String> {
    let (of, loss) = text.rsplit_once('=').ok_or_else(|| "write it as TASK=LOSS or TASK=LOSS:WEIGHT".to_owned())?;
    let (loss, weight) = loss.split_once(':').unwrap_or((loss, "1"));
    let weight = number(weight).filter(|weight| weight.is_finite() && *weight > 0.0);
    let weight = weight.ok_or_else(|| "give a weight above 0".to_owned())?;
    let row = losses::loss(loss).map_err(|e| e.to_string())?;
    Ok(LossRequest { of: of.to_owned(), loss: row.name.to_owned(), weight })
}

/// What a channel may be worth.
pub(crate) fn importances() -> impl TypedValueParser<Value = Importance> {
    let known = |text: &str| IMPORTANCES.iter().find(|(name, _)| *name == text);
    PossibleValuesParser::new(IMPORTANCES.iter().map(|(name, _)| *name))
        .map(move |text| known(&text).map_or(Importance::Energy, |(_, importance)| *importance))
}

/// A task: its name before the first `=`, then outputs with commas between them.
pub(crate) fn task(text: &str) -> Result<TaskOutputs, String> {
    let wrong = || "write it as NAME=OUTPUT or NAME=OUTPUT,OUTPUT".to_owned();
    let (name, outputs) = text.split_once('=').ok_or_else(wrong)?;
    let outputs: Vec<String> = outputs.split(',').map(str::to_owned).collect();
    if name.is_empty() || outputs.iter().any(String::is_empty) { Err(wrong()) } else { Ok((name.to_owned(), outputs)) }
}

/// A shape: its input's name before the last `=`, then extents with `x` or commas between them.
pub(crate) fn input_shape(text: &str) -> Result<InputShape, String> {
    let wrong = || "write it as NAME=1x3x224x224".to_owned();
    let (name, extents) = text.rsplit_once('=').ok_or_else(wrong)?;
    let extents: Option<Vec<usize>> =
        extents.split(['x', ',']).filter(|e| !e.is_empty()).map(|e| e.parse().ok().filter(|n| *n > 0)).collect();
    if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), extents.ok_or_else(wrong)?)) }
}

/// A share of the work, `I/N`: number I of N, counted from 1; gives I - 1 and N.
pub(crate) fn shard(text: &str) -> Result<Shard, String> {
    let wrong = || "write it as I/N, with I from 1 to N".to_owned();
    let (index, count) = text.split_once('/').ok_or_else(wrong)?;
    let index: usize = index.parse().map_err(|_| wrong())?;
    let count: usize = count.parse().map_err(|_| wrong())?;
    let index = index.checked_sub(1).filter(|index| *index < count).ok_or_else(wrong)?;
    Ok(Shard { index, count })
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}
