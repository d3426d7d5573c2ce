//! Magnitude: |w|^p summed per channel, mean over the members of a group.
//!
//! DepGraph (Fang et al., CVPR 2023, arXiv 2301.12900), section 3.3 without its sparse training: rows count where a
//! weight produces the channels, columns where it contracts them, gammas of normalisations once. `bn-scale` is Network
//! Slimming (Liu et al., ICCV 2017, arXiv 1708.06519): gammas only.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::marginal::marginals;
use super::{Criterion, ScoreInput, quantised};
use crate::coupling::Role;
use crate::graph::ValueId;
use crate::groups::{Group, Member};
use crate::{Error, Result};

pub(super) struct Magnitude {
    /// The exponent, 1 or 2.
    pub(super) power: u32,
    /// Only gammas count, where a group has any.
    pub(super) scales_only: bool,
}

impl Criterion for Magnitude {
    fn score(&self, input: &ScoreInput) -> Result<Vec<Vec<f64>>> {
        let counted: Vec<Vec<&Member>> = input.groups.iter().map(|group| self.counted(input, group)).collect();
        // The axes of every constant, and one member that reads it.
        let mut axes: BTreeMap<ValueId, (&Member, Vec<usize>)> = BTreeMap::new();
        for member in counted.iter().flatten() {
            let (_, list) = axes.entry(member.value).or_insert_with(|| (member, Vec::new()));
            if !list.contains(&member.axis) {
                list.push(member.axis);
            }
        }
        // What quantised weights stand for depends on their reader; contractions read their weights as they are.
        let signature = |member: &Member| match member.role {
            Role::PerChannel => input.coupling.signature(input.graph, member.node).ok(),
            _ => None,
        };
        let axes: Vec<_> =
            axes.into_iter().map(|(value, (member, axes))| (value, member, signature(member), axes)).collect();
        let sums: Result<BTreeMap<(ValueId, usize), Vec<f64>>> = axes
            .into_par_iter()
            .map(|(value, member, signature, axes)| {
                let constant = input.graph.value(value).constant();
                let constant = constant.ok_or_else(|| Error::input("a member is no constant"))?;
                let real = signature.and_then(|signature| quantised::weights(input.graph, &signature, member));
                let sums = marginals(real.as_ref().unwrap_or(&constant.tensor), &axes, self.power, input.pages)?;
                Ok(axes.into_iter().zip(sums).map(|(axis, sum)| ((value, axis), sum)).collect::<Vec<_>>())
            })
            .collect::<Result<Vec<_>>>()
            .map(|lists| lists.into_iter().flatten().collect());
        let sums = sums?;
        let (space, all_axes) = (&input.coupling.space, &input.coupling.axes);
        let importance = |(group, members): (&Group, &Vec<&Member>)| {
            let mut total = vec![0.0; group.extent];
            for member in members {
                let Some(sum) = sums.get(&(member.value, member.axis)) else { continue };
                let axes = all_axes[member.value.0 as usize].as_ref();
                let Some(expr) = axes.and_then(|a| a.get(member.axis)) else { continue };
                space.positions(*expr, group.atom, &mut |position, index| {
                    if let (Some(total), Some(cost)) = (total.get_mut(index), sum.get(position)) {
                        *total += cost;
                    }
                });
            }
            total.iter_mut().for_each(|t| *t /= members.len().max(1) as f64);
            total
        };
        Ok(input.groups.par_iter().zip(&counted).map(importance).collect())
    }
}

impl Magnitude {
    /// The members that count, each constant's axis once however often it is read.
    ///
    /// Quantised weights reach their contraction through DequantizeLinear, so no contraction reads them. Of a group
    /// without other weights, the constants with two or more axes are the weights; the vectors beside them are biases,
    /// scales and zero points, and the scales count with the weights they scale.
    fn counted<'g>(&self, input: &ScoreInput, group: &'g Group) -> Vec<&'g Member> {
        if group.lock.is_some() {
            return Vec::new();
        }
        let pick = |roles: &[Role]| {
            let mut seen = std::collections::BTreeSet::new();
            let members = group.members.iter().filter(|m| roles.contains(&m.role));
            members.filter(|m| seen.insert((m.value, m.axis))).collect::<Vec<_>>()
        };
        let scales = pick(&[Role::Scale]);
        if self.scales_only && !scales.is_empty() {
            return scales;
        }
        let weights = pick(&[Role::Produced, Role::Contracted, Role::Scale]);
        if !weights.is_empty() {
            return weights;
        }
        let rank = |member: &&Member| input.graph.value(member.value).constant().map_or(0, |c| c.tensor.dims.len());
        let others = pick(&[Role::PerChannel]);
        let wide: Vec<&Member> = others.iter().copied().filter(|member| rank(member) > 1).collect();
        if wide.is_empty() { others } else { wide }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{by_weights, model};

    /// conv1 [3,2] = [[1,0],[2,1],[0,.5]], gamma = [1,.5,2], conv2 [2,3] = [[1,0,2],[0,3,1]].
    fn score(name: &str) -> Vec<f64> {
        let text = "in x [1,2,1,1]
             a = Conv(x, w1[3,2,1,1])
             b = BatchNormalization(a, gamma[3], beta[3], mean[3], var[3])
             y = Conv(b, w2[2,3,1,1])
             out y";
        let weights: [(&str, &[f32]); 3] =
            [("w1", &[1., 0., 2., 1., 0., 0.5]), ("gamma", &[1., 0.5, 2.]), ("w2", &[1., 0., 2., 0., 3., 1.])];
        by_weights(&model(text, &weights), name)
    }

    #[test]
    fn depgraph_worked_numbers() {
        let l2 = score("l2");
        let expected = [1.0, 4.75, 37.0 / 12.0];
        assert!(l2.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{l2:?}");
        let mean = l2.iter().sum::<f64>() / 3.0;
        let normalised: Vec<String> = l2.iter().map(|v| format!("{:.4}", v / mean)).collect();
        assert_eq!(normalised, ["0.3396", "1.6132", "1.0472"]);
    }

    #[test]
    fn scales_alone() {
        assert_eq!(score("bn-scale"), [1.0, 0.5, 2.0]);
    }
}
