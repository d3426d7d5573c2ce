//! Random importance: the baseline. Seeded by the user's seed and the group's name, so that a group keeps its numbers
//! when others come or go.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

use super::{Criterion, ScoreInput};
use crate::Result;

pub(super) struct Random;

impl Criterion for Random {
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        let scores = input.groups.iter().map(|group| {
            let digest = Sha256::new().chain_update(input.seed.to_le_bytes()).chain_update(&group.name).finalize();
            let mut random = ChaCha8Rng::from_seed(digest.into());
            (0..group.extent).map(|_| random.next_u64() as f64).collect()
        });
        Ok(scores.collect())
    }
}
