//! Masks: what pruned models keep, stored under names, so that models of similar tasks can vote with them.
//!
//! A mask is the part of a plan that says which channels of which groups stay. It fits any model whose groups have the
//! same names and extents, such as the same network trained for another task. Beside it may lie what tells how similar
//! tasks are: the scores that a criterion gave, and what the model gives out on samples. Invariant: a mask never says
//! anything of a group that it does not name, or names with another extent; all numbers are finite, because JSON knows
//! no others.

pub mod similarity;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::aggregate::Neighbour;
use crate::calibration::Batches;
use crate::engine::Engine;
use crate::fidelity::Runner;
use crate::groups::Group;
use crate::plan_file::{PlanFile, PlannedGroup};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};

/// The only version so far.
const FORMAT: u32 = 1;

/// More numbers than this per sample are no features of a sample that one would want to store.
const MOST_FEATURES: usize = 4096;

/// A mask as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskFile {
    /// The version of this format.
    pub mask_format: u32,
    /// What it is called.
    pub name: String,
    /// The SHA-256 of the original model file that the plan was made for, in hexadecimal.
    pub sha256: String,
    /// What stays of every group that shrank.
    pub groups: Vec<PlannedGroup>,
    /// What a criterion said of the model, if that was stored.
    pub scores: Option<StoredScores>,
    /// What the model gives out on samples, if that was stored.
    pub outputs: Option<Outputs>,
}

/// Scores of the groups of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredScores {
    /// The criterion.
    pub criterion: String,
    /// One number per channel, by group; groups with a score that is not finite are left out.
    pub groups: BTreeMap<String, Vec<f64>>,
}

impl StoredScores {
    /// What a criterion says of groups, by their names.
    pub fn new(criterion: &str, groups: &[Group], scores: Vec<Vec<f64>>) -> Self {
        let named = groups.iter().map(|group| group.name.clone()).zip(scores);
        let finite = named.filter(|(_, scores)| scores.iter().all(|score| score.is_finite()));
        Self { criterion: criterion.to_owned(), groups: finite.collect() }
    }
}

/// What a model gives out on samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// The SHA-256 of what was fed, in hexadecimal: only outputs on the same samples can be compared.
    pub samples: String,
    /// By output: one row of numbers per sample.
    pub rows: BTreeMap<String, Vec<Vec<f64>>>,
}

impl MaskFile {
    /// The mask of a plan.
    ///
    /// # Errors
    /// A name that could not be a file's, or a plan that removes nothing.
    pub fn of_plan(name: &str, plan: &PlanFile) -> Result<Self> {
        check_name(name)?;
        if plan.groups.is_empty() {
            return Err(Error::input("the plan removes nothing, so there is no mask in it"));
        }
        let (sha256, groups) = (plan.sha256.clone(), plan.groups.clone());
        Ok(Self { mask_format: FORMAT, name: name.to_owned(), sha256, groups, scores: None, outputs: None })
    }

    /// Reads a mask's text.
    ///
    /// # Errors
    /// What is no mask, or one of another version; indices that are out of order or out of range.
    pub fn parse(text: &str) -> Result<Self> {
        let file: Self = serde_json::from_str(text)
            .map_err(|e| Error::input("this is no mask, or a damaged one").because(e).help("`masks add` makes one"))?;
        if file.mask_format != FORMAT {
            let format = file.mask_format;
            return Err(Error::input(format!("the mask has format {format}, this program reads {FORMAT}")));
        }
        for group in &file.groups {
            let ascending = group.kept.windows(2).all(|pair| pair[0] < pair[1]);
            let in_range = group.kept.last().is_some_and(|last| (*last as usize) < group.extent);
            if !ascending || !in_range {
                let what = format!("group `{}` keeps indices that are empty, out of order or out of range", group.name);
                return Err(Error::input(what).help("`masks add --replace` makes the mask anew"));
            }
        }
        Ok(file)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// None that a mask can cause; serialisation is fallible by type only.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string(self).map_err(|e| Error::input("the mask cannot be written").because(e))?;
        Ok(text + "\n")
    }

    /// How many channels stay, of how many, in the groups that shrank.
    pub fn channels(&self) -> (usize, usize) {
        self.groups.iter().fold((0, 0), |(kept, all), group| (kept + group.kept.len(), all + group.extent))
    }

