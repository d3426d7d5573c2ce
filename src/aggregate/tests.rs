//! Worked values of the published methods, by name, and what holds for any scores.
#![allow(clippy::unwrap_used)]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::testing::{Case, kept, near};
use super::unanimous::{entries, kept_at};
use super::vote::{chances, drawn};
use super::*;

/// Two tasks that need unit 0 most and pull it in opposite directions: squares of their gate gradients.
const SQUARES: [[f64; 4]; 2] = [[0.81, 0.04, 0.25, 0.01], [0.81, 0.04, 0.01, 0.09]];
/// The magnitudes of the same gate gradients.
const MAGNITUDES: [[f64; 4]; 2] = [[0.9, 0.2, 0.5, 0.1], [0.9, 0.2, 0.1, 0.3]];

fn two(tasks: &[[f64; 4]; 2]) -> Case {
    Case::new(&[&[&tasks[0]], &[&tasks[1]]])
}

fn by_name(name: &str) -> &'static dyn Aggregation {
    aggregation(name).unwrap().aggregation
}

/// Where gradients of tasks cancel: the sum of the tasks' squares keeps unit 0 first, the square of the summed gradient
/// removes it first.
#[test]
fn cosprune_2_9_test_2_cancellation() {
    let (g1, g2): ([f64; 4], [f64; 4]) = ([0.9, 0.2, 0.5, 0.1], [-0.9, 0.2, 0.1, -0.3]);
    let summed: Vec<f64> = g1.iter().zip(g2).map(|(a, b)| (a + b) * (a + b)).collect();
    assert!(near(&summed, &[0.0, 0.16, 0.36, 0.04], 1e-9));
    let case = two(&SQUARES);
    assert!(near(&case.combine(by_name("sum"))[0], &[1.62, 0.08, 0.26, 0.10], 1e-9));
    assert!(near(&case.combine(by_name("mean"))[0], &[0.81, 0.04, 0.13, 0.05], 1e-9));
    assert!(near(&case.combine(by_name("max"))[0], &[0.81, 0.04, 0.25, 0.09], 1e-9));
    assert!(near(&case.combine(by_name("min"))[0], &[0.81, 0.04, 0.01, 0.01], 1e-9));
    assert!(near(&case.combine(by_name("geometric"))[0], &[0.81, 0.04, 0.05, 0.03], 1e-9));
    assert_eq!(kept(&case.combine(by_name("sum"))[0], 1), [0]);
    assert_eq!(kept(&summed, 3), [1, 2, 3]);
}

#[test]
fn weights_shift_what_is_kept() {
    let weighted = |name: &str, weights: [f64; 2]| {
        let case = Case { weights: weights.to_vec(), ..Case::new(&[&[&[4.0, 1.0]], &[&[1.0, 3.0]]]) };
        case.combine(by_name(name)).remove(0)
    };
    assert!(near(&weighted("mean", [3.0, 1.0]), &[3.25, 1.5], 1e-9));
    assert!(near(&weighted("weighted", [3.0, 1.0]), &[3.25, 1.5], 1e-9));
    assert!(near(&weighted("sum", [3.0, 1.0]), &[13.0, 6.0], 1e-9));
    assert!(near(&weighted("max", [1.0, 2.0]), &[4.0, 6.0], 1e-9));
    assert!(near(&weighted("min", [1.0, 4.0]), &[0.25, 0.75], 1e-9));
    assert!(near(&weighted("geometric", [1.0, 3.0]), &[4f64.powf(0.25), 3f64.powf(0.75)], 1e-9));
    // A task without weight has no say: only the second one's order remains.
    for row in AGGREGATIONS.iter().filter(|row| row.name != "vote") {
        assert_eq!(kept(&weighted(row.name, [0.0, 1.0]), 1), [1], "{}", row.name);
    }
}

