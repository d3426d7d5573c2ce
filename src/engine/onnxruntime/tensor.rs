//! Values on the way to ONNX Runtime and back.
//!
//! Invariants: a value that is fed is lent and not copied; what comes back is copied once, because it lives in memory of
//! the session.

use half::f16;
use ndarray::CowArray;
use ort::session::SessionInputValue;
use ort::value::{DynValue, Tensor, TensorElementType, TensorRef, ValueType};

use super::super::value::from_vec;
use super::super::{ElementType, Value};
use crate::proto::onnx::TensorProto;
use crate::{Error, Result};

macro_rules! all_types {
    ($use:ident) => {
        $use! {
            F32 f32, Float, Float32;
            F64 f64, Double, Float64;
            F16 f16, Float16, Float16;
            I8 i8, Int8, Int8;
            I16 i16, Int16, Int16;
            I32 i32, Int32, Int32;
            I64 i64, Int64, Int64;
            U8 u8, Uint8, Uint8;
            U16 u16, Uint16, Uint16;
            U32 u32, Uint32, Uint32;
            U64 u64, Uint64, Uint64;
        }
    };
}

/// A value with its elements in a row, as ONNX Runtime wants them.
pub(super) enum Lent<'a> {
    /// As it is.
    Same(&'a Value),
    /// Its elements were in another order.
    Ordered(Value),
}

impl<'a> Lent<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        macro_rules! ordered {
            ($($variant:ident $scalar:ty, $element:ident, $theirs:ident;)*) => {
                match value {
                    $(Value::$variant(a) if !a.is_standard_layout() => {
                        Self::Ordered(CowArray::into_owned(a.as_standard_layout()).into())
                    })*
                    Value::Bool(a) if !a.is_standard_layout() => Self::Ordered(a.as_standard_layout().into_owned().into()),
                    _ => Self::Same(value),
                }
            };
        }
        all_types!(ordered)
    }

    /// The value as a session takes it.
    pub(super) fn input(&self) -> ort::Result<SessionInputValue<'_>> {
        let value = match self {
            Self::Same(value) => value,
            Self::Ordered(value) => value,
        };
        macro_rules! lend {
            ($($variant:ident $scalar:ty, $element:ident, $theirs:ident;)*) => {
                Ok(match value {
                    $(Value::$variant(a) => TensorRef::from_array_view(a.view())?.into(),)*
                    Value::Bool(a) => TensorRef::from_array_view(a.view())?.into(),
                })
            };
        }
        all_types!(lend)
    }
}

/// The value of an output.
pub(super) fn output(name: &str, value: &DynValue) -> Result<Value> {
    let cannot =
        |what: String| Error::engine(format!("ONNX Runtime gives {what}, which cannot be returned")).tensor(name);
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Err(cannot(format!("a {}", value.dtype()))) };
    let extracted = |e: ort::Error| cannot(format!("a value ({})", super::message::shortened(e.message())));
    macro_rules! copied {
        ($($variant:ident $scalar:ty, $element:ident, $theirs:ident;)*) => {
            match ty {
                $(TensorElementType::$theirs => {
                    Ok(value.try_extract_array::<$scalar>().map_err(extracted)?.to_owned().into())
                })*
                TensorElementType::Bool => Ok(value.try_extract_array::<bool>().map_err(extracted)?.to_owned().into()),
                other => Err(cannot(format!("a tensor of {other}"))),
            }
        };
    }
    all_types!(copied)
}

/// A weight as a value of its own, from its raw bytes; nothing if it is of a type that values cannot have.
pub(super) fn weight(tensor: &TensorProto) -> Result<Option<DynValue>> {
    let (Some(raw), Ok(element)) = (&tensor.raw_data, ElementType::try_from(tensor.data_type())) else {
        return Ok(None);
    };
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let shape = shape.ok_or_else(|| Error::input("a weight has a negative extent").tensor(tensor.name()))?;
    let failed = |e: ort::Error| {
        let why = super::message::shortened(e.message());
        Error::engine(format!("ONNX Runtime does not take a weight: {why}")).tensor(tensor.name())
    };
    macro_rules! numbers {
        ($($variant:ident $scalar:ty, $element:ident, $theirs:ident;)*) => {
            match element {
                $(ElementType::$element => {
                    const SIZE: usize = size_of::<$scalar>();
                    let number = |bytes: &[u8]| {
                        let mut one = [0; SIZE];
                        one.copy_from_slice(bytes);
                        <$scalar>::from_le_bytes(one)
                    };
                    let data: Vec<$scalar> = raw.chunks_exact(SIZE).map(number).collect();
                    let array = from_vec(&shape, data).map_err(|e| e.tensor(tensor.name()))?;
                    Tensor::from_array(array).map_err(failed)?.into_dyn()
                })*
                _ => return Ok(None),
            }
        };
    }
    Ok(Some(all_types!(numbers)))
}
