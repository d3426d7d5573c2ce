//! The axis algebra on random expressions: an axis means the same before and after refinement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use onnx_mtprune::axes::{Expr, Extent, LockId, Space};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

struct Random(ChaCha8Rng);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }
}

/// A random expression of extent `n`, of random nesting.
fn expression(space: &mut Space, random: &mut Random, n: usize, depth: usize, pool: &[Expr]) -> Expr {
    if depth == 0 || n < 2 || random.below(4) == 0 {
        let reusable: Vec<Expr> = pool.iter().copied().filter(|e| space.extent(*e).size() == Some(n)).collect();
        if !reusable.is_empty() && random.below(2) == 0 {
            return reusable[random.below(reusable.len())];
        }
        return space.atom(Extent::from(n));
    }
    if random.below(2) == 0 {
        let at = 1 + random.below(n - 1);
        let left = expression(space, random, at, depth - 1, pool);
        let right = expression(space, random, n - at, depth - 1, pool);
        return space.sum(&[left, right], Extent::from(n));
    }
    let divisors: Vec<usize> = (2..n).filter(|d| n.is_multiple_of(*d)).collect();
    if divisors.is_empty() {
        return space.atom(Extent::from(n));
    }
    let inner = divisors[random.below(divisors.len())];
    let outer = expression(space, random, n / inner, depth - 1, pool);
    let inner = expression(space, random, inner, depth - 1, pool);
    space.product(&[outer, inner]).unwrap()
}

/// Random masks for every atom that may shrink; locked atoms and atoms of extent 1 keep everything.
fn masks(space: &Space, exprs: &[Expr], random: &mut Random) -> BTreeMap<Expr, Vec<bool>> {
    let mut masks = BTreeMap::new();
    for expr in exprs {
        for atom in space.atoms(*expr) {
            let n = space.extent(atom).size().unwrap();
            if n > 1 && space.lock_of(atom).is_none() {
                masks.entry(atom).or_insert_with(|| (0..n).map(|_| random.below(2) == 0).collect());
            }
        }
    }
    masks
}

fn mask(space: &Space, expr: Expr, masks: &BTreeMap<Expr, Vec<bool>>) -> Vec<bool> {
    let n = space.extent(expr).size().unwrap();
    let mask = space.mask(expr, masks).unwrap_or_else(|| vec![true; n]);
    assert_eq!(mask.len(), n);
    mask
}

#[test]
fn unified_axes_keep_the_same_channels() {
    let (mut solved, mut refused) = (0, 0);
    for seed in 0..4000 {
        let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
        let mut space = Space::default();
        let n = [6, 8, 12, 24, 30, 36, 7][random.below(7)];
        let mut pool: Vec<Expr> = Vec::new();
        let mut equations = Vec::new();
        for _ in 0..1 + random.below(5) {
            let a = expression(&mut space, &mut random, n, 3, &pool);
            let b = expression(&mut space, &mut random, n, 3, &pool);
            pool.extend(space.atoms(a));
            pool.extend([a, b]);
            if space.unify(a, b).is_ok() {
                solved += 1;
            } else {
                refused += 1;
                space.lock(a, LockId(0));
                space.lock(b, LockId(0));
            }
            equations.push((a, b));
        }
        let masks = masks(&space, &pool, &mut random);
        for (a, b) in equations {
            assert_eq!(mask(&space, a, &masks), mask(&space, b, &masks), "seed {seed}");
        }
    }
    println!("{solved} equations solved, {refused} refused");
    assert!(solved > 4 * refused, "the algebra solves most equations: {solved} against {refused}");
}

#[test]
fn a_cut_is_a_concatenation_and_a_factorisation_a_nesting() {
    for seed in 0..4000 {
        let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
        let mut space = Space::default();
        let n = [6, 8, 12, 24, 30, 36, 7][random.below(7)];
        let whole = expression(&mut space, &mut random, n, 3, &[]);
        let at = 1 + random.below(n - 1);
        let parts = space.cut(whole, at).unwrap();
        let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
        let k = divisors[random.below(divisors.len())];
        let factors = space.factor(whole, &Extent::from(k));
        let masks = masks(&space, &[whole], &mut random);
        let expected = mask(&space, whole, &masks);
        assert_eq!(expected, [mask(&space, parts.0, &masks), mask(&space, parts.1, &masks)].concat(), "seed {seed}");
        if let Ok((lead, trail)) = factors {
            let trail = mask(&space, trail, &masks);
            assert_eq!(trail.len(), k);
            let outer: Vec<bool> =
                mask(&space, lead, &masks).iter().flat_map(|l| trail.iter().map(move |t| *l && *t)).collect();
            assert_eq!(expected, outer, "seed {seed}");
        }
    }
}

#[test]
fn index_maps_agree_with_masks() {
    for seed in 0..1000 {
        let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
        let mut space = Space::default();
        let whole = expression(&mut space, &mut random, 24, 3, &[]);
        for atom in space.atoms(whole) {
            let n = space.extent(atom).size().unwrap();
            let gone = random.below(n);
            let masks = BTreeMap::from([(atom, (0..n).map(|i| i != gone).collect::<Vec<bool>>())]);
            let mut expected = vec![true; 24];
            space.positions(whole, atom, &mut |position, index| expected[position] &= index != gone);
            assert_eq!(mask(&space, whole, &masks), expected, "seed {seed}");
        }
    }
}

#[test]
fn channel_shuffle_and_half_split_stay_prunable() {
    // x = concat(a, b); reshape (2, 58); transpose; reshape 116; split in halves.
    let mut space = Space::default();
    let (a, b) = (space.atom(Extent::from(58)), space.atom(Extent::from(58)));
    let x = space.sum(&[a, b], Extent::from(116));
    let (two, rest) = space.factor(x, &Extent::from(58)).unwrap();
    let shuffled = space.product(&[rest, two]).unwrap();
    let (left, right) = space.cut(shuffled, 58).unwrap();
    assert_eq!(space.extent(left).size(), Some(58));
    let free = |e: Expr| space.atoms(e).iter().filter(|a| space.extent(**a).size() > Some(1)).count();
    assert!(free(left) > 0 && free(right) > 0);
    assert_eq!(space.resolve(a), space.resolve(b), "both halves keep the same channels");
}

#[test]
fn a_lock_survives_every_refinement() {
    let mut space = Space::default();
    let a = space.locked_atom(Extent::from(12), LockId(7));
    let parts = space.cut(a, 5).unwrap();
    assert_eq!(space.lock_of(parts.0), Some(LockId(7)));
    let b = space.atom(Extent::from(12));
    space.unify(a, b).unwrap();
    assert!(space.is_locked(b));
}
