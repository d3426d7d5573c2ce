//! Attention and rotary embedding as single operators: whole heads may go, and what the heads hold where no default
//! depends on it.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__Attention.html>, <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>
//! and <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. softmax(scale Q Kᵀ + mask) V, head
//! by head. `scale` defaults to 1 / sqrt(d), d the length of a query's head: unless it is spelled out, d is locked. The
//! axes of positions are locked, because softmax compares them. Query heads come in groups that share one head of keys
//! and values: (K Q), the shared head outermost. Caches of earlier keys and values are refused where their layout is not
//! described below.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Edit, NodeView, Part, Refusal, Refused, Rule, Signature, Term};
use crate::axes::Extent;
use crate::kept::Indices;

const POSITIONS: &str = "attention compares its positions, or runs sample by sample";
const SCALE: &str = "the scale of an attention follows from it";
const ROTATED: &str = "it is rotated pair by pair";

/// com.microsoft.MultiHeadAttention: query [b, s, (H D)], key [b, l, (H D)], value [b, l, (H E)] -> [b, s, (H E)]; E is
/// D where both are equally long.
pub(super) struct MultiHeadAttention;

/// com.microsoft.Attention: the same behind a projection of x [b, s, I] by weights [I, (H D)+(H D)+(H E)].
pub(super) struct ProjectedAttention;

/// com.microsoft.GroupQueryAttention: query [b, s, (K Q d)], key and value [b, l, (K d)], caches [b, K, p, d].
pub(super) struct GroupQueryAttention;

/// Attention of ai.onnx, with heads merged into the last axis (rank 3) or not (rank 4).
pub(super) struct Attention;

/// Rotary embedding of both domains: whole heads may go. `cosine` is the slot that tells the length of a head where no
/// attribute does.
pub(super) struct RotaryEmbedding {
    /// The slot of the cosines, [.., d / 2], if they may tell d.
    pub(super) cosine: Option<usize>,
}

impl Rule for MultiHeadAttention {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        refuse_more(node, &[6, 7, 8, 9], 1)?;
        if (0..3).any(|slot| !node.has(slot)) || (0..3).any(|slot| node.rank(slot) != Ok(3)) {
            return Err(Refusal::new("its queries, keys and values are packed or split into heads"));
        }
        let heads = positive(node, "num_heads")?;
        let d = if has_scale(node) { "D" } else { "d" };
        // Heads of one length stay so: most runtimes know one length only.
        let e = if node.extent(0, 2)? == node.extent(2, 2)? { d } else { "E" };
        let bias = if node.has(3) { format!("(H {d})+(H {d})+(H {e})") } else { "_".to_owned() };
        let text = format!("b s (H {d}), b l (H {d}), b l (H {e}), {bias}, _, _ -> b s (H {e})");
        let signature = Signature::parse(&text, POSITIONS)?.because("d", SCALE).with("H", Extent::known(heads));
        with_bias(node, signature, 5, &["H"], heads)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let heads = positive(before, "num_heads")?;
        let left = heads_left(before.extent(0, 2)?, heads, change.input_kept.get(&(0, 2)))?;
        Ok(renamed("num_heads", heads, left))
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        products(node, node.shape(0).ok()?, outputs, node.shape(1).ok()?.get(1)?)
    }
}

