//! Payloads in pieces: gathered in parallel a few megabytes ahead of the file that they go to, whatever a tensor's size.
//!
//! Invariants: pieces are handed out in the order of their bytes, and together are exactly the payload; the memory that
//! they are gathered into is used again for the next ones, because fresh memory costs more time than copying does.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use rayon::prelude::*;

use super::layout::Payload;
use super::map::Pages;
use crate::Result;

/// How many gathered bytes may wait to be written: enough for both to go on at once, and little beside the mapped input,
/// which counts as memory too.
const BATCH_BYTES: usize = 16 << 20;

/// The length of a piece, where a payload can be divided.
const PIECE_BYTES: usize = 2 << 20;

/// One piece of an item on its way to the file.
pub(super) struct Piece<'b, T> {
    pub(super) item: T,
    /// The length of the item's whole payload in bytes.
    pub(super) len: usize,
    /// True for the first piece of its item, and for the last.
    pub(super) first: bool,
    pub(super) last: bool,
    pub(super) bytes: &'b [u8],
}

/// Hands out the payloads of all items piece by piece; an item without payload is one empty piece.
pub(super) fn in_order<'t, T: Sync>(
    items: &'t [T],
    pages: &Pages,
    payload: impl Fn(&'t T) -> Option<(&'t Payload<'t>, &'t str)> + Sync,
    mut emit: impl FnMut(Piece<'_, &'t T>) -> Result<()>,
) -> Result<()> {
    let mut works = items.iter().flat_map(|item| divided(item, payload(item))).peekable();
    let mut buffer = Vec::new();
    while works.peek().is_some() {
        let (mut batch, mut bytes) = (Vec::new(), 0usize);
        // A single piece above the bound still has to be written.
        while let Some(work) = works.next_if(|w| batch.is_empty() || bytes.saturating_add(w.cost()) <= BATCH_BYTES) {
            bytes = bytes.saturating_add(work.cost());
            batch.push(work);
        }
        buffer.resize(buffer.len().max(bytes), 0);
        let mut rest = buffer.as_mut_slice();
        let mut places = Vec::with_capacity(batch.len());
        for work in &batch {
            let (place, more) = std::mem::take(&mut rest).split_at_mut(work.cost());
            places.push(place);
            rest = more;
        }
        let gathered: Vec<Result<Bytes>> =
            batch.par_iter().zip(places).map(|(work, place)| work.gather(place)).collect();
        let mut place = 0..0;
        for (work, whole) in batch.into_iter().zip(gathered) {
            place = place.end..place.end + work.cost();
            let whole = whole.map_err(|error| error.tensor(work.name))?;
            let bytes = buffer.get(place.clone()).filter(|bytes| !bytes.is_empty()).unwrap_or(&whole);
            emit(Piece { item: work.item, len: work.len, first: work.first, last: work.last, bytes })?;
            if let Some(payload) = &work.payload {
                pages.release(payload.source());
            }
        }
    }
    Ok(())
}

/// A piece that is still to be gathered.
struct Work<'t, T> {
    item: &'t T,
    name: &'t str,
    payload: Option<Payload<'t>>,
    len: usize,
    first: bool,
    last: bool,
}

impl<T> Work<'_, T> {
    /// How many bytes it is gathered into.
    fn cost(&self) -> usize {
        match &self.payload {
            Some(Payload::Slice(slice, len)) if slice.is_gathered() => *len,
            _ => 0,
        }
    }

    /// Gathers into `place`, or hands out bytes that lie elsewhere.
    fn gather(&self, place: &mut [u8]) -> Result<Bytes> {
        match &self.payload {
            None => Ok(Bytes::new()),
            Some(Payload::Slice(slice, _)) if slice.is_gathered() => slice.gather_into(place).map(|()| Bytes::new()),
            Some(payload) => payload.materialize(),
        }
    }
}

fn divided<'t, T>(
    item: &'t T,
    payload: Option<(&'t Payload<'t>, &'t str)>,
) -> impl Iterator<Item = Work<'t, T>> + use<'t, T> {
    let (payload, name) = payload.unzip();
    let len = payload.map_or(0, Payload::len);
    let ranges = payload.map_or_else(|| std::iter::once(0..0).collect(), |payload| ranges(payload, len));
    let count = ranges.len();
    ranges.into_iter().enumerate().map(move |(number, range)| Work {
        item,
        name: name.unwrap_or_default(),
        payload: payload.map(|payload| if count == 1 { payload.clone() } else { part(payload, range) }),
        len,
        first: number == 0,
        last: number + 1 == count,
    })
}

/// What a payload is divided into: ranges of rows of a slice, ranges of bytes of bytes.
fn ranges(payload: &Payload<'_>, len: usize) -> Vec<Range<usize>> {
    let (units, step) = match payload {
        Payload::Bytes(bytes) => (bytes.len(), BATCH_BYTES),
        Payload::Slice(slice, _) => {
            let rows = slice.rows();
            (rows, (PIECE_BYTES / (len / rows.max(1)).max(1)).max(1))
        }
        Payload::Typed(..) => (1, 1),
    };
    let starts = (0..units.max(1)).step_by(step);
    starts.map(|start| start..start.saturating_add(step).min(units)).collect()
}

fn part<'t>(payload: &Payload<'t>, range: Range<usize>) -> Payload<'t> {
    match payload {
        Payload::Bytes(bytes) => Payload::Bytes(bytes.slice(range)),
        Payload::Slice(slice, _) => {
            let part = slice.part(range);
            let len = part.byte_len().unwrap_or(0);
            Payload::Slice(Cow::Owned(part), len)
        }
        Payload::Typed(..) => payload.clone(),
    }
}
