//! Random multi-output models in text form, valid by construction.
//!
//! Random wiring of everything a convolutional multi-task model holds: several outputs, shared weights, dead branches,
//! concatenations, splits, shuffles, reshapes. Same seed, same model.

use std::fmt::Write;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Seeded choices.
pub struct Random(pub ChaCha8Rng);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n.max(1) as u64) as usize
    }

    /// One of a list.
    pub fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

#[derive(Clone)]
struct Tensor {
    name: String,
    dims: Vec<usize>,
}

/// A model under construction.
struct Builder {
    random: Random,
    text: String,
    count: usize,
    values: Vec<Tensor>,
    weights: Vec<(String, Vec<usize>)>,
}

/// The text of a random model.
pub fn model(seed: u64) -> String {
    let mut random = Random::new(seed);
    let batch = 1 + random.below(2);
    let (height, width) = (random.pick(&[4, 6, 8]), random.pick(&[4, 6, 8]));
    let dynamic = random.below(4) == 0;
    let mut builder = Builder { random, text: String::new(), count: 0, values: Vec::new(), weights: Vec::new() };
    let shown = if dynamic { "n".to_owned() } else { batch.to_string() };
    writeln!(builder.text, "in x [{shown},3,{height},{width}]").unwrap();
    let batch = if dynamic { 1 } else { batch };
    let x = Tensor { name: "x".into(), dims: vec![batch, 3, height, width] };
    let first = builder.conv(&x, 1, dynamic);
    builder.values.push(first);
    let steps = 4 + builder.random.below(14);
    for _ in 0..steps {
        builder.step(dynamic);
    }
    builder.outputs();
    let flag = if builder.text.contains(FLAG) { format!("in {FLAG} bool []\n") } else { String::new() };
    flag + &builder.text
}

/// The input that chooses branches.
const FLAG: &str = "flag";

impl Builder {
    fn emit(&mut self, call: &str, dims: Vec<usize>) -> Tensor {
        self.count += 1;
        let name = format!("v{}", self.count);
        writeln!(self.text, "{name} = {call}").unwrap();
        Tensor { name, dims }
    }

    fn any(&mut self) -> Tensor {
        // Recent values are likelier, so that the graph grows deep as well as wide; old ones give fan-out.
        let n = self.values.len();
        let at = if self.random.below(2) == 0 { n - 1 - self.random.below(n.min(3)) } else { self.random.below(n) };
        self.values[at].clone()
    }

    /// A weight: new, or one of the same shape that is used elsewhere already.
    fn weight(&mut self, dims: &[usize]) -> String {
        let same: Vec<String> = self.weights.iter().filter(|(_, d)| d == dims).map(|(n, _)| n.clone()).collect();
        if !same.is_empty() && self.random.below(4) == 0 {
            return self.random.pick(&same);
        }
        self.count += 1;
        let name = format!("w{}", self.count);
        self.weights.push((name.clone(), dims.to_vec()));
        let list: Vec<String> = dims.iter().map(usize::to_string).collect();
        format!("{name}[{}]", list.join(","))
    }

    fn fresh(&mut self, kind: &str, n: usize) -> String {
        self.count += 1;
        format!("{kind}{}[{n}]", self.count)
    }

    /// A convolution whose output has about the variance of its input.
    fn conv(&mut self, x: &Tensor, group: usize, _dynamic: bool) -> Tensor {
        let channels = x.dims[1];
        let out = group * (1 + self.random.below(if group == channels { 2 } else { 16 / group.min(8) }));
        let out = if group == 1 { out.max(2) } else { out };
        let kernel = if x.dims[2] >= 3 && x.dims[3] >= 3 { self.random.pick(&[1, 3]) } else { 1 };
        let stride = if x.dims[2].min(x.dims[3]) >= 4 && self.random.below(5) == 0 { 2 } else { 1 };
        let w = self.weight(&[out, channels / group, kernel, kernel]);
        let bias = if self.random.below(2) == 0 { format!(", {}", self.fresh("b", out)) } else { String::new() };
        let pad = kernel / 2;
        let call = format!(
            "Conv({}, {w}{bias}, group={group}, strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}])",
            x.name
        );
        let size = |n: usize| (n + 2 * pad - kernel) / stride + 1;
        let y = self.emit(&call, vec![x.dims[0], out, size(x.dims[2]), size(x.dims[3])]);
        self.rescaled(y, channels / group * kernel * kernel)
    }

