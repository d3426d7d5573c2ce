//! Axes under statistics: locked unless `--allow-approximate` is given; then the residual stream of a transformer
//! shrinks, drift is reported, and mistakes are still caught.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, dead_code)]

mod common;

use std::path::Path;

use common::program::Folder;
use onnx_mtprune::allocate::Rounding;
use onnx_mtprune::engine::Tract;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{Analysis, Options, PruneConfig};
use onnx_mtprune::rewrite::Rewritten;
use onnx_mtprune::text;
use onnx_mtprune::verify::{Outcome, Verdict, VerifyOptions, verify};
use serde_json::Value;

/// One transformer block of width 16 with four heads from `x` to `y`, its values and weights numbered `i`; the
/// normalisations stand before attention and feed-forward layer, or behind the residual sums.
fn block(i: usize, x: &str, y: &str, pre: bool) -> String {
    let norm = |to: &str, from: &str| {
        format!("{to}{i} = LayerNormalization({from}, {to}_gamma{i}[16], {to}_beta{i}[16], epsilon=0.01)\n")
    };
    let (attended, fed) = if pre { (format!("n{i}"), format!("m{i}")) } else { (x.to_owned(), format!("m{i}")) };
    let heads = |to: &str, perm: &str| {
        format!(
            "{to}p{i} = MatMul({attended}, w{to}{i}[16,16])\n{to}b{i} = Add({to}p{i}, b{to}{i}[16])\n\
             {to}r{i} = Reshape({to}b{i}, {{0,0,4,4}})\n{to}{i} = Transpose({to}r{i}, perm={perm})\n"
        )
    };
    let mut text = if pre { norm("n", x) } else { String::new() };
    text += &[heads("q", "[0,2,1,3]"), heads("k", "[0,2,3,1]"), heads("v", "[0,2,1,3]")].concat();
    text += &format!(
        "s{i} = MatMul(q{i}, k{i})\nt{i} = Mul(s{i}, <0.5>)\np{i} = Softmax(t{i}, axis=-1)\no{i} = MatMul(p{i}, v{i})\n\
         or{i} = Transpose(o{i}, perm=[0,2,1,3])\nom{i} = Reshape(or{i}, {{0,0,16}})\nop{i} = MatMul(om{i}, wo{i}[16,16])\n\
         a{i} = Add({x}, op{i})\n"
    );
    text += &norm("m", &format!("a{i}"));
    text += &format!(
        "f{i} = MatMul({fed}, wf{i}[16,64])\nfb{i} = Add(f{i}, bf{i}[64])\nh{i} = Gelu(fb{i})\ng{i} = MatMul(h{i}, wg{i}[64,16])\n"
    );
    if pre {
        text + &format!("{y} = Add(a{i}, g{i})\n")
    } else {
        text + &format!("r{i} = Add(m{i}, g{i})\n") + &norm("l", &format!("r{i}")) + &format!("{y} = Identity(l{i})\n")
    }
}

/// Two blocks between an embedding and a head.
fn transformer(pre: bool) -> String {
    let blocks = block(1, "e", "b1", pre) + &block(2, "b1", "b2", pre);
    format!(
        "opset 20\nin x [1,6,8]\ne = MatMul(x, embedding[8,16])\n{blocks}\
         z = LayerNormalization(b2, gamma[16], beta[16])\ny = MatMul(z, head[16,4])\nout y"
    )
}

fn cut(model: &ModelProto, allow: bool) -> Rewritten {
    let analysis = Analysis::with_options(model, &Options { allow_approximate: allow, ..Default::default() }).unwrap();
    let config = PruneConfig { ratio: 0.5, rounding: Rounding::Multiple(1), ..Default::default() };
    analysis.apply(&analysis.plan(&config).unwrap()).unwrap()
}

fn judge(original: &ModelProto, pruned: &ModelProto, cut: &Rewritten) -> Verdict {
    let (altered, approximated) = (cut.altered.clone(), cut.approximated.clone());
    let options = VerifyOptions { altered, approximated, ..Default::default() };
    verify(original, pruned, &cut.kept, &Tract, &options).unwrap()
}

/// The elements of the floats in the two-dimensional weights of the blocks.
fn block_weights(model: &ModelProto) -> i64 {
    let weights = model.graph.as_ref().unwrap().initializer.iter();
    weights.filter(|t| t.name().starts_with('w') && t.dims.len() == 2).map(|t| t.dims.iter().product::<i64>()).sum()
}

