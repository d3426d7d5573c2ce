//! Floats of eight bits and less as the numbers they stand for.
//!
//! Spec: <https://onnx.ai/onnx/technical/float8.html>, <https://onnx.ai/onnx/technical/float4.html>. All are sign,
//! exponent, mantissa; they differ in the bias and in what the largest codes mean. Invariant: what is not a number is
//! given as 0, so that a damaged weight counts nothing.

use super::onnx::tensor_proto::DataType;

/// How a type lays out its bits.
struct Layout {
    exponent: u32,
    mantissa: u32,
    bias: i32,
    /// True if the largest exponent holds infinities and what is no number, as in IEEE 754.
    has_infinity: bool,
    /// True if only the negative zero is no number.
    unsigned_zero: bool,
}

fn layout(data_type: DataType) -> Option<Layout> {
    let (exponent, mantissa, bias, has_infinity, unsigned_zero) = match data_type {
        DataType::Float8e4m3fn => (4, 3, 7, false, false),
        DataType::Float8e4m3fnuz => (4, 3, 8, false, true),
        DataType::Float8e5m2 => (5, 2, 15, true, false),
        DataType::Float8e5m2fnuz => (5, 2, 16, false, true),
        DataType::Float6e2m3 => (2, 3, 1, false, false),
        DataType::Float6e3m2 => (3, 2, 3, false, false),
        DataType::Float4e2m1 => (2, 1, 1, false, false),
        _ => return None,
    };
    Some(Layout { exponent, mantissa, bias, has_infinity, unsigned_zero })
}

/// The number that `code` stands for in a type; `None` for types that are no small floats.
pub(super) fn value(data_type: DataType, code: u8) -> Option<f32> {
    if data_type == DataType::Float8e8m0 {
        return Some(if code == u8::MAX { 0.0 } else { 2f32.powi(i32::from(code) - 127) });
    }
    let layout = layout(data_type)?;
    let (width, code) = (layout.exponent + layout.mantissa, u32::from(code));
    let (fraction, exponent) =
        (code & ((1 << layout.mantissa) - 1), code >> layout.mantissa & ((1 << layout.exponent) - 1));
    let negative = code >> width & 1 == 1;
    let largest = exponent == (1 << layout.exponent) - 1;
    let no_number = match data_type {
        _ if layout.unsigned_zero => negative && exponent == 0 && fraction == 0,
        _ if layout.has_infinity => largest,
        DataType::Float8e4m3fn => largest && fraction == (1 << layout.mantissa) - 1,
        _ => false,
    };
    if no_number {
        return Some(0.0);
    }
    let part = fraction as f32 / (1u32 << layout.mantissa) as f32;
    let magnitude = match exponent {
        0 => part * 2f32.powi(1 - layout.bias),
        _ => (1.0 + part) * 2f32.powi(exponent as i32 - layout.bias),
    };
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes and numbers from the tables of the specification.
    #[test]
    fn codes_stand_for_the_numbers_of_the_specification() {
        for (data_type, code, number) in [
            (DataType::Float8e4m3fn, 0x7e, 448.0),
            (DataType::Float8e4m3fn, 0x01, 2f32.powi(-9)),
            (DataType::Float8e4m3fnuz, 0x7f, 240.0),
            (DataType::Float8e5m2, 0x7b, 57344.0),
            (DataType::Float8e5m2, 0x84, -2f32.powi(-14)),
            (DataType::Float8e5m2fnuz, 0x7f, 57344.0),
            (DataType::Float8e8m0, 0x80, 2.0),
            (DataType::Float6e2m3, 0x1f, 7.5),
            (DataType::Float6e3m2, 0x1f, 28.0),
            (DataType::Float4e2m1, 0x0f, -6.0),
            (DataType::Float4e2m1, 0x01, 0.5),
        ] {
            assert_eq!(value(data_type, code), Some(number), "{data_type:?} {code:#x}");
        }
        assert_eq!(value(DataType::Int8, 1), None);
    }
}
