//! Quantised constants: read as the numbers that they stand for, and quantised again after a repair.
//!
//! Invariants: zero points stay. A scale grows where new numbers do not fit its range and rounding with the larger one
//! loses less than cutting them off; one that other nodes read as well stays.

use crate::proto::onnx::TensorProto;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::tensor;
use crate::{Error, Result};

/// Stored integers with their scales and zero points, all read.
pub(super) struct Quantised {
    stored: Vec<i64>,
    scales: Vec<f64>,
    zeros: Vec<i64>,
    /// How many neighbours share a scale, along the axis of the scales.
    inner: usize,
    range: (i64, i64),
}

impl Quantised {
    /// Reads the parts. `None` if they do not fit together, or are not integers.
    pub(super) fn of(stored: &TensorProto, scale: &TensorProto, zero: Option<&TensorProto>, axis: i64) -> Option<Self> {
        let range = match DataType::try_from(stored.data_type()).ok()? {
            DataType::Int8 => (-128, 127),
            DataType::Uint8 => (0, 255),
            DataType::Int16 => (-32768, 32767),
            DataType::Uint16 => (0, 65535),
            DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            _ => return None,
        };
        let dims: Vec<usize> = stored.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
        let scales = super::constants::numbers(scale).ok()?;
        let mut zeros = match zero {
            Some(zero) => tensor::to_i64(zero).ok()?,
            None => vec![0; scales.len()],
        };
        if zeros.len() == 1 {
            zeros = vec![*zeros.first()?; scales.len()];
        }
        let inner = if scales.len() > 1 {
            let rank = i64::try_from(dims.len()).ok()?;
            let axis = usize::try_from(if axis < 0 { axis.checked_add(rank)? } else { axis }).ok()?;
            (dims.get(axis) == Some(&scales.len())).then_some(())?;
            dims.get(axis + 1..)?.iter().product()
        } else {
            1
        };
        let stored = tensor::to_i64(stored).ok()?;
        (zeros.len() == scales.len() && !scales.is_empty() && scales.iter().all(|s| *s > 0.0)).then_some(Self {
            stored,
            scales,
            zeros,
            inner,
            range,
        })
    }

    /// The numbers that are meant.
    pub(super) fn numbers(&self) -> Vec<f64> {
        let number = |(i, stored): (usize, &i64)| {
            let at = self.at(i);
            (stored - self.zeros.get(at).copied().unwrap_or(0)) as f64 * self.scales.get(at).copied().unwrap_or(0.0)
        };
        self.stored.iter().enumerate().map(number).collect()
    }

    fn at(&self, i: usize) -> usize {
        i / self.inner.max(1) % self.scales.len().max(1)
    }

    /// Stores other numbers; scales may grow unless they are `fixed`.
    pub(super) fn store(&mut self, values: &[f64], fixed: bool) {
        if !fixed {
            let mut needed = self.scales.clone();
            for (i, value) in values.iter().enumerate() {
                let at = self.at(i);
                let (Some(needed), Some(zero)) = (needed.get_mut(at), self.zeros.get(at)) else { continue };
                let room = if *value > 0.0 { self.range.1 - zero } else { zero - self.range.0 };
                if room > 0 {
                    *needed = needed.max(value.abs() / room as f64);
                }
            }
            let (mut before, mut after) = (vec![0.0; self.scales.len()], vec![0.0; self.scales.len()]);
            for (i, value) in values.iter().enumerate() {
                let at = self.at(i);
                for (scales, errors) in [(&self.scales, &mut before), (&needed, &mut after)] {
                    if let (Some(scale), Some(zero), Some(error)) =
                        (scales.get(at), self.zeros.get(at), errors.get_mut(at))
                    {
                        *error += ((self.code(*value, *scale, *zero) - zero) as f64 * scale - value).powi(2);
                    }
                }
            }
            for ((scale, needed), (before, after)) in self.scales.iter_mut().zip(needed).zip(before.iter().zip(&after))
            {
                if after < before {
                    // Rounded as it is stored, so that what is written is what was judged.
                    *scale = f64::from(needed as f32);
                }
            }
        }
        let code = |(i, value): (usize, &f64)| {
            let at = self.at(i);
            self.code(*value, self.scales.get(at).copied().unwrap_or(1.0), self.zeros.get(at).copied().unwrap_or(0))
        };
        self.stored = values.iter().enumerate().map(code).collect();
    }

    fn code(&self, value: f64, scale: f64, zero: i64) -> i64 {
        // Saturates, also for what is not finite.
        ((value / scale).round_ties_even() as i64).saturating_add(zero).clamp(self.range.0, self.range.1)
    }

    /// The scales.
    pub(super) fn scales(&self) -> &[f64] {
        &self.scales
    }

    /// A tensor like `header` with the stored integers.
    ///
    /// # Errors
    /// A type that was not read.
    pub(super) fn encode(&self, header: &TensorProto) -> Result<TensorProto> {
        let integers = self.stored.iter();
        let raw: Vec<u8> = match DataType::try_from(header.data_type()) {
            Ok(DataType::Int8) => integers.map(|v| *v as i8 as u8).collect(),
            Ok(DataType::Uint8) => integers.map(|v| *v as u8).collect(),
            Ok(DataType::Int16) => integers.flat_map(|v| (*v as i16).to_le_bytes()).collect(),
            Ok(DataType::Uint16) => integers.flat_map(|v| (*v as u16).to_le_bytes()).collect(),
            Ok(DataType::Int32) => integers.flat_map(|v| (*v as i32).to_le_bytes()).collect(),
            _ => return Err(Error::input("integers of this type are not repaired").tensor(header.name())),
        };
        Ok(super::constants::with_data(header, raw))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_fits_keeps_its_scale_and_what_does_not_gets_a_larger_one() {
        let stored = tensor::from_raw("w", DataType::Int8, &[2, 2], Bytes::from_static(&[1, 2, 0xff, 100]));
        let scale = tensor::from_f32("s", &[2], &[0.5, 0.25]);
        let mut quantised = Quantised::of(&stored, &scale, None, 0).unwrap();
        assert_eq!(quantised.numbers(), [0.5, 1.0, -0.25, 25.0]);
        quantised.store(&[0.7, 1.0, 254.0, -1.0], false);
        assert_eq!(quantised.scales(), [0.5, 2.0]);
        assert_eq!(quantised.numbers(), [0.5, 1.0, 254.0, 0.0]);
        assert_eq!(quantised.encode(&stored).unwrap().raw_data.unwrap().as_ref(), [1, 2, 127, 0]);
        quantised.store(&[0.0, 0.0, 1000.0, 0.0], true);
        assert_eq!(quantised.numbers(), [0.0, 0.0, 254.0, 0.0]);
    }
}
