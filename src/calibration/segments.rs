//! Segments: which positions of an axis belong to which channel of a group, as regular stretches.
//!
//! A stretch of `outer × channels × inner` positions holds, row-major, `inner` neighbours of every channel, `outer`
//! times over: what concatenation and nesting make of an axis.

use crate::axes::{Expr, Space};

/// A stretch of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The first position.
    pub start: usize,
    /// How often all channels follow one another.
    pub outer: usize,
    /// How many channels there are.
    pub channels: usize,
    /// How many neighbours belong to one channel each time.
    pub inner: usize,
}

impl Segment {
    /// The number of positions.
    pub fn len(&self) -> usize {
        self.outer.saturating_mul(self.channels).saturating_mul(self.inner)
    }

    /// True when there is no position.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The (position, channel) pairs.
    pub fn positions(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Self { start, channels, inner, .. } = *self;
        (0..self.len()).map(move |at| (start + at, at / inner.max(1) % channels.max(1)))
    }

    /// A name that tells the segment from others of its axis.
    pub fn key(segments: &[Self]) -> String {
        let part = |s: &Self| format!("{}:{}:{}:{}", s.start, s.outer, s.channels, s.inner);
        segments.iter().map(part).collect::<Vec<_>>().join("+")
    }

    /// How many channels the segments of a key have.
    pub(super) fn channels_of(key: &str) -> Option<usize> {
        key.split('+').next()?.split(':').nth(2)?.parse().ok()
    }
}

/// The stretches in which the channels of `atom` lie along the axis `expr`, in order. Positions that form no whole
/// stretch are left out.
pub(super) fn segments(space: &Space, expr: Expr, atom: Expr) -> Vec<Segment> {
    let Some(channels) = space.extent(atom).size().filter(|n| *n > 0) else { return Vec::new() };
    let mut places: Vec<(usize, usize)> = Vec::new();
    space.positions(expr, atom, &mut |position, channel| places.push((position, channel)));
    places.sort_unstable();
    let mut found: Vec<Segment> = Vec::new();
    let mut rest = places.as_slice();
    while let Some((start, _)) = rest.first().copied() {
        let inner = rest.iter().zip(start..).take_while(|((p, c), at)| p == at && *c == 0).count();
        let once = Segment { start, outer: 1, channels, inner };
        let fits = inner > 0 && once.len() <= rest.len() && once.positions().eq(rest.iter().copied().take(once.len()));
        if !fits {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        match found.last_mut() {
            Some(last) if last.inner == inner && last.start + last.len() == start => last.outer += 1,
            _ => found.push(once),
        }
        rest = rest.get(once.len()..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::axes::Extent;

    #[test]
    fn sums_and_products_become_stretches() {
        let mut space = Space::default();
        let [a, b, h] = [3, 2, 4].map(|n| space.atom(Extent::from(n)));
        let sum = space.sum(&[b, a], Extent::from(5));
        assert_eq!(segments(&space, sum, a), [Segment { start: 2, outer: 1, channels: 3, inner: 1 }]);
        let inner = space.product(&[a, h]).unwrap();
        assert_eq!(segments(&space, inner, a), [Segment { start: 0, outer: 1, channels: 3, inner: 4 }]);
        let outer = space.product(&[h, a]).unwrap();
        assert_eq!(segments(&space, outer, a), [Segment { start: 0, outer: 4, channels: 3, inner: 1 }]);
        let mixed = space.product(&[h, sum]).unwrap();
        let found = segments(&space, mixed, a);
        assert_eq!(Segment::key(&found), "2:1:3:1+7:1:3:1+12:1:3:1+17:1:3:1");
        assert_eq!((Segment::channels_of(&Segment::key(&found)), Segment::channels_of("4:1")), (Some(3), None));
        let twice = space.sum(&[a, b, a], Extent::from(8));
        assert_eq!(Segment::key(&segments(&space, twice, a)), "0:1:3:1+5:1:3:1");
        let pairs: Vec<(usize, usize)> = segments(&space, inner, a)[0].positions().collect();
        assert_eq!(pairs[..6], [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 1)]);
    }
}
