//! What a well-formed constant is: dimensions that are sizes, a known type, and exactly the data that its shape needs.
//!
//! Only lengths are looked at, no weight is touched. Invariant: behind this check the extent of a constant's axis is
//! bounded by what the file really holds, so that no stage can be made to allocate more by a number in the file.

use crate::proto::onnx::{TensorProto, tensor_proto::DataLocation, tensor_proto::DataType};
use crate::proto::tensor;
use crate::{Error, Result};

/// Checks a stored constant.
///
/// # Errors
/// A dimension that is negative or absurd, a length that does not fit the shape; the tensor is named.
pub(super) fn constant(tensor: &TensorProto) -> Result<()> {
    length(tensor).map_err(|e| e.tensor(tensor.name()).help("the file is damaged, export the model again"))
}

fn length(tensor: &TensorProto) -> Result<()> {
    let count = tensor::element_count(&tensor.dims)?;
    let absurd = || Error::input(format!("the shape {:?} is absurd", tensor.dims));
    let expected = |found: usize, needed: usize, what: &str| {
        if found == needed {
            return Ok(());
        }
        let kind = DataType::try_from(tensor.data_type()).map_or("its type", |kind| kind.as_str_name());
        Err(Error::input(format!("{what} {found}, {kind} of shape {:?} needs {needed}", tensor.dims)))
    };
    let Some(bits) = tensor::element_bits(tensor.data_type()) else {
        if tensor.data_type() == DataType::String as i32 {
            return expected(tensor.string_data.len(), count, "its strings number");
        }
        return Err(Error::input(format!("its element type {} is not known", tensor.data_type())));
    };
    let bytes = tensor::byte_count(count, bits).ok_or_else(absurd)?;
    match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => return expected(raw.len(), bytes, "the bytes of its raw data are"),
        None if bytes > 0 && tensor.data_location() == DataLocation::External => {
            return Err(Error::input("its data lies in another file that was not loaded"));
        }
        _ => {}
    }
    let kind = DataType::try_from(tensor.data_type()).unwrap_or(DataType::Undefined);
    let (found, needed) = match kind {
        DataType::Float => (tensor.float_data.len(), count),
        DataType::Double => (tensor.double_data.len(), count),
        DataType::Int64 => (tensor.int64_data.len(), count),
        DataType::Uint64 | DataType::Uint32 => (tensor.uint64_data.len(), count),
        DataType::Complex64 => (tensor.float_data.len(), count.checked_mul(2).ok_or_else(absurd)?),
        DataType::Complex128 => (tensor.double_data.len(), count.checked_mul(2).ok_or_else(absurd)?),
        // Types of less than a byte are packed, one byte per entry.
        _ if bits < 8 => (tensor.int32_data.len(), bytes),
        _ => (tensor.int32_data.len(), count),
    };
    expected(found, needed, "its entries number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[i64], kind: DataType, raw: usize) -> TensorProto {
        TensorProto {
            dims: dims.to_vec(),
            data_type: Some(kind as i32),
            raw_data: Some(vec![0; raw].into()),
            ..Default::default()
        }
    }

    #[test]
    fn lengths_must_fit() {
        for (dims, kind, raw, fits) in [
            (&[2, 3][..], DataType::Float, 24, true),
            (&[2, 3], DataType::Float16, 24, false),
            (&[], DataType::Int64, 8, true),
            (&[0], DataType::Float, 0, true),
            (&[3], DataType::Int4, 2, true),
            (&[-1], DataType::Float, 4, false),
            (&[1 << 40], DataType::Float, 4, false),
            (&[i64::MAX, i64::MAX], DataType::Float, 4, false),
        ] {
            assert_eq!(constant(&tensor(dims, kind, raw)).is_ok(), fits, "{dims:?}");
        }
    }
}
