//! Values: dense arrays of the element types that runtimes exchange.
//!
//! Invariants: row-major and owned; no string, bfloat16 or sub-byte elements, because the built-in engine has none.

use half::f16;
use ndarray::{ArrayD, Axis, IxDyn};

use crate::{Error, Result};

/// The element types of ONNX, as the file names them.
pub use crate::proto::onnx::tensor_proto::DataType as ElementType;

macro_rules! values {
    ($($variant:ident $scalar:ty, $element:ident;)*) => {
        /// A dense array of one element type.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $(#[doc = concat!("Elements of type `", stringify!($scalar), "`.")] $variant(ArrayD<$scalar>),)*
        }

        $(impl From<ArrayD<$scalar>> for Value {
            fn from(array: ArrayD<$scalar>) -> Self { Self::$variant(array) }
        })*

        impl Value {
            /// The element type.
            pub fn element(&self) -> ElementType {
                match self { $(Self::$variant(_) => ElementType::$element,)* }
            }

            /// The extents.
            pub fn shape(&self) -> &[usize] {
                match self { $(Self::$variant(a) => a.shape(),)* }
            }

            /// The entries at `indices` along `axis`, in that order.
            ///
            /// # Errors
            /// When the axis or an index is out of range.
            pub fn select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
                let extent = *self.shape().get(axis).ok_or_else(|| {
                    Error::input(format!("a value of rank {} has no axis {axis}", self.shape().len()))
                })?;
                if let Some(index) = indices.iter().find(|i| **i >= extent) {
                    return Err(Error::input(format!("index {index} is outside an axis of extent {extent}")).axis(axis));
                }
                Ok(match self { $(Self::$variant(a) => Self::$variant(a.select(Axis(axis), indices)),)* })
            }

            /// The same elements in another shape.
            ///
            /// # Errors
            /// When the number of elements differs.
            pub fn reshape(self, shape: &[usize]) -> Result<Self> {
                let from = self.shape().to_vec();
                let failed = |_| Error::input(format!("a value of shape {from:?} cannot have the shape {shape:?}"));
                Ok(match self {
                    $(Self::$variant(a) => {
                        let a = if a.is_standard_layout() { a } else { a.as_standard_layout().into_owned() };
                        Self::$variant(a.into_shape_with_order(IxDyn(shape)).map_err(failed)?)
                    })*
                })
            }
        }
    };
}

values! {
    F32 f32, Float;
    F64 f64, Double;
    F16 f16, Float16;
    I8 i8, Int8;
    I16 i16, Int16;
    I32 i32, Int32;
    I64 i64, Int64;
    U8 u8, Uint8;
    U16 u16, Uint16;
    U32 u32, Uint32;
    U64 u64, Uint64;
    Bool bool, Bool;
}

impl Value {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for half, single and double precision.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::F16(_) | Self::F32(_) | Self::F64(_))
    }

    /// All elements in row-major order as double precision. Exact up to 2^53 for integers.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Self::F32(a) => a.iter().map(|x| f64::from(*x)).collect(),
            Self::F64(a) => a.iter().copied().collect(),
            Self::F16(a) => a.iter().map(|x| x.to_f64()).collect(),
            Self::I8(a) => a.iter().map(|x| f64::from(*x)).collect(),
            Self::I16(a) => a.iter().map(|x| f64::from(*x)).collect(),
            Self::I32(a) => a.iter().map(|x| f64::from(*x)).collect(),
            Self::I64(a) => a.iter().map(|x| *x as f64).collect(),
            Self::U8(a) => a.iter().map(|x| f64::from(*x)).collect(),
            Self::U16(a) => a.iter().map(|x| f64::from(*x)).collect(),
            Self::U32(a) => a.iter().map(|x| f64::from(*x)).collect(),
            Self::U64(a) => a.iter().map(|x| *x as f64).collect(),
            Self::Bool(a) => a.iter().map(|x| f64::from(u8::from(*x))).collect(),
        }
    }

    /// The same numbers as another element type: anything to a float, integers to integers that can hold them.
    ///
    /// # Errors
    /// When a number does not fit, or a float would become an integer.
    pub fn cast(&self, element: ElementType) -> Result<Self> {
        if self.element() == element {
            return Ok(self.clone());
        }
        let refused = || {
            Error::input(format!(
                "values of type {} cannot be fed as {}",
                self.element().as_str_name(),
                element.as_str_name()
            ))
        };
        if self.is_float() && !matches!(element, ElementType::Float | ElementType::Double | ElementType::Float16) {
            return Err(refused());
        }
        macro_rules! integers {
            ($scalar:ty) => {
                self.to_integers()
                    .into_iter()
                    .map(|x| <$scalar>::try_from(x).ok())
                    .collect::<Option<Vec<$scalar>>>()
                    .ok_or_else(refused)
                    .and_then(|data| from_vec(self.shape(), data))?
                    .into()
            };
        }
        let is_integer =
            !matches!(element, ElementType::Float | ElementType::Double | ElementType::Float16 | ElementType::Bool);
        // Double precision does not hold all of 64 bits.
        let numbers = if is_integer { Vec::new() } else { self.to_f64() };
        Ok(match element {
            ElementType::Float => from_vec(self.shape(), numbers.iter().map(|x| *x as f32).collect())?.into(),
            ElementType::Double => from_vec(self.shape(), numbers)?.into(),
            ElementType::Float16 => from_vec(self.shape(), numbers.iter().map(|x| f16::from_f64(*x)).collect())?.into(),
            ElementType::Bool => from_vec(self.shape(), numbers.iter().map(|x| *x != 0.0).collect())?.into(),
            ElementType::Int8 => integers!(i8),
            ElementType::Int16 => integers!(i16),
            ElementType::Int32 => integers!(i32),
            ElementType::Int64 => integers!(i64),
            ElementType::Uint8 => integers!(u8),
            ElementType::Uint16 => integers!(u16),
            ElementType::Uint32 => integers!(u32),
            ElementType::Uint64 => integers!(u64),
            _ => return Err(refused()),
        })
    }
}