impl Rule for ProjectedAttention {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        refuse_more(node, &[4, 6], 1)?;
        if node.int("do_rotary", 0) != 0 {
            return Err(Refusal::new("it rotates its queries and keys"));
        }
        let heads = positive(node, "num_heads")?;
        let [query, _, value] = hidden_sizes(node)?;
        // Without the list of sizes all three are equally long.
        let d = if has_scale(node) { "D" } else { "d" };
        let e = if node.ints("qkv_hidden_sizes").is_some() { "E" } else { d };
        let parts = format!("(H {d})+(H {d})+(H {e})");
        let bias = if node.has(2) { parts.as_str() } else { "_" };
        let text = format!("b s I, I {parts}, {bias}, _, _, _ -> b s (H {e})");
        let mut signature = Signature::parse(&text, POSITIONS)?.because("d", SCALE).with("H", Extent::known(heads));
        for (name, size) in [(d, query), (e, value)] {
            signature = signature.with(name, Extent::known(size / heads));
        }
        with_bias(node, signature, 5, &["H"], heads)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let heads = positive(before, "num_heads")?;
        let Some(kept) = change.input_kept.get(&(1, 1)) else { return Ok(Vec::new()) };
        let sizes = hidden_sizes(before)?;
        let mut start = 0i64;
        let mut parts = Vec::new();
        for size in sizes {
            let end = start.checked_add(size).ok_or_else(|| Refusal::new("its sizes are too large"))?;
            let part = kept.iter().map(|i| i64::from(*i)).filter(|i| (start..end).contains(i)).map(|i| i - start);
            parts.push(part.collect::<Vec<_>>());
            start = end;
        }
        let lengths = parts.iter().map(|part| i64::try_from(part.len())).collect::<Result<Vec<_>, _>>();
        let lengths = lengths.map_err(|_| Refusal::new("its sizes are too large"))?;
        let queries: Vec<i64> = parts.into_iter().next().unwrap_or_default();
        let mut edits = renamed("num_heads", heads, distinct(queries, sizes[0] / heads)?);
        if before.ints("qkv_hidden_sizes").is_some_and(|old| old != lengths) {
            edits.push(Edit::Ints("qkv_hidden_sizes", lengths));
        }
        Ok(edits)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let (x, weights) = (node.shape(0).ok()?, node.shape(1).ok()?);
        let projection = Extent::product(x)?.times(weights.get(1)?)?;
        let [query, ..] = hidden_sizes(node).ok()?;
        let queries = [x.first()?.clone(), x.get(1)?.clone(), Extent::known(query)];
        let attention = products(node, &queries, outputs, x.get(1)?)?;
        Some(node.symbolic(|s| s.plus(&projection, &attention)))
    }
}

impl Rule for GroupQueryAttention {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        refuse_more(node, &[11, 12, 13], 3)?;
        if (0..3).any(|slot| !node.has(slot)) {
            return Err(Refusal::new("its queries, keys and values are packed"));
        }
        let (heads, shared) = (positive(node, "num_heads")?, positive(node, "kv_num_heads")?);
        let group = quotient(heads, shared)?;
        let cache = |slot| if node.has(slot) { "b K p d" } else { "_" };
        let text = format!(
            "b s (K Q d), b l (K d), b l (K d), {}, {}, _, _, _, _, _, _ -> b s (K Q d), b K t d, b K t d",
            cache(3),
            cache(4)
        );
        let present = super::follow::unknown(node, 2);
        let mut signature = Signature::parse(&text, POSITIONS)?.because("d", SCALE);
        for (name, extent) in [("K", Extent::known(shared)), ("Q", Extent::known(group)), ("t", present)] {
            signature = signature.with(name, extent);
        }
        signature.outputs.truncate(node.outputs.max(1));
        with_bias(node, signature, 10, &["K", "Q"], heads)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        grouped_heads(before, change, ["num_heads", "kv_num_heads"], 2)
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        products(node, node.shape(0).ok()?, outputs, node.shape(1).ok()?.get(1)?)
    }
}