#[test]
fn the_residual_stream_of_a_transformer_shrinks() {
    for pre in [true, false] {
        let model = text::parse(&transformer(pre)).unwrap();
        let exact = cut(&model, false);
        assert!(exact.approximated.is_empty());
        let pruned = exact.output.materialise().unwrap();
        let verdict = judge(&model, &pruned, &exact);
        assert_eq!((verdict.outcome, verdict.approximated), (Outcome::Passed, 0));
        assert!(verdict.drift.is_empty(), "drift is measured where something was approximated");
        assert_eq!(block_weights(&pruned) * 2, block_weights(&model), "heads and hidden layers only");

        let cut = cut(&model, true);
        let pruned = cut.output.materialise().unwrap();
        let verdict = judge(&model, &pruned, &cut);
        assert_eq!(verdict.outcome, Outcome::Passed, "pre-norm: {pre}");
        assert_eq!(verdict.approximated, cut.approximated.len());
        assert_eq!(verdict.approximated, 5, "{:?}", cut.approximated);
        assert_eq!(block_weights(&pruned) * 4, block_weights(&model), "a quarter of the weights is left");
        let drift = &verdict.drift[0];
        assert!(drift.relative > 1e-3 && drift.relative.is_finite(), "{drift:?}");
    }
}

#[test]
fn mistakes_are_caught_under_approximation() {
    let model = text::parse(&transformer(true)).unwrap();
    let cut = cut(&model, true);
    let right = cut.output.materialise().unwrap();
    let node = |model: &mut ModelProto, output: &str, change: &dyn Fn(&mut onnx_mtprune::proto::onnx::NodeProto)| {
        let nodes = &mut model.graph.as_mut().unwrap().node;
        change(nodes.iter_mut().find(|n| n.output[0] == output).unwrap());
    };
    // Another epsilon, another value normalised, gamma and beta exchanged, a normalisation left out.
    let mut wrong = [right.clone(), right.clone(), right.clone(), right.clone()];
    node(&mut wrong[0], "n2", &|n| n.attribute[0].f = Some(1.0));
    node(&mut wrong[1], "n2", &|n| n.input[0] = "e".to_owned());
    node(&mut wrong[2], "m1", &|n| n.input.swap(1, 2));
    node(&mut wrong[3], "n2", &|n| {
        n.op_type = Some("Identity".to_owned());
        n.input.truncate(1);
        n.attribute.clear();
    });
    for (case, wrong) in wrong.iter().enumerate() {
        let verdict = judge(&model, wrong, &cut);
        assert!(matches!(verdict.outcome, Outcome::Failed { .. }), "case {case}: {:?}", verdict.outcome);
    }
    // Nobody said that approximations were allowed: the masked original is another.
    let options = VerifyOptions { altered: cut.altered.clone(), ..Default::default() };
    let verdict = verify(&model, &right, &cut.kept, &Tract, &options).unwrap();
    assert!(matches!(verdict.outcome, Outcome::Failed { .. }), "{:?}", verdict.outcome);
}

#[test]
fn what_has_no_reference_is_not_called_equal() {
    let model = text::parse(&transformer(true)).unwrap();
    let mut cut = cut(&model, true);
    let pruned = cut.output.materialise().unwrap();
    cut.approximated.insert("op1".to_owned());
    let verdict = judge(&model, &pruned, &cut);
    let Outcome::NotCompared { reason } = &verdict.outcome else { panic!("{:?}", verdict.outcome) };
    assert!(reason.contains("MatMul") && !verdict.passed(), "{reason}");
    assert!(verdict.outputs.is_empty() && verdict.drift.len() == 1, "drift alone is told");
}

#[test]
fn the_program_reports_drift_and_replays_it() {
    let folder = Folder::new();
    folder.model("m.onnx", &transformer(true));
    let page = folder.succeed(&["inspect", "m.onnx"]);
    assert!(page.contains("unlock with --allow-approximate"), "{page}");
    let page = folder.succeed(&["inspect", "m.onnx", "--allow-approximate"]);
    assert!(page.contains("yes, approximately") && page.contains("yes, heads"), "{page}");

    let page = folder.succeed(&["m.onnx", "exact.onnx", "--ratio", "0.5"]);
    assert!(!page.contains("drift") && page.contains("equals the masked original with tract"), "{page}");
    let cut = ["m.onnx", "s.onnx", "--ratio", "0.5", "--allow-approximate", "--plan-out", "p.json"];
    let page = folder.succeed(&[&cut[..], &["--report", "r.json", "--require-verify"]].concat());
    for line in
        ["5 nodes with statistics over what remains", "drift     `y`", "with statistics over what remains, with"]
    {
        assert!(page.contains(line), "no `{line}` in {page}");
    }
    let report: Value = serde_json::from_slice(&folder.bytes("r.json")).unwrap();
    assert_eq!(report["verification"]["outcome"], "passed");
    assert_eq!(report["verification"]["approximated"], 5);
    assert!(report["verification"]["drift"][0]["cosine"].as_f64().unwrap().abs() <= 1.0 + 1e-9);
    assert_eq!(report["options"]["allow_approximate"], true);
    assert_eq!(report["approximated"].as_array().unwrap().len(), 5);

    // The plan tells that approximations were allowed.
    folder.succeed(&["m.onnx", "t.onnx", "--plan", "p.json"]);
    assert_eq!(folder.bytes("s.onnx"), folder.bytes("t.onnx"));
    let page = folder.succeed(&["verify", "m.onnx", "t.onnx", "--plan", "p.json"]);
    assert!(page.contains("statistics over what remains") && page.contains("drift: `y`"), "{page}");
    folder.fail(2, &["m.onnx", "t.onnx", "--plan", "p.json", "--allow-approximate"]);
}