impl Value {
    /// All elements in row-major order as integers; none of floating-point numbers.
    fn to_integers(&self) -> Vec<i128> {
        match self {
            Self::F32(_) | Self::F64(_) | Self::F16(_) => Vec::new(),
            Self::I8(a) => a.iter().map(|x| i128::from(*x)).collect(),
            Self::I16(a) => a.iter().map(|x| i128::from(*x)).collect(),
            Self::I32(a) => a.iter().map(|x| i128::from(*x)).collect(),
            Self::I64(a) => a.iter().map(|x| i128::from(*x)).collect(),
            Self::U8(a) => a.iter().map(|x| i128::from(*x)).collect(),
            Self::U16(a) => a.iter().map(|x| i128::from(*x)).collect(),
            Self::U32(a) => a.iter().map(|x| i128::from(*x)).collect(),
            Self::U64(a) => a.iter().map(|x| i128::from(*x)).collect(),
            Self::Bool(a) => a.iter().map(|x| i128::from(*x)).collect(),
        }
    }
}

/// An array from its shape and its row-major elements.
pub(crate) fn from_vec<T>(shape: &[usize], data: Vec<T>) -> Result<ArrayD<T>> {
    let n = data.len();
    ArrayD::from_shape_vec(IxDyn(shape), data)
        .map_err(|_| Error::input(format!("{n} elements cannot have the shape {shape:?}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn bytes() -> Value {
        from_vec(&[2, 3], vec![0u8, 1, 2, 253, 254, 255]).unwrap().into()
    }

    #[test]
    fn pictures_become_floats_and_nothing_is_squeezed() {
        assert_eq!(bytes().cast(ElementType::Float).unwrap().to_f64(), [0.0, 1.0, 2.0, 253.0, 254.0, 255.0]);
        assert!(bytes().cast(ElementType::Int8).unwrap_err().to_string().contains("UINT8 cannot be fed as INT8"));
        let float: Value = from_vec(&[1], vec![1.5f32]).unwrap().into();
        assert!(float.cast(ElementType::Int64).is_err());
    }

    #[test]
    fn integers_of_64_bits_lose_none() {
        let large: Value = from_vec(&[2], vec![(1u64 << 53) + 1, i64::MAX as u64]).unwrap().into();
        let cast = large.cast(ElementType::Int64).unwrap();
        assert_eq!(cast, from_vec(&[2], vec![(1i64 << 53) + 1, i64::MAX]).unwrap().into());
        let beyond: Value = from_vec(&[1], vec![1u64 << 63]).unwrap().into();
        assert!(beyond.cast(ElementType::Int64).is_err());
    }

    #[test]
    fn selects_and_checks_the_range() {
        let selected = bytes().select(1, &[2, 0]).unwrap();
        assert_eq!((selected.shape(), selected.to_f64()), (&[2, 2][..], vec![2.0, 0.0, 255.0, 253.0]));
        assert_eq!(selected.reshape(&[4]).unwrap().to_f64(), [2.0, 0.0, 255.0, 253.0]);
        assert!(bytes().select(1, &[3]).is_err());
        assert!(bytes().select(2, &[0]).is_err());
    }
}
