//! Sums of floating-point numbers that do not depend on the order of the summands, not even in their last bit.
//!
//! Every number is cut into pieces of 32 bits on a grid that is the same for all numbers, and the pieces are added as
//! integers, which is exact. Only the three highest pieces that ever occurred are kept. A piece that is dropped lies
//! below those in every order of the summands, so the state depends on the set of summands alone. This is the idea of
//! reproducible summation (Demmel and Nguyen, IEEE Transactions on Computers 64(7), 2015) with integers for its bins.
//! The error is below 2^-64 of the largest summand.

use crate::{Error, Result};

const BITS: i32 = 32;
const PIECES: usize = 3;

/// How many 64-bit integers describe one sum.
pub const WORDS: usize = PIECES + 1;

/// One sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    /// The place of the highest piece on the grid: it counts multiples of 2^(32 top).
    top: i32,
    /// The pieces, highest first.
    pieces: [i64; PIECES],
    /// False as long as all summands were zero, when `top` means nothing.
    is_set: bool,
}

/// Many sums side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(Vec<Sum>);

impl Sums {
    /// `count` sums of nothing.
    pub fn zero(count: usize) -> Self {
        Self(vec![Sum::default(); count])
    }

    /// The number of sums.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is no sum.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one number to each sum.
    ///
    /// # Errors
    /// When there is another number of sums, or a number is not finite.
    pub fn add(&mut self, numbers: &[f64]) -> Result<()> {
        if numbers.len() != self.0.len() {
            return Err(Error::input(format!("{} numbers cannot be added to {} sums", numbers.len(), self.0.len())));
        }
        self.0.iter_mut().zip(numbers).try_for_each(|(sum, number)| sum.add(*number))
    }

    /// Adds other sums to these.
    ///
    /// # Errors
    /// When their numbers differ.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if other.0.len() != self.0.len() {
            return Err(Error::input(format!("{} sums cannot be added to {}", other.0.len(), self.0.len())));
        }
        self.0.iter_mut().zip(&other.0).for_each(|(sum, other)| sum.merge(other));
        Ok(())
    }

    /// The sums, each rounded once.
    pub fn values(&self) -> Vec<f64> {
        self.0.iter().map(Sum::value).collect()
    }

    /// The state as integers, [`WORDS`] for each sum.
    pub fn words(&self) -> Vec<i64> {
        let words = |sum: &Sum| {
            let top = if sum.is_set { i64::from(sum.top) } else { i64::MIN };
            [top, sum.pieces[0], sum.pieces[1], sum.pieces[2]]
        };
        self.0.iter().flat_map(words).collect()
    }

    /// The sums of a state; `None` if the integers are none.
    pub fn from_words(words: &[i64]) -> Option<Self> {
        let (chunks, rest) = words.as_chunks::<WORDS>();
        let sum = |[top, a, b, c]: &[i64; WORDS]| {
            if *top == i64::MIN {
                return ([*a, *b, *c] == [0; PIECES]).then(Sum::default);
            }
            let top = i32::try_from(*top).ok().filter(|top| (-64..=64).contains(top))?;
            Some(Sum { top, pieces: [*a, *b, *c], is_set: true })
        };
        let sums = chunks.iter().map(sum).collect::<Option<Vec<_>>>()?;
        rest.is_empty().then_some(Self(sums))
    }
}

impl Sum {
    fn add(&mut self, number: f64) -> Result<()> {
        if !number.is_finite() {
            return Err(Error::input(format!("{number} cannot be summed up")));
        }
        if number == 0.0 {
            return Ok(());
        }
        // number = mantissa × 2^exponent, cut at multiples of 32 bits.
        let bits = number.to_bits();
        let biased = i32::try_from(bits >> 52 & 0x7ff).unwrap_or(0);
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
        let place = exponent.div_euclid(BITS);
        let shifted = u128::from(mantissa) << exponent.rem_euclid(BITS);
        let sign = if number < 0.0 { -1 } else { 1 };
        let piece = |n: i32| sign * (shifted >> (BITS * n) & 0xffff_ffff) as i64;
        let highest = (0..PIECES as i32).rev().find(|n| piece(*n) != 0).unwrap_or(0);
        self.raise(place + highest);
        for n in 0..=highest {
            self.put(place + n, piece(n));
        }
        Ok(())
    }

