//! Attention in its forms, written down as products, softmax and products.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Attention.html>, and
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. Keys and values of the past stand in front
//! of the new ones; both together are outputs.

use super::super::Gradients;
use super::super::compose::Composition;
use super::super::context::Context;
use super::super::step::Step;
use crate::proto::build::int;

fn number(n: usize) -> Result<i64, String> {
    i64::try_from(n).map_err(|e| e.to_string())
}

fn count(step: &Step, name: &str) -> Result<usize, String> {
    usize::try_from(step.int(name, 0)).ok().filter(|n| *n > 0).ok_or_else(|| format!("no `{name}`"))
}

/// [batch, length, heads · width] -> [batch, heads, length, width]
fn divided(plain: &mut Composition, x: &str, heads: usize) -> Result<String, String> {
    let shape = plain.shape(x)?;
    let [batch, length, all] = shape.as_slice() else { return Err("three axes are needed".to_owned()) };
    let width = all.checked_div(heads).filter(|w| w * heads == *all).ok_or("heads that do not fit")?;
    let target = [0, 0, number(heads)?, number(width)?];
    let parts = plain.reshape(x, &target, vec![*batch, *length, heads, width]);
    plain.transpose(&parts, &[0, 2, 1, 3])
}

/// [batch, heads, length, width] -> [batch, length, heads · width]
fn joined(plain: &mut Composition, x: &str) -> Result<String, String> {
    let turned = plain.transpose(x, &[0, 2, 1, 3])?;
    let shape = plain.shape(&turned)?;
    let [batch, length, heads, width] = shape.as_slice() else { return Err("four axes are needed".to_owned()) };
    let all = heads * width;
    Ok(plain.reshape(&turned, &[0, 0, number(all)?], vec![*batch, *length, all]))
}

/// How scores are made and changed before the softmax.
#[derive(Default)]
struct Scores {
    scale: Option<f64>,
    /// Scores are bounded by this, as its multiple of a tanh.
    cap: f64,
    /// Added to the scores.
    bias: Vec<String>,
    causal: bool,
    /// So many keys of the past stand before the first that a query may not see.
    past: usize,
}

/// What a softmax over keys made: scores with their scale, weights, and the sums of values.
struct Attended {
    raw: String,
    weights: String,
    result: String,
}

/// softmax(q kᵀ scale + bias) v, all with four axes.
fn attend(plain: &mut Composition, q: &str, k: &str, v: &str, scores: &Scores) -> Result<Attended, String> {
    let width = plain.shape(q)?.last().copied().unwrap_or(1);
    let turned = plain.transpose(k, &[0, 1, 3, 2])?;
    let mut all = plain.matmul(q, &turned)?;
    all = plain.scale(&all, scores.scale.unwrap_or(1.0 / (width as f64).sqrt()))?;
    let raw = all.clone();
    // The order of the operator set that brought the cap: first the cap, then the mask.
    if scores.cap > 0.0 {
        all = plain.scale(&all, 1.0 / scores.cap)?;
        all = plain.map("Tanh", &all)?;
        all = plain.scale(&all, scores.cap)?;
    }
    for bias in &scores.bias {
        all = plain.join("Add", &all, bias)?;
    }
    let shape = plain.shape(&all)?;
    if scores.causal
        && let Some([rows, columns]) = shape.last_chunk::<2>()
    {
        let hidden = |i: usize| if i % columns > i / columns + scores.past { -1e4 } else { 0.0 };
        let values: Vec<f64> = (0..rows * columns).map(hidden).collect();
        let like = plain.number(&all, 0.0)?;
        let mask = plain.constant(&like, &[*rows, *columns], &values)?;
        all = plain.join("Add", &all, &mask)?;
    }
    let weights = plain.node("Softmax", &[&all], vec![int("axis", -1)], shape);
    let result = plain.matmul(&weights, v)?;
    Ok(Attended { raw, weights, result })
}

