//! The numbers of a tensor, whichever field of `TensorProto` holds them.
//!
//! Spec: the comments of `TensorProto` in proto/onnx-ml.proto. Invariants: sizes that come from a file are checked
//! before they are used; the bytes handed out have exactly the length that type and shape demand; `raw_data` is never
//! copied.

use bytes::Bytes;
use half::{bf16, f16};

use super::onnx::TensorProto;
use super::onnx::tensor_proto::{DataLocation, DataType};
use super::{bits, minifloat};
use crate::{Error, Result};

/// The width of one element in bits; `None` for strings, undefined and unknown types.
pub fn element_bits(data_type: i32) -> Option<usize> {
    Some(match DataType::try_from(data_type).ok()? {
        DataType::Undefined | DataType::String => return None,
        DataType::Uint2 | DataType::Int2 => 2,
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => 4,
        DataType::Float6e2m3 | DataType::Float6e3m2 => 6,
        DataType::Bool | DataType::Uint8 | DataType::Int8 => 8,
        DataType::Float8e4m3fn | DataType::Float8e4m3fnuz | DataType::Float8e5m2 => 8,
        DataType::Float8e5m2fnuz | DataType::Float8e8m0 => 8,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 16,
        DataType::Float | DataType::Uint32 | DataType::Int32 => 32,
        DataType::Double | DataType::Uint64 | DataType::Int64 | DataType::Complex64 => 64,
        DataType::Complex128 => 128,
    })
}

/// The number of elements of a shape. Refuses negative extents and counts whose size in bits would not fit the machine.
pub fn element_count(dims: &[i64]) -> Result<usize> {
    let mut count = 1usize;
    for &extent in dims {
        let extent = usize::try_from(extent).map_err(|_| {
            Error::input(format!("shape {dims:?} has a negative extent")).help("export the model again")
        })?;
        count = count.checked_mul(extent).ok_or_else(|| too_large(dims))?;
    }
    // The widest element has 128 bits, so every later size in bits and bytes fits as well.
    count.checked_mul(128).filter(|bits| isize::try_from(*bits).is_ok()).ok_or_else(|| too_large(dims))?;
    Ok(count)
}

fn too_large(dims: &[i64]) -> Error {
    Error::input(format!("shape {dims:?} has more elements than a computer can hold")).help("export the model again")
}

/// The number of bytes that so many elements take when packed.
pub fn byte_count(elements: usize, element_bits: usize) -> Option<usize> {
    elements.checked_mul(element_bits).map(|bits| bits.div_ceil(8))
}

/// The elements as little-endian bytes, packed as `raw_data` has them. Without a copy where the file holds raw data.
///
/// Errors: strings and unknown types, a length that does not fit the shape, external data that was not loaded.
pub fn raw_bytes(tensor: &TensorProto) -> Result<Bytes> {
    let named = |error: Error| error.tensor(tensor.name());
    let Some(bits) = element_bits(tensor.data_type()) else {
        return Err(named(Error::input(format!("{} are not numbers", type_name(tensor.data_type())))));
    };
    let count = element_count(&tensor.dims).map_err(named)?;
    let needed = byte_count(count, bits).ok_or_else(|| named(too_large(&tensor.dims)))?;
    let (data, field) = match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => (raw.clone(), "raw data"),
        None if needed > 0 && tensor.data_location() == DataLocation::External => {
            return Err(named(
                Error::input("data lies in another file that was not loaded").help("read the model from its file"),
            ));
        }
        _ => (typed_bytes(tensor, bits).map_err(named)?, "typed data"),
    };
    if data.len() != needed {
        let what = format!("{field} is {} bytes, its shape {:?} needs {needed}", data.len(), tensor.dims);
        return Err(named(Error::input(what).help("the file is damaged, export the model again")));
    }
    Ok(data)
}

