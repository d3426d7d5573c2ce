//! Rearranging small integer tensors: what data movement does to the entries of shape arithmetic.
//!
//! Invariant: every result has as many values as its dimensions say, and no more than [`MAX_ENTRIES`].

use super::{Integers, MAX_ENTRIES};

impl Integers {
    /// The same entries with other dimensions, if their number agrees.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Option<Integers> {
        (count(&dims)? == self.values.len()).then(|| Integers { dims, values: self.values.clone() })
    }

    /// The entries at `indices` of one axis, in that order.
    pub(super) fn select(&self, axis: usize, indices: &[usize]) -> Option<Integers> {
        let extent = *self.dims.get(axis)?;
        let inner = count(self.dims.get(axis + 1..)?)?;
        let outer = count(self.dims.get(..axis)?)?;
        let mut dims = self.dims.clone();
        *dims.get_mut(axis)? = indices.len();
        let mut values = Vec::with_capacity(count(&dims)?);
        for o in 0..outer {
            for index in indices {
                if *index >= extent {
                    return None;
                }
                let start = (o * extent + index) * inner;
                values.extend_from_slice(self.values.get(start..start + inner)?);
            }
        }
        Some(Integers { dims, values })
    }

    /// Tensors joined along one axis.
    pub(super) fn joined(parts: &[Integers], axis: usize) -> Option<Integers> {
        let first = parts.first()?;
        let mut dims = first.dims.clone();
        let outer = count(dims.get(..axis)?)?;
        let mut extent = 0usize;
        for part in parts {
            let alike = part.dims.len() == dims.len()
                && part.dims.iter().zip(&dims).enumerate().all(|(i, (a, b))| i == axis || a == b);
            if !alike {
                return None;
            }
            extent = extent.checked_add(*part.dims.get(axis)?)?;
        }
        *dims.get_mut(axis)? = extent;
        let mut values = Vec::with_capacity(count(&dims)?);
        for o in 0..outer {
            for part in parts {
                let block = count(part.dims.get(axis..)?)?;
                values.extend_from_slice(part.values.get(o * block..(o + 1) * block)?);
            }
        }
        Some(Integers { dims, values })
    }

    /// The axes in another order: axis `i` of the result is axis `order[i]`.
    pub(super) fn transposed(&self, order: &[usize]) -> Option<Integers> {
        let dims: Vec<usize> = order.iter().map(|a| self.dims.get(*a).copied()).collect::<Option<_>>()?;
        if dims.len() != self.dims.len() || count(&dims)? != self.values.len() {
            return None;
        }
        let strides: Vec<usize> = order.iter().map(|a| count(self.dims.get(a + 1..)?)).collect::<Option<_>>()?;
        let mut values = Vec::with_capacity(self.values.len());
        for position in 0..self.values.len() {
            let (mut rest, mut source) = (position, 0);
            for (dim, stride) in dims.iter().zip(&strides).rev() {
                source += rest % dim * stride;
                rest /= dim;
            }
            values.push(self.values.get(source)?.clone());
        }
        Some(Integers { dims, values })
    }
}

/// The product of `dims`, if it is small enough for shape arithmetic.
pub(super) fn count(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ENTRIES)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn matrix() -> Integers {
        Integers::plain(&[1, 2, 3, 4, 5, 6]).reshaped(vec![2, 3]).unwrap()
    }

    #[test]
    fn entries_move_like_numpy_moves_them() {
        assert_eq!(matrix().transposed(&[1, 0]).unwrap().known().unwrap(), [1, 4, 2, 5, 3, 6]);
        assert_eq!(matrix().select(1, &[2, 0]).unwrap().known().unwrap(), [3, 1, 6, 4]);
        assert_eq!(matrix().select(0, &[1]).unwrap().dims, [1, 3]);
        let joined = Integers::joined(&[matrix(), matrix().select(1, &[0]).unwrap()], 1).unwrap();
        assert_eq!((joined.dims.clone(), joined.known().unwrap()), (vec![2, 4], vec![1, 2, 3, 1, 4, 5, 6, 4]));
    }

    #[test]
    fn what_does_not_fit_is_none() {
        assert_eq!(matrix().select(1, &[3]), None);
        assert_eq!(matrix().reshaped(vec![4]), None);
        assert_eq!(matrix().transposed(&[0, 2]), None);
        assert_eq!(Integers::joined(&[matrix(), Integers::plain(&[1])], 0), None);
        assert_eq!(count(&[usize::MAX, 2]), None);
    }
}
