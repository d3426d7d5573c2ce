//! One array in a file: its type, its extents and where its elements lie. The first axis counts samples.
//!
//! Invariants: the file holds as many bytes as type and shape demand, checked before anything is allocated; no extent
//! but the first is zero, so there are never more samples than bytes.

use std::sync::Arc;

use half::{bf16, f16};

use super::files::{Files, Place};
use crate::engine::value::from_vec;
use crate::engine::{ElementType, Value};
use crate::{Error, Result};

/// How the elements of an array are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) element: ElementType,
    pub(super) big_endian: bool,
}

impl Encoding {
    /// Bytes for one element; `None` for types that samples cannot have.
    pub(super) fn width(self) -> Option<usize> {
        use ElementType::{Bfloat16, Bool, Double, Float, Float16, Int8, Int16, Int32, Int64};
        use ElementType::{Uint8, Uint16, Uint32, Uint64};
        match self.element {
            Bool | Int8 | Uint8 => Some(1),
            Float16 | Bfloat16 | Int16 | Uint16 => Some(2),
            Float | Int32 | Uint32 => Some(4),
            Double | Int64 | Uint64 => Some(8),
            _ => None,
        }
    }
}

/// An array that can be read sample by sample.
#[derive(Clone, Debug)]
pub(super) struct Array {
    files: Arc<Files>,
    place: Place,
    start: u64,
    encoding: Encoding,
    shape: Vec<usize>,
    /// Bytes of one sample.
    stride: usize,
}

impl Array {
    /// `available` is how many bytes the file really has from `start` on.
    pub(super) fn new(
        files: &Arc<Files>,
        place: Place,
        start: u64,
        available: u64,
        encoding: Encoding,
        shape: Vec<usize>,
    ) -> Result<Self> {
        let is_text = encoding.element == ElementType::String;
        let (stride, all) = if is_text { (0, 0) } else { sizes(encoding, &shape)? };
        if (all as u64) > available {
            let what = format!("truncated: {available} bytes are there, its shape {shape:?} needs {all}");
            return Err(Error::input(what).help("save it again"));
        }
        Ok(Self { files: Arc::clone(files), place, start, encoding, shape, stride })
    }

    /// True for an array of text, of which nothing can be read.
    pub(super) fn is_text(&self) -> bool {
        self.encoding.element == ElementType::String
    }

    /// The same array as one sample of all its elements.
    pub(super) fn into_one_sample(mut self) -> Result<Self> {
        self.shape.insert(0, 1);
        self.stride = sizes(self.encoding, &self.shape)?.0;
        Ok(self)
    }

