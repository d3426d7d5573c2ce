//! What a contraction with a constant weight is as a linear regression: which operand is data, how the weight is laid
//! out, and which numbers of the data meet which weights in one position of the output.
//!
//! Spec: <https://onnx.ai/onnx/operators/> (Conv, ConvTranspose, Einsum, Gemm, MatMul, LSTM, GRU, RNN) and
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md> (FusedMatMul). Invariants: every
//! output position and group is `outputs` numbers that depend linearly on `inputs` numbers of the data; the weight has
//! exactly `groups * inputs * outputs` elements.

use crate::proto::onnx::NodeProto;

/// A contraction seen as regression of `outputs` numbers on `inputs` numbers, `groups` times side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// The input slot of the data.
    pub data: usize,
    /// The input slot of the weight.
    pub weight: usize,
    /// The input slot where a bias stands or may stand, if the operator has one.
    pub bias: Option<usize>,
    /// How many groups do not see each other's data.
    pub groups: usize,
    /// Numbers of the data that one output of a group depends on.
    pub inputs: usize,
    /// Outputs per group and position.
    pub outputs: usize,
    /// Where the weight of a group, output and input lies.
    pub layout: Layout,
    /// How positions of the output find their data.
    pub geometry: Geometry,
    /// What the product is multiplied with (Gemm's alpha).
    pub scale: f64,
    /// What the bias is multiplied with (Gemm's beta).
    pub bias_scale: f64,
}

/// The order of the elements of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// group, output, input.
    OutputsFirst,
    /// input, output; one group.
    InputsFirst,
    /// group, channel, output, position in the kernel, of which there are so many.
    Transposed(usize),
}

/// How positions of the output find their data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Geometry {
    /// Rows of a matrix; the channels lie on these axes of data and output, counted from the end (1 = last).
    Rows {
        /// The axis of the data.
        data: usize,
        /// The axis of the output.
        output: usize,
    },
    /// Windows of a convolution; channels lie on axis 1.
    Window(Window),
    /// Rows of a recurrence's input; the outputs are sums inside the cell, which no value shows.
    Recurrent {
        /// True if the axes of the input are batch, time, channel instead of time, batch, channel.
        batch_first: bool,
    },
}

/// The windows of a convolution, or of a transposed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Extents of the kernel.
    pub kernel: Vec<usize>,
    /// Steps between windows.
    pub strides: Vec<usize>,
    /// Steps inside a window.
    pub dilations: Vec<usize>,
    /// How positions at the border are found.
    pub padding: Padding,
    /// True for a transposed convolution.
    pub transposed: bool,
}

/// The padding of a convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// What is added before every axis.
    Begin(Vec<usize>),
    /// What the extents of input and output demand; true if the smaller half stands before the axis.
    Same {
        /// The smaller half comes first.
        upper: bool,
        /// What a transposed convolution adds behind every axis before it is cut to its output.
        extra: Vec<usize>,
    },
}

impl Linear {
    /// The regression that a node is, given the extents of all of its inputs that are constant. `None` if it is none
    /// that is known here, or one whose weight is computed.
    pub fn of(node: &NodeProto, constant: &dyn Fn(usize) -> Option<Vec<usize>>) -> Option<Self> {
        let domain = if node.domain() == "ai.onnx" { "" } else { node.domain() };
        let row = ROWS.iter().find(|row| (row.0, row.1) == (domain, node.op_type()))?;
        (row.2)(node, constant)
    }

    /// The position in the weight's data of what `output` of `group` takes from `input`.
    pub fn offset(&self, group: usize, output: usize, input: usize) -> usize {
        match self.layout {
            Layout::OutputsFirst => (group * self.outputs + output) * self.inputs + input,
            Layout::InputsFirst => input * self.outputs + output,
            Layout::Transposed(kernel) => {
                let (channel, place) = (input / kernel, input % kernel);
                let channels = self.inputs / kernel;
                ((group * channels + channel) * self.outputs + output) * kernel + place
            }
        }
    }

    /// How many outputs all groups have together.
    pub fn all_outputs(&self) -> usize {
        self.groups * self.outputs
    }
}

