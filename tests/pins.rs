//! `--input-shape` in the analysis: it opens what the file leaves open, and nothing of it gets into the pruned file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::program::Folder;

/// Prunes with the first shape, then verifies the same cut with the others; gives what the pruned file declares.
fn prune_and_verify(model: &str, shapes: &[&str]) -> Folder {
    let folder = Folder::new();
    folder.model("model.onnx", model);
    let pin = ["--input-shape", shapes[0]];
    let words = ["model.onnx", "small.onnx", "--ratio", "0.5", "--require-verify", "--plan-out", "p.json"];
    folder.succeed(&[&words[..], &pin].concat());
    for shape in shapes {
        folder.succeed(&["verify", "model.onnx", "small.onnx", "--plan", "p.json", "--input-shape", shape]);
    }
    let (before, after) = (folder.read("model.onnx").graph.unwrap(), folder.read("small.onnx").graph.unwrap());
    assert_eq!((before.input, before.output), (after.input, after.output));
    folder
}

fn dims(folder: &Folder, name: &str) -> Vec<i64> {
    let graph = folder.read("small.onnx").graph.unwrap();
    graph.initializer.iter().find(|t| t.name() == name).unwrap().dims.clone()
}

#[test]
fn open_channels_are_pinned() {
    let model = "in x [n,c,h,w]\n a = Conv(x, w0[8,3,1,1])\n y = Conv(a, w1[2,8,1,1])\n out y";
    let folder = prune_and_verify(model, &["x=1x3x8x8", "x=2x3x5x7"]);
    assert_eq!(dims(&folder, "w0"), [4, 3, 1, 1]);
}

#[test]
fn computed_shapes_stay_computed() {
    let model = "in x [n,3,4,4]
        a = Conv(x, w0[8,3,1,1])
        s = Shape(a)
        b = Gather(s, {0}, axis=0)
        t = Concat(b, {8}, {-1}, axis=0)
        f = Reshape(a, t)
        g = Reshape(f, s)
        y = Conv(g, w1[5,8,1,1])
        out y";
    let folder = prune_and_verify(model, &["x=2x3x4x4", "x=5x3x4x4", "x=1x3x4x4"]);
    assert_eq!(dims(&folder, "w0"), [4, 3, 1, 1]);
}

#[test]
fn an_entry_that_merges_a_pinned_axis_with_a_shrunk_one_stays_dynamic() {
    let model = "in x [n,3,4,4]
        a = Conv(x, w0[8,3,1,1])
        s = Shape(a)
        b = Gather(s, {0}, axis=0)
        m = Mul(b, {8})
        t = Concat(m, {16}, axis=0)
        f = Reshape(a, t)
        g = MatMul(f, w1[16,5])
        k = Reshape(g, {-1,8,5})
        p = Transpose(k, perm=[0,2,1])
        y = MatMul(p, w2[8,3])
        out y";
    // The kept indices of such an axis hold for the pinned shape alone, so each shape is pruned and verified by itself.
    let files = ["x=2x3x4x4", "x=3x3x4x4", "x=7x3x4x4"].map(|shape| {
        let folder = prune_and_verify(model, &[shape]);
        assert_eq!(dims(&folder, "w0"), [4, 3, 1, 1]);
        folder.bytes("small.onnx")
    });
    assert!(files[0] == files[1] && files[0] == files[2], "the pinned batch shows in the file");
}

#[test]
fn wrong_pins_are_errors() {
    let folder = Folder::new();
    folder.model("model.onnx", "in x [n,3,s,s]\n y = Conv(x, w0[8,3,1,1])\n out y");
    for (shape, said) in [
        ("x=1x4x8x8", "the given shape [1, 4, 8, 8] contradicts the declared [n, 3, s, s]"),
        ("x=1x3x8", "contradicts the declared"),
        ("x=1x3x8x9", "make `s` both 8 and 9"),
        ("z=1", "the graph inputs are [\"x\"]"),
    ] {
        let line = folder.fail(2, &["inspect", "model.onnx", "--input-shape", shape]);
        assert!(line.contains(said), "{line}");
        let words = ["model.onnx", "small.onnx", "--ratio", "0.5", "--no-verify", "--input-shape", shape];
        assert!(folder.fail(2, &words).contains(said));
    }
}
