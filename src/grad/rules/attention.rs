//! Attention in its forms, written down as products, softmax and products.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Attention.html>, and
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. What came before (past keys and values)
//! and outputs beside the first are not covered.

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
}

/// softmax(q kᵀ scale + bias) v, all with four axes.
fn attend(plain: &mut Composition, q: &str, k: &str, v: &str, scores: &Scores) -> Result<String, String> {
    let width = plain.shape(q)?.last().copied().unwrap_or(1);
    let turned = plain.transpose(k, &[0, 1, 3, 2])?;
    let mut all = plain.matmul(q, &turned)?;
    all = plain.scale(&all, scores.scale.unwrap_or(1.0 / (width as f64).sqrt()))?;
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
        let hidden = |i: usize| if i % columns > i / columns { -1e4 } else { 0.0 };
        let values: Vec<f64> = (0..rows * columns).map(hidden).collect();
        let like = plain.number(&all, 0.0)?;
        let mask = plain.constant(&like, &[*rows, *columns], &values)?;
        all = plain.join("Add", &all, &mask)?;
    }
    let weights = plain.node("Softmax", &[&all], vec![int("axis", -1)], shape);
    plain.matmul(&weights, v)
}

/// Attention of `ai.onnx`: queries, keys and values with three or four axes; keys may serve several heads.
pub(crate) fn standard(step: &Step, context: &mut Context) -> Gradients {
    if (4..7).any(|slot| step.optional(slot).is_some()) {
        return Err("past keys and values, or lengths".to_owned());
    }
    let mut plain = Composition::new(step, context);
    let flat = plain.shape(&plain.input(0)?)?.len() == 3;
    let mut parts = Vec::new();
    for (slot, heads) in [(0, "q_num_heads"), (1, "kv_num_heads"), (2, "kv_num_heads")] {
        let x = plain.input(slot)?;
        parts.push(if flat { divided(&mut plain, &x, count(step, heads)?)? } else { x });
    }
    let [q, k, v] = parts.as_slice() else { return Err("three inputs are needed".to_owned()) };
    let heads = |plain: &Composition, x: &str| -> Result<usize, String> {
        plain.shape(x)?.get(1).copied().filter(|n| *n > 0).ok_or_else(|| "no heads".to_owned())
    };
    let (all, kept) = (heads(&plain, q)?, heads(&plain, k)?);
    let [k, v] = [repeated(&mut plain, k, all, kept)?, repeated(&mut plain, v, all, kept)?];
    let mut scores =
        Scores { causal: step.int("is_causal", 0) != 0, cap: step.float("softcap", 0.0), ..Scores::default() };
    scores.scale = step.attribute("scale").map(|a| f64::from(a.f()));
    if let Some(mask) = step.optional(3) {
        scores.bias.push(added(&mut plain, mask, 3, q)?);
    }
    let result = attend(&mut plain, q, &k, &v, &scores)?;
    let result = if flat { joined(&mut plain, &result)? } else { result };
    plain.gradients(step, &[Some(result)])
}

/// A mask as what is added: as it is, or a large negative number where truth is missing.
fn added(plain: &mut Composition, mask: &str, slot: usize, like: &str) -> Result<String, String> {
    let own = plain.input(slot)?;
    let context = plain.context();
    let fact = context.fact(mask)?;
    if fact.is_float() {
        return Ok(own);
    }
    let (zero, hidden) = (plain.number(like, 0.0)?, plain.number(like, -1e4)?);
    let name = plain.context().op("Where", &[mask, &zero, &hidden]);
    plain.know(&name, like, fact.shape.clone());
    Ok(name)
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
    if step.optional(4).is_some() || step.int("do_rotary", 0) != 0 || step.ints("qkv_hidden_sizes").is_some() {
        return Err("past keys and values, rotation, or sizes of their own".to_owned());
    }
    let heads = count(step, "num_heads")?;
    let mut plain = Composition::new(step, context);
    let (x, weights) = (plain.input(0)?, plain.input(1)?);
    let mut all = plain.matmul(&x, &weights)?;
    if let Some(bias) = plain.optional(2) {
        all = plain.join("Add", &all, &bias)?;
    }
    let mut parts = Vec::new();
    for part in plain.split(&all, 2, 3)? {
        parts.push(divided(&mut plain, &part, heads)?);
    }
    let [q, k, v] = parts.as_slice() else { return Err("three parts are needed".to_owned()) };
    let scores = Scores {
        scale: scale(step),
        bias: masks(step, &mut plain, 3, 5, q)?,
        causal: step.int("unidirectional", 0) != 0,
        ..Scores::default()
    };
    let result = attend(&mut plain, q, k, v, &scores)?;
    let result = joined(&mut plain, &result)?;
    plain.gradients(step, &[Some(result)])
}