    /// What the mask says of the groups of a model, and a sentence for every group of the mask that does not fit one.
    ///
    /// # Errors
    /// A mask of which nothing fits.
    pub fn neighbour(&self, groups: &[Group], weight: f64) -> Result<(Neighbour, Vec<String>)> {
        let by_name: BTreeMap<&str, usize> = groups.iter().enumerate().map(|(i, g)| (g.name.as_str(), i)).collect();
        let mut keeps = vec![None; groups.len()];
        let mut misfits = Vec::new();
        for own in &self.groups {
            let found = by_name.get(own.name.as_str()).and_then(|index| Some((*index, groups.get(*index)?)));
            match found {
                None => misfits.push(format!("group `{}` is not in the model", own.name)),
                Some((_, group)) if group.extent != own.extent => misfits.push(format!(
                    "group `{}` has {} channels in the model, {} in the mask",
                    own.name, group.extent, own.extent
                )),
                Some((index, _)) => {
                    let mut mask = vec![false; own.extent];
                    own.kept.iter().filter_map(|k| usize::try_from(*k).ok()).for_each(|kept| {
                        if let Some(keep) = mask.get_mut(kept) {
                            *keep = true;
                        }
                    });
                    keeps[index] = Some(mask);
                }
            }
        }
        if keeps.iter().all(Option::is_none) {
            let first = misfits.first().cloned().unwrap_or_default();
            let error = Error::input(format!("the mask `{}` fits no group of the model: {first}", self.name));
            return Err(error.help("take masks of the same network, for example of another task"));
        }
        Ok((Neighbour { name: self.name.clone(), weight, keeps }, misfits))
    }
}

/// Refuses names that could not be a file's everywhere, or that mean something else on the command line.
///
/// # Errors
/// As said.
pub fn check_name(name: &str) -> Result<()> {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 100 || name.starts_with(['.', '-']) || !name.chars().all(is_plain) {
        let error = Error::input(format!("`{name}` cannot be the name of a mask"));
        return Err(error.help("use letters, digits, `-`, `_` and `.`, not first"));
    }
    Ok(())
}

