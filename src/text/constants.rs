//! Constants of the text form: given values, and random ones that depend on the name of the tensor alone.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::words::{split, type_called};
use crate::proto::onnx::{GraphProto, TensorProto, tensor_proto::DataType};

/// An input of a node: a name, or a constant that becomes an initializer.
pub(super) fn operand(text: &str, fresh: String, graph: &mut GraphProto) -> Option<String> {
    if text == "_" {
        return Some(String::new());
    }
    let Some(at) = text.find(['[', '{', '<']) else { return Some(text.to_owned()) };
    let (name, body) = text.split_at(at);
    let (name, data_type) = match name.split_once(':') {
        Some((name, data_type)) => (name, Some(type_called(data_type)?)),
        None => (name, None),
    };
    let name = if name.is_empty() { fresh } else { name.to_owned() };
    let inner = body.get(1..body.len().checked_sub(1)?)?;
    let items = split(inner);
    let mut tensor = TensorProto { name: Some(name.clone()), ..Default::default() };
    match body.get(..1)? {
        "[" => {
            let dims: Option<Vec<i64>> = items.iter().map(|i| i.parse().ok()).collect();
            tensor.dims = dims?;
            let count = tensor.dims.iter().try_fold(1usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?))?;
            tensor.data_type = Some(data_type.unwrap_or(DataType::Float) as i32);
            tensor.raw_data = Some(random_values(&name, count, data_type)?.into());
        }
        "{" => {
            let values: Option<Vec<i64>> = items.iter().map(|i| i.parse().ok()).collect();
            // One number of a given type is a scalar, as one float is.
            if data_type.is_none() || items.len() != 1 {
                tensor.dims = vec![i64::try_from(items.len()).ok()?];
            }
            tensor.data_type = Some(data_type.unwrap_or(DataType::Int64) as i32);
            match data_type {
                None | Some(DataType::Int64) => tensor.int64_data = values?,
                Some(DataType::Float) => return None,
                Some(_) => {
                    let values: Option<Vec<i32>> = values?.into_iter().map(|v| i32::try_from(v).ok()).collect();
                    tensor.int32_data = values?;
                }
            }
        }
        _ => {
            let values: Option<Vec<f32>> = items.iter().map(|i| i.parse().ok()).collect();
            tensor.float_data = values?;
            if tensor.float_data.len() != 1 {
                tensor.dims = vec![i64::try_from(items.len()).ok()?];
            }
            tensor.data_type = Some(DataType::Float as i32);
        }
    }
    graph.initializer.push(tensor);
    Some(name)
}

/// Values in ±(0.1 … 1.1), seeded by the name; positive where the name says it is a variance or a scale. Integers are
/// the hundredfold, rounded.
fn random_values(name: &str, count: usize, data_type: Option<DataType>) -> Option<Vec<u8>> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let positive = name.contains("var") || name.contains("scale");
    let value = |r: u32| {
        let magnitude = 0.1 + (r >> 1) as f32 / (u32::MAX >> 1) as f32;
        if positive || r & 1 == 0 { magnitude } else { -magnitude }
    };
    let mut bytes = Vec::new();
    for _ in 0..count {
        let value = value(random.next_u32());
        let integer = (value * 100.0).round() as i32;
        match data_type.unwrap_or(DataType::Float) {
            DataType::Float => bytes.extend(value.to_le_bytes()),
            DataType::Int64 => bytes.extend(i64::from(integer).to_le_bytes()),
            DataType::Int32 => bytes.extend(integer.to_le_bytes()),
            DataType::Int8 => bytes.extend((integer as i8).to_le_bytes()),
            DataType::Uint8 => bytes.push(integer.unsigned_abs() as u8),
            DataType::Bool => bytes.push(u8::from(integer > 0)),
            DataType::Float16 => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
            DataType::Bfloat16 => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
            // Any code but that of what is no number.
            DataType::Float8e4m3fn => bytes.push((integer as u8 & 0x80) | (integer.unsigned_abs() as u8 & 0x7e)),
            DataType::Int4 | DataType::Uint4 => bytes.push(integer as u8 & 0xf),
            _ => return None,
        }
    }
    Some(match data_type {
        // Two to a byte, the first in the lower half.
        Some(DataType::Int4 | DataType::Uint4) => {
            bytes.chunks(2).map(|pair| pair.iter().rev().fold(0, |byte, code| byte << 4 | code)).collect()
        }
        _ => bytes,
    })
}
