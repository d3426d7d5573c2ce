//! The kept part of a tensor, gathered on several axes at once.
//!
//! Invariants: row-major order; kept indices are strictly increasing and below the extent (checked, never trusted); the
//! cost is one copy of what remains, as few and as long copies as the kept indices allow.

use std::ops::Range;

use bytes::Bytes;

use super::bits;
use crate::kept::KeptAxes;
use crate::{Error, Result};

/// A tensor and what shall remain of it. Nothing is copied before [`Slice::materialize`].
#[derive(Clone, Debug)]
pub struct Slice {
    /// The whole tensor, little-endian and packed as `raw_data` has it.
    pub source: Bytes,
    /// The width of one element in bits, see [`super::tensor::element_bits`].
    pub element_bits: usize,
    /// The extents of the whole tensor.
    pub dims: Vec<usize>,
    /// The kept indices, one entry per axis.
    pub keep: KeptAxes,
}

impl Slice {
    /// The extents of what remains.
    pub fn dims_after(&self) -> Vec<usize> {
        let kept = self.keep.iter().chain(std::iter::repeat(&None));
        self.dims
            .iter()
            .zip(kept)
            .map(|(extent, keep)| keep.as_ref().map_or(*extent, |indices| indices.len()))
            .collect()
    }

    /// The length of what remains, packed, in bytes; `None` when it does not fit the machine.
    pub fn byte_len(&self) -> Option<usize> {
        packed_len(&self.dims_after(), self.element_bits)
    }

    /// Gathers what remains. Hands out the source itself when everything does.
    ///
    /// Errors: a rank, an index or a source length that does not fit the extents.
    pub fn materialize(&self) -> Result<Bytes> {
        self.check()?;
        let after = self.byte_len().ok_or_else(|| Error::input(format!("shape {:?} is too large", self.dims)))?;
        if self.keep.iter().all(Option::is_none) {
            return Ok(self.source.clone());
        }
        if after == 0 {
            return Ok(Bytes::new());
        }
        if self.is_gathered() {
            let mut out = vec![0u8; after];
            self.gather(&self.source, self.element_bits / 8, &mut out)?;
            return Ok(Bytes::from(out));
        }
        let count = |dims: &[usize]| dims.iter().product::<usize>();
        let cells = bits::unpack(&self.source, self.element_bits, count(&self.dims));
        let mut kept = vec![0u8; count(&self.dims_after())];
        self.gather(&cells, 1, &mut kept)?;
        Ok(Bytes::from(bits::pack(&kept, self.element_bits)))
    }

    /// True if [`Slice::gather_into`] serves: some of the tensor goes, and its elements are whole bytes.
    pub(crate) fn is_gathered(&self) -> bool {
        self.element_bits.is_multiple_of(8) && self.keep.iter().any(Option::is_some)
    }

    /// Gathers what remains into exactly as many bytes.
    pub(crate) fn gather_into(&self, out: &mut [u8]) -> Result<()> {
        self.check()?;
        if self.byte_len() != Some(out.len()) {
            return Err(Error::input(format!("{} bytes announced for shape {:?}", out.len(), self.dims_after())));
        }
        self.gather(&self.source, self.element_bits / 8, out)
    }

    /// How many [`Slice::part`]s there can be: the kept indices of the outermost axis, 1 where it cannot be divided.
    pub(crate) fn rows(&self) -> usize {
        if !self.is_gathered() || self.source.is_empty() || self.check().is_err() {
            return 1;
        }
        self.dims_after().get(self.outermost()).copied().unwrap_or(1)
    }

    /// What remains of a range of rows; all parts one after the other are the whole.
    pub(crate) fn part(&self, rows: Range<usize>) -> Slice {
        let axis = self.outermost();
        let indices = self.keep.get(axis).and_then(Option::as_deref);
        let kept = indices.map(|indices| indices.get(rows.clone()).unwrap_or_default());
        let range = match kept {
            None => rows,
            Some(kept) => {
                kept.first().map_or(0..0, |first| *first as usize..kept.last().map_or(0, |l| *l as usize + 1))
            }
        };
        let stride = self.dims.iter().skip(axis + 1).product::<usize>() * self.element_bits / 8;
        let mut part = self.clone();
        part.source = self.source.slice(range.start * stride..range.end * stride);
        if let Some(extent) = part.dims.get_mut(axis) {
            *extent = range.len();
        }
        if let (Some(keep), Some(kept)) = (part.keep.get_mut(axis), kept) {
            *keep = Some(kept.iter().map(|index| index - range.start as u32).collect());
        }
        part
    }

