<<<<<<< HEAD
//! Constants whose shape, type and data do not belong together, found before anything is computed from them.
//!
//! Spec: the comments of `TensorProto` in proto/onnx-ml.proto. Invariants: no data is touched, only lengths are compared;
//! what a newer standard may add (element types that this program does not know) is let through.

use super::is_constant;
use crate::proto::onnx::tensor_proto::{DataLocation, DataType};
use crate::proto::onnx::{ModelProto, TensorProto};
use crate::proto::tensor::{byte_count, element_bits, element_count};
use crate::{Error, Result};

/// Checks every initializer and every tensor of a `Constant` node of the main graph.
///
/// # Errors
/// The first tensor whose extents are negative or absurd, or whose data is longer or shorter than its shape and type ask
/// for.
pub fn check(model: &ModelProto) -> Result<()> {
    let Some(graph) = &model.graph else { return Ok(()) };
    for tensor in &graph.initializer {
        check_tensor(tensor).map_err(|e| e.tensor(tensor.name()).help("export the model again"))?;
    }
    for node in graph.node.iter().filter(|n| is_constant(n)) {
        let name = node.output.first().map_or("", String::as_str);
        for tensor in node.attribute.iter().filter_map(|a| a.t.as_ref()) {
            check_tensor(tensor).map_err(|e| e.tensor(name).help("export the model again"))?;
        }
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto) -> Result<()> {
    let count = element_count(&tensor.dims)?;
    let data_type = DataType::try_from(tensor.data_type());
    if data_type == Ok(DataType::String) {
        return expect("strings", tensor.string_data.len(), count, &tensor.dims);
    }
    if data_type == Ok(DataType::Undefined) {
        return Err(Error::input("a constant has no element type"));
    }
    let (Ok(data_type), Some(bits)) = (data_type, element_bits(tensor.data_type())) else { return Ok(()) };
    if let Some(raw) = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty()) {
        let needed = byte_count(count, bits);
        if needed == Some(raw.len()) {
            return Ok(());
        }
        let needed = needed.map_or_else(|| "more than fit".to_owned(), |n| n.to_string());
        return Err(Error::input(format!(
            "raw data is {} bytes, {} of shape {:?} needs {needed}",
            raw.len(),
            data_type.as_str_name(),
            tensor.dims
        )));
    }
    if tensor.data_location() == DataLocation::External && tensor.raw_data.is_none() {
        // Not loaded; whoever needs the data says so.
        return Ok(());
    }
    let (entries, needed) = match data_type {
        DataType::Float => (tensor.float_data.len(), count),
        DataType::Complex64 => (tensor.float_data.len(), count.saturating_mul(2)),
        DataType::Double => (tensor.double_data.len(), count),
        DataType::Complex128 => (tensor.double_data.len(), count.saturating_mul(2)),
        DataType::Int64 => (tensor.int64_data.len(), count),
        DataType::Uint32 | DataType::Uint64 => (tensor.uint64_data.len(), count),
        // Types narrower than a byte arrive packed, all but the 6-bit ones.
        _ if bits < 6 => (tensor.int32_data.len(), byte_count(count, bits).unwrap_or(usize::MAX)),
        _ => (tensor.int32_data.len(), count),
    };
    expect(data_type.as_str_name(), entries, needed, &tensor.dims)
}

fn expect(kind: &str, found: usize, needed: usize, dims: &[i64]) -> Result<()> {
    if found == needed {
        return Ok(());
    }
    Err(Error::input(format!("typed data holds {found} entries, {kind} of shape {dims:?} needs {needed}")))
=======
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
        Err(Error::input(format!("{what} holds {found}, the shape {:?} needs {needed}", tensor.dims)))
    };
    let Some(bits) = tensor::element_bits(tensor.data_type()) else {
        if tensor.data_type() == DataType::String as i32 {
            return expected(tensor.string_data.len(), count, "the list of strings");
        }
        return Err(Error::input(format!("its element type {} is not known", tensor.data_type())));
    };
    let bytes = tensor::byte_count(count, bits).ok_or_else(absurd)?;
    match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => return expected(raw.len(), bytes, "its raw data in bytes"),
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
    expected(found, needed, "its data")
>>>>>>> main
}

#[cfg(test)]
mod tests {
<<<<<<< HEAD
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::proto::onnx::GraphProto;

    fn verdict(tensor: TensorProto) -> Result<()> {
        let graph = GraphProto { initializer: vec![tensor], ..Default::default() };
        check(&ModelProto { graph: Some(graph), ..Default::default() })
    }

    fn tensor(data_type: DataType, dims: &[i64]) -> TensorProto {
        let name = Some("w".to_owned());
        TensorProto { name, dims: dims.to_vec(), data_type: Some(data_type as i32), ..Default::default() }
    }

    #[test]
    fn lengths_that_fit_pass() {
        let raw = |n: usize| Some(vec![0u8; n].into());
        verdict(TensorProto { raw_data: raw(24), ..tensor(DataType::Float, &[2, 3]) }).unwrap();
        verdict(TensorProto { raw_data: raw(2), ..tensor(DataType::Int4, &[3]) }).unwrap();
        verdict(TensorProto { int32_data: vec![1, 2], ..tensor(DataType::Uint4, &[3]) }).unwrap();
        verdict(TensorProto { int32_data: vec![1, 2, 3], ..tensor(DataType::Float16, &[3]) }).unwrap();
        verdict(TensorProto { string_data: vec![vec![]], ..tensor(DataType::String, &[]) }).unwrap();
        verdict(tensor(DataType::Float, &[0, 7])).unwrap();
    }

    #[test]
    fn others_are_named() {
        let message = |t: TensorProto| verdict(t).unwrap_err().to_string();
        let short = TensorProto { raw_data: Some(vec![0; 12].into()), ..tensor(DataType::Float, &[2, 3]) };
        assert_eq!(
            message(short),
            "raw data is 12 bytes, FLOAT of shape [2, 3] needs 24 (tensor `w`); export the model again"
        );
        assert!(message(tensor(DataType::Float, &[-1])).contains("negative"));
        assert!(message(tensor(DataType::Float, &[1 << 40, 1 << 40])).contains("than a computer can hold"));
        let integers = TensorProto { int32_data: vec![1; 6], ..tensor(DataType::Float, &[6]) };
        assert!(message(integers).contains("typed data holds 0 entries, FLOAT of shape [6] needs 6"));
        assert!(message(tensor(DataType::Undefined, &[1])).contains("no element type"));
=======
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
>>>>>>> main
    }
}
