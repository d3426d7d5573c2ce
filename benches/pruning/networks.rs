//! Synthetic networks in text form: one with big weights, one with many nodes.

use std::fmt::Write;

/// A residual network of 3x3 convolutions whose weights fill about `bytes`, with two task heads.
pub(crate) fn heavy(bytes: usize) -> String {
    const WIDTH: usize = 512;
    const BLOCK: usize = 2 * WIDTH * WIDTH * 3 * 3 * size_of::<f32>();
    let mut text = format!("in x [n,3,32,32]\nb0 = Conv(x, stem[{WIDTH},3,3,3], pads=[1,1,1,1])\n");
    let blocks = bytes.div_ceil(BLOCK);
    for i in 0..blocks {
        let weight = |name: &str| format!("{name}{i}[{WIDTH},{WIDTH},3,3], pads=[1,1,1,1]");
        let _ = writeln!(text, "p{i} = Conv(b{i}, {})", weight("v"));
        let _ = writeln!(text, "{}", norm(&format!("q{i}"), &format!("p{i}"), WIDTH));
        let _ = writeln!(text, "r{i} = Relu(q{i})");
        let _ = writeln!(text, "s{i} = Conv(r{i}, {})", weight("w"));
        let _ = writeln!(text, "{}", norm(&format!("t{i}"), &format!("s{i}"), WIDTH));
        let _ = writeln!(text, "u{i} = Add(b{i}, t{i})");
        let _ = writeln!(text, "b{} = Relu(u{i})", i + 1);
    }
    for task in ["kind", "place"] {
        text += &head(task, &format!("b{blocks}"), WIDTH);
    }
    text + "out kind, place\n"
}

/// Convolutions, then wide layers, then two task heads. With every extent of 32 and more of its weights multiplied by
/// 64, the weights fill 3 GB and the largest has 256 MB.
pub(crate) fn huge() -> String {
    let mut text = "in x [n,3,8,8]\na0 = Conv(x, stem[32,3,3,3], pads=[1,1,1,1])\n".to_owned();
    for i in 0..4 {
        let _ = writeln!(text, "c{i} = Conv(a{i}, v{i}[32,32,3,3], v{i}.b[32], pads=[1,1,1,1])");
        let _ = writeln!(text, "a{} = Relu(c{i})", i + 1);
    }
    text += "p = GlobalAveragePool(a4)\nf = Flatten(p)\nb0 = Gemm(f, g[32,128], g.b[128])\n";
    for i in 0..9 {
        let _ = writeln!(text, "m{i} = MatMul(b{i}, w{i}[128,128])");
        let _ = writeln!(text, "s{i} = Add(m{i}, w{i}.b[128])");
        let _ = writeln!(text, "b{} = Relu(s{i})", i + 1);
    }
    text + "kind = Gemm(b9, kind.w[10,128], kind.b[10], transB=1)\nplace = Gemm(b9, place.w[4,128], transB=1)\nout kind, place\n"
}

/// A chain of residual, concatenating and splitting blocks with four task heads along it; about `nodes` nodes.
pub(crate) fn long(nodes: usize) -> String {
    const WIDTH: usize = 8;
    /// Nodes of one block of each kind.
    const ROUND: usize = 7 + 5 + 5;
    const HEADS: usize = 4;
    let rounds = nodes / ROUND;
    let mut text = format!("in x [n,3,16,16]\nb0 = Conv(x, stem[{WIDTH},3,1,1])\n");
    let mut heads = Vec::new();
    for i in 0..rounds {
        let half = WIDTH / 2;
        // Residual: its output joins the channels of its input.
        let _ = writeln!(text, "p{i} = Conv(b{i}, v{i}[{WIDTH},{WIDTH},1,1])");
        let _ = writeln!(text, "{}", norm(&format!("q{i}"), &format!("p{i}"), WIDTH));
        let _ = writeln!(text, "r{i} = Relu(q{i})");
        let _ = writeln!(text, "s{i} = Conv(r{i}, w{i}[{WIDTH},{WIDTH},1,1])");
        let _ = writeln!(text, "{}", norm(&format!("t{i}"), &format!("s{i}"), WIDTH));
        let _ = writeln!(text, "u{i} = Add(b{i}, t{i})");
        let _ = writeln!(text, "a{i} = Relu(u{i})");
        // Concatenation: two branches side by side, brought back to the width of the stream and added to it.
        let _ = writeln!(text, "c{i} = Conv(a{i}, c{i}.w[{half},{WIDTH},1,1])");
        let _ = writeln!(text, "d{i} = Conv(a{i}, d{i}.w[{WIDTH},{WIDTH},1,1])");
        let _ = writeln!(text, "e{i} = Concat(c{i}, d{i}, axis=1)");
        let _ = writeln!(text, "f{i} = Conv(e{i}, f{i}.w[{WIDTH},{},1,1])", WIDTH + half);
        let _ = writeln!(text, "g{i} = Add(a{i}, f{i})");
        // Split: the stream falls into halves, one of which passes a convolution.
        let _ = writeln!(text, "h{i}, i{i} = Split(g{i}, {{{half},{half}}}, axis=1)");
        let _ = writeln!(text, "j{i} = Conv(h{i}, j{i}.w[{half},{half},1,1])");
        let _ = writeln!(text, "k{i} = Relu(j{i})");
        let _ = writeln!(text, "l{i} = Concat(k{i}, i{i}, axis=1)");
        let _ = writeln!(text, "b{} = Conv(l{i}, l{i}.w[{WIDTH},{WIDTH},1,1])", i + 1);
        if (i + 1) % rounds.div_ceil(HEADS) == 0 || i + 1 == rounds {
            let task = format!("task{}", heads.len());
            text += &head(&task, &format!("b{}", i + 1), WIDTH);
            heads.push(task);
        }
    }
    let _ = writeln!(text, "out {}", heads.join(", "));
    text
}

/// A batch normalisation.
fn norm(output: &str, input: &str, width: usize) -> String {
    let parts = ["scale", "shift", "mean", "var"].map(|p| format!("{output}.{p}[{width}]"));
    format!("{output} = BatchNormalization({input}, {})", parts.join(", "))
}

/// Pooling and a classifier of ten classes.
fn head(task: &str, input: &str, width: usize) -> String {
    format!(
        "{task}.pool = GlobalAveragePool({input})\n\
         {task}.flat = Flatten({task}.pool)\n\
         {task} = Gemm({task}.flat, {task}.w[10,{width}], {task}.b[10], transB=1)\n"
    )
}