    /// The first axis with more than one index.
    fn outermost(&self) -> usize {
        self.dims.iter().position(|extent| *extent > 1).unwrap_or(0)
    }

    fn check(&self) -> Result<()> {
        if self.keep.len() != self.dims.len() {
            let what = format!("kept indices for {} axes, the tensor has {}", self.keep.len(), self.dims.len());
            return Err(Error::input(what));
        }
        for (axis, (keep, extent)) in self.keep.iter().zip(&self.dims).enumerate() {
            let Some(indices) = keep else { continue };
            if let Some(index) = indices.iter().find(|index| **index as usize >= *extent) {
                return Err(Error::input(format!("kept index {index} is beyond the extent {extent}")).axis(axis));
            }
            if !indices.is_sorted_by(|left, right| left < right) {
                return Err(Error::input("kept indices are not strictly increasing").axis(axis));
            }
        }
        let whole = packed_len(&self.dims, self.element_bits);
        if whole != Some(self.source.len()) || self.element_bits == 0 {
            let needed = whole.map_or_else(|| "too many".to_owned(), |bytes| bytes.to_string());
            let what = format!("raw data is {} bytes, its shape {:?} needs {needed}", self.source.len(), self.dims);
            return Err(Error::input(what));
        }
        Ok(())
    }

    /// Gathers cells of `width` bytes. The axes after the last pruned one form a unit that is always copied whole.
    fn gather(&self, source: &[u8], width: usize, out: &mut [u8]) -> Result<()> {
        let Some(last) = self.keep.iter().rposition(Option::is_some) else { return Ok(()) };
        let (outer, rest) = self.dims.split_at(last);
        let indices = self.keep.get(last).and_then(Option::as_deref).unwrap_or_default();
        let unit = rest.iter().skip(1).product::<usize>() * width;
        let row_len = rest.first().copied().unwrap_or(0) * unit;
        let kept_len = indices.len() * unit;
        if kept_len == 0 {
            return Ok(());
        }
        let runs = runs(indices, unit);
        let rows = rows(outer, &self.keep);
        for (to, row) in out.chunks_exact_mut(kept_len).zip(rows) {
            let from = source.get(row * row_len..).and_then(|tail| tail.get(..row_len));
            let from = from.ok_or_else(|| Error::input("raw data is shorter than its shape"))?;
            // Scattered single cells are the common case of a matrix pruned on its last axis: fixed-size moves beat
            // `memcpy`.
            match unit {
                1 if runs.len() * 8 > indices.len() => pick::<1>(to, from, indices),
                2 if runs.len() * 8 > indices.len() => pick::<2>(to, from, indices),
                4 if runs.len() * 8 > indices.len() => pick::<4>(to, from, indices),
                8 if runs.len() * 8 > indices.len() => pick::<8>(to, from, indices),
                _ => copy_runs(to, from, &runs)?,
            }
        }
        Ok(())
    }
}

fn packed_len(dims: &[usize], element_bits: usize) -> Option<usize> {
    // A zero anywhere empties the tensor, however large its other extents are.
    if dims.contains(&0) {
        return Some(0);
    }
    let bits = dims.iter().try_fold(element_bits, |product, extent| product.checked_mul(*extent))?;
    Some(bits.div_ceil(8))
}

/// The kept indices as byte ranges (start, length), neighbours merged.
fn runs(indices: &[u32], unit: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for index in indices {
        let start = *index as usize * unit;
        match runs.last_mut() {
            Some((first, len)) if *first + *len == start => *len += unit,
            _ => runs.push((start, unit)),
        }
    }
    runs
}

/// The numbers of the kept rows, in order, where a row is one position on all the `outer` axes.
fn rows<'a>(outer: &'a [usize], keep: &'a KeptAxes) -> impl Iterator<Item = usize> + 'a {
    let extents: Vec<usize> =
        outer.iter().zip(keep).map(|(extent, keep)| keep.as_ref().map_or(*extent, |indices| indices.len())).collect();
    let total: usize = extents.iter().product();
    (0..total).map(move |position| {
        let (mut position, mut row, mut stride) = (position, 0, 1);
        for ((extent, kept), keep) in outer.iter().zip(&extents).zip(keep).rev() {
            let at = position % kept;
            position /= kept;
            let index = keep.as_ref().and_then(|indices| indices.get(at)).map_or(at, |index| *index as usize);
            row += index * stride;
            stride *= extent;
        }
        row
    })
}

fn pick<const N: usize>(to: &mut [u8], from: &[u8], indices: &[u32]) {
    let cells = from.as_chunks::<N>().0;
    for (to, index) in to.as_chunks_mut::<N>().0.iter_mut().zip(indices) {
        if let Some(cell) = cells.get(*index as usize) {
            *to = *cell;
        }
    }
}

