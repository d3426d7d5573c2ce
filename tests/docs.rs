//! Documents that follow from the program: the tables of operators and criteria, and in README.md the options and the
//! example. With `UPDATE=1` in the environment they are written anew (`make update`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use onnx_mtprune::aggregate::AGGREGATIONS;
use onnx_mtprune::grad::GRADIENTS;
use onnx_mtprune::losses::LOSSES;
use onnx_mtprune::ops::RULES;
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::score::CRITERIA;
use onnx_mtprune::text;

const PROGRAM: &str = env!("CARGO_BIN_EXE_onnx-mtprune");

/// Compares a file with what it should be, or writes it; what `blurred` makes equal may differ.
fn check(path: &str, expected: &str, blurred: impl Fn(&str) -> String) {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let actual = fs::read_to_string(&full).unwrap_or_default();
    if blurred(&actual) == blurred(expected) {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&full, expected).unwrap();
        return;
    }
    let first = actual.lines().zip(expected.lines()).find(|(a, b)| a != b);
    panic!(
        "{path} is out of step with the program: run `make update`; first line that differs (file, program): {first:?}"
    );
}

/// The text with what stands between two marks replaced.
fn with_region(text: &str, name: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("README.md has no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("README.md has no {end}"));
    format!("{before}{begin}{content}{end}{after}")
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// What the program prints on stdout, run from the root of the repository.
fn output(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn operators_are_listed() {
    let mut page = String::from(
        "# Operators\n\n\
         Generated from the table `RULES` in [src/ops/table.rs](../src/ops/table.rs) by `make update`; do not edit.\n\n\
         An operator that is not listed is left as it is: every axis of its inputs and outputs stays whole, and the report\n\
         says so. *May shrink* tells what the rule allows; whether it happens depends on what the axis is coupled with. What may\n\
         shrink is exact: the result equals the masked original. The last column tells what is locked unless\n\
         `--allow-approximate` is given, because statistics are taken over it.\n\n\
         | operator | what may shrink exactly, what is locked | what may shrink approximately |\n|---|---|---|\n",
    );
    for row in RULES {
        let domain = if row.domain.is_empty() { String::new() } else { format!("{}.", row.domain) };
        page += &format!("| {domain}{} | {} | {} |\n", row.op_type, row.note, row.rule.approximate().unwrap_or("-"));
    }
    page += &format!("\n{} operators.\n", RULES.len());
    check("docs/operators.md", &page, str::to_owned);
}

#[test]
fn gradients_are_listed() {
    let mut page = String::from(
        "# Gradients\n\n\
         Generated from the table `GRADIENTS` in [src/grad/table.rs](../src/grad/table.rs) by `make update`; do not edit.\n\n\
         The operators that `onnx-mtprune gradient` differentiates, in operator set 9 or later. At any other operator, and\n\
         in any other form, gradients stop: what lies behind gets none, not even a part of one, and the command says where\n\
         and why. Rows are tested against central finite differences (tests/gradient.rs; QuantizeLinear, which rounds,\n\
         against what it should pass on), whole models against PyTorch in double precision: in engines, which compute in single\n\
         precision, by tests/gradient.rs, and in double precision on both sides by `make gradients-exact`.\n\n\
         | operator | what is covered |\n|---|---|\n",
    );
    for row in GRADIENTS {
        let domain = if row.domain.is_empty() { String::new() } else { format!("{}.", row.domain) };
        page += &format!("| {domain}{} | {} |\n", row.op_type, row.note);
    }
    page += &format!("\n{} operators.\n", GRADIENTS.len());
    check("docs/gradients.md", &page, str::to_owned);
}

#[test]
fn criteria_are_listed() {
    let mut page = String::from(
        "# Criteria\n\n\
         Generated from the table `CRITERIA` in [src/score/mod.rs](../src/score/mod.rs) by `make update`; do not edit.\n\n\
         Chosen with `--criterion NAME`. Every criterion gives one number per channel of every group; within a group the\n\
         channels with the lowest numbers go. With `--scope global` the numbers of all groups are compared as they are, which\n\
         makes sense for `lamp` and for criteria on gradients: groups then shrink unequally (`--min-channels`, `--max-ratio`).\n\n\
         | name | what it is |\n|---|---|\n",
    );
    for row in CRITERIA.iter().filter(|row| row.gradients.is_none()) {
        page += &format!("| `{}` | {} |\n", row.name, row.note);
    }
    page += "\n## Criteria on gradients\n\n\
             They need `--calibration`, and say for every task what its loss (see [losses](losses.md)) feels of a channel. A gate\n\
             is 1 and multiplies a channel wherever it is contracted with weights; its gradient is the sum of activation times\n\
             gradient over these places. Files of `--statistics` hold no gradients.\n\n\
             | name | what it is | taken of |\n|---|---|---|\n";
    for row in CRITERIA {
        let Some(wish) = row.gradients else { continue };
        let of = match () {
            () if wish.weights_by_sample => "weights, sample by sample",
            () if wish.weights => "weights",
            () if wish.activations => "activations",
            () => "gates",
        };
        page += &format!("| `{}` | {} | {of} |\n", row.name, row.note);
    }
    page += "\nScores of a task are divided by their sum over all groups that feed it before `--task-aggregation` combines them (see\n\
             [aggregation](aggregation.md); the mean where nothing is said). Where gradients of a task stop before a group, the group\n\
             gets the mean of what the other tasks say of it, in units of the mean score of each; where no task says anything, the\n\
             squares of its weights (`l2`), scaled so that its mean is that of the task's channels. A warning says which groups, and\n\
             where gradients stop. Weights are those of rank 2 and more that make channels (rows), without biases and normalisations.\n\
             Gradients of weights leave the engine whole; `--memory` bounds what they may take. `column-subset` weighs channels by\n\
             `fisher` instead of their energy with `--importance fisher` (mean over tasks) or `fisher-max` (largest).\n";
    check("docs/criteria.md", &page, str::to_owned);
}

#[test]
fn losses_are_listed() {
    let mut page = String::from(
        "# Losses\n\n\
         Generated from the table `LOSSES` in [src/losses/mod.rs](../src/losses/mod.rs) by `make update`; do not edit.\n\n\
         What gradients are taken of, for [criteria on gradients](criteria.md#criteria-on-gradients). Chosen with\n\
         `--loss TASK=LOSS[:WEIGHT]` for a task or an output; a task's loss is the sum over its outputs. Every loss is one number\n\
         per sample, computed by ONNX nodes behind the model. Scores of tasks are normalised before they are combined, so a weight\n\
         matters only between the outputs of a task and where losses are summed first (`taylor-summed`, `fisher-summed`).\n\n\
         Where nothing is said: with labels (`--labels`, arrays under the name of the task or output) `cross-entropy` for integers\n\
         that name classes, `binary-cross-entropy` for zeros and ones of the shape of the output, `mse` for other numbers of that\n\
         shape; without labels `probe`. The classes of an output are along the axis of the Softmax before it, or else the axis that\n\
         the labels lack, or else the first of a sample. Labels below 0, and 255 where there are fewer classes, do not count.\n\
         Losses that draw random numbers run every sample `--probes` times.\n\n\
         | name | what it is | labels | random |\n|---|---|---|---|\n",
    );
    let yes = |is: bool| if is { "yes" } else { "-" };
    for row in LOSSES {
        page += &format!("| `{}` | {} | {} | {} |\n", row.name, row.note, yes(row.needs_labels), yes(row.is_random));
    }
    check("docs/losses.md", &page, str::to_owned);
}

#[test]
fn aggregations_are_listed() {
    let mut table = String::from("| name | what it does | source |\n|---|---|---|\n");
    for row in AGGREGATIONS {
        table += &format!("| `{}` | {} | {} |\n", row.name, row.note, row.source);
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/aggregation.md")).unwrap();
    check("docs/aggregation.md", &with_region(&page, "aggregations", &table), str::to_owned);
}

#[test]
fn worked_examples_hold() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/axes.md")).unwrap();
    let mut parts = page.split("```model\n");
    let mut updated = parts.next().unwrap().to_owned();
    let mut examples = 0;
    for part in parts {
        let (example, rest) = part.split_once("```").unwrap();
        let (model, _) = example.split_once("---\n").unwrap();
        updated += &format!("```model\n{model}---\n{}```{rest}", explained(model));
        examples += 1;
    }
    assert!(examples > 0, "docs/axes.md has no examples");
    check("docs/axes.md", &updated, str::to_owned);
}

/// The signatures and groups of a model, and what a ratio of 0.5 does to its weights.
fn explained(model: &str) -> String {
    let model = text::parse(model).unwrap();
    let analysis = Analysis::of(&model, &[]).unwrap();
    let (graph, coupling) = (&analysis.graph, &analysis.coupling);
    let mut lines = Vec::new();
    for id in &graph.order {
        let node = graph.node(*id);
        let signature = coupling.signature(graph, *id).unwrap();
        lines.push(format!("{}: {} {signature}", node.proto.output.join(", "), node.op_type()));
    }
    for group in analysis.groups.iter().filter(|group| group.lock.is_none()) {
        let member = |m: &onnx_mtprune::groups::Member| format!("{}.{}", graph.value(m.value).name, m.axis);
        let members: Vec<String> = group.members.iter().map(member).collect();
        lines.push(format!("group of {}: {}", group.extent, members.join(" ")));
    }
    let plan = analysis.plan(&PruneConfig { ratio: 0.5, ..PruneConfig::default() }).unwrap();
    let kept = analysis.apply(&plan).unwrap().kept;
    for tensor in &model.graph.as_ref().unwrap().initializer {
        let Some(axes) = kept.constants.get(tensor.name()) else { continue };
        let axes = tensor.dims.iter().zip(axes).map(|(extent, kept)| match kept {
            Some(kept) => format!("{:?} of {extent}", kept.to_vec()),
            None => extent.to_string(),
        });
        lines.push(format!("at ratio 0.5, {} keeps {}", tensor.name(), axes.collect::<Vec<_>>().join(" x ")));
    }
    lines.join("\n") + "\n"
}

/// The README is written by one test, so that two do not write it at once.
#[test]
fn the_readme_shows_what_the_program_says() {
    let help = format!("```text\n{}```\n", output(&["-h"]));
    let readme = with_region(&readme(), "options", &help);
    let model = "onnx-models/digit_scenes/model.onnx";
    let pruned = Path::new(env!("CARGO_TARGET_TMPDIR")).join("digit_scenes.onnx");
    let pruned = pruned.to_str().unwrap();
    let page = output(&[model, pruned, "--ratio", "0.5", "--samples", "onnx-models/digit_scenes/calibration.npz"]);
    assert!(fs::metadata(pruned).unwrap().len() > 0);
    fs::remove_file(pruned).unwrap();
    // Times differ from run to run and say nothing here; the path is the reader's own.
    let lines = page.lines().filter(|line| !line.starts_with("time "));
    let page: String = lines.map(|line| line.replace(pruned, "small.onnx") + "\n").collect();
    check("README.md", &with_region(&readme, "example", &format!("```text\n{page}```\n")), without_rounding);
}

/// Differences of floating-point rounding, such as 1.2e-7, vary with the processor.
fn without_rounding(text: &str) -> String {
    let is_tiny =
        |word: &str| word.trim_end_matches(',').parse::<f64>().is_ok_and(|x| x.abs() < 1e-5 && word.contains("e-"));
    let line = |line: &str| line.split(' ').map(|w| if is_tiny(w) { "…" } else { w }).collect::<Vec<_>>().join(" ");
    text.lines().map(|l| line(l) + "\n").collect()
}

#[test]
fn only_rounding_is_blurred() {
    assert_eq!(without_rounding("`a` 1.2e-7, 50.0 %"), without_rounding("`a` 3.4e-6, 50.0 %"));
    assert_ne!(without_rounding("`a` 1.2e-7, 50.0 %"), without_rounding("`a` 1.2e-3, 50.0 %"));
    assert_ne!(without_rounding("50.0 %"), without_rounding("51.0 %"));
}

#[test]
fn regions_are_replaced() {
    let text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n";
    assert_eq!(with_region(text, "x", "new\n"), "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n");
}