type Constants<'a> = &'a dyn Fn(usize) -> Option<Vec<usize>>;
type Describe = fn(&NodeProto, Constants<'_>) -> Option<Linear>;

const ROWS: &[(&str, &str, Describe)] = &[
    ("", "Conv", |node, constant| window(node, constant, false)),
    ("", "ConvTranspose", |node, constant| window(node, constant, true)),
    ("", "Einsum", einsum),
    ("", "GRU", recurrent),
    ("", "Gemm", gemm),
    ("", "LSTM", recurrent),
    ("", "MatMul", matmul),
    ("", "RNN", recurrent),
    ("com.microsoft", "FusedMatMul", matmul),
];

fn window(node: &NodeProto, constant: Constants<'_>, transposed: bool) -> Option<Linear> {
    let dims = constant(1)?;
    let (first, second, kernel) = (*dims.first()?, *dims.get(1)?, dims.get(2..)?.to_vec());
    let groups = usize::try_from(integer(node, "group").unwrap_or(1)).ok().filter(|g| *g > 0)?;
    let positions = kernel.iter().try_fold(1usize, |all, k| all.checked_mul(*k))?;
    if positions == 0 || first == 0 || second == 0 || !first.is_multiple_of(groups) {
        return None;
    }
    let list = |name: &str, default: usize| -> Option<Vec<usize>> {
        match integers(node, name) {
            [] => Some(vec![default; kernel.len()]),
            given => given.iter().map(|v| usize::try_from(*v).ok()).collect(),
        }
    };
    let strides = list("strides", 1)?;
    let dilations = list("dilations", 1)?;
    let extra = list("output_padding", 0)?;
    let padding = match (text(node, "auto_pad").as_slice(), integers(node, "output_shape")) {
        (b"SAME_UPPER", _) => Padding::Same { upper: true, extra },
        (b"SAME_LOWER", _) => Padding::Same { upper: false, extra },
        // Said extents of the output win over all other ways to pad.
        (_, [_, ..]) if transposed => Padding::Same { upper: false, extra },
        (b"VALID", _) => Padding::Begin(vec![0; kernel.len()]),
        _ => Padding::Begin(match integers(node, "pads") {
            [] => vec![0; kernel.len()],
            given => given.iter().take(kernel.len()).map(|v| usize::try_from(*v).ok()).collect::<Option<_>>()?,
        }),
    };
    let fits = |list: &[usize]| list.len() == kernel.len() && !list.contains(&0);
    if !fits(&strides) || !fits(&dilations) {
        return None;
    }
    if matches!(&padding, Padding::Begin(begin) if begin.len() != kernel.len()) {
        return None;
    }
    let (inputs, outputs, layout) = if transposed {
        ((first / groups).checked_mul(positions)?, second, Layout::Transposed(positions))
    } else {
        (second.checked_mul(positions)?, first / groups, Layout::OutputsFirst)
    };
    Some(Linear {
        data: 0,
        weight: 1,
        bias: Some(2),
        groups,
        inputs,
        outputs,
        layout,
        geometry: Geometry::Window(Window { kernel, strides, dilations, padding, transposed }),
        scale: 1.0,
        bias_scale: 1.0,
    })
}

fn gemm(node: &NodeProto, constant: Constants<'_>) -> Option<Linear> {
    let &[first, second] = constant(1)?.as_slice() else { return None };
    if constant(0).is_some() {
        return None;
    }
    let transposed = integer(node, "transB").unwrap_or(0) != 0;
    let (inputs, outputs) = if transposed { (second, first) } else { (first, second) };
    let data = if integer(node, "transA").unwrap_or(0) != 0 { 2 } else { 1 };
    let float = |name: &str| node.attribute.iter().find(|a| a.name() == name).map_or(1.0, |a| f64::from(a.f()));
    let (scale, bias_scale) = (float("alpha"), float("beta"));
    (scale != 0.0 && bias_scale != 0.0).then_some(())?;
    Some(Linear {
        data: 0,
        weight: 1,
        bias: Some(2),
        groups: 1,
        inputs,
        outputs,
        layout: if transposed { Layout::OutputsFirst } else { Layout::InputsFirst },
        geometry: Geometry::Rows { data, output: 1 },
        scale,
        bias_scale,
    })
}

/// A B over the last two axes; the fused one may transpose either and multiply with a factor.
fn matmul(node: &NodeProto, constant: Constants<'_>) -> Option<Linear> {
    let flag = |name: &str| integer(node, name).unwrap_or(0) != 0;
    // Rows that stand before the axes of the batch.
    (!flag("transBatchA") && !flag("transBatchB")).then_some(())?;
    let scale = node.attribute.iter().find(|a| a.name() == "alpha").map_or(1.0, |a| f64::from(a.f()));
    (scale != 0.0).then_some(())?;
    let of = |data, weight, shape: (usize, usize), outputs_first, axes: (usize, usize)| Linear {
        data,
        weight,
        bias: None,
        groups: 1,
        inputs: if outputs_first { shape.1 } else { shape.0 },
        outputs: if outputs_first { shape.0 } else { shape.1 },
        layout: if outputs_first { Layout::OutputsFirst } else { Layout::InputsFirst },
        geometry: Geometry::Rows { data: axes.0, output: axes.1 },
        scale,
        bias_scale: 1.0,
    };
    match (constant(0).as_deref(), constant(1).as_deref()) {
        (None, Some(&[first, second])) => {
            Some(of(0, 1, (first, second), flag("transB"), (if flag("transA") { 2 } else { 1 }, 1)))
        }
        (Some(&[first, second]), None) => {
            Some(of(1, 0, (first, second), !flag("transA"), (if flag("transB") { 1 } else { 2 }, 2)))
        }
        _ => None,
    }
}

/// A sum of products over one letter, of which one operand is a matrix: the other letters of the data stand in the output
/// as they do in the data.
fn einsum(node: &NodeProto, constant: Constants<'_>) -> Option<Linear> {
    let equation: String = String::from_utf8(text(node, "equation")).ok()?.split_whitespace().collect();
    let (operands, output) = equation.split_once("->")?;
    let (first, second) = operands.split_once(',')?;
    let (data, weight, letters, matrix, dims) = match (constant(0), constant(1)) {
        (None, Some(dims)) => (0, 1, first, second, dims),
        (Some(dims), None) => (1, 0, second, first, dims),
        _ => return None,
    };
    let &[rows, columns] = dims.as_slice() else { return None };
    let &[a, b] = matrix.chars().collect::<Vec<_>>().as_slice() else { return None };
    let is_letter = |letter: char| letter.is_ascii_alphabetic();
    // What an ellipsis stands for comes first in both, or it is not there.
    let (letters, output) = match (letters.strip_prefix("..."), output.strip_prefix("...")) {
        (Some(letters), Some(output)) => (letters, output),
        (None, None) => (letters, output),
        _ => return None,
    };
    let once = |list: &str| list.chars().all(|c| is_letter(c) && list.matches(c).count() == 1);
    (once(letters) && once(output)).then_some(())?;
    let summed = |letter: char| letters.contains(letter) && !output.contains(letter);
    let made = |letter: char| output.contains(letter) && !letters.contains(letter);
    let (from, to, inputs, outputs, layout) = match (a, b) {
        (from, to) if summed(from) && made(to) => (from, to, rows, columns, Layout::InputsFirst),
        (to, from) if summed(from) && made(to) => (from, to, columns, rows, Layout::OutputsFirst),
        _ => return None,
    };
    letters.chars().filter(|c| *c != from).eq(output.chars().filter(|c| *c != to)).then_some(())?;
    let from_end = |list: &str, letter: char| list.chars().rev().position(|c| c == letter).map(|place| place + 1);
    Some(Linear {
        data,
        weight,
        bias: None,
        groups: 1,
        inputs,
        outputs,
        layout,
        geometry: Geometry::Rows { data: from_end(letters, from)?, output: from_end(output, to)? },
        scale: 1.0,
        bias_scale: 1.0,
    })
}

fn recurrent(node: &NodeProto, constant: Constants<'_>) -> Option<Linear> {
    let &[directions, gates, inputs] = constant(1)?.as_slice() else { return None };
    Some(Linear {
        data: 0,
        weight: 1,
        bias: Some(3),
        groups: 1,
        inputs,
        outputs: directions.checked_mul(gates)?,
        layout: Layout::OutputsFirst,
        geometry: Geometry::Recurrent { batch_first: integer(node, "layout").unwrap_or(0) != 0 },
        scale: 1.0,
        bias_scale: 1.0,
    })
}

fn integer(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|a| a.name() == name).map(|a| a.i())
}