#[test]
fn what_is_locked_otherwise_does_not_promise_to_be_unlocked() {
    let reason = |text: &str| {
        let model = text::parse(text).unwrap();
        let analysis = Analysis::of(&model, &[]).unwrap();
        let group = analysis.groups.iter().find(|group| group.name == "w.1").unwrap();
        analysis.coupling.lock(group.lock.unwrap()).unwrap().why.clone()
    };
    let norm = "in x [1,6,8]\na = MatMul(x, w[8,16])\nn = LayerNormalization(a, g[16])\n";
    let free = reason(&format!("{norm}y = MatMul(n, v[16,4])\nout y"));
    assert!(free.ends_with("(unlock with --allow-approximate)"), "{free}");
    let softmax = reason(&format!("{norm}s = Softmax(n)\ny = MatMul(s, v[16,4])\nout y"));
    assert!(softmax.contains("compared") && !softmax.contains("unlock"), "{softmax}");
    assert_eq!(reason(&format!("{norm}out n")), "graph output");
}

#[test]
fn heads_and_their_dimensions_are_chosen() {
    let folder = Folder::new();
    folder.model("m.onnx", &transformer(true));
    let shapes = |words: &[&str]| {
        folder.succeed(&[&["m.onnx", "s.onnx", "--ratio", "0.5", "--report", "r.json"], words].concat());
        let model = folder.read("s.onnx");
        let all = &model.graph.as_ref().unwrap().initializer;
        all.iter().find(|t| t.name() == "wq1").unwrap().dims.clone()
    };
    assert_eq!(shapes(&[]), [16, 8]);
    assert_eq!(shapes(&["--heads", "keep", "--head-dims", "keep"]), [16, 16]);
    let report: Value = serde_json::from_slice(&folder.bytes("r.json")).unwrap();
    assert_eq!(report["options"]["heads"], "keep");
    assert!(report["stays"].to_string().contains("heads are kept on demand"), "{}", report["stays"]);
    assert_eq!(shapes(&["--heads", "prune", "--plan-out", "p.json"]), [16, 8]);
    let once = folder.bytes("s.onnx");
    folder.succeed(&["m.onnx", "t.onnx", "--plan", "p.json"]);
    assert_eq!(once, folder.bytes("t.onnx"), "a plan replays heads");
    assert_eq!(shapes(&["--heads", "prune", "--head-dims", "prune"]), [16, 4]);
    let page = folder.succeed(&["m.onnx", "s.onnx", "--ratio", "0.5", "--heads", "prune", "-v"]);
    assert!(page.contains("4 -> 2 heads, feeds") && page.contains("4 -> 4 head dimensions, feeds"), "{page}");
    assert!(folder.fail(2, &["m.onnx", "s.onnx", "--ratio", "0.5", "--heads", "some"]).contains("some"));
}

#[test]
fn a_trained_transformer_shrinks_as_a_whole() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/snips_tr/model.onnx");
    if !path.exists() {
        common::skipped(&format!("{} is not there", path.display()));
        return;
    }
    let file = onnx_mtprune::proto::read(&path).unwrap();
    let cut = cut(&file.model, true);
    let pruned = cut.output.materialise().unwrap();
    let verdict = judge(&file.model, &pruned, &cut);
    assert_eq!(verdict.outcome, Outcome::Passed);
    assert!(verdict.approximated > 0 && verdict.drift.iter().all(|d| d.relative.is_finite()), "{:?}", verdict.drift);
    let elements = |model: &ModelProto| -> i64 {
        model.graph.as_ref().unwrap().initializer.iter().map(|t| t.dims.iter().product::<i64>()).sum()
    };
    assert!(elements(&pruned) * 2 < elements(&file.model), "{} of {}", elements(&pruned), elements(&file.model));
}