/// Keys or values of the past, if there are any, and then the new ones: [batch, heads, length, width].
fn grown(plain: &mut Composition, past: Option<String>, new: &str) -> Result<(String, usize), String> {
    let Some(past) = past else { return Ok((new.to_owned(), 0)) };
    let length = plain.shape(&past)?.get(2).copied().ok_or("a past without lengths")?;
    Ok((plain.concat(&[past, new.to_owned()], 2)?, length))
}

/// What is added to scores [batch, heads, queries, keys] so that only the first keys of each sample are seen.
fn shorter(plain: &mut Composition, lengths: &str, keys: usize, hidden: f64, like: &str) -> Result<String, String> {
    let places: Vec<i64> = (0..number(keys)?).collect();
    let context = plain.context();
    let places = context.nodes.integers(&places);
    let lengths = context.node("Cast", &[lengths], vec![int("to", 7)]);
    let lengths = context.unsqueeze(&lengths, &[1, 2, 3]);
    let is_there = context.op("Less", &[&places, &lengths]);
    hiding(plain, &is_there, hidden, like, vec![1, 1, 1, keys])
}

/// 0 where a condition holds, `hidden` elsewhere.
fn hiding(plain: &mut Composition, seen: &str, hidden: f64, like: &str, shape: Vec<usize>) -> Result<String, String> {
    let (zero, hidden) = (plain.number(like, 0.0)?, plain.number(like, hidden)?);
    let name = plain.context().op("Where", &[seen, &zero, &hidden]);
    plain.know(&name, like, shape);
    Ok(name)
}

/// Attention of `ai.onnx`: queries, keys and values with three or four axes; keys may serve several heads.
pub(crate) fn standard(step: &Step, context: &mut Context) -> Gradients {
    let lengths = step.optional(6);
    let causal = step.int("is_causal", 0) != 0;
    if lengths.is_some() && causal {
        return Err("lengths of keys together with `is_causal`".to_owned());
    }
    let mut plain = Composition::new(step, context);
    let flat = plain.shape(&plain.input(0)?)?.len() == 3;
    let mut parts = Vec::new();
    for (slot, heads) in [(0, "q_num_heads"), (1, "kv_num_heads"), (2, "kv_num_heads")] {
        let x = plain.input(slot)?;
        parts.push(if flat { divided(&mut plain, &x, count(step, heads)?)? } else { x });
    }
    let [q, k, v] = parts.as_slice() else { return Err("three inputs are needed".to_owned()) };
    let (past_keys, past_values) = (plain.optional(4), plain.optional(5));
    let (k, past) = grown(&mut plain, past_keys, k)?;
    let (v, _) = grown(&mut plain, past_values, v)?;
    let heads = |plain: &Composition, x: &str| -> Result<usize, String> {
        plain.shape(x)?.get(1).copied().filter(|n| *n > 0).ok_or_else(|| "no heads".to_owned())
    };
    let (all, kept) = (heads(&plain, q)?, heads(&plain, &k)?);
    let [every_k, every_v] = [repeated(&mut plain, &k, all, kept)?, repeated(&mut plain, &v, all, kept)?];
    let mut scores = Scores { causal, cap: step.float("softcap", 0.0), past, ..Scores::default() };
    scores.scale = step.attribute("scale").map(|a| f64::from(a.f()));
    if let Some(mask) = step.optional(3) {
        scores.bias.push(added(&mut plain, mask, 3, q)?);
    }
    if let Some(lengths) = lengths {
        let keys = plain.shape(&k)?.get(2).copied().unwrap_or(0);
        scores.bias.push(shorter(&mut plain, lengths, keys, -1e4, q)?);
    }
    let found = attend(&mut plain, q, &every_k, &every_v, &scores)?;
    let result = if flat { joined(&mut plain, &found.result)? } else { found.result };
    let shown = match step.int("qk_matmul_output_mode", 0) {
        0 => Some(found.raw),
        3 => Some(found.weights),
        mode if step.gradients.get(3).is_some_and(Option::is_some) => {
            return Err(format!("scores in between (`qk_matmul_output_mode` {mode})"));
        }
        _ => None,
    };
    plain.gradients(step, &[Some(result), Some(k), Some(v), shown])
}