fn integers<'n>(node: &'n NodeProto, name: &str) -> &'n [i64] {
    node.attribute.iter().find(|a| a.name() == name).map_or(&[], |a| a.ints.as_slice())
}

fn text(node: &NodeProto, name: &str) -> Vec<u8> {
    node.attribute.iter().find(|a| a.name() == name).map(|a| a.s().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn offsets_follow_the_layouts() {
        let node = |operator: &str, group: i64| NodeProto {
            op_type: Some(operator.to_owned()),
            attribute: vec![crate::proto::onnx::AttributeProto {
                name: Some("group".to_owned()),
                i: Some(group),
                ..Default::default()
            }],
            ..Default::default()
        };
        let of = |operator: &str, group, dims: &[usize]| {
            let dims = dims.to_vec();
            Linear::of(&node(operator, group), &move |slot| (slot == 1).then(|| dims.clone())).unwrap()
        };
        let conv = of("Conv", 2, &[6, 4, 3, 3]);
        assert_eq!((conv.groups, conv.inputs, conv.outputs), (2, 36, 3));
        assert_eq!(conv.offset(1, 2, 35), 6 * 36 - 1);
        let transposed = of("ConvTranspose", 2, &[4, 3, 2, 2]);
        assert_eq!((transposed.groups, transposed.inputs, transposed.outputs), (2, 8, 3));
        // Group 1, channel 0 of it, output 2, position 3.
        assert_eq!(transposed.offset(1, 2, 3), (2 * 3 + 2) * 4 + 3);
        assert_eq!(of("MatMul", 1, &[5, 7]).offset(0, 6, 4), 34);
        assert!(Linear::of(&node("MatMul", 1), &|_| None).is_none());
    }

    #[test]
    fn equations_tell_axes_and_layout() {
        let of = |equation: &'static str, constant: usize| {
            let node = NodeProto {
                op_type: Some("Einsum".to_owned()),
                attribute: vec![crate::proto::onnx::AttributeProto {
                    name: Some("equation".to_owned()),
                    s: Some(equation.as_bytes().to_vec()),
                    ..Default::default()
                }],
                ..Default::default()
            };
            let found = Linear::of(&node, &move |slot| (slot == constant).then(|| vec![5, 7]))?;
            let Geometry::Rows { data, output } = found.geometry else { return None };
            Some((found.inputs, found.outputs, found.layout == Layout::InputsFirst, data, output))
        };
        assert_eq!(of("ij,jk->ik", 1), Some((5, 7, true, 1, 1)));
        assert_eq!(of("b c s, d c -> b d s", 1), Some((7, 5, false, 2, 2)));
        assert_eq!(of("jk,...ji->...ik", 0), Some((5, 7, true, 2, 1)));
        // Rows in another order, a diagonal, a sum over more, a batch of products, no output, and an ellipsis on one side.
        for equation in ["bij,jk->ibk", "jj,jk->jk", "bij,jk->ik", "ij,jk->ijk", "ij,jk", "...ij,jk->ik"] {
            assert_eq!(of(equation, 1), None, "{equation}");
        }
    }

    #[test]
    fn fused_products_are_transposed_and_scaled() {
        let of = |flags: &[(&str, i64)], constant: usize| {
            let mut attribute: Vec<_> = flags
                .iter()
                .map(|(name, i)| crate::proto::onnx::AttributeProto {
                    name: Some((*name).to_owned()),
                    i: Some(*i),
                    ..Default::default()
                })
                .collect();
            attribute.push(crate::proto::onnx::AttributeProto {
                name: Some("alpha".to_owned()),
                f: Some(0.5),
                ..Default::default()
            });
            let node = NodeProto {
                op_type: Some("FusedMatMul".to_owned()),
                domain: Some("com.microsoft".to_owned()),
                attribute,
                ..Default::default()
            };
            Linear::of(&node, &move |slot| (slot == constant).then(|| vec![5, 7]))
        };
        let facts = |found: Option<Linear>| found.map(|l| (l.data, l.inputs, l.outputs, l.layout, l.geometry));
        let rows = |data, output| Geometry::Rows { data, output };
        let (outputs_first, inputs_first) = (Layout::OutputsFirst, Layout::InputsFirst);
        assert_eq!(facts(of(&[], 1)), Some((0, 5, 7, inputs_first, rows(1, 1))));
        assert_eq!(facts(of(&[("transA", 1), ("transB", 1)], 1)), Some((0, 7, 5, outputs_first, rows(2, 1))));
        assert_eq!(facts(of(&[], 0)), Some((1, 7, 5, outputs_first, rows(2, 2))));
        assert_eq!(facts(of(&[("transA", 1), ("transB", 1)], 0)), Some((1, 5, 7, inputs_first, rows(1, 2))));
        assert_eq!(of(&[], 1).unwrap().scale, 0.5);
        assert!(of(&[("transBatchA", 1)], 1).is_none());
    }
}
