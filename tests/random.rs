//! Random models, random plans: the pruned model equals the masked original, by the independent judge.
//!
//! `CASES=5000 cargo test --release --test random` runs more of them.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::type_complexity)]

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::random_graph::{Random, model};
use onnx_mtprune::allocate::Plan;
use onnx_mtprune::axes::Extent;
use onnx_mtprune::coupling::Rules;
use onnx_mtprune::engine::Tract;
use onnx_mtprune::ops::{NodeView, Refused, Row, Rule, Signature, Term, rule_for};
use onnx_mtprune::prune::{Analysis, Options};
use onnx_mtprune::text;
use onnx_mtprune::verify::{Outcome, VerifyOptions, verify};
use rayon::prelude::*;

/// How one random case ended.
enum Case {
    /// Verified; how many groups were cut.
    Equal(usize),
    /// One input gave a difference just above the tolerance, three others none: rounding where a sum cancels.
    Rounding,
    /// The engine cannot run the model.
    NotRun(String),
    /// The pruned model is wrong, or could not be made.
    Wrong(String),
}

/// Every unlocked group keeps a random number of random channels; nested groups are all cut at once.
fn random_plan(analysis: &Analysis, random: &mut Random) -> Plan {
    let kept = analysis.groups.iter().map(|group| {
        if group.lock.is_some() || random.below(4) == 0 {
            return None;
        }
        let count = 1 + random.below(group.extent);
        let mut indices: Vec<u32> = (0..group.extent as u32).collect();
        while indices.len() > count {
            let gone = random.below(indices.len());
            indices.remove(gone);
        }
        (count < group.extent).then_some(indices)
    });
    Plan { kept: kept.collect(), held: BTreeMap::new() }
}

fn run(seed: u64, rules: Rules) -> Case {
    let text = model(seed);
    let original = text::parse(&text).unwrap();
    let analysis = match Analysis::with_options(&original, &Options { rules, ..Default::default() }) {
        Ok(analysis) => analysis,
        Err(e) => return Case::Wrong(format!("not analysed: {e}\n{text}")),
    };
    let plan = random_plan(&analysis, &mut Random::new(seed ^ 0x5eed));
    let cut = plan.kept.iter().flatten().count();
    let rewritten = match analysis.apply(&plan) {
        Ok(rewritten) => rewritten,
        Err(e) => return Case::Wrong(format!("not rewritten: {e}\n{text}")),
    };
    let pruned = rewritten.output.materialise().unwrap();
    let options = VerifyOptions { seed, rounding: false, altered: rewritten.altered.clone(), ..Default::default() };
    match verify(&original, &pruned, &rewritten.kept, &Tract, &options) {
        Err(e) => Case::Wrong(format!("not judged: {e}\n{text}")),
        Ok(verdict) => match verdict.outcome {
            Outcome::Passed => Case::Equal(cut),
            Outcome::CannotRun { reason } | Outcome::NotCompared { reason } => Case::NotRun(reason),
            Outcome::Failed { reason, first } => {
                let again = (1..4).all(|other| {
                    let options = VerifyOptions { seed: seed + other * 1_000_003, ..options.clone() };
                    verify(&original, &pruned, &rewritten.kept, &Tract, &options).is_ok_and(|v| v.passed())
                });
                let worst = verdict.outputs.iter().map(|o| o.max_relative).fold(0.0, f64::max);
                if again && worst < 1e-3 { Case::Rounding } else { Case::Wrong(format!("{reason} {first:?}\n{text}")) }
            }
        },
    }
}

/// How many random cases ended.
#[derive(Default)]
struct Cases {
    equal: usize,
    cut: usize,
    rounding: usize,
    not_run: Vec<(u64, String)>,
    wrong: Vec<(u64, String)>,
}