#[test]
fn one_shot_pruning_5_3_masks_make_scores() {
    let case = Case::with_masks(&[("1100", 0.5), ("1010", 0.3), ("0011", 0.2)], &[0.1, 0.2, 0.3, 0.4]);
    assert!(near(&case.input().votes(|weight| weight)[0], &[0.8, 0.5, 0.5, 0.2], 1e-9));
    // The tie between 1 and 2 goes to the higher score of the model itself.
    let scores = case.combine(by_name("score-mask")).remove(0);
    assert_eq!(kept(&scores, 2), [0, 2]);
    let other = Case::with_masks(&[("1100", 0.5), ("1010", 0.3), ("0011", 0.2)], &[0.1, 0.3, 0.2, 0.4]);
    assert_eq!(kept(&other.combine(by_name("score-mask"))[0], 2), [0, 1]);
    // One mask, every size: what stays of fewer is among what stays of more.
    let nested: Vec<Vec<usize>> = [1, 2, 3].into_iter().map(|count| kept(&scores, count)).collect();
    assert!(nested.windows(2).all(|pair| pair[0].iter().all(|channel| pair[1].contains(channel))), "{nested:?}");
}

#[test]
fn sums_that_differ_by_rounding_tie() {
    let case = Case::with_masks(&[("101", 0.1), ("100", 0.2), ("010", 0.3)], &[0.1, 0.2, 0.3]);
    assert_eq!(kept(&case.combine(by_name("score-mask"))[0], 1), [1], "0.1 + 0.2 against 0.3");
}

#[test]
fn meta_vote_7_3_chances_are_the_softmax_over_votes() {
    assert!(near(&chances(&[3.0, 1.0, 0.0]), &[0.8438, 0.1142, 0.0420], 1e-4));
    assert_eq!(chances(&[1e9, 1e9]), [0.5, 0.5]);
}

#[test]
fn meta_vote_7_3_the_top_votes_stay() {
    let masks = [("1100", 1.0), ("1010", 1.0), ("0011", 1.0)];
    let case = Case::with_masks(&masks, &[0.4, 0.3, 0.2, 0.1]);
    assert_eq!(case.input().votes(|_| 1.0)[0], [2.0, 1.0, 2.0, 1.0]);
    assert_eq!(kept(&case.combine(by_name("vote"))[0], 2), [0, 2]);
    let agreeing = Case::with_masks(&[("0110", 1.0), ("0110", 1.0), ("0110", 1.0)], &[0.4, 0.3, 0.2, 0.1]);
    assert_eq!(kept(&agreeing.combine(by_name("vote"))[0], 2), [1, 2]);
    // Weights are no votes.
    let heavy = Case::with_masks(&[("1000", 9.0), ("0100", 1.0), ("0100", 1.0)], &[0.4, 0.3, 0.2, 0.1]);
    assert_eq!(kept(&heavy.combine(by_name("vote"))[0], 1), [1]);
}

#[test]
fn meta_vote_7_3_channels_are_drawn_by_their_chances() {
    let votes = [3.0, 1.0, 0.0];
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut first = [0usize; 3];
    for _ in 0..100_000 {
        let order = drawn(&votes, &mut random);
        first[kept(&order, 1)[0]] += 1;
    }
    for (count, chance) in first.iter().zip(chances(&votes)) {
        let seen = *count as f64 / 1e5;
        assert!((seen - chance).abs() < 0.01, "{seen} for {chance}");
    }
}

#[test]
fn what_is_drawn_follows_the_seed() {
    let drawn_with = |seed: u64| {
        let case = Case::with_masks(&[("1100", 1.0), ("1010", 1.0)], &[0.0; 4]);
        Case { draw: Draw::Softmax, seed, ..case }.combine(by_name("vote"))
    };
    assert_eq!(drawn_with(1), drawn_with(1));
    assert_ne!(drawn_with(1), drawn_with(2));
}

#[test]
fn a_group_that_no_neighbour_knows_is_left_to_the_tasks() {
    let case = Case::with_masks(&[("0011", 1.0)], &[0.4, 0.3, 0.2, 0.1]);
    assert_eq!(kept(&case.combine(by_name("vote"))[0], 2), [2, 3]);
    let mut case = case;
    case.neighbours[0].keeps = vec![None];
    assert_eq!(kept(&case.combine(by_name("vote"))[0], 2), [0, 1]);
}

