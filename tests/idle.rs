//! Options that would do nothing are refused: the real program.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::program::Folder;

/// What the program says of a run that it refuses.
fn refused(folder: &Folder, words: &str) -> String {
    let said = folder.run(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(said.code, 2, "{words}: {said:?}");
    assert!(!folder.names().contains(&"out.onnx".to_owned()), "{words}");
    said.err
}

#[test]
fn nothing_that_is_asked_for_is_ignored() {
    let folder = Folder::with_model();
    folder.succeed(&["model.onnx", "first.onnx", "--ratio", "0.5", "--plan-out", "p.json"]);
    folder.succeed(&["masks", "add", "near", "p.json"]);
    std::fs::remove_file(folder.file("first.onnx")).unwrap();
    for (words, expected) in [
        ("--ratio 0.5 --batch-size 4", "--calibration"),
        ("--ratio 0.5 --probes 4", "--calibration"),
        ("--plan p.json --statistics s.st", "--statistics does nothing with --plan"),
        ("--plan p.json --calibration x.npz --loss a=mse", "--loss does nothing with --plan"),
        ("--plan p.json --calibration x.npz --importance fisher", "--importance does nothing with --plan"),
        ("--plan p.json --calibration x.npz --probes 3", "--probes does nothing with --plan"),
        ("--keep-tasks a --criterion random", "--criterion does nothing without a ratio"),
        ("--keep-tasks a --round-to 4", "--round-to does nothing without a ratio"),
        ("--keep-tasks a --min-channels 4", "--min-channels does nothing without a ratio"),
        ("--keep-tasks a --max-ratio 0.5", "--max-ratio does nothing without a ratio"),
        ("--keep-tasks a --protect x*", "--protect does nothing without a ratio"),
        ("--keep-tasks a,b --protect-task a", "--protect-task does nothing without a ratio"),
        ("--keep-tasks a --heads keep", "--heads does nothing without a ratio"),
        ("--keep-tasks a --head-dims keep", "--head-dims does nothing without a ratio"),
        ("--keep-tasks a --allow-approximate", "--allow-approximate does nothing without a ratio"),
        ("--keep-tasks a,b --task-aggregation max", "--task-aggregation does nothing without a ratio"),
        ("--keep-tasks a,b --task-weight a=2", "--task-weight does nothing without a ratio"),
        ("--keep-tasks a --scope global", "--scope does nothing without a ratio"),
        ("--keep-tasks a --calibration x.npz --repair bias", "--repair does nothing without a ratio"),
        ("--ratio 0.5 --calibration x.npz --repair bias --lambda 1", "--lambda is for --repair least-squares"),
        ("--ratio 0.5 --no-verify --engine tract", "does nothing where nothing runs"),
        ("--ratio 0.5 --task-aggregation mean --draw top", "--draw does nothing"),
        ("--ratio 0.5 --task-aggregation vote --neighbours near:0.5", "`vote` does not look at"),
        ("--ratio 0.5 --task-aggregation vote --neighbours near --protect-task a", "--protect-task contradicts"),
        ("--ratio 0.5 --input-shape x=1x3x8x8 --input-shape x=2x3x8x8", "--input-shape names `x` twice"),
        ("--ratio 0.5 --calibration x.npz --input-scale x=1 --input-scale x=2", "--input-scale names `x` twice"),
        ("--ratio 0.5 --calibration x.npz --labels l.npz --metric a=mae --metric a=mse", "--metric names `a` twice"),
        ("--ratio 0.5 --calibration x.npz --loss a=mse --loss a=l1", "--loss names `a` twice"),
        ("--ratio 0.5 --calibration x.npz --criterion l2 --importance fisher", "--importance is not asked for"),
    ] {
        let line = refused(&folder, &format!("model.onnx out.onnx {words}"));
        assert!(line.contains(expected), "{words} lacks `{expected}`: {line}");
    }
    let line = refused(&folder, "masks add other p.json --model model.onnx --engine tract");
    assert!(line.contains("do nothing where nothing runs"), "{line}");
}