impl Outputs {
    /// Runs a model on samples and keeps what it gives out: of every output that has a row of at most some thousand
    /// finite numbers for each sample.
    ///
    /// # Errors
    /// A sample that cannot be read, a model that the engine does not run, one without such an output.
    pub fn of(model: &ModelProto, engine: &dyn Engine, batches: &dyn Batches) -> Result<Self> {
        let outputs = model.graph.iter().flat_map(|graph| &graph.output);
        let names: Vec<String> = outputs.map(|output| output.name().to_owned()).collect();
        let mut runner = Runner::new(engine, model, &names);
        let mut rows: BTreeMap<String, Vec<Vec<f64>>> = names.iter().map(|name| (name.clone(), Vec::new())).collect();
        let mut fed = Sha256::new();
        for index in 0..batches.len() {
            let batch = batches.batch(index)?;
            for (name, value) in &batch.feeds {
                fed.update(name);
                value.to_f64().iter().for_each(|number| fed.update(number.to_le_bytes()));
            }
            let values = runner.run(&batch)?;
            for (name, value) in names.iter().zip(&values) {
                let count = batch.samples.len();
                let fits = value.is_float() && value.shape().first() == Some(&count) && count > 0;
                let width = if fits { value.len() / count } else { 0 };
                let numbers = if (1..=MOST_FEATURES).contains(&width) { value.to_f64() } else { Vec::new() };
                if numbers.is_empty() || numbers.iter().any(|number| !number.is_finite()) {
                    rows.remove(name);
                }
                if let Some(rows) = rows.get_mut(name) {
                    rows.extend(numbers.chunks(width.max(1)).map(<[f64]>::to_vec));
                }
            }
        }
        if rows.is_empty() || batches.samples() == 0 {
            let error = Error::input("no output of the model has a row of finite numbers for every sample");
            return Err(error.help("leave out --calibration; masks can be compared without it"));
        }
        let samples = fed.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { samples, rows })
    }

    /// All numbers of each sample, output after output.
    pub fn features(&self) -> Vec<Vec<f64>> {
        let count = self.rows.values().map(Vec::len).min().unwrap_or(0);
        (0..count)
            .map(|sample| self.rows.values().filter_map(|rows| rows.get(sample)).flatten().copied().collect())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::prune::{Analysis, PruneConfig};
    use crate::text;

    const MODEL: &str = "
        in x [1,4]
        t = Gemm(x, trunk[4,6])
        a = Gemm(t, middle[6,8])
        y = Gemm(a, head[8,2])
        out y";

    fn mask(groups: &[(&str, usize, &[u32])]) -> MaskFile {
        let group = |(name, extent, kept): &(&str, usize, &[u32])| PlannedGroup {
            name: (*name).to_owned(),
            extent: *extent,
            kept: kept.to_vec(),
        };
        MaskFile {
            mask_format: FORMAT,
            name: "near".to_owned(),
            sha256: String::new(),
            groups: groups.iter().map(group).collect(),
            scores: None,
            outputs: None,
        }
    }

    #[test]
    fn masks_are_matched_by_name_and_extent() {
        let model = text::parse(MODEL).unwrap();
        let groups = Analysis::of(&model, &[]).unwrap().groups;
        let own = mask(&[("trunk.1", 6, &[0, 5]), ("middle.1", 9, &[1]), ("other.0", 4, &[2])]);
        let (neighbour, misfits) = own.neighbour(&groups, 0.5).unwrap();
        let at = |name: &str| groups.iter().position(|g| g.name == name).unwrap();
        assert_eq!(neighbour.keeps[at("trunk.1")], Some(vec![true, false, false, false, false, true]));
        assert_eq!((neighbour.keeps[at("middle.1")].clone(), neighbour.weight), (None, 0.5));
        assert_eq!(misfits.len(), 2);
        assert!(misfits[0].contains("`middle.1` has 8 channels in the model, 9 in the mask"), "{misfits:?}");
        assert!(misfits[1].contains("`other.0` is not in the model"), "{misfits:?}");
        let foreign = mask(&[("other.0", 4, &[2])]).neighbour(&groups, 1.0).unwrap_err().to_string();
        assert!(foreign.contains("fits no group of the model: group `other.0`"), "{foreign}");
    }

    #[test]
    fn scores_that_are_not_finite_are_left_out() {
        let model = text::parse(MODEL).unwrap();
        let groups = Analysis::of(&model, &[]).unwrap().groups;
        let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
        let all = groups.iter().map(|group| vec![1.0; group.extent]);
        let scores = all.enumerate().map(|(at, own)| if at == 1 { vec![f64::NAN; own.len()] } else { own }).collect();
        let stored = StoredScores::new("l2", &groups, scores);
        let mut mask = mask(&[("trunk.1", 6, &[0])]);
        assert!(stored.groups.len() + 1 == names.len() && !stored.groups.contains_key(&names[1]), "{stored:?}");
        mask.scores = Some(stored);
        assert_eq!(MaskFile::parse(&mask.text().unwrap()).unwrap(), mask);
    }

    #[test]
    fn a_plan_becomes_a_mask_and_comes_back() {
        let model = text::parse(MODEL).unwrap();
        let analysis = Analysis::of(&model, &[]).unwrap();
        let plan = analysis.plan(&PruneConfig { ratio: 0.5, ..PruneConfig::default() }).unwrap();
        let rewritten = analysis.apply(&plan).unwrap();
        let file = PlanFile::new("abc".into(), &analysis.groups, &plan, &rewritten, None);
        let mask = MaskFile::of_plan("half", &file).unwrap();
        assert_eq!(mask.channels(), (7, 14));
        assert_eq!(MaskFile::parse(&mask.text().unwrap()).unwrap(), mask);
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        let text = mask(&[("a.0", 4, &[0, 3])]).text().unwrap();
        for bad in [
            String::new(),
            "{}".to_owned(),
            text[..text.len() / 2].to_owned(),
            text.replace("\"mask_format\":1", "\"mask_format\":9"),
            text.replace("[0,3]", "[3,0]"),
            text.replace("[0,3]", "[0,4]"),
            text.replace("[0,3]", "[]"),
            text.replace("\"name\":\"near\"", "\"name\":\"near\",\"more\":1"),
        ] {
            assert!(MaskFile::parse(&bad).is_err(), "{bad}");
        }
        for name in ["", "a/b", "..", "-a", "a:b", "a,b", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("seg-2.small_a").unwrap();
    }
}
