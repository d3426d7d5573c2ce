//! Votes, after the published description of Meta-Vote Pruning (arXiv 2301.11560): every mask has one vote on every
//! channel, whatever its weight. The masks are those of the neighbours, or those that the tasks of the model would choose
//! each by itself. The softmax over votes within a group is not in what we could read of the paper; it is what its
//! summaries say. Fine-tuning between layers belongs to a trainer.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

use super::{Aggregation, Draw, Input, ranked};

pub(super) struct Vote;

impl Aggregation for Vote {
    fn combine(&self, input: &Input) -> Vec<Vec<f64>> {
        let votes = input.votes(|_| 1.0).into_iter().zip(input.mean()).zip(input.rooms);
        let of_group = votes.map(|((votes, mean), room)| match input.draw {
            Draw::Top => ranked(&votes, &mean),
            Draw::Softmax => {
                let digest = Sha256::new().chain_update(input.seed.to_le_bytes()).chain_update(&room.name).finalize();
                drawn(&votes, &mut ChaCha8Rng::from_seed(digest.into()))
            }
        });
        of_group.collect()
    }
}

/// The chance of each channel to be drawn first: the softmax over votes.
pub fn chances(votes: &[f64]) -> Vec<f64> {
    let most = votes.iter().copied().fold(f64::MIN, f64::max);
    let powers: Vec<f64> = votes.iter().map(|votes| (votes - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Numbers whose descending order is that in which channels are drawn without replacement by [`chances`]: votes plus
/// noise of Gumbel's distribution.
pub fn drawn(votes: &[f64], random: &mut ChaCha8Rng) -> Vec<f64> {
    let mut noise = || {
        // The upper 53 bits, in the open interval (0, 1).
        let uniform = ((random.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -(-uniform.ln()).ln()
    };
    votes.iter().map(|votes| votes + noise()).collect()
}