/// The bytes of the typed field that the standard assigns to the type of the tensor.
fn typed_bytes(tensor: &TensorProto, bits: usize) -> Result<Bytes> {
    let bytes: Vec<u8> = match (DataType::try_from(tensor.data_type()), bits) {
        (Ok(DataType::Float | DataType::Complex64), _) => {
            tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        (Ok(DataType::Double | DataType::Complex128), _) => {
            tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        (Ok(DataType::Int64), _) => tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (Ok(DataType::Uint64), _) => tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (Ok(DataType::Uint32), _) => {
            let mut bytes = Vec::with_capacity(tensor.uint64_data.len().saturating_mul(4));
            for &value in &tensor.uint64_data {
                let value = u32::try_from(value).map_err(|_| Error::input(format!("{value} does not fit 32 bits")))?;
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            bytes
        }
        (_, 32) => tensor.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        (_, 16) => tensor.int32_data.iter().flat_map(|v| (*v as u16).to_le_bytes()).collect(),
        // One entry per element here, unlike the 2-bit and 4-bit types, which arrive packed.
        (_, 6) => bits::pack(&tensor.int32_data.iter().map(|v| *v as u8).collect::<Vec<_>>(), 6),
        _ => tensor.int32_data.iter().map(|v| *v as u8).collect(),
    };
    Ok(Bytes::from(bytes))
}

/// The elements of a floating-point tensor of any width, row-major. fp64 is rounded to nearest.
pub fn to_f32(tensor: &TensorProto) -> Result<Vec<f32>> {
    if let (Ok(kind), Some(bits @ ..=8)) = (DataType::try_from(tensor.data_type()), element_bits(tensor.data_type())) {
        let codes = bits::unpack(&raw_bytes(tensor)?, bits, element_count(&tensor.dims)?);
        let values: Option<Vec<f32>> = codes.into_iter().map(|code| minifloat::value(kind, code)).collect();
        return values.ok_or_else(|| wrong_type(tensor, "floating-point numbers"));
    }
    let read: fn(&[u8]) -> Vec<f32> = match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Float) => |raw| elements(raw, f32::from_le_bytes),
        Ok(DataType::Float16) => |raw| elements(raw, |cell| f16::from_le_bytes(cell).to_f32()),
        Ok(DataType::Bfloat16) => |raw| elements(raw, |cell| bf16::from_le_bytes(cell).to_f32()),
        Ok(DataType::Double) => |raw| elements(raw, |cell| f64::from_le_bytes(cell) as f32),
        _ => return Err(wrong_type(tensor, "floating-point numbers")),
    };
    Ok(read(&raw_bytes(tensor)?))
}

/// The elements of an integer or boolean tensor, row-major. Refuses unsigned values above the range of `i64`.
pub fn to_i64(tensor: &TensorProto) -> Result<Vec<i64>> {
    let raw = raw_bytes(tensor)?;
    Ok(match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Int64) => elements(&raw, i64::from_le_bytes),
        Ok(DataType::Int32) => elements(&raw, |cell| i64::from(i32::from_le_bytes(cell))),
        Ok(DataType::Int16) => elements(&raw, |cell| i64::from(i16::from_le_bytes(cell))),
        Ok(DataType::Int8) => elements(&raw, |cell| i64::from(i8::from_le_bytes(cell))),
        Ok(DataType::Uint32) => elements(&raw, |cell| i64::from(u32::from_le_bytes(cell))),
        Ok(DataType::Uint16) => elements(&raw, |cell| i64::from(u16::from_le_bytes(cell))),
        Ok(DataType::Uint8 | DataType::Bool) => raw.iter().map(|byte| i64::from(*byte)).collect(),
        Ok(DataType::Uint64) => {
            let values: Option<Vec<i64>> =
                elements(&raw, u64::from_le_bytes).into_iter().map(|v| i64::try_from(v).ok()).collect();
            values.ok_or_else(|| Error::input("holds a value beyond the range of int64").tensor(tensor.name()))?
        }
        Ok(kind @ (DataType::Uint4 | DataType::Uint2 | DataType::Int4 | DataType::Int2)) => {
            let width = if matches!(kind, DataType::Uint4 | DataType::Int4) { 4 } else { 2 };
            let signed = matches!(kind, DataType::Int4 | DataType::Int2);
            let sign = 1i64 << (width - 1);
            let value = |byte: u8| if signed { (i64::from(byte) ^ sign) - sign } else { i64::from(byte) };
            bits::unpack(&raw, width, element_count(&tensor.dims)?).into_iter().map(value).collect()
        }
        _ => return Err(wrong_type(tensor, "integers")),
    })
}