impl Rule for Attention {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        refuse_more(node, &[4, 5], 1)?;
        let rank = node.rank(0)?;
        let (heads, shared) = match rank {
            3 => (positive(node, "q_num_heads")?, positive(node, "kv_num_heads")?),
            4 => {
                let known = |slot| node.extent(slot, 1)?.value().filter(|n| *n > 0).ok_or_else(unknown_heads);
                (known(0)?, known(1)?)
            }
            _ => return Err(Refusal::new("its queries have neither three nor four axes")),
        };
        let group = quotient(heads, shared)?;
        // `scale` given as 0 is 0 here, other than in com.microsoft.
        let d = if node.node.attribute("scale").is_some() { "D" } else { "d" };
        let text = match rank {
            3 => format!("b s (K Q {d}), b l (K {d}), b l (K E), _ -> b s (K Q E)"),
            _ => format!("b (K Q) s {d}, b K l {d}, b K l E, _ -> b (K Q) s E"),
        };
        let signature = Signature::parse(&text, POSITIONS)?.because("d", SCALE);
        let signature = signature.with("K", Extent::known(shared)).with("Q", Extent::known(group));
        with_bias(node, signature, 3, &["K", "Q"], heads)
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        match before.rank(0)? {
            3 => grouped_heads(before, change, ["q_num_heads", "kv_num_heads"], 2),
            _ => grouped_heads(before, change, ["q_num_heads", "kv_num_heads"], 1),
        }
    }

    fn macs(&self, node: &NodeView, outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let keys = node.shape(1).ok()?;
        products(node, node.shape(0).ok()?, outputs, keys.get(keys.len().checked_sub(2)?)?)
    }
}

impl Rule for RotaryEmbedding {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        match node.rank(0)? {
            4 => Ok(with_parts(Signature::parse("b H s d -> b H s d", POSITIONS)?.because("d", ROTATED))),
            3 => {
                let length = self.head(node)?;
                let signature = Signature::parse("b s (H d) -> b s (H d)", POSITIONS)?.because("d", ROTATED);
                Ok(with_parts(signature.with("d", length)))
            }
            _ => Err(Refusal::new("its input has neither three nor four axes")),
        }
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let heads = before.int("num_heads", 0);
        if heads == 0 {
            return Ok(Vec::new());
        }
        let axis = if before.rank(0)? == 3 { 2 } else { 1 };
        let left = heads_left(before.extent(0, axis)?, heads, change.input_kept.get(&(0, axis)))?;
        Ok(renamed("num_heads", heads, left))
    }
}

impl RotaryEmbedding {
    /// The length of a head where heads are merged into the last axis.
    fn head(&self, node: &NodeView) -> Refused<Extent> {
        let whole = node.extent(0, 2)?;
        let heads = node.int("num_heads", 0);
        let length = match self.cosine {
            _ if heads > 0 => whole.divided_by(&Extent::known(heads)),
            Some(slot) if node.int("rotary_embedding_dim", 0) == 0 => {
                node.shape(slot)?.last().and_then(|half| half.times(&Extent::known(2)))
            }
            _ => None,
        };
        length.ok_or_else(unknown_heads)
    }
}

/// Says which letters are heads and which are what is inside them; the rules above agree on their names.
fn with_parts(signature: Signature) -> Signature {
    signature.with_part(Part::Heads, &["H", "K", "Q"]).with_part(Part::HeadDimensions, &["D", "d", "E"])
}

fn unknown_heads() -> Refusal {
    Refusal::new("the number of its heads is not known")
}

/// Refuses inputs in `slots` and outputs from `outputs` on.
fn refuse_more(node: &NodeView, slots: &[usize], outputs: usize) -> Refused<()> {
    if slots.iter().any(|slot| node.has(*slot)) || node.node.outputs.iter().skip(outputs).any(Option::is_some) {
        return Err(Refusal::new("it reads or gives a cache or its scores, whose layout is not described"));
    }
    Ok(())
}

/// True if `scale` is spelled out; 0 asks for the default.
fn has_scale(node: &NodeView) -> bool {
    node.float("scale", 0.0) != 0.0
}

fn positive(node: &NodeView, name: &str) -> Refused<i64> {
    node.maybe_int(name).filter(|n| *n > 0).ok_or_else(|| Refusal::new(format!("it has no `{name}`")))
}

fn quotient(whole: i64, part: i64) -> Refused<i64> {
    let quotient = whole.checked_div(part).filter(|q| *q > 0 && q.checked_mul(part) == Some(whole));
    quotient.ok_or_else(|| Refusal::new(format!("{whole} does not fall into {part} equal parts")))
}

