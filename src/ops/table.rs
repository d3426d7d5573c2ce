//! The table of operators: one row each, in alphabetical order.
//!
//! docs/operators.md is generated from it and a test keeps it sorted and unique.

use super::Row;
use super::concat::Concat;
use super::conv::Conv;
use super::elementwise::Elementwise;
use super::expand::{Expand, Tile};
use super::gather::{Gather, GatherElements};
use super::pad::Pad;
use super::reshape::{Flatten, Reshape};
use super::resize::{Resize, Upsample};
use super::shapes::{ConstantOfShape, OneHot, Range, Shape, Size};
use super::shuffle::{DepthToSpace, SpaceToDepth};
use super::slice::Slice;
use super::split::Split;
use super::squeeze::{Squeeze, Unsqueeze};
use super::transpose::Transpose;

const fn row(op_type: &'static str, rule: &'static dyn super::Rule, note: &'static str) -> Row {
    Row { domain: "", op_type, rule, shape_inputs: &[], note }
}

const fn shaped(
    op_type: &'static str,
    rule: &'static dyn super::Rule,
    shape_inputs: &'static [usize],
    note: &'static str,
) -> Row {
    Row { domain: "", op_type, rule, shape_inputs, note }
}

const POINTWISE: &str = "every axis passes through; broadcasting is followed";

/// Every operator that pruning understands.
pub static RULES: &[Row] = &[
    row("Add", &Elementwise, POINTWISE),
    row("Concat", &Concat, "the parts of the joined axis, each by itself; every other axis passes"),
    shaped("ConstantOfShape", &ConstantOfShape, &[0], "every axis of known extent"),
    row("Conv", &Conv, "input and output channels, also of grouped and depthwise convolutions; spatial axes are locked"),
    row("DepthToSpace", &DepthToSpace, "channels outside the block; the block is locked"),
    shaped("Expand", &Expand, &[1], "every axis, repeated ones too"),
    row("Flatten", &Flatten, "every axis; merged ones shrink by their parts"),
    shaped(
        "Gather",
        &Gather,
        &[1],
        "constant indices: runs of neighbours; computed indices lock the axis; other axes pass",
    ),
    row("GatherElements", &GatherElements, "the gathered axis is locked, the others pass"),
    shaped("OneHot", &OneHot, &[1], "the axes of the indices pass, the depth is locked"),
    shaped("Pad", &Pad, &[1, 3], "every axis, padded parts too; reflected, repeated and wrapped axes are locked"),
    shaped("Range", &Range, &[0, 1, 2], "nothing"),
    shaped("Reshape", &Reshape, &[1], "every axis, split and merged; locked where the target cuts across channels"),
    shaped("Resize", &Resize, &[3], "axes that keep their extent; interpolated ones are locked"),
    row("Shape", &Shape, "every axis; the result follows"),
    row("Size", &Size, "every axis; the result follows"),
    shaped(
        "Slice",
        &Slice,
        &[1, 2, 3, 4],
        "the parts inside and outside the range; computed and reversed slices lock the axis",
    ),
    row("SpaceToDepth", &SpaceToDepth, "channels outside the block; the block is locked"),
    shaped("Split", &Split, &[1], "the parts of the split axis, each by itself; every other axis passes"),
    shaped("Squeeze", &Squeeze, &[1], "every axis"),
    shaped("Tile", &Tile, &[1], "every axis; the number of copies is locked"),
    row("Transpose", &Transpose, "every axis"),
    shaped("Unsqueeze", &Unsqueeze, &[1], "every axis"),
    row("Upsample", &Upsample, "axes that keep their extent; interpolated ones are locked"),
];

/// The row of an operator, or `None` if it is opaque.
pub fn rule_for(domain: &str, op_type: &str) -> Option<&'static Row> {
    let at = RULES.binary_search_by(|row| (row.domain, row.op_type).cmp(&(domain, op_type))).ok()?;
    RULES.get(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_unique() {
        for pair in RULES.windows(2) {
            assert!(
                (pair[0].domain, pair[0].op_type) < (pair[1].domain, pair[1].op_type),
                "{} and {} are out of order",
                pair[0].op_type,
                pair[1].op_type
            );
        }
    }
}