    fn merge(&mut self, other: &Self) {
        if other.is_set {
            self.raise(other.top);
            for (n, piece) in (0..).zip(other.pieces) {
                self.put(other.top - n, piece);
            }
        }
    }

    /// Makes sure that the highest piece is at `top` or above.
    fn raise(&mut self, top: i32) {
        if !self.is_set {
            (self.top, self.is_set) = (top, true);
        }
        while self.top < top {
            self.pieces.rotate_right(1);
            self.pieces[0] = 0;
            self.top += 1;
        }
    }

    /// Adds to the piece at a place, unless it lies below those that are kept.
    fn put(&mut self, place: i32, piece: i64) {
        if let Some(slot) = usize::try_from(self.top - place).ok().and_then(|at| self.pieces.get_mut(at)) {
            // 2^31 summands fit; more than that saturate instead of turning around.
            *slot = slot.saturating_add(piece);
        }
    }

    fn value(&self) -> f64 {
        let [high, middle, low] = self.pieces.map(i128::from);
        let exponent = BITS * (self.top - 2);
        let whole = high.checked_mul(1 << (2 * BITS)).and_then(|high| high.checked_add((middle << BITS) + low));
        match whole {
            Some(whole) => scaled(whole as f64, exponent),
            None => scaled(high as f64, exponent + 2 * BITS) + scaled(middle as f64, exponent + BITS),
        }
    }
}

/// `value × 2^exponent`, in steps that neither overflow nor underflow on the way.
fn scaled(value: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    value * 2f64.powi(half) * 2f64.powi(exponent - half)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    fn sum(numbers: &[f64]) -> Sums {
        let mut sums = Sums::zero(1);
        numbers.iter().for_each(|n| sums.add(&[*n]).unwrap());
        sums
    }

    #[test]
    fn small_sums_are_exact() {
        assert_eq!(sum(&[1.0, 2.5, -0.25]).values(), [3.25]);
        assert_eq!(sum(&[1e16, 1.0, -1e16]).values(), [1.0]);
        assert_eq!(sum(&[0.1; 10]).values(), [1.0]);
        assert_eq!(sum(&[0.0, -0.0]).values(), [0.0]);
        assert_eq!(sum(&[f64::MIN_POSITIVE / 4.0, 5e-324]).values(), [f64::MIN_POSITIVE / 4.0 + 5e-324]);
        assert_eq!(sum(&[1e300, 1e300, -1e300]).values(), [1e300]);
        assert!(Sums::zero(1).add(&[f64::NAN]).is_err());
    }

    /// Numbers of very different sizes, in another order and as sums of parts: the same state, bit by bit.
    #[test]
    fn order_and_parts_do_not_matter() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut numbers: Vec<f64> = (0..1000)
            .map(|_| (random.next_u64() as i64 as f64) * 2f64.powi((random.next_u32() % 200) as i32 - 100))
            .collect();
        let whole = sum(&numbers);
        for parts in [2, 7] {
            let (first, second) = numbers.split_at(numbers.len() / parts);
            let mut merged = sum(second);
            merged.merge(&sum(first)).unwrap();
            assert_eq!(merged.words(), whole.words());
        }
        numbers.reverse();
        numbers.rotate_left(17);
        assert_eq!(sum(&numbers).words(), whole.words());
        assert_eq!(Sums::from_words(&whole.words()).unwrap(), whole);
        let largest = numbers.iter().fold(0.0, |m: f64, n| m.max(n.abs()));
        let plain: f64 = numbers.iter().sum();
        assert!((whole.values()[0] - plain).abs() < 1e-12 * largest);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        assert_eq!(Sums::from_words(&[0, 1, 2]), None);
        assert_eq!(Sums::from_words(&[i64::MAX, 1, 2, 3]), None);
    }
}