/// A mask as what is added: as it is, or a large negative number where truth is missing.
fn added(plain: &mut Composition, mask: &str, slot: usize, like: &str) -> Result<String, String> {
    let own = plain.input(slot)?;
    let context = plain.context();
    let fact = context.fact(mask)?;
    if fact.is_float() {
        return Ok(own);
    }
    let shape = fact.shape.clone();
    hiding(plain, mask, -1e4, like, shape)
}

/// Every head of keys or values as often as queries share it.
fn repeated(plain: &mut Composition, x: &str, all: usize, kept: usize) -> Result<String, String> {
    if all == kept {
        return Ok(x.to_owned());
    }
    let times = all.checked_div(kept).filter(|t| t * kept == all).ok_or("heads that do not fit")?;
    let shape = plain.shape(x)?;
    let [batch, _, length, width] = shape.as_slice() else { return Err("four axes are needed".to_owned()) };
    let wide = plain.unsqueeze(x, &[2])?;
    let copies = plain.concat(&vec![wide; times], 2)?;
    let target = [0, number(all)?, number(*length)?, number(*width)?];
    Ok(plain.reshape(&copies, &target, vec![*batch, all, *length, *width]))
}

/// Attention of `com.microsoft`: input, weights and bias of queries, keys and values side by side.
pub(crate) fn packed(step: &Step, context: &mut Context) -> Gradients {
    if step.optional(6).is_some() || step.int("do_rotary", 0) != 0 {
        return Err("a past of a length of its own, or rotation".to_owned());
    }
    let heads = count(step, "num_heads")?;
    let mut plain = Composition::new(step, context);
    let (x, weights) = (plain.input(0)?, plain.input(1)?);
    let mut all = plain.matmul(&x, &weights)?;
    if let Some(bias) = plain.optional(2) {
        all = plain.join("Add", &all, &bias)?;
    }
    let sizes: Vec<usize> = match step.ints("qkv_hidden_sizes") {
        Some(sizes) => sizes.iter().filter_map(|n| usize::try_from(*n).ok().filter(|n| *n > 0)).collect(),
        None => vec![plain.shape(&all)?.last().copied().unwrap_or(0) / 3; 3],
    };
    let mut parts = Vec::new();
    for part in plain.split_into(&all, 2, &sizes)? {
        parts.push(divided(&mut plain, &part, heads)?);
    }
    let [q, k, v] = parts.as_slice() else { return Err("three parts are needed".to_owned()) };
    let (mut before_k, mut before_v) = (None, None);
    if let Some(past) = plain.optional(4) {
        let shape = plain.shape(&past)?;
        let [_, batch, _, length, width] = shape.as_slice() else {
            return Err("a past of five axes is needed".to_owned());
        };
        let target = [-1, number(heads)?, number(*length)?, number(*width)?];
        let halves = plain.split(&past, 0, 2)?;
        let mut halves = halves.iter().map(|half| plain.reshape(half, &target, vec![*batch, heads, *length, *width]));
        (before_k, before_v) = (halves.next(), halves.next());
    }
    let (k, past) = grown(&mut plain, before_k, k)?;
    let (v, _) = grown(&mut plain, before_v, v)?;
    let scores = Scores {
        scale: scale(step),
        bias: masks(step, &mut plain, 3, 5, q)?,
        causal: step.int("unidirectional", 0) != 0,
        past,
        ..Scores::default()
    };
    let result = attend(&mut plain, q, &k, &v, &scores)?.result;
    let result = joined(&mut plain, &result)?;
    let present = match step.gradients.get(1).is_some_and(Option::is_some) {
        true => {
            let both = [plain.unsqueeze(&k, &[0])?, plain.unsqueeze(&v, &[0])?];
            Some(plain.concat(&both, 0)?)
        }
        false => None,
    };
    plain.gradients(step, &[Some(result), present])
}