    /// Two branches that return alike: each contracts the captured tensor, one by way of a hidden layer.
    fn branches(&mut self, x: &Tensor) -> Tensor {
        let (channels, out, hidden) = (x.dims[1], 2 + self.random.below(6), 2 + self.random.below(6));
        self.count += 1;
        let (number, name) = (self.count, &x.name);
        let call = format!(
            "If({FLAG})
             then_branch {{
               a = Conv({name}, then{number}[{out},{channels},1,1], k{number}[{out}])
               out a
             }}
             else_branch {{
               a = Conv({name}, else{number}[{hidden},{channels},1,1])
               r = LeakyRelu(a)
               b = Conv(r, last{number}[{out},{hidden},1,1])
               out b
             }}"
        );
        let y = self.emit(&call, vec![x.dims[0], out, x.dims[2], x.dims[3]]);
        self.rescaled(y, channels)
    }

    fn rescaled(&mut self, y: Tensor, fan_in: usize) -> Tensor {
        let scale = 1.5 / (fan_in as f64).sqrt();
        self.emit(&format!("Mul({}, <{scale:.4}>)", y.name), y.dims)
    }

    fn step(&mut self, dynamic: bool) {
        let x = self.any();
        let (n, c, h, w) = (x.dims[0], x.dims[1], x.dims[2], x.dims[3]);
        let batch = if dynamic { "0".to_owned() } else { n.to_string() };
        let name = x.name.clone();
        let same = x.dims.clone();
        let divisors: Vec<usize> = (2..c).filter(|d| c.is_multiple_of(*d)).collect();
        let y = match self.random.below(39) {
            0..=3 | 30..=35 => self.conv(&x, 1, dynamic),
            37 | 38 => self.branches(&x),
            4 => self.conv(&x, c, dynamic),
            5 if !divisors.is_empty() => {
                let group = self.random.pick(&divisors);
                self.conv(&x, group, dynamic)
            }
            6 => {
                let group = if c % 2 == 0 && self.random.below(2) == 0 { 2 } else { 1 };
                let out = 1 + self.random.below(4);
                let weight = self.weight(&[c, out, 2, 2]);
                if h * w > 64 {
                    return;
                }
                let call = format!("ConvTranspose({name}, {weight}, group={group}, strides=[2,2])");
                let y = self.emit(&call, vec![n, out * group, 2 * h, 2 * w]);
                self.rescaled(y, c / group)
            }
            7 | 8 => {
                let parts =
                    [self.fresh("gamma", c), self.fresh("beta", c), self.fresh("mean", c), self.fresh("var", c)];
                self.emit(&format!("BatchNormalization({name}, {})", parts.join(", ")), same)
            }
            9 | 10 => {
                let op = self.random.pick(&["Relu", "Sigmoid", "Tanh", "HardSwish", "Neg", "Softplus", "Abs", "Exp"]);
                let op = if op == "Exp" { "Sigmoid" } else { op };
                self.emit(&format!("{op}({name})"), same)
            }
            11 => {
                let slope = self.fresh("slope", c);
                let slope = format!("{},1,1]", &slope[..slope.len() - 1]);
                self.emit(&format!("PRelu({name}, {slope})"), same)
            }
            12 | 13 => {
                let peers: Vec<Tensor> = self.values.iter().filter(|v| v.dims == x.dims).cloned().collect();
                let other = self.random.pick(&peers);
                let op = self.random.pick(&["Add", "Mul", "Sub", "Max"]);
                let y = self.emit(&format!("{op}({name}, {})", other.name), same.clone());
                self.emit(&format!("Tanh({})", y.name), same)
            }
            14 => {
                // Squeeze and excitation.
                let pooled = self.emit(&format!("GlobalAveragePool({name})"), vec![n, c, 1, 1]);
                let down = self.conv(&pooled, 1, dynamic);
                let weight = self.weight(&[c, down.dims[1], 1, 1]);
                let up = self.emit(&format!("Conv({}, {weight})", down.name), vec![n, c, 1, 1]);
                let gate = self.emit(&format!("Sigmoid({})", up.name), vec![n, c, 1, 1]);
                self.emit(&format!("Mul({name}, {})", gate.name), same)
            }
            15 | 16 => {
                let peers: Vec<Tensor> =
                    self.values.iter().filter(|v| v.dims[0] == n && v.dims[2..] == x.dims[2..]).cloned().collect();
                let other = self.random.pick(&peers);
                let dims = vec![n, c + other.dims[1], h, w];
                self.emit(&format!("Concat({name}, {}, axis=1)", other.name), dims)
            }
            17 if c >= 2 => {
                let at = 1 + self.random.below(c - 1);
                self.count += 2;
                let (a, b) = (format!("v{}", self.count - 1), format!("v{}", self.count));
                writeln!(self.text, "{a}, {b} = Split({name}, {{{at},{}}}, axis=1)", c - at).unwrap();
                self.values.push(Tensor { name: a, dims: vec![n, at, h, w] });
                Tensor { name: b, dims: vec![n, c - at, h, w] }
            }
            18 if c >= 3 => {
                let start = self.random.below(c - 1);
                let end = start + 1 + self.random.below(c - start);
                let call = format!("Slice({name}, {{{start}}}, {{{end}}}, {{1}})");
                self.emit(&call, vec![n, end.min(c) - start, h, w])
            }
            19 if !divisors.is_empty() => {
                // Channel shuffle.
                let g = self.random.pick(&divisors);
                let a = self.emit(&format!("Reshape({name}, {{{batch},{g},{},{h},{w}}})", c / g), Vec::new());
                let b = self.emit(&format!("Transpose({}, perm=[0,2,1,3,4])", a.name), Vec::new());
                self.emit(&format!("Reshape({}, {{{batch},{c},{h},{w}}})", b.name), same)
            }
            20 if c.is_multiple_of(4) && h * w <= 64 => {
                let mode = self.random.pick(&["DCR", "CRD"]);
                let call = format!("DepthToSpace({name}, blocksize=2, mode=\"{mode}\")");
                self.emit(&call, vec![n, c / 4, 2 * h, 2 * w])
            }
            21 if h.is_multiple_of(2) && w.is_multiple_of(2) && h > 2 && w > 2 => {
                self.emit(&format!("SpaceToDepth({name}, blocksize=2)"), vec![n, 4 * c, h / 2, w / 2])
            }
            22 => {
                let op = self.random.pick(&["MaxPool", "AveragePool"]);
                if h < 2 || w < 2 {
                    return;
                }
                self.emit(&format!("{op}({name}, kernel_shape=[2,2], strides=[2,2])"), vec![n, c, h / 2, w / 2])
            }
            23 => {
                let (before, after) = (self.random.below(3), self.random.below(3));
                let call = format!("Pad({name}, {{0,{before},1,0,0,{after},0,1}})");
                self.emit(&call, vec![n, c + before + after, h + 1, w + 1])
            }
            24 => {
                // Statistics over channels: exact once rescaled, exact as they are, or locked.
                let op = self.random.pick(&["ReduceMean", "ReduceMean", "ReduceL2", "ReduceSumSquare", "ReduceMax"]);
                let r = self.emit(&format!("{op}({name}, axes=[1], keepdims=1)"), vec![n, 1, h, w]);
                let t = self.emit(&format!("Tanh({})", r.name), r.dims);
                self.emit(&format!("Mul({name}, {})", t.name), same)
            }
            25 => {
                // Attention over channels or over space, as matrix products.
                let flat = self.emit(&format!("Reshape({name}, {{{batch},{c},-1}})"), Vec::new());
                let turned = self.emit(&format!("Transpose({}, perm=[0,2,1])", flat.name), Vec::new());
                let over_channels = self.random.below(2) == 0;
                let (a, b) = if over_channels { (&flat, &turned) } else { (&turned, &flat) };
                let (a, b) = (a.name.clone(), b.name.clone());
                let affinity = self.emit(&format!("MatMul({a}, {b})"), Vec::new());
                let scaled = self.emit(&format!("Mul({}, <0.1>)", affinity.name), Vec::new());
                let map = self.emit(&format!("Softmax({}, axis=-1)", scaled.name), Vec::new());
                let mixed = if over_channels {
                    self.emit(&format!("MatMul({}, {})", map.name, flat.name), Vec::new())
                } else {
                    self.emit(&format!("MatMul({}, {})", flat.name, map.name), Vec::new())
                };
                self.emit(&format!("Reshape({}, {{{batch},{c},{h},{w}}})", mixed.name), same)
            }
            26 => {
                let mut order: Vec<usize> = (0..c).collect();
                let turn = self.random.below(c);
                order.rotate_left(turn);
                let list: Vec<String> = order.iter().map(usize::to_string).collect();
                self.emit(&format!("Gather({name}, {{{}}}, axis=1)", list.join(",")), same)
            }
            27 => {
                let parts = [self.fresh("scale", c), self.fresh("beta", c)];
                if h * w < 4 {
                    return;
                }
                self.emit(&format!("InstanceNormalization({name}, {})", parts.join(", ")), same)
            }
            28 => {
                // A shape computed when the model runs.
                let shape = self.emit(&format!("Shape({name})"), Vec::new());
                let batch = self.emit(&format!("Gather({}, {{0}}, axis=0)", shape.name), Vec::new());
                let target = self.emit(&format!("Concat({}, {{{c}}}, {{-1}}, axis=0)", batch.name), Vec::new());
                let flat = self.emit(&format!("Reshape({name}, {})", target.name), Vec::new());
                let tanh = self.emit(&format!("Tanh({})", flat.name), Vec::new());
                self.emit(&format!("Reshape({}, {})", tanh.name, shape.name), same)
            }
            36 => {
                // A recurrent cell that reads the image place by place.
                if h * w > 16 {
                    return;
                }
                let (op, gates) = self.random.pick(&[("LSTM", 4), ("GRU", 3), ("RNN", 1)]);
                let (directions, hidden) = (1 + self.random.below(2), 2 + self.random.below(4));
                let direction = ["forward", "bidirectional"][directions - 1];
                let weights = self.weight(&[directions, gates * hidden, c]);
                let recurrent = self.weight(&[directions, gates * hidden, hidden]);
                let turned = self.emit(&format!("Transpose({name}, perm=[2,3,0,1])"), Vec::new());
                let steps = self.emit(&format!("Reshape({}, {{{},-1,{c}}})", turned.name, h * w), Vec::new());
                let call = format!(
                    "{op}({}, {weights}, {recurrent}, hidden_size={hidden}, direction=\"{direction}\")",
                    steps.name
                );
                let states = self.emit(&call, Vec::new());
                let turned = self.emit(&format!("Transpose({}, perm=[2,1,3,0])", states.name), Vec::new());
                let channels = directions * hidden;
                let call = format!("Reshape({}, {{{batch},{channels},{h},{w}}})", turned.name);
                self.emit(&call, vec![n, channels, h, w])
            }
            _ => {
                // Channels last, a matrix product, and back.
                let out = 2 + self.random.below(8);
                let weight = self.weight(&[c, out]);
                let last = self.emit(&format!("Transpose({name}, perm=[0,2,3,1])"), Vec::new());
                let made = self.emit(&format!("MatMul({}, {weight})", last.name), Vec::new());
                let y = self.emit(&format!("Transpose({}, perm=[0,3,1,2])", made.name), vec![n, out, h, w]);
                self.rescaled(y, c)
            }
        };
        if y.dims[1] <= 64 {
            self.values.push(y);
        }
    }

