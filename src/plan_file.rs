//! Plans as files: what was kept, as JSON, bound to the model it was made for.
//!
//! A plan file replays a cut (`--plan`), lets `verify` judge it later, and tells a trainer which original channels the
//! tensors of the pruned model are. Invariants: `sha256` is that of the original file; index lists are ascending; lists
//! that many activations share are stored once, in `sets`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::allocate::Plan;
use crate::extract::{self, Extracted};
use crate::groups::Group;
use crate::kept::{Indices, Kept, KeptAxes, Zero};
use crate::rewrite::Rewritten;
use crate::{Error, Result};

/// The only version so far.
const FORMAT: u32 = 1;

/// A plan as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// The version of this format.
    pub format: u32,
    /// The SHA-256 of the original model file, in hexadecimal.
    pub sha256: String,
    /// The graph outputs that stay, in order; absent where all do. What follows is then about the part of the model that
    /// computes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<String>>,
    /// Every group that shrinks.
    pub groups: Vec<PlannedGroup>,
    /// Kept indices of every shortened constant: one entry per axis, `null` where the axis is whole.
    pub initializers: BTreeMap<String, Vec<Option<Vec<u32>>>>,
    /// Kept indices of every shortened activation: one entry per axis, an index into `sets`.
    pub activations: BTreeMap<String, Vec<Option<usize>>>,
    /// Index lists of activations.
    pub sets: Vec<Vec<u32>>,
    /// The original extents of shortened axes, for activations inside bodies; absent where there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extents: BTreeMap<String, Vec<Option<u32>>>,
    /// What stands for zero in shortened activations where that is not a stored 0: quantised ones with a zero point.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub zeros: BTreeMap<String, PlannedZero>,
    /// Constants whose values follow from the cut: shapes, split sizes, indices.
    pub altered: BTreeSet<String>,
    /// Nodes, by their first outputs, that take statistics over what remains: the cut is approximate there. Plans of
    /// earlier versions have none.
    #[serde(default)]
    pub approximated: BTreeSet<String>,
    /// What a repair with samples changed behind the cut; absent where nothing was repaired. Replaying a plan cuts, and
    /// repairs with the samples that are given then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<PlannedRepair>,
}

/// The constants that a repair changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedRepair {
    /// Those that hold other numbers.
    pub changed: BTreeSet<String>,
    /// New ones, each with its only reader: the position of the node and its input slot.
    pub added: BTreeMap<String, (usize, usize)>,
}

/// The stored number that stands for zero: the number, or the name of the activation that holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PlannedZero {
    /// This number.
    Number(i64),
    /// What the activation of this name holds.
    Activation(String),
}

impl PlannedZero {
    fn of(zero: &Zero) -> Self {
        match zero {
            Zero::Number(number) => Self::Number(*number),
            Zero::Activation(name) => Self::Activation(name.clone()),
        }
    }

    fn kept(&self) -> Zero {
        match self {
            Self::Number(number) => Zero::Number(*number),
            Self::Activation(name) => Zero::Activation(name.clone()),
        }
    }
}

/// One group of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedGroup {
    /// The group's name.
    pub name: String,
    /// How many channels it had.
    pub extent: usize,
    /// The channels that stay.
    pub kept: Vec<u32>,
}

impl PlanFile {
    /// The file of a plan and what it does to a model, or to the part of it that `extracted` is.
    pub fn new(
        sha256: String,
        groups: &[Group],
        plan: &Plan,
        rewritten: &Rewritten,
        extracted: Option<&Extracted>,
    ) -> Self {
        let (kept, altered) = extract::together(extracted, rewritten);
        let planned = groups.iter().zip(&plan.kept).filter_map(|(group, kept)| {
            Some(PlannedGroup { name: group.name.clone(), extent: group.extent, kept: kept.clone()? })
        });
        let mut sets: Vec<Vec<u32>> = Vec::new();
        let mut index: BTreeMap<Indices, usize> = BTreeMap::new();
        let mut set = |indices: &Indices| {
            *index.entry(indices.clone()).or_insert_with(|| {
                sets.push(indices.to_vec());
                sets.len() - 1
            })
        };
        let activations = kept
            .activations
            .iter()
            .map(|(name, axes)| (name.clone(), axes.iter().map(|axis| axis.as_ref().map(&mut set)).collect()));
        let activations = activations.collect();
        let lists = |axes: &KeptAxes| axes.iter().map(|axis| axis.as_ref().map(|i| i.to_vec())).collect();
        Self {
            format: FORMAT,
            sha256,
            outputs: extracted.map(|part| part.outputs.clone()),
            groups: planned.collect(),
            initializers: kept.constants.iter().map(|(name, axes)| (name.clone(), lists(axes))).collect(),
            activations,
            sets,
            extents: kept.extents.clone(),
            zeros: kept.zeros.iter().map(|(name, zero)| (name.clone(), PlannedZero::of(zero))).collect(),
            altered,
            approximated: rewritten.approximated.clone(),
            repaired: None,
        }
    }