/// The scale that is given; 0 stands for none.
fn scale(step: &Step) -> Option<f64> {
    step.attribute("scale").map(|a| f64::from(a.f())).filter(|s| *s != 0.0)
}

/// A padding mask of integers, and a bias of scores, where they are given. The mask counts the keys that are seen,
/// [batch], or tells which are, [batch, keys] or [batch, queries, keys].
fn masks(step: &Step, plain: &mut Composition, mask: usize, bias: usize, like: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    if let Some(mask) = step.optional(mask) {
        let shape = plain.context().shape(mask)?.to_vec();
        let hidden = step.float("mask_filter_value", -1e4);
        let samples = plain.shape(like)?.first().copied();
        let seen = |plain: &mut Composition, axes: &[usize]| {
            let kept = plain.context().node("Cast", &[mask], vec![int("to", 9)]);
            plain.context().unsqueeze(&kept, axes)
        };
        found.push(match shape.as_slice() {
            [batch] if Some(*batch) == samples => {
                let keys = keys(step, plain)?;
                shorter(plain, mask, keys, hidden, like)?
            }
            [batch, length] => {
                let seen = seen(plain, &[1, 2]);
                hiding(plain, &seen, hidden, like, vec![*batch, 1, 1, *length])?
            }
            [batch, queries, length] => {
                let seen = seen(plain, &[1]);
                hiding(plain, &seen, hidden, like, vec![*batch, 1, *queries, *length])?
            }
            other => return Err(format!("a mask of shape {other:?}")),
        });
    }
    found.extend(plain.optional(bias));
    Ok(found)
}

/// How many keys there are, in the forms without a past.
fn keys(step: &Step, plain: &mut Composition) -> Result<usize, String> {
    let own = if step.node.op_type() == "Attention" { 0 } else { 1 };
    let past = if own == 0 { 4 } else { 6 };
    if step.optional(past).is_some() {
        return Err("counted keys together with a past".to_owned());
    }
    let shape = plain.shape(&plain.input(own)?)?;
    let axis = if shape.len() == 4 { 2 } else { 1 };
    shape.get(axis).copied().ok_or_else(|| "no keys".to_owned())
}

/// MultiHeadAttention of `com.microsoft`, with queries, keys and values apart. Keys and values of another model part come
/// with four axes.
pub(crate) fn multi_head(step: &Step, context: &mut Context) -> Gradients {
    if (8..10).any(|slot| step.optional(slot).is_some()) {
        return Err("a past of a length of its own".to_owned());
    }
    let heads = count(step, "num_heads")?;
    let mut plain = Composition::new(step, context);
    let mut parts = Vec::new();
    let biases = match plain.optional(3) {
        Some(bias) => plain.split(&bias, 0, 3)?,
        None => Vec::new(),
    };
    for slot in 0..3 {
        let mut x = plain.input(slot)?;
        if plain.shape(&x)?.len() == 4 {
            if !biases.is_empty() {
                return Err("a bias beside keys with four axes".to_owned());
            }
            parts.push(x);
            continue;
        }
        if let Some(bias) = biases.get(slot) {
            x = plain.join("Add", &x, bias)?;
        }
        parts.push(divided(&mut plain, &x, heads)?);
    }
    let [q, k, v] = parts.as_slice() else { return Err("three inputs are needed".to_owned()) };
    let (past_keys, past_values) = (plain.optional(6), plain.optional(7));
    let (k, past) = grown(&mut plain, past_keys, k)?;
    let (v, _) = grown(&mut plain, past_values, v)?;
    let scores = Scores {
        scale: scale(step),
        bias: masks(step, &mut plain, 4, 5, q)?,
        causal: step.int("unidirectional", 0) != 0,
        past,
        ..Scores::default()
    };
    let result = attend(&mut plain, q, &k, &v, &scores)?.result;
    let result = joined(&mut plain, &result)?;
    if step.gradients.get(3).is_some_and(Option::is_some) {
        return Err("scores as an output".to_owned());
    }
    plain.gradients(step, &[Some(result), Some(k), Some(v)])
}