/// The sizes of the three parts of the weights of a projected attention.
fn hidden_sizes(node: &NodeView) -> Refused<[i64; 3]> {
    let heads = positive(node, "num_heads")?;
    let sizes = match node.ints("qkv_hidden_sizes") {
        Some([query, key, value]) => [*query, *key, *value],
        Some(_) => return Err(Refusal::new("`qkv_hidden_sizes` has not three entries")),
        None => {
            let all = node.extent(1, 1)?.value().ok_or_else(|| Refusal::new("the size of its weights is not known"))?;
            [quotient(all, 3)?; 3]
        }
    };
    for size in sizes {
        quotient(size, heads)?;
    }
    Ok(sizes)
}

/// Describes the bias or mask in `slot`, which broadcasts to [batch, heads, positions, positions]: its axis of heads
/// follows the letters in `names`. Nothing is said of an input that is left out.
fn with_bias(node: &NodeView, signature: Signature, slot: usize, names: &[&str], heads: i64) -> Refused<Signature> {
    let mut signature = with_parts(signature);
    if !node.has(slot) {
        return Ok(signature);
    }
    let shape = node.shape(slot)?.to_vec();
    let Some(missing) = 4usize.checked_sub(shape.len()) else {
        return Err(Refusal::new("its mask has more than four axes"));
    };
    let letter = |name: &&str| signature.letters.iter().position(|l| l.name == *name).map(Term::Letter);
    let letters: Vec<Term> = names.iter().filter_map(letter).collect();
    let mut terms = Vec::new();
    for (axis, extent) in shape.into_iter().enumerate() {
        terms.push(match axis + missing {
            _ if extent.is_one() => Term::One,
            1 if extent == Extent::known(heads) => Term::Product(letters.clone()),
            1 => return Err(Refusal::new("its mask has another number of heads")),
            axis => signature.fixed(format!("m{axis}"), Some(extent), POSITIONS),
        });
    }
    signature.inputs.resize(signature.inputs.len().max(slot + 1), None);
    if let Some(input) = signature.inputs.get_mut(slot) {
        *input = Some(terms);
    }
    Ok(signature)
}

/// How many of `heads` heads are left in an axis (heads, d) of which `kept` is left.
fn heads_left(axis: Extent, heads: i64, kept: Option<&Indices>) -> Refused<i64> {
    let Some(kept) = kept else { return Ok(heads) };
    let length = axis.divided_by(&Extent::known(heads)).and_then(|d| d.value()).ok_or_else(unknown_heads)?;
    distinct(kept.iter().map(|i| i64::from(*i)), length)
}

/// How many heads of `length` the indices touch.
fn distinct(indices: impl IntoIterator<Item = i64>, length: i64) -> Refused<i64> {
    let heads: Option<BTreeSet<i64>> = indices.into_iter().map(|i| i.checked_div(length)).collect();
    heads.and_then(|heads| i64::try_from(heads.len()).ok()).ok_or_else(unknown_heads)
}

