//! Tasks that decide together, and masks of other models that vote: the real program on small models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::program::{Folder, TWO_TASKS};
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::NpzWriter;
use onnx_mtprune::aggregate::{AGGREGATIONS, AggregateConfig, Scope, TaskScores};
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::text;
use serde_json::Value;

fn json(folder: &Folder, name: &str) -> Value {
    serde_json::from_slice(&folder.bytes(name)).unwrap()
}

/// What a plan keeps, by group.
fn kept(folder: &Folder, plan: &str) -> BTreeMap<String, Vec<u64>> {
    let plan = json(folder, plan);
    let groups = plan["groups"].as_array().unwrap().iter();
    let list = |group: &Value| group["kept"].as_array().unwrap().iter().map(|k| k.as_u64().unwrap()).collect();
    groups.map(|group| (group["name"].as_str().unwrap().to_owned(), list(group))).collect()
}

#[test]
fn a_criterion_that_knows_no_tasks_is_kept_by_every_aggregation() {
    let folder = Folder::with_model();
    folder.succeed(&["model.onnx", "plain.onnx", "--ratio", "0.5", "--plan-out", "plain.json"]);
    for row in AGGREGATIONS {
        let words = ["model.onnx", "own.onnx", "--ratio", "0.5", "--plan-out", "own.json", "--report", "r.json"];
        let chosen = ["--task-aggregation", row.name, "--task-weight", "a=2"];
        let page = folder.succeed(&[&words[..], &chosen[..]].concat());
        assert_eq!(kept(&folder, "own.json"), kept(&folder, "plain.json"), "{}", row.name);
        assert!(page.contains(&format!("combined by {}; all score alike", row.name)), "{page}");
        let report = json(&folder, "r.json");
        assert_eq!(report["options"]["task_aggregation"], row.name);
        assert_eq!(report["options"]["task_weights"]["a"], 2.0);
        assert_eq!(report["agreement"]["differ"], false);
        assert_eq!(report["agreement"]["groups"][0]["overlap"], 1.0);
        let shares = report["agreement"]["groups"].as_array().unwrap().iter();
        let of_a: f64 = shares.filter_map(|group| group["importance"]["a"].as_f64()).sum();
        assert!((of_a - 1.0).abs() < 1e-9, "{of_a}");
    }
}

#[test]
fn the_global_scope_removes_as_many_channels_in_all() {
    let folder = Folder::with_model();
    folder.succeed(&["model.onnx", "plain.onnx", "--ratio", "0.5", "--plan-out", "plain.json"]);
    let chosen = ["--task-aggregation", "disparse", "--scope", "global", "--plan-out", "own.json"];
    folder.succeed(&[&["model.onnx", "own.onnx", "--ratio", "0.5"], &chosen[..]].concat());
    let (plain, own) = (kept(&folder, "plain.json"), kept(&folder, "own.json"));
    let extents = BTreeMap::from([("trunk.0", 16), ("a_weight.0", 8), ("b_weight.0", 6)]);
    let total = |plan: &BTreeMap<String, Vec<u64>>| -> usize {
        extents.iter().map(|(name, extent)| plan.get(*name).map_or(*extent, Vec::len)).sum()
    };
    assert_eq!((total(&plain), total(&own)), (15, 15));
    assert_ne!(plain, own);
    folder.succeed(
        &[
            &["model.onnx", "floor.onnx", "--ratio", "0.5", "--min-channels", "4", "--plan-out", "floor.json"],
            &chosen[..4],
        ]
        .concat(),
    );
    assert!(kept(&folder, "floor.json").values().all(|kept| kept.len() >= 4));
    folder.succeed(&[&["model.onnx", "same.onnx", "--ratio", "0"], &chosen[..4]].concat());
    assert_eq!(folder.read("same.onnx"), folder.read("model.onnx"));
    // A criterion alone, and one of another aggregation.
    for (at, words) in
        [&["--scope", "global"][..], &["--scope", "global", "--task-aggregation", "max"]].iter().enumerate()
    {
        let plan = format!("criterion{at}.json");
        let own = ["model.onnx", "criterion.onnx", "--ratio", "0.5", "--criterion", "lamp", "--plan-out", &plan];
        folder.succeed(&[&own[..], words].concat());
        assert_eq!(total(&kept(&folder, &plan)), 15);
        assert_ne!(kept(&folder, &plan), plain);
    }
}