#[test]
fn disparse_8_4_a_the_union_of_what_tasks_keep() {
    let case = two(&MAGNITUDES);
    let normalised = case.scores.normalised();
    let of = |task: usize| normalised.scores[task][0].clone().unwrap();
    assert!(near(&of(0), &[0.5294, 0.1176, 0.2941, 0.0588], 1e-4));
    assert!(near(&of(1), &[0.6, 0.1333, 0.0667, 0.2], 1e-4));
    for scope in [Scope::Group, Scope::Global] {
        let case = Case { scope, ..two(&MAGNITUDES) };
        let entries = entries(&case.input());
        assert_eq!(kept_at(&entries, 1.0 / 4.0)[0], [true, false, false, false]);
        assert_eq!(kept_at(&entries, 2.0 / 4.0)[0], [true, false, true, true]);
        let first_to_go = case.combine(by_name("unanimous"));
        assert_eq!(kept(&first_to_go[0], 3), [0, 2, 3]);
    }
}

/// Random scores of some tasks in two shared groups and one group of their own each.
fn random_case(seed: u64, tasks: usize) -> Case {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut scores = |count: usize| -> Vec<f64> { (0..count).map(|_| f64::from(random.next_u32() % 1000)).collect() };
    let table: Vec<Vec<Vec<f64>>> = (0..tasks)
        .map(|task| {
            let own = |group: usize, scores: Vec<f64>| if group == task + 2 { scores } else { Vec::new() };
            let shared = vec![scores(12), scores(7)];
            let private = (2..tasks + 2).map(|group| own(group, scores(5)));
            shared.into_iter().chain(private).collect()
        })
        .collect();
    let rows: Vec<Vec<&[f64]>> = table.iter().map(|task| task.iter().map(Vec::as_slice).collect()).collect();
    let rows: Vec<&[&[f64]]> = rows.iter().map(Vec::as_slice).collect();
    Case::new(&rows)
}

fn scaled(case: &Case, task: usize, factor: f64) -> TaskScores {
    let mut scores = case.scores.clone();
    scores.scores[task].iter_mut().flatten().flatten().for_each(|score| *score *= factor);
    scores
}

#[test]
fn disparse_8_4_b_the_scale_of_a_loss_changes_nothing() {
    for seed in 0..20 {
        let case = random_case(seed, 3);
        for row in AGGREGATIONS.iter().filter(|row| row.name != "weighted") {
            let config = AggregateConfig { name: Some(row.name.to_owned()), ..AggregateConfig::default() };
            let plain = combine(&case.scores, &case.rooms, &[], &config, 0).unwrap();
            let loud = combine(&scaled(&case, 1, 1024.0), &case.rooms, &[], &config, 0).unwrap();
            for (room, (a, b)) in case.rooms.iter().zip(plain.iter().zip(&loud)) {
                assert_eq!(kept(a, room.count), kept(b, room.count), "{} {seed}", row.name);
            }
        }
    }
}

#[test]
fn disparse_8_4_c_one_task_is_the_plain_order() {
    for seed in 0..20 {
        let case = Case { scope: Scope::Global, ..random_case(seed, 1) };
        let combined = case.combine(by_name("unanimous")).concat();
        let own: Vec<f64> = case.scores.scores[0].iter().flatten().flatten().copied().collect();
        assert_eq!(kept(&combined, 11), kept(&own, 11), "{seed}");
    }
}

#[test]
fn disparse_8_4_d_another_task_removes_no_shared_channel() {
    for seed in 0..20 {
        for scope in [Scope::Group, Scope::Global] {
            let more = Case { scope, ..random_case(seed, 3) };
            let mut fewer = Case { scope, ..random_case(seed, 3) };
            fewer.scores.scores.pop();
            fewer.weights.pop();
            let (more, fewer) = (entries(&more.input()), entries(&fewer.input()));
            for kappa in [0.1, 0.25, 0.5, 0.8] {
                let (more, fewer) = (kept_at(&more, kappa), kept_at(&fewer, kappa));
                let is_superset = |group: usize| more[group].iter().zip(&fewer[group]).all(|(m, f)| *m >= *f);
                assert!(is_superset(0) && is_superset(1), "{seed} at {kappa}");
            }
        }
    }
}