fn copy_runs(mut to: &mut [u8], from: &[u8], runs: &[(usize, usize)]) -> Result<()> {
    for (start, len) in runs {
        let run = from.get(*start..).and_then(|tail| tail.get(..*len));
        match (run, to.split_at_mut_checked(*len)) {
            (Some(run), Some((head, tail))) => {
                head.copy_from_slice(run);
                to = tail;
            }
            _ => return Err(Error::input("raw data is shorter than its shape")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    use super::*;

    fn slice(bits: usize, dims: &[usize], keep: &[Option<Vec<u32>>]) -> Slice {
        let source: Vec<u8> = (0..packed_len(dims, bits).unwrap()).map(|byte| byte as u8).collect();
        let keep = keep.iter().map(|axis| axis.as_ref().map(|indices| indices.as_slice().into())).collect();
        Slice { source: Bytes::from(source), element_bits: bits, dims: dims.to_vec(), keep }
    }

    /// The definition, bit by bit: every kept position in row-major order.
    fn naive(slice: &Slice) -> Vec<u8> {
        let mut positions = vec![0usize];
        for (extent, keep) in slice.dims.iter().zip(&slice.keep) {
            let whole: Vec<u32> = (0..*extent as u32).collect();
            let kept = keep.as_deref().unwrap_or(&whole);
            positions = positions.iter().flat_map(|p| kept.iter().map(move |k| p * extent + *k as usize)).collect();
        }
        let mut out = vec![0u8; (positions.len() * slice.element_bits).div_ceil(8)];
        for (to, from) in positions.iter().enumerate() {
            for bit in 0..slice.element_bits {
                let (to, from) = (to * slice.element_bits + bit, from * slice.element_bits + bit);
                out[to / 8] |= ((slice.source[from / 8] >> (from % 8)) & 1) << (to % 8);
            }
        }
        out
    }

    #[test]
    fn equals_the_definition_on_random_cases() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for case in 0..3000 {
            let bits = [2, 4, 6, 8, 16, 32, 64, 128][random.next_u32() as usize % 8];
            let dims: Vec<usize> = (0..random.next_u32() % 5).map(|_| random.next_u32() as usize % 7).collect();
            let keep: Vec<Option<Vec<u32>>> = dims
                .iter()
                .map(|extent| {
                    let density = random.next_u32() % 4 + 1;
                    let whole = random.next_u32().is_multiple_of(3);
                    let kept = (0..*extent as u32).filter(|_| random.next_u32() % 4 < density).collect();
                    (!whole).then_some(kept)
                })
                .collect();
            let slice = slice(bits, &dims, &keep);
            let kept = slice.materialize().unwrap();
            assert_eq!(kept, naive(&slice), "case {case}: {bits} bits, {dims:?}, {keep:?}");
            assert_eq!(slice.byte_len(), Some(kept.len()), "case {case}");
            let rows = slice.rows();
            if slice.is_gathered() && rows > 1 {
                let at = random.next_u32() as usize % rows;
                let parts = [slice.part(0..at), slice.part(at..rows)].map(|part| part.materialize().unwrap());
                assert_eq!(parts.concat(), kept, "case {case}: {at} of {rows} rows first");
            }
        }
    }

    #[test]
    fn keeping_everything_copies_nothing() {
        let whole = slice(32, &[3, 2], &[None, None]);
        assert_eq!(whole.materialize().unwrap().as_ptr(), whole.source.as_ptr());
    }

    #[test]
    fn bad_indices_are_errors() {
        let message = |slice: Slice| slice.materialize().unwrap_err().to_string();
        assert!(
            message(slice(32, &[3, 2], &[Some(vec![0, 3]), None]))
                .contains("kept index 3 is beyond the extent 3 (axis 0)")
        );
        assert!(message(slice(32, &[3, 2], &[None, Some(vec![1, 1])])).contains("strictly increasing (axis 1)"));
        assert!(message(slice(32, &[3, 2], &[None])).contains("kept indices for 1 axes, the tensor has 2"));
        let short = Slice { source: Bytes::from_static(&[0; 5]), ..slice(32, &[3], &[Some(vec![0])]) };
        assert!(message(short).contains("raw data is 5 bytes, its shape [3] needs 12"));
        let huge = Slice { dims: vec![usize::MAX, 3], ..slice(32, &[1, 1], &[Some(vec![0]), None]) };
        assert!(message(huge).contains("too many"));
        let none = Slice { element_bits: 0, source: Bytes::new(), ..slice(8, &[1], &[Some(vec![0])]) };
        assert!(message(none).contains("raw data is 0 bytes"));
    }
}
