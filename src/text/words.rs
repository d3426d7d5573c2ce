//! Words of the text form: lists, attributes and the names of element types.

use crate::proto::onnx::{AttributeProto, attribute_proto::AttributeType, tensor_proto::DataType};

/// The element type of a name.
pub(super) fn type_called(name: &str) -> Option<DataType> {
    Some(match name {
        "float" => DataType::Float,
        "int64" => DataType::Int64,
        "int32" => DataType::Int32,
        "int8" => DataType::Int8,
        "uint8" => DataType::Uint8,
        "bool" => DataType::Bool,
        "float16" => DataType::Float16,
        "bfloat16" => DataType::Bfloat16,
        "int4" => DataType::Int4,
        "uint4" => DataType::Uint4,
        "float8e4m3fn" => DataType::Float8e4m3fn,
        _ => return None,
    })
}

/// An attribute from its name and its value; `@name` refers to one of the function around it.
pub(super) fn attribute(name: &str, value: &str) -> Option<AttributeProto> {
    let mut attribute = AttributeProto { name: Some(name.to_owned()), ..Default::default() };
    if let Some(referred) = value.strip_prefix('@') {
        // The type is whatever the function's attribute has.
        attribute.ref_attr_name = Some(referred.to_owned());
        return Some(attribute);
    }
    let kind = if let Some(list) = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')) {
        let items = split(list);
        if let Some(texts) = items.iter().map(|i| quoted(i)).collect::<Option<Vec<_>>>().filter(|t| !t.is_empty()) {
            attribute.strings = texts.iter().map(|t| t.as_bytes().to_vec()).collect();
            AttributeType::Strings
        } else if items.iter().any(|i| i.contains('.')) {
            attribute.floats = items.iter().map(|i| i.parse().ok()).collect::<Option<_>>()?;
            AttributeType::Floats
        } else {
            attribute.ints = items.iter().map(|i| i.parse().ok()).collect::<Option<_>>()?;
            AttributeType::Ints
        }
    } else if let Some(text) = quoted(value) {
        attribute.s = Some(text.as_bytes().to_vec());
        AttributeType::String
    } else if let Ok(integer) = value.parse() {
        attribute.i = Some(integer);
        AttributeType::Int
    } else {
        attribute.f = Some(value.parse().ok()?);
        AttributeType::Float
    };
    attribute.r#type = Some(kind as i32);
    Some(attribute)
}

fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// Splits at commas that stand outside brackets and quotes; blanks around the parts are dropped.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let (mut depth, mut quoted) = (0usize, false);
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            '[' | '{' | '<' if !quoted => depth += 1,
            ']' | '}' | '>' if !quoted => depth = depth.saturating_sub(1),
            ',' if depth == 0 && !quoted => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    if !part.trim().is_empty() {
        parts.push(part.trim().to_owned());
    }
    parts
}