/// What the published rule keeps at κ, worked out as it is written: per task the value of the int(κ n)-th largest.
fn published(case: &Case, kappa: f64) -> Vec<Vec<bool>> {
    let mut keep: Vec<Vec<bool>> = case.rooms.iter().map(|room| vec![false; room.extent]).collect();
    for task in &case.scores.scores {
        let mut all: Vec<f64> = task.iter().flatten().flatten().copied().collect();
        all.sort_by(|a, b| b.total_cmp(a));
        let count = ((kappa + 1e-12) * all.len() as f64) as usize;
        let Some(least) = count.checked_sub(1).and_then(|at| all.get(at)) else { continue };
        for (keep, scores) in keep.iter_mut().zip(task).filter_map(|(keep, scores)| Some((keep, scores.as_ref()?))) {
            keep.iter_mut().zip(scores).for_each(|(keep, score)| *keep |= score >= least);
        }
    }
    keep
}

fn size(keep: &[Vec<bool>]) -> usize {
    keep.iter().flatten().filter(|keep| **keep).count()
}

#[test]
fn disparse_8_4_e_bisection_ends_at_the_budget() {
    for seed in 0..20 {
        let case = Case { scope: Scope::Global, ..random_case(seed, 3) };
        let entries = entries(&case.input());
        let order = case.combine(by_name("unanimous")).concat();
        let all: usize = case.rooms.iter().map(|room| room.extent).sum();
        for budget in 1..all {
            let (mut low, mut high) = (0.0, 1.0);
            for _ in 0..30 {
                let kappa = f64::midpoint(low, high);
                assert_eq!(kept_at(&entries, kappa), published(&case, kappa), "{seed} at {kappa}");
                if size(&published(&case, kappa)) < budget { low = kappa } else { high = kappa }
            }
            // Below and at the κ that bisection finds lie fewer than the budget and at least as many: the choice lies
            // between them and meets the budget exactly.
            let chosen = top(&order, budget);
            assert_eq!(chosen.iter().filter(|keep| **keep).count(), budget);
            let (less, more) = (published(&case, low).concat(), published(&case, high).concat());
            assert!(size(std::slice::from_ref(&less)) < budget && size(std::slice::from_ref(&more)) >= budget);
            let lies_between =
                less.iter().zip(&chosen).zip(&more).all(|((less, own), more)| less <= own && own <= more);
            assert!(lies_between, "{seed}: {budget}");
        }
    }
}

#[test]
fn disparse_8_4_f_a_head_is_its_own_tasks_business() {
    for seed in 0..20 {
        for scope in [Scope::Group, Scope::Global] {
            let case = Case { scope, ..random_case(seed, 3) };
            let mut other = Case { scope, ..random_case(seed, 3) };
            for task in [1, 2] {
                other.scores.scores[task].iter_mut().flatten().for_each(|scores| scores.reverse());
            }
            let (own, others) = (entries(&case.input()), entries(&other.input()));
            assert_eq!(own[2], others[2], "at every κ the same channels of the head stay");
            for row in AGGREGATIONS {
                let count = case.rooms[2].count;
                let (a, b) = (case.combine(row.aggregation), other.combine(row.aggregation));
                assert_eq!(kept(&a[2], count), kept(&b[2], count), "{} {seed}", row.name);
            }
        }
    }
}

/// A trunk whose first group both tasks use alike and whose last one they use differently.
#[test]
fn disparse_8_4_g_overlap_falls_with_depth() {
    let alike: &[f64] = &[4.0, 3.0, 2.0, 1.0];
    let case =
        Case::new(&[&[alike, &[4.0, 3.0, 1.0, 2.0], alike], &[alike, &[4.0, 2.0, 3.0, 1.0], &[1.0, 2.0, 3.0, 4.0]]]);
    let masks = |group: usize| -> Vec<Vec<bool>> {
        case.scores.scores.iter().map(|task| top(task[group].as_ref().unwrap(), case.rooms[group].count)).collect()
    };
    let overlaps: Vec<f64> = (0..3).filter_map(|group| overlap::mean(&masks(group))).collect();
    assert!(near(&overlaps, &[1.0, 1.0 / 3.0, 0.0], 1e-9), "{overlaps:?}");
}