    /// The number of samples.
    pub(super) fn len(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// One sample, without the first axis. bfloat16 becomes single precision.
    pub(super) fn sample(&self, index: usize) -> Result<Value> {
        if index >= self.len() {
            return Err(Error::input(format!("there is no sample {index}, only {}", self.len())));
        }
        let offset = (index as u64).checked_mul(self.stride as u64).and_then(|o| o.checked_add(self.start));
        let offset = offset.ok_or_else(|| Error::input(format!("sample {index} lies beyond every file")))?;
        let mut bytes = vec![0; self.stride];
        self.files.read(&self.place, offset, &mut bytes)?;
        decode(&bytes, self.encoding, self.shape.get(1..).unwrap_or_default())
    }

    /// The whole array.
    pub(super) fn all(&self) -> Result<Value> {
        // No overflow: the product was checked against the length of the file.
        let mut bytes = vec![0; self.stride.saturating_mul(self.len())];
        self.files.read(&self.place, self.start, &mut bytes)?;
        decode(&bytes, self.encoding, &self.shape)
    }
}

/// The bytes of one sample and of all.
pub(super) fn sizes(encoding: Encoding, shape: &[usize]) -> Result<(usize, usize)> {
    let Some((count, inner)) = shape.split_first() else {
        return Err(Error::input("a single number has no axis that counts samples").help("give it a first axis"));
    };
    if inner.contains(&0) {
        return Err(Error::input(format!("samples of the shape {inner:?} hold no values")));
    }
    let width = encoding.width().ok_or_else(|| {
        let error = Error::input(format!("samples cannot have the element type {}", encoding.element.as_str_name()));
        error.help("save it as float32, uint8 or int64")
    })?;
    let stride = inner.iter().try_fold(width, |n, extent| n.checked_mul(*extent));
    let sizes = stride.and_then(|stride| Some((stride, stride.checked_mul(*count)?)));
    sizes
        .filter(|(_, all)| isize::try_from(*all).is_ok())
        .ok_or_else(|| Error::input(format!("the shape {shape:?} has more elements than a computer can hold")))
}

/// Elements from their bytes, which fit the shape.
pub(super) fn decode(bytes: &[u8], encoding: Encoding, shape: &[usize]) -> Result<Value> {
    macro_rules! numbers {
        ($($element:ident $scalar:ty;)*) => {
            match encoding.element {
                $(ElementType::$element => {
                    let chunks = bytes.as_chunks::<{ size_of::<$scalar>() }>().0.iter();
                    let data: Vec<$scalar> = if encoding.big_endian {
                        chunks.map(|b| <$scalar>::from_be_bytes(*b)).collect()
                    } else {
                        chunks.map(|b| <$scalar>::from_le_bytes(*b)).collect()
                    };
                    from_vec(shape, data)?.into()
                })*
                ElementType::Bool => from_vec(shape, bytes.iter().map(|b| *b != 0).collect::<Vec<bool>>())?.into(),
                ElementType::Bfloat16 => {
                    let chunks = bytes.as_chunks::<2>().0.iter();
                    let read = if encoding.big_endian { bf16::from_be_bytes } else { bf16::from_le_bytes };
                    from_vec(shape, chunks.map(|b| read(*b).to_f32()).collect::<Vec<f32>>())?.into()
                }
                other => {
                    return Err(Error::input(format!("samples cannot have the element type {}", other.as_str_name())));
                }
            }
        };
    }
    let value: Value = numbers! {
        Float f32; Double f64; Float16 f16;
        Int8 i8; Int16 i16; Int32 i32; Int64 i64;
        Uint8 u8; Uint16 u16; Uint32 u32; Uint64 u64;
    };
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn encoding(element: ElementType, big_endian: bool) -> Encoding {
        Encoding { element, big_endian }
    }

    #[test]
    fn both_byte_orders_and_every_width_are_read() {
        let read = |element, big_endian, bytes: &[u8], shape: &[usize]| {
            decode(bytes, encoding(element, big_endian), shape).unwrap()
        };
        assert_eq!(read(ElementType::Int16, false, &[1, 2, 0, 1], &[2]).to_f64(), [513.0, 256.0]);
        assert_eq!(read(ElementType::Int16, true, &[1, 2, 0, 1], &[2]).to_f64(), [258.0, 1.0]);
        assert_eq!(read(ElementType::Bool, false, &[0, 2], &[2]).to_f64(), [0.0, 1.0]);
        let brain = read(ElementType::Bfloat16, false, &[0x80, 0x3f], &[]);
        assert_eq!((brain.element(), brain.to_f64()), (ElementType::Float, vec![1.0]));
        assert_eq!(read(ElementType::Double, false, &1.5f64.to_le_bytes(), &[1, 1]).shape(), [1, 1]);
        assert!(decode(&[0; 3], encoding(ElementType::Float, false), &[1]).is_err());
        assert!(decode(&[0; 8], encoding(ElementType::Complex64, false), &[1]).is_err());
    }

    #[test]
    fn sizes_are_checked() {
        let float = encoding(ElementType::Float, false);
        assert_eq!(sizes(float, &[5, 2, 3]).unwrap(), (24, 120));
        let message = |shape: &[usize]| sizes(float, shape).unwrap_err().to_string();
        assert!(message(&[]).contains("no axis that counts samples"));
        assert!(message(&[usize::MAX, 0]).contains("hold no values"));
        assert!(message(&[1 << 62, 1 << 62]).contains("more elements"));
        assert!(message(&[1 << 61, 1]).contains("more elements"));
        assert!(sizes(encoding(ElementType::String, false), &[1]).is_err());
    }
}