fn cases(rules: Rules, count: u64) -> Cases {
    let results: Vec<(u64, Case)> = (0..count)
        .into_par_iter()
        .map(|seed| {
            let case = catch_unwind(AssertUnwindSafe(|| run(seed, rules)));
            (seed, case.unwrap_or_else(|_| Case::Wrong("it panics".to_owned())))
        })
        .collect();
    let mut cases = Cases::default();
    for (seed, case) in results {
        match case {
            Case::Equal(groups) => {
                cases.equal += 1;
                cases.cut += groups;
            }
            Case::Rounding => cases.rounding += 1,
            Case::NotRun(reason) => cases.not_run.push((seed, reason)),
            Case::Wrong(reason) => cases.wrong.push((seed, reason)),
        }
    }
    cases
}

#[test]
fn pruned_random_models_equal_their_masked_originals() {
    let count = std::env::var("CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(600);
    let Cases { equal, cut, rounding, not_run, wrong } = cases(rule_for, count);
    println!(
        "{equal} of {count} equal, {cut} groups cut, {} not run by the engine, {} wrong",
        not_run.len(),
        wrong.len()
    );
    for (seed, reason) in not_run.iter().take(5) {
        println!("seed {seed} is not run: {reason}");
    }
    for (seed, reason) in wrong.iter().take(3) {
        println!("seed {seed}: {reason}");
    }
    assert!(wrong.is_empty(), "{} wrong, seeds {:?}", wrong.len(), wrong.iter().map(|(s, _)| s).collect::<Vec<_>>());
    println!("{rounding} equal but for rounding at one input of four");
    assert!(rounding as u64 * 500 <= count, "{rounding} of {count} differ by more than rounding explains");
    assert!(equal as u64 * 6 >= count * 5, "the engine runs too few of the models: {equal} of {count}");
    assert!(cut > 3 * equal, "too little is cut to prove anything: {cut} groups in {equal} models");
}

/// A concatenation whose offsets are off by one: the first channel of its first input is taken for the last of all.
struct OffByOne;

impl Rule for OffByOne {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let mut signature = rule_for("", "Concat").unwrap().rule.signature(node)?;
        let axis = node.axis("axis", 1, node.rank(0)?)?;
        let first = node.extent(0, axis)?.size().filter(|n| *n > 1);
        if let (Some(n), Some(Some(input)), Some(Some(output))) =
            (first, signature.inputs.clone().first(), signature.outputs.clone().first())
            && let Some(Term::Sum(parts)) = output.get(axis)
        {
            let head = signature.free("Head", Some(Extent::one()));
            let rest = signature.free("Rest", Some(Extent::from(n - 1)));
            let (mut input, mut output) = (input.clone(), output.clone());
            output[axis] = Term::Sum([std::slice::from_ref(&rest), &parts[1..], std::slice::from_ref(&head)].concat());
            input[axis] = Term::Sum(vec![head, rest]);
            signature.inputs[0] = Some(input);
            signature.outputs[0] = Some(output);
        }
        Ok(signature)
    }
}

static WRONG: Row = Row { domain: "", op_type: "Concat", rule: &OffByOne, shape_inputs: &[], note: "wrong on purpose" };

fn wrong_rules(domain: &str, op_type: &str) -> Option<&'static Row> {
    if (domain, op_type) == ("", "Concat") { Some(&WRONG) } else { rule_for(domain, op_type) }
}

#[test]
fn a_wrong_rule_is_caught() {
    let Cases { equal, wrong, .. } = cases(wrong_rules, 300);
    println!("with a wrong rule {} of 300 are caught, {equal} pass", wrong.len());
    assert!(wrong.len() >= 8, "a wrong rule goes unnoticed: {} caught", wrong.len());
    assert!(wrong.iter().any(|(_, reason)| reason.contains("differs") || reason.contains("Difference")), "{wrong:?}");
}

/// `SEED=6 cargo test --release --test random one -- --nocapture` shows one case.
#[test]
fn one_case() {
    let Some(seed) = std::env::var("SEED").ok().and_then(|s| s.parse().ok()) else { return };
    println!("{}", model(seed));
    if let Case::Wrong(reason) = run(seed, rule_for) {
        panic!("{reason}");
    }
}