#[test]
fn the_order_of_tasks_does_not_matter() {
    for seed in 0..20 {
        for scope in [Scope::Group, Scope::Global] {
            let case = Case { scope, weights: vec![1.0, 2.0, 0.5], ..random_case(seed, 3) };
            let mut turned = Case { scope, weights: vec![0.5, 2.0, 1.0], ..random_case(seed, 3) };
            turned.scores.scores.reverse();
            for row in AGGREGATIONS {
                let (a, b) = (case.combine(row.aggregation), turned.combine(row.aggregation));
                for (room, (a, b)) in case.rooms.iter().zip(a.iter().zip(&b)) {
                    assert!(near(a, b, 1e-6), "{} {seed} {}", row.name, room.name);
                }
            }
        }
    }
}

#[test]
fn what_says_nothing_does_no_harm() {
    // A task of zeros, a group without tasks, and something that is no number.
    let case = Case::new(&[&[&[0.0, 0.0, 0.0], &[]], &[&[1.0, f64::NAN, 3.0], &[]]]);
    let normalised = case.scores.normalised();
    assert_eq!(normalised.scores[0][0], Some(vec![0.0; 3]));
    assert_eq!(normalised.scores[1][0], Some(vec![0.25, 0.0, 0.75]));
    let mut rooms = case.rooms.clone();
    rooms[1].extent = 2;
    for row in AGGREGATIONS.iter().filter(|row| row.name != "weighted") {
        let config = AggregateConfig { name: Some(row.name.to_owned()), ..AggregateConfig::default() };
        let combined = combine(&case.scores, &rooms, &[], &config, 0).unwrap();
        assert_eq!(combined[1].len(), 2, "{}", row.name);
        assert!(combined.iter().flatten().all(|score| score.is_finite()), "{}: {combined:?}", row.name);
        assert_eq!(kept(&combined[0], 1), [2], "{}: a task of zeros decides nothing", row.name);
    }
    let huge = TaskScores { tasks: vec!["a".into()], scores: vec![vec![Some(vec![1e308, 1e308, 1e308])]] };
    assert!(near(huge.normalised().scores[0][0].as_ref().unwrap(), &[1.0 / 3.0; 3], 1e-12));
}

#[test]
fn tasks_that_say_the_same_change_no_order() {
    for row in AGGREGATIONS {
        let case = Case::new(&[&[&[3.0, 1.0, 2.0, 5.0]], &[&[3.0, 1.0, 2.0, 5.0]]]);
        assert_eq!(kept(&case.combine(row.aggregation)[0], 2), [0, 3], "{}", row.name);
        assert!(!case.scores.differ());
    }
    assert!(two(&SQUARES).scores.differ());
}

#[test]
fn weights_and_options_that_make_no_sense_are_refused() {
    let tasks = ["seg".to_owned(), "depth".to_owned()];
    assert_eq!(weights(&tasks, &[("depth".into(), 2.0)]).unwrap(), [1.0, 2.0]);
    let says = |given: &[(String, f64)], word: &str| {
        let line = weights(&tasks, given).unwrap_err().to_string();
        assert!(line.contains(word), "{line}");
    };
    says(&[("edges".into(), 2.0)], "`edges`; the tasks are seg, depth");
    says(&[("seg".into(), -1.0)], "is -1");
    says(&[("seg".into(), f64::NAN)], "is NaN");
    says(&[("seg".into(), 1.0), ("seg".into(), 2.0)], "two weights");
    says(&[("seg".into(), 0.0), ("depth".into(), 0.0)], "no task weighs anything");

    let case = two(&SQUARES);
    let refused = |config: AggregateConfig, word: &str| {
        let line = combine(&case.scores, &case.rooms, &[], &config, 0).unwrap_err().to_string();
        assert!(line.contains(word), "{line}");
    };
    let named = |name: &str| AggregateConfig { name: Some(name.to_owned()), ..AggregateConfig::default() };
    refused(named("loudest"), "choose one of mean, sum");
    refused(named("weighted"), "needs weights");
    refused(AggregateConfig { scope: Scope::Global, ..named("vote") }, "only ranks channels within their group");
    refused(AggregateConfig { draw: Draw::Softmax, ..named("max") }, "draws nothing");
    assert_eq!(aggregation("disparse").unwrap().name, "unanimous");
}