/// Sets the attributes `names` (heads of queries, heads of keys) where they are given, to what is left along `axis`.
fn grouped_heads(before: &NodeView, change: &Change, names: [&'static str; 2], axis: usize) -> Refused<Vec<Edit>> {
    let mut edits = Vec::new();
    for (slot, name) in names.into_iter().enumerate() {
        if let Some(heads) = before.maybe_int(name).filter(|n| *n > 0) {
            let kept: &BTreeMap<(usize, usize), Indices> = change.input_kept;
            edits.extend(renamed(name, heads, heads_left(before.extent(slot, axis)?, heads, kept.get(&(slot, axis)))?));
        }
    }
    Ok(edits)
}

/// The edit that gives attribute `name` another value, if it is another.
fn renamed(name: &'static str, old: i64, new: i64) -> Vec<Edit> {
    if old == new { Vec::new() } else { vec![Edit::Int(name, new)] }
}

/// Multiply-accumulates of Q Kᵀ and of the scores times V: every entry of the queries and of the output meets each of
/// the `keys` positions once.
fn products(node: &NodeView, queries: &[Extent], outputs: &[Option<Vec<Extent>>], keys: &Extent) -> Option<Extent> {
    let scores = Extent::product(queries)?.times(keys)?;
    let values = Extent::product(outputs.first()?.as_ref()?)?.times(keys)?;
    Some(node.symbolic(|s| s.plus(&scores, &values)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::patch;
    use super::*;

    /// What becomes of `call` on inputs of rank 3 with these last extents, before and after; slot 0 keeps `kept`.
    fn rank3(call: &str, sizes: [[i64; 3]; 2], kept: [&[u32]; 2]) -> Vec<Edit> {
        let model = |[q, k, v]: [i64; 3]| format!("in q [n,6,{q}]\nin k [n,5,{k}]\nin v [n,5,{v}]\ny = {call}\nout y");
        let output = format!("[n,6,{}]", sizes[1][2]);
        let read = [((0, 2), kept[0]), ((1, 2), kept[1])];
        patch(&model(sizes[0]), &model(sizes[1]), &output, &read, &[]).unwrap()
    }

    #[test]
    fn heads_are_counted_anew() {
        let call = "com.microsoft.MultiHeadAttention(q, k, v, num_heads=4)";
        let kept: &[u32] = &[2, 3, 6, 7];
        assert_eq!(rank3(call, [[8, 8, 8], [4, 4, 4]], [kept, kept]), [Edit::Int("num_heads", 2)]);
        // Every head keeps one of its two values: as many heads as before.
        let kept: &[u32] = &[0, 3, 4, 7];
        assert_eq!(rank3(call, [[8, 8, 8], [4, 4, 4]], [kept, kept]), []);
    }

    #[test]
    fn shared_heads_are_counted_anew() {
        let call = "Attention(q, k, v, q_num_heads=4, kv_num_heads=2)";
        let (queries, keys): (&[u32], &[u32]) = (&[4, 5, 6, 7], &[2, 3]);
        let edits = rank3(call, [[8, 4, 4], [4, 2, 2]], [queries, keys]);
        assert_eq!(edits, [Edit::Int("q_num_heads", 2), Edit::Int("kv_num_heads", 1)]);
        let (queries, keys): (&[u32], &[u32]) = (&[0, 1, 4, 5], &[0, 1, 2, 3]);
        let edits = rank3(call, [[8, 4, 4], [4, 4, 4]], [queries, keys]);
        assert_eq!(edits, [Edit::Int("q_num_heads", 2)]);
    }

    #[test]
    fn sizes_of_a_projection_follow() {
        let model = |columns: i64| {
            format!(
                "in x [n,6,8]\ny = com.microsoft.Attention(x, w[8,{columns}], num_heads=2, qkv_hidden_sizes=[4,4,8])\nout y"
            )
        };
        let one_head: &[u32] = &[2, 3, 6, 7, 12, 13, 14, 15];
        let edits = patch(&model(16), &model(8), "[n,6,4]", &[((1, 1), one_head)], &[]).unwrap();
        assert_eq!(edits, [Edit::Int("num_heads", 1), Edit::Ints("qkv_hidden_sizes", vec![2, 2, 4])]);
        let short_values: &[u32] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 12];
        let edits = patch(&model(16), &model(10), "[n,6,2]", &[((1, 1), short_values)], &[]).unwrap();
        assert_eq!(edits, [Edit::Ints("qkv_hidden_sizes", vec![4, 4, 2])]);
    }

    #[test]
    fn rotated_heads_are_counted_anew() {
        let model = |size: i64| {
            format!(
                "in x [2,6,{size}]\ny = com.microsoft.RotaryEmbedding(x, {{0}}, c[9,1], s[9,1], num_heads=4)\nout y"
            )
        };
        let edits = patch(&model(8), &model(4), "[2,6,4]", &[((0, 2), &[0, 1, 6, 7])], &[]).unwrap();
        assert_eq!(edits, [Edit::Int("num_heads", 2)]);
    }
}