/// Scores of two tasks that disagree about the trunk: `a` needs its first channels, `b` its last.
fn disagreeing(analysis: &Analysis) -> TaskScores {
    let of = |task: usize| {
        let groups = analysis.groups.iter();
        let own = groups.map(|group| {
            let feeds = group.tasks.iter().any(|own| own == task);
            let score = |at: usize| if task == 0 { group.extent - at } else { at + 1 } as f64;
            feeds.then(|| (0..group.extent).map(score).collect())
        });
        own.collect()
    };
    TaskScores { tasks: vec!["a".into(), "b".into()], scores: vec![of(0), of(1)] }
}

#[test]
fn tasks_that_disagree_shape_the_trunk_and_not_each_others_heads() {
    let model = text::parse(TWO_TASKS).unwrap();
    let analysis = Analysis::of(&model, &[]).unwrap();
    let scores = disagreeing(&analysis);
    let at = |name: &str| analysis.groups.iter().position(|g| g.name == name).unwrap();
    let plan = |name: &str, weights: &[(&str, f64)], scope: Scope| {
        let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        let aggregation = AggregateConfig { name: Some(name.to_owned()), weights, scope, ..AggregateConfig::default() };
        let config = PruneConfig { ratio: 0.5, aggregation, ..PruneConfig::default() };
        analysis.allocate_by_tasks(&scores, &[], &config).unwrap().kept
    };
    let both_ends: Vec<u32> = [0, 1, 2, 3, 12, 13, 14, 15].to_vec();
    for row in AGGREGATIONS {
        let kept = plan(row.name, &[("a", 1.0)], Scope::Group);
        assert_eq!(kept[at("a_weight.0")], Some(vec![0, 1, 2, 3]), "{}", row.name);
        assert_eq!(kept[at("b_weight.0")], Some(vec![3, 4, 5]), "{}", row.name);
        let heavy = plan(row.name, &[("a", 1000.0), ("b", 1.0)], Scope::Group);
        if row.name != "vote" {
            assert_eq!(heavy[at("trunk.0")], Some((0..8).collect()), "{}", row.name);
        }
    }
    assert_eq!(plan("unanimous", &[], Scope::Group)[at("trunk.0")], Some(both_ends));
    let kept: usize = plan("unanimous", &[], Scope::Global).iter().flatten().map(Vec::len).sum();
    assert_eq!(kept, 15);
}

#[test]
fn aggregations_and_weights_that_make_no_sense() {
    let folder = Folder::with_model();
    let says = |more: &[&str], words: &[&str]| {
        let line = folder.fail(2, &[&["model.onnx", "new.onnx", "--ratio", "0.5"], more].concat());
        for word in words {
            assert!(line.contains(word), "`{word}` is missing: {line}");
        }
    };
    says(&["--task-weight", "z=2"], &["--task-weight names no task `z`", "the tasks are a, b"]);
    says(&["--task-weight", "a=-1"], &["--task-weight"]);
    says(&["--task-weight", "a=NaN"], &["--task-weight"]);
    says(&["--task-weight", "a"], &["TASK=2.5"]);
    says(&["--task-weight", "a=1", "--task-weight", "a=2"], &["task `a` has two weights"]);
    says(&["--task-weight", "a=0", "--task-weight", "b=0"], &["no task weighs anything"]);
    says(&["--task-aggregation", "loudest"], &["loudest"]);
    says(&["--task-aggregation", "weighted"], &["needs weights", "--task-weight"]);
    says(&["--task-aggregation", "vote", "--scope", "global"], &["`vote` only ranks channels within their group"]);
    says(&["--task-aggregation", "mean", "--draw", "softmax"], &["`mean` draws nothing"]);
}

/// Two stored masks of the model: `low` keeps what l2 keeps, `other` what chance keeps.
fn with_masks() -> Folder {
    let folder = Folder::with_model();
    for (name, criterion) in [("low", "l2"), ("other", "random")] {
        let plan = format!("{name}.plan");
        folder.succeed(&[
            "model.onnx",
            "1.onnx",
            "--ratio",
            "0.5",
            "--criterion",
            criterion,
            "--seed",
            "3",
            "--plan-out",
            &plan,
        ]);
        folder.succeed(&["masks", "add", name, &plan, "--model", "model.onnx", "--criterion", criterion]);
    }
    folder
}