fn elements<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|cell| read(*cell)).collect()
}

fn wrong_type(tensor: &TensorProto, wanted: &str) -> Error {
    Error::input(format!("{wanted} are needed here, the tensor holds {}", type_name(tensor.data_type())))
        .tensor(tensor.name())
}

fn type_name(data_type: i32) -> String {
    match DataType::try_from(data_type) {
        Ok(kind) => format!("elements of type {}", kind.as_str_name()),
        Err(_) => format!("elements of the unknown type {data_type}"),
    }
}

/// An int64 tensor as raw data. The product of `dims` must be the number of values.
pub fn from_i64(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    from_raw(
        name,
        DataType::Int64,
        dims,
        values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>().into(),
    )
}

/// An fp32 tensor as raw data. The product of `dims` must be the number of values.
pub fn from_f32(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    from_raw(
        name,
        DataType::Float,
        dims,
        values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>().into(),
    )
}

/// A tensor of any type from its little-endian, packed bytes.
pub fn from_raw(name: &str, data_type: DataType, dims: &[i64], raw: Bytes) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(data_type.into()),
        dims: dims.to_vec(),
        raw_data: Some(raw),
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn typed(data_type: DataType, dims: &[i64]) -> TensorProto {
        TensorProto { raw_data: None, ..from_raw("t", data_type, dims, Bytes::new()) }
    }

    #[test]
    fn every_type_has_a_width_but_strings() {
        for data_type in -1..40 {
            let known =
                DataType::try_from(data_type).is_ok_and(|kind| kind != DataType::Undefined && kind != DataType::String);
            assert_eq!(element_bits(data_type).is_some(), known, "type {data_type}");
        }
    }

    #[test]
    fn counts_are_checked() {
        assert_eq!(element_count(&[]).unwrap(), 1);
        assert_eq!(element_count(&[3, 0, 5]).unwrap(), 0);
        assert!(element_count(&[3, -1]).unwrap_err().to_string().contains("shape [3, -1] has a negative extent"));
        for dims in [&[i64::MAX, i64::MAX][..], &[i64::MAX], &[1 << 58]] {
            assert!(element_count(dims).unwrap_err().to_string().contains("more elements than"), "{dims:?}");
        }
    }

    #[test]
    fn typed_fields_read_like_raw_data() {
        let mut tensor = typed(DataType::Float, &[2]);
        tensor.float_data = vec![1.5, -2.0];
        assert_eq!(to_f32(&tensor).unwrap(), [1.5, -2.0]);
        let mut tensor = typed(DataType::Float16, &[2]);
        tensor.int32_data = vec![i32::from(f16::from_f32(0.5).to_bits()), i32::from(f16::from_f32(-3.0).to_bits())];
        assert_eq!(to_f32(&tensor).unwrap(), [0.5, -3.0]);
        let mut tensor = typed(DataType::Bfloat16, &[1]);
        tensor.int32_data = vec![i32::from(bf16::from_f32(-1.0).to_bits())];
        assert_eq!(to_f32(&tensor).unwrap(), [-1.0]);
        let mut tensor = typed(DataType::Double, &[1]);
        tensor.double_data = vec![0.25];
        assert_eq!(to_f32(&tensor).unwrap(), [0.25]);
        let mut tensor = typed(DataType::Int8, &[3]);
        tensor.int32_data = vec![-1, 127, -128];
        assert_eq!(to_i64(&tensor).unwrap(), [-1, 127, -128]);
        let mut tensor = typed(DataType::Uint8, &[2]);
        tensor.int32_data = vec![255, 3];
        assert_eq!(to_i64(&tensor).unwrap(), [255, 3]);
        let mut tensor = typed(DataType::Int16, &[1]);
        tensor.int32_data = vec![-300];
        assert_eq!(to_i64(&tensor).unwrap(), [-300]);
        let mut tensor = typed(DataType::Int32, &[1]);
        tensor.int32_data = vec![-70000];
        assert_eq!(to_i64(&tensor).unwrap(), [-70000]);
        let mut tensor = typed(DataType::Int64, &[2]);
        tensor.int64_data = vec![i64::MIN, 7];
        assert_eq!(to_i64(&tensor).unwrap(), [i64::MIN, 7]);
        let mut tensor = typed(DataType::Uint32, &[1]);
        tensor.uint64_data = vec![u64::from(u32::MAX)];
        assert_eq!(to_i64(&tensor).unwrap(), [i64::from(u32::MAX)]);
        tensor.uint64_data = vec![1 << 40];
        assert!(to_i64(&tensor).unwrap_err().to_string().contains("does not fit 32 bits"));
        let mut tensor = typed(DataType::Uint64, &[1]);
        tensor.uint64_data = vec![u64::MAX];
        assert!(to_i64(&tensor).unwrap_err().to_string().contains("beyond the range of int64"));
        let mut tensor = typed(DataType::Int4, &[3]);
        tensor.int32_data = vec![0xf7, 0x08];
        assert_eq!(to_i64(&tensor).unwrap(), [7, -1, -8]);
        let mut tensor = typed(DataType::Uint2, &[3]);
        tensor.int32_data = vec![0b11_01_10];
        assert_eq!(to_i64(&tensor).unwrap(), [2, 1, 3]);
        let mut tensor = typed(DataType::Float6e2m3, &[4]);
        tensor.int32_data = vec![1, 2, 3, 4];
        assert_eq!(raw_bytes(&tensor).unwrap(), bits::pack(&[1, 2, 3, 4], 6));
        let mut tensor = typed(DataType::Complex64, &[1]);
        tensor.float_data = vec![1.0, 2.0];
        assert_eq!(raw_bytes(&tensor).unwrap().len(), 8);
        let mut tensor = typed(DataType::Bool, &[2]);
        tensor.int32_data = vec![1, 0];
        assert_eq!(to_i64(&tensor).unwrap(), [1, 0]);
    }

    #[test]
    fn wrong_lengths_and_types_are_named() {
        let tensor = from_raw("w", DataType::Float, &[3], Bytes::from_static(&[0; 10]));
        let message = raw_bytes(&tensor).unwrap_err().to_string();
        assert!(
            message.contains("raw data is 10 bytes, its shape [3] needs 12") && message.contains("`w`"),
            "{message}"
        );
        assert!(to_f32(&from_i64("i", &[1], &[1])).unwrap_err().to_string().contains("INT64"));
        assert!(to_i64(&from_f32("f", &[1], &[1.0])).unwrap_err().to_string().contains("FLOAT"));
        assert!(raw_bytes(&typed(DataType::String, &[1])).unwrap_err().to_string().contains("STRING"));
        assert!(raw_bytes(&typed(DataType::Float, &[1])).unwrap_err().to_string().contains("typed data is 0 bytes"));
        assert!(raw_bytes(&typed(DataType::Float, &[0])).unwrap().is_empty());
        let mut tensor = typed(DataType::Float, &[1]);
        tensor.set_data_location(DataLocation::External);
        assert!(raw_bytes(&tensor).unwrap_err().to_string().contains("was not loaded"));
        tensor.dims = vec![0];
        assert!(raw_bytes(&tensor).unwrap().is_empty());
    }

    #[test]
    fn raw_data_is_not_copied() {
        let tensor = from_f32("f", &[2], &[1.0, 2.0]);
        assert_eq!(raw_bytes(&tensor).unwrap().as_ptr(), tensor.raw_data.as_ref().unwrap().as_ptr());
        assert_eq!(to_f32(&tensor).unwrap(), [1.0, 2.0]);
        assert_eq!(to_i64(&from_i64("i", &[2], &[-1, 5])).unwrap(), [-1, 5]);
    }
}