/// The scale that is given; 0 stands for none.
fn scale(step: &Step) -> Option<f64> {
    step.attribute("scale").map(|a| f64::from(a.f())).filter(|s| *s != 0.0)
}

/// A padding mask of integers [batch, length] and a bias of scores, where they are given.
fn masks(step: &Step, plain: &mut Composition, mask: usize, bias: usize, like: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    if let Some(mask) = step.optional(mask) {
        let shape = plain.context().shape(mask)?;
        let [batch, length] = shape else { return Err("a mask that is not [batch, length]".to_owned()) };
        let kept = plain.context().node("Cast", &[mask], vec![int("to", 9)]);
        let kept = plain.context().unsqueeze(&kept, &[1, 2]);
        let hidden = step.float("mask_filter_value", -1e4);
        let (zero, hidden) = (plain.number(like, 0.0)?, plain.number(like, hidden)?);
        let name = plain.context().op("Where", &[&kept, &zero, &hidden]);
        plain.know(&name, like, vec![*batch, 1, 1, *length]);
        found.push(name);
    }
    found.extend(plain.optional(bias));
    Ok(found)
}

/// MultiHeadAttention of `com.microsoft`, with queries, keys and values apart and three axes.
pub(crate) fn multi_head(step: &Step, context: &mut Context) -> Gradients {
    if (6..8).any(|slot| step.optional(slot).is_some()) {
        return Err("past keys and values".to_owned());
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
        if let Some(bias) = biases.get(slot) {
            x = plain.join("Add", &x, bias)?;
        }
        parts.push(divided(&mut plain, &x, heads)?);
    }
    let [q, k, v] = parts.as_slice() else { return Err("three inputs are needed".to_owned()) };
    let scores = Scores {
        scale: scale(step),
        bias: masks(step, &mut plain, 4, 5, q)?,
        causal: step.int("unidirectional", 0) != 0,
        ..Scores::default()
    };
    let result = attend(&mut plain, q, k, v, &scores)?;
    let result = joined(&mut plain, &result)?;
    plain.gradients(step, &[Some(result)])
}

/// RotaryEmbedding of `com.microsoft` on [batch, length, hidden] or [batch, heads, length, width], in halves.
pub(crate) fn rotary(step: &Step, context: &mut Context) -> Gradients {
    if step.int("interleaved", 0) != 0 || step.int("rotary_embedding_dim", 0) != 0 {
        return Err("interleaved or partial rotation".to_owned());
    }
    let (g, x, positions) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let [cosines, sines] = [step.input(2)?, step.input(3)?];
    let shape = context.shape(x)?;
    let half = context.shape(cosines)?.last().copied().unwrap_or(0);
    if context.shape(positions)?.len() != 2 || half == 0 {
        return Err("an offset of positions".to_owned());
    }
    // The rotation is orthogonal: the gradient is turned back by the same angles.
    // [batch, length, width] of the tables stands beside heads behind or in front of the length.
    let (axis, parts) = match shape.len() {
        3 => (2, context.reshape(g, &[0, 0, -1, number(2 * half)?])),
        _ => (1, g.to_owned()),
    };
    let [cosines, sines] = [cosines, sines].map(|table| {
        let rows = context.op("Gather", &[table, positions]);
        context.unsqueeze(&rows, &[axis])
    });
    let halves = context.split(&parts, 3, &[half, half]);
    let [a, b] = halves.as_slice() else { return Err("two halves are needed".to_owned()) };
    let mut product = |x: &str, y: &str| context.op("Mul", &[x, y]);
    let (ac, bs, bc, a_s) = (product(a, &cosines), product(b, &sines), product(b, &cosines), product(a, &sines));
    let first = context.op("Add", &[&ac, &bs]);
    let second = context.op("Sub", &[&bc, &a_s]);
    let turned = context.node("Concat", &[&first, &second], vec![int("axis", 3)]);
    let gradient = context.reshape_like(&turned, x);
    step.first(gradient)
}