    /// Reads a plan file's text.
    ///
    /// # Errors
    /// What is no plan, or one of another version.
    pub fn parse(text: &str) -> Result<Self> {
        let file: PlanFile = serde_json::from_str(text)
            .map_err(|e| Error::input("this is no plan file").because(e).help("write one with --plan-out"))?;
        if file.format != FORMAT {
            return Err(Error::input(format!("the plan has format {}, this program reads {FORMAT}", file.format)));
        }
        Ok(file)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// None that a plan can cause; serialisation is fallible by type only.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string(self).map_err(|e| Error::input("the plan cannot be written").because(e))?;
        Ok(text + "\n")
    }

    /// What the plan leaves of every tensor.
    ///
    /// # Errors
    /// A reference to a list that is not there.
    pub fn kept(&self) -> Result<Kept> {
        let sets: Vec<Indices> = self.sets.iter().map(|s| Arc::from(s.as_slice())).collect();
        let missing = || Error::input("the plan refers to an index list that it does not hold");
        let mut kept = Kept { extents: self.extents.clone(), ..Kept::default() };
        for (name, axes) in &self.activations {
            let axes: Result<KeptAxes> =
                axes.iter().map(|a| a.map(|i| sets.get(i).cloned().ok_or_else(missing)).transpose()).collect();
            kept.activations.insert(name.clone(), axes?);
        }
        for (name, axes) in &self.initializers {
            let axes = axes.iter().map(|a| a.as_ref().map(|i| Indices::from(i.as_slice()))).collect();
            kept.constants.insert(name.clone(), axes);
        }
        kept.zeros = self.zeros.iter().map(|(name, zero)| (name.clone(), zero.kept())).collect();
        Ok(kept)
    }

    /// The plan for a model with these groups; if the plan approximates, they must be those found with approximations
    /// allowed.
    ///
    /// # Errors
    /// A group that the model does not have, has with another extent or may not shrink; indices out of order or range.
    pub fn plan(&self, groups: &[Group]) -> Result<Plan> {
        let mut plan = Plan { kept: vec![None; groups.len()], held: BTreeMap::new() };
        let by_name: BTreeMap<&str, usize> = groups.iter().enumerate().map(|(i, g)| (g.name.as_str(), i)).collect();
        for planned in &self.groups {
            let wrong = |why: String| {
                Error::input(format!("the plan does not fit: group `{}` {why}", planned.name))
                    .help("make the plan anew with --plan-out from this model and this version")
            };
            let index = by_name.get(planned.name.as_str()).copied();
            let index = index.ok_or_else(|| wrong("is not in the model".to_owned()))?;
            let group = &groups[index];
            if group.extent != planned.extent {
                return Err(wrong(format!("has {} channels, planned for {}", group.extent, planned.extent)));
            }
            if group.lock.is_some() {
                return Err(wrong("may not shrink".to_owned()));
            }
            let ascending = planned.kept.windows(2).all(|pair| pair[0] < pair[1]);
            let in_range = planned.kept.last().is_some_and(|last| (*last as usize) < group.extent);
            if !ascending || !in_range {
                return Err(wrong("keeps indices that are empty, out of order or out of range".to_owned()));
            }
            plan.kept[index] = Some(planned.kept.clone());
        }
        Ok(plan)
    }
}