    /// Two to four heads of different kinds; whatever else is left over is a dead branch.
    fn outputs(&mut self) {
        let heads = 2 + self.random.below(3);
        let mut names = Vec::new();
        for _ in 0..heads {
            let x = self.any();
            let (c, h, w) = (x.dims[1], x.dims[2], x.dims[3]);
            let head = match self.random.below(12) {
                0..=4 => {
                    let weight = self.weight(&[3, c, 1, 1]);
                    self.emit(&format!("Conv({}, {weight})", x.name), Vec::new())
                }
                5..=7 => {
                    let flat = self.emit(&format!("Flatten({})", x.name), Vec::new());
                    let weight = self.weight(&[5, c * h * w]);
                    self.emit(&format!("Gemm({}, {weight}, transB=1)", flat.name), Vec::new())
                }
                8..=10 => {
                    let pooled = self.emit(&format!("ReduceMean({}, axes=[2,3], keepdims=0)", x.name), Vec::new());
                    let weight = self.weight(&[c, 4]);
                    self.emit(&format!("MatMul({}, {weight})", pooled.name), Vec::new())
                }
                _ => self.emit(&format!("Sigmoid({})", x.name), Vec::new()),
            };
            names.push(head.name);
        }
        writeln!(self.text, "out {}", names.join(", ")).unwrap();
    }
}
