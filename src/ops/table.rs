//! The table of operators: one row each, in alphabetical order.
//!
//! docs/operators.md is generated from it and a test keeps it sorted and unique.

use super::Row;
use super::conv::Conv;
use super::elementwise::Elementwise;

const fn row(op_type: &'static str, rule: &'static dyn super::Rule, note: &'static str) -> Row {
    Row { domain: "", op_type, rule, shape_inputs: &[], note }
}

#[allow(dead_code)]
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
    row("Conv", &Conv, "input and output channels, also of grouped and depthwise convolutions; spatial axes are locked"),
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
