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
}

#[cfg(test)]
mod tests {
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
    }
}
