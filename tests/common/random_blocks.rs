//! Blocks of random models beyond the convolutional ones: attention, gates, normalisations, quantised weights, writing
//! and adding up along an axis, sizes computed in floats. Each takes [n, c, h, w] and gives the like.

use super::random_graph::{Builder, Tensor};

/// A random block behind `x`; `batch` is how a reshape spells the batch. `None` where the block does not fit.
pub fn block(builder: &mut Builder, x: &Tensor, batch: &str) -> Option<Tensor> {
    let (n, c, h, w) = (x.dims[0], x.dims[1], x.dims[2], x.dims[3]);
    let (name, same) = (x.name.clone(), x.dims.clone());
    let emit = |builder: &mut Builder, call: String| builder.emit(&call, Vec::new()).name;
    Some(match builder.random.below(13) {
        0 | 1 => {
            // Attention with heads: queries and keys of one length, values of another.
            if h * w > 36 {
                return None;
            }
            let heads = 1 + builder.random.below(3);
            let (long, wide) = (2 + builder.random.below(3), 1 + builder.random.below(3));
            let out = 2 + builder.random.below(6);
            let flat = emit(builder, format!("Reshape({name}, {{{batch},{c},{}}})", h * w));
            let tokens = emit(builder, format!("Transpose({flat}, perm=[0,2,1])"));
            let part = |builder: &mut Builder, length: usize, turned: &str| {
                let weight = builder.weight(&[c, heads * length]);
                let made = emit(builder, format!("MatMul({tokens}, {weight})"));
                let split = emit(builder, format!("Reshape({made}, {{{batch},{},{heads},{length}}})", h * w));
                emit(builder, format!("Transpose({split}, perm={turned})"))
            };
            let queries = part(builder, long, "[0,2,1,3]");
            let keys = part(builder, long, "[0,2,3,1]");
            let values = part(builder, wide, "[0,2,1,3]");
            let scores = emit(builder, format!("MatMul({queries}, {keys})"));
            let scaled = emit(builder, format!("Mul({scores}, <0.1>)"));
            let map = emit(builder, format!("Softmax({scaled}, axis=-1)"));
            let mixed = emit(builder, format!("MatMul({map}, {values})"));
            let turned = emit(builder, format!("Transpose({mixed}, perm=[0,2,1,3])"));
            let merged = emit(builder, format!("Reshape({turned}, {{{batch},{},{}}})", h * w, heads * wide));
            let weight = builder.weight(&[heads * wide, out]);
            let made = emit(builder, format!("MatMul({merged}, {weight})"));
            let back = emit(builder, format!("Transpose({made}, perm=[0,2,1])"));
            let y = builder.emit(&format!("Reshape({back}, {{{batch},{out},{h},{w}}})"), vec![n, out, h, w]);
            builder.rescaled(y, heads * wide)
        }
        2 => {
            // LayerNormalization over the channels, with a network behind that widens and narrows.
            let inner = 2 + builder.random.below(8);
            let last = emit(builder, format!("Transpose({name}, perm=[0,2,3,1])"));
            let (gamma, beta) = (builder.fresh("gamma", c), builder.fresh("beta", c));
            let normal = emit(builder, format!("LayerNormalization({last}, {gamma}, {beta}, axis=-1)"));
            let (wide, narrow) = (builder.weight(&[c, inner]), builder.weight(&[inner, c]));
            let hidden = emit(builder, format!("MatMul({normal}, {wide})"));
            let active = emit(builder, format!("Tanh({hidden})"));
            let made = emit(builder, format!("MatMul({active}, {narrow})"));
            let sum = emit(builder, format!("Add({last}, {made})"));
            let y = builder.emit(&format!("Transpose({sum}, perm=[0,3,1,2])"), same);
            builder.rescaled(y, inner)
        }
        3 => {
            // GroupNorm as exporters write it: statistics of groups as of single channels, then a scale and a shift.
            let groups: Vec<usize> = (1..=c).filter(|g| c.is_multiple_of(*g)).collect();
            let group = builder.random.pick(&groups);
            if h * w < 4 {
                return None;
            }
            let (scale, shift) = (builder.fresh("scale", group), builder.fresh("shift", group));
            let flat = emit(builder, format!("Reshape({name}, {{{batch},{group},-1}})"));
            let normal = emit(builder, format!("InstanceNormalization({flat}, {scale}, {shift})"));
            let back = emit(builder, format!("Reshape({normal}, {{{batch},{c},{h},{w}}})"));
            let gamma = builder.weight(&[c, 1, 1]);
            builder.emit(&format!("Mul({back}, {gamma})"), same)
        }
        4 if c.is_multiple_of(2) => {
            // A gated unit: one half opens or closes the other.
            let (a, b) = builder.halves(&name);
            let gate = emit(builder, format!("Sigmoid({b})"));
            builder.emit(&format!("Mul({a}, {gate})"), vec![n, c / 2, h, w])
        }
        5 if c.is_multiple_of(2) => {
            let even = emit(builder, format!("Slice({name}, {{0}}, {{{c}}}, {{1}}, {{2}})"));
            let odd = emit(builder, format!("Slice({name}, {{1}}, {{{c}}}, {{1}}, {{2}})"));
            let gate = emit(builder, format!("Sigmoid({odd})"));
            builder.emit(&format!("Mul({even}, {gate})"), vec![n, c / 2, h, w])
        }
        6 => {
            let out = 2 + builder.random.below(6);
            let weight = builder.weight(&[c, out]);
            let call = format!("Einsum({name}, {weight}, equation=\"nchw,cd->ndhw\")");
            let y = builder.emit(&call, vec![n, out, h, w]);
            builder.rescaled(y, c)
        }
        7 => {
            // A quantised weight, with a scale for every row and sometimes a zero point.
            let out = 2 + builder.random.below(6);
            let scale = builder.fresh("scale", out);
            let zero = match builder.random.below(2) {
                0 => String::new(),
                _ => {
                    let zero = builder.fresh("zero", out);
                    format!(", {}", zero.replace('[', ":int8["))
                }
            };
            let stored = builder.fresh("stored", out).replace('[', ":int8[");
            let stored = format!("{},{c},1,1]", &stored[..stored.len() - 1]);
            let weight = emit(builder, format!("DequantizeLinear({stored}, {scale}{zero}, axis=0)"));
            let small = emit(builder, format!("Mul({weight}, <0.01>)"));
            let y = builder.emit(&format!("Conv({name}, {small})"), vec![n, out, h, w]);
            builder.rescaled(y, c)
        }
        8 if w >= 3 => {
            // The first columns, written over others.
            let columns = emit(builder, format!("Slice({name}, {{0}}, {{2}}, {{3}})"));
            let shape = emit(builder, format!("Shape({columns})"));
            let index = builder.fresh("index", 1).replace("[1]", "{2}");
            let table = emit(builder, format!("Expand({index}, {shape})"));
            let half = emit(builder, format!("Slice({table}, {{0}}, {{1}}, {{3}})"));
            let column = emit(builder, format!("Slice({columns}, {{0}}, {{1}}, {{3}})"));
            builder.emit(&format!("ScatterElements({name}, {half}, {column}, axis=3)"), same)
        }
        9 => {
            let axis = 2 + builder.random.below(2);
            let at = builder.fresh("axis", 1).replace("[1]", &format!(":int64{{{axis}}}"));
            let sum = emit(builder, format!("CumSum({name}, {at})"));
            builder.emit(&format!("Mul({sum}, <0.4>)"), same)
        }
        10 => {
            // A row of a table, added everywhere.
            let table = builder.weight(&[5, c]);
            let row = builder.random.below(5);
            let picked = emit(builder, format!("Gather({table}, {{{row}}}, axis=0)"));
            let shaped = emit(builder, format!("Reshape({picked}, {{1,{c},1,1}})"));
            builder.emit(&format!("Add({name}, {shaped})"), same)
        }
        11 if h * w <= 16 => {
            // Twice as large, by sizes that take a detour over floats.
            let shape = emit(builder, format!("Shape({name})"));
            let space = emit(builder, format!("Slice({shape}, {{2}}, {{4}})"));
            let float = emit(builder, format!("Cast({space}, to=1)"));
            let twice = emit(builder, format!("Mul({float}, <2.0,2.0>)"));
            let down = emit(builder, format!("Floor({twice})"));
            let size = emit(builder, format!("Cast({down}, to=7)"));
            let front = emit(builder, format!("Slice({shape}, {{0}}, {{2}})"));
            let all = emit(builder, format!("Concat({front}, {size}, axis=0)"));
            let mode = "mode=\"nearest\", nearest_mode=\"floor\", coordinate_transformation_mode=\"asymmetric\"";
            builder.emit(&format!("Resize({name}, _, _, {all}, {mode})"), vec![n, c, 2 * h, 2 * w])
        }
        12 if h * w <= 64 => {
            // A transposed convolution in groups.
            let groups: Vec<usize> = (1..=c).filter(|g| c.is_multiple_of(*g)).collect();
            let group = builder.random.pick(&groups);
            let out = 1 + builder.random.below(3);
            let weight = builder.weight(&[c, out, 2, 2]);
            let call = format!("ConvTranspose({name}, {weight}, group={group}, strides=[2,2])");
            let y = builder.emit(&call, vec![n, out * group, 2 * h, 2 * w]);
            builder.rescaled(y, c / group)
        }
        _ => return None,
    })
}