#[test]
fn masks_are_added_listed_and_shown() {
    let folder = with_masks();
    let page = folder.succeed(&["masks", "list"]);
    assert_eq!(
        page,
        "low: 15 of 30 channels in 3 groups, scores of l2\nother: 15 of 30 channels in 3 groups, scores of random\n"
    );
    let page = folder.succeed(&["masks", "show", "other"]);
    assert!(page.contains("trunk.0: 8 of 16: ") && page.contains("b_weight.0: 3 of 6: "), "{page}");
    let line = folder.fail(2, &["masks", "add", "low", "low.plan"]);
    assert!(line.contains("there is a mask of this name already") && line.contains("--replace"), "{line}");
    folder.succeed(&["masks", "add", "low", "other.plan", "--replace"]);
    assert!(folder.succeed(&["masks", "list"]).starts_with("low: 15 of 30 channels in 3 groups\n"));
    folder.succeed(&["masks", "add", "far", "low.plan", "--store", "elsewhere"]);
    assert!(folder.succeed(&["masks", "list", "--store", "elsewhere"]).starts_with("far: 15"));
}

#[test]
fn neighbours_decide_where_they_are_named() {
    let folder = with_masks();
    let prune = |more: &[&str]| {
        let words = ["model.onnx", "small.onnx", "--ratio", "0.5", "--plan-out", "own.json", "--report", "r.json"];
        folder.succeed(&[&words[..], more].concat());
        kept(&folder, "own.json")
    };
    let other = kept(&folder, "other.plan");
    assert_ne!(other, kept(&folder, "low.plan"));
    for aggregation in ["vote", "score-mask"] {
        assert_eq!(prune(&["--task-aggregation", aggregation, "--neighbours", "other"]), other, "{aggregation}");
    }
    let weighted = |weights: &str| prune(&["--task-aggregation", "score-mask", "--neighbours", weights]);
    assert_eq!(weighted("low:0.2,other:0.8"), other);
    assert_eq!(weighted("low:0.8,other:0.2"), kept(&folder, "low.plan"));
    // However large or small weights are, only their proportions count.
    assert_eq!(weighted("low:2e-12,other:8e-12"), other);
    assert_eq!(json(&folder, "r.json")["options"]["neighbours"], serde_json::json!([["low", 2e-12], ["other", 8e-12]]));
    let drawn = |seed: &str| {
        prune(&["--task-aggregation", "vote", "--neighbours", "low,other", "--draw", "softmax", "--seed", seed])
    };
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}

#[test]
fn the_most_similar_mask_is_found() {
    let folder = with_masks();
    for (similarity, criterion, nearest) in [("overlap", "l2", "low"), ("gradient", "l2", "low")] {
        let said = folder.run(&[
            "model.onnx",
            "small.onnx",
            "--ratio",
            "0.5",
            "--criterion",
            criterion,
            "--plan-out",
            "own.json",
            "--task-aggregation",
            "vote",
            "--neighbours",
            "auto:1",
            "--similarity",
            similarity,
        ]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.err.contains(&format!("note: neighbours: {nearest} (1.000)")), "{said:?}");
        assert_eq!(kept(&folder, "own.json"), kept(&folder, &format!("{nearest}.plan")));
    }
}

/// Eight samples, of some loudness.
fn samples(folder: &Folder, name: &str, loudness: f32) {
    let numbers = (0..8 * 192).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * loudness).collect();
    let mut file = NpzWriter::new(fs::File::create(folder.file(name)).unwrap());
    file.add_array("x", &ArrayD::<f32>::from_shape_vec(IxDyn(&[8, 3, 8, 8]), numbers).unwrap()).unwrap();
    file.finish().unwrap();
}

#[test]
fn similarity_by_outputs_on_the_same_samples() {
    let folder = Folder::new();
    let model = "
        in x [n,3,8,8]
        t = Conv(x, trunk[16,3,3,3], pads=[1,1,1,1])
        r = Relu(t)
        m = GlobalAveragePool(r)
        f = Flatten(m)
        h = Gemm(f, middle[16,8])
        y = Gemm(h, head[8,3])
        out y";
    folder.model("model.onnx", model);
    samples(&folder, "same.npz", 1.0);
    samples(&folder, "others.npz", 2.0);
    let mut file = NpzWriter::new(fs::File::create(folder.file("labels.npz")).unwrap());
    let labels = ArrayD::<i64>::from_shape_vec(IxDyn(&[8]), vec![0, 1, 2, 0, 1, 2, 0, 1]).unwrap();
    file.add_array("y", &labels).unwrap();
    file.finish().unwrap();
    folder.succeed(&["model.onnx", "1.onnx", "--ratio", "0.5", "--plan-out", "p.json"]);
    let add = |name: &str, more: &[&str]| {
        folder.succeed(&[&["masks", "add", name, "p.json", "--model", "model.onnx"], more].concat())
    };
    assert!(add("near", &["--calibration", "same.npz"]).contains("outputs on 8 samples"));
    add("far", &["--calibration", "others.npz"]);
    add("bare", &[]);
    let words = ["model.onnx", "small.onnx", "--ratio", "0.5", "--criterion", "l2", "--calibration", "same.npz"];
    let auto = ["--task-aggregation", "vote", "--neighbours", "auto:2", "--similarity"];
    let said = folder.run(&[&words[..], &auto[..], &["cka"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("note: neighbours: near (1.000)"), "{said:?}");
    assert!(said.err.contains("passed over: the mask `far` was stored with other samples"), "{said:?}");
    assert!(said.err.contains("passed over: the mask `bare` has no outputs stored"), "{said:?}");
    let said = folder.run(&[&words[..], &auto[..], &["leep", "--labels", "labels.npz"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("note: neighbours: near (-"), "{said:?}");
    let line = folder.fail(2, &[&words[..], &auto[..], &["leep"]].concat());
    assert!(line.contains("leep needs labels") && line.contains("--labels"), "{line}");
}

#[test]
fn gradients_of_tasks_are_combined_and_compared() {
    let folder = Folder::with_model();
    samples(&folder, "samples.npz", 1.0);
    let words = ["model.onnx", "small.onnx", "--ratio", "0.5", "--calibration", "samples.npz", "--report", "r.json"];
    let mut trunks = Vec::new();
    for row in AGGREGATIONS {
        let chosen =
            ["--criterion", "taylor", "--task-aggregation", row.name, "--task-weight", "a=1", "--plan-out", "p.json"];
        let page = folder.succeed(&[&words[..], &chosen[..]].concat());
        assert!(page.contains("shared group") && page.contains("share of b"), "{page}");
        trunks.push(kept(&folder, "p.json")["trunk.0"].clone());
    }
    assert!(trunks.iter().any(|trunk| *trunk != trunks[0]), "all aggregations keep {:?}", trunks[0]);
    let report = json(&folder, "r.json");
    let agreement = &report["agreement"];
    assert_eq!(agreement["differ"], true);
    let row = |name: &str| agreement["groups"].as_array().unwrap().iter().find(|row| row["group"] == name).unwrap();
    let (trunk, head) = (row("trunk.0"), row("a_weight.0"));
    assert!(trunk["overlap"].as_f64().unwrap() < 1.0, "{trunk}");
    let cosine = trunk["conflict"][0]["cosine"].as_f64().unwrap();
    assert!(cosine.abs() <= 1.0 + 1e-9, "{cosine}");
    assert!(head["overlap"].is_null() && head["conflict"].is_null() && head["importance"]["b"].is_null(), "{head}");
    folder.succeed(&[
        "masks",
        "add",
        "own",
        "p.json",
        "--model",
        "model.onnx",
        "--criterion",
        "taylor",
        "--calibration",
        "samples.npz",
    ]);
    let near =
        ["--criterion", "taylor", "--task-aggregation", "vote", "--neighbours", "auto:1", "--similarity", "gradient"];
    let said = folder.run(&[&words[..], &near[..]].concat());
    assert!(said.code == 0 && said.err.contains("note: neighbours: own ("), "{said:?}");
}

#[test]
fn masks_that_are_unknown_foreign_or_damaged() {
    let folder = with_masks();
    let prune = |model: &str, more: &[&str]| {
        let words = [model, "new.onnx", "--ratio", "0.5", "--task-aggregation", "vote"];
        folder.fail(2, &[&words[..], more].concat())
    };
    let says = |line: String, words: &[&str]| {
        for word in words {
            assert!(line.contains(word), "`{word}` is missing: {line}");
        }
    };
    says(prune("model.onnx", &["--neighbours", "nobody"]), &["no mask `nobody`", "it holds low, other"]);
    says(prune("model.onnx", &["--neighbours", "low,low"]), &["`low` is named twice"]);
    says(prune("model.onnx", &["--neighbours", "low:0"]), &["the weight of `low`"]);
    says(prune("model.onnx", &["--neighbours", "auto:0"]), &["whole number"]);
    says(prune("model.onnx", &["--neighbours", "low", "--mask-store", "nowhere"]), &["nowhere", "folder of masks"]);
    says(prune("model.onnx", &["--neighbours", "low", "--similarity", "cka"]), &["does nothing"]);
    says(prune("model.onnx", &["--neighbours", "auto:1", "--similarity", "cka"]), &["give --calibration"]);
    let line = folder
        .fail(2, &["model.onnx", "new.onnx", "--ratio", "0.5", "--task-aggregation", "mean", "--neighbours", "low"]);
    says(line, &["`mean` does not look at masks"]);

    folder.model("foreign.onnx", "in x [1,4]\n t = Gemm(x, one[4,6])\n y = Gemm(t, two[6,2])\n out y");
    says(prune("foreign.onnx", &["--neighbours", "low"]), &["`low` fits no group", "`trunk.0` is not in the model"]);
    says(prune("foreign.onnx", &["--neighbours", "auto:1"]), &["no mask can be compared", "fits no group"]);
    folder.model("wider.onnx", &TWO_TASKS.replace("8,16,1,1", "10,16,1,1").replace("4,8,1,1", "4,10,1,1"));
    let said =
        folder.run(&["wider.onnx", "w.onnx", "--ratio", "0.5", "--task-aggregation", "vote", "--neighbours", "low"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("`a_weight.0` has 10 channels in the model, 8 in the mask"), "{said:?}");
    let line = folder.fail(2, &["masks", "add", "x", "low.plan", "--model", "foreign.onnx"]);
    says(line, &["made for another file"]);

    let whole = fs::read_to_string(folder.file("masks/low.json")).unwrap();
    fs::write(folder.file("masks/low.json"), &whole[..whole.len() / 2]).unwrap();
    says(prune("model.onnx", &["--neighbours", "low"]), &["low.json", "damaged"]);
    says(prune("model.onnx", &["--neighbours", "auto:1"]), &["low.json", "damaged"]);
    says(folder.fail(2, &["masks", "show", "low"]), &["low.json", "damaged"]);
    says(folder.fail(2, &["masks", "list"]), &["low.json", "damaged"]);
    says(folder.fail(2, &["masks", "show", "../low"]), &["cannot be the name of a mask"]);
    says(folder.fail(2, &["masks", "add", "a/b", "low.plan"]), &["cannot be the name of a mask"]);
    says(folder.fail(2, &["masks", "add", "new", "model.onnx"]), &["model.onnx", "plan"]);
}

#[test]
fn outputs_that_are_not_finite_are_not_stored() {
    let folder = Folder::new();
    let model = "
        in x [n,3,8,8]
        t = Conv(x, trunk[16,3,3,3], pads=[1,1,1,1])
        m = GlobalAveragePool(t)
        f = Flatten(m)
        y = Gemm(f, head[16,3])
        r = Relu(y)
        z = Log(r)
        out y, z";
    folder.model("model.onnx", model);
    samples(&folder, "same.npz", 1.0);
    folder.succeed(&["model.onnx", "1.onnx", "--ratio", "0.5", "--plan-out", "p.json"]);
    folder.succeed(&["masks", "add", "own", "p.json", "--model", "model.onnx", "--calibration", "same.npz"]);
    assert!(folder.succeed(&["masks", "list"]).contains("outputs on 8 samples"));
    let rows = json(&folder, "masks/own.json")["outputs"]["rows"].clone();
    assert_eq!(rows.as_object().unwrap().keys().collect::<Vec<_>>(), ["y"]);
}
