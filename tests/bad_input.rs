//! Bad input: whatever is wrong, the program says so in one line, exits with 2 and leaves every file as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::fs;
use std::process::Command;

use common::program::{Folder, TWO_TASKS};
use onnx_mtprune::proto::onnx::attribute_proto::AttributeType;
use onnx_mtprune::proto::onnx::tensor_proto::{DataLocation, DataType};
use onnx_mtprune::proto::onnx::{AttributeProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use onnx_mtprune::text;
use prost::Message;

/// A folder with `bad.onnx` and an existing output that must survive.
fn folder(bytes: &[u8]) -> Folder {
    let folder = Folder::new();
    fs::write(folder.file("bad.onnx"), bytes).unwrap();
    fs::write(folder.file("out.onnx"), "precious").unwrap();
    folder
}

/// Prunes `bad.onnx` onto the existing output and onto a new one, and inspects it; gives the error's line.
fn refused(bytes: &[u8]) -> String {
    let folder = folder(bytes);
    let line = folder.fail(2, &["bad.onnx", "out.onnx", "--ratio", "0.5"]);
    assert_eq!(line, folder.fail(2, &["bad.onnx", "new.onnx", "--ratio", "0.5"]));
    assert_eq!(line, folder.fail(2, &["inspect", "bad.onnx"]));
    line
}

/// A model that is damaged in one place.
fn damaged(damage: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = text::parse(TWO_TASKS).unwrap();
    damage(&mut model);
    refused(&model.encode_to_vec())
}

fn weight<'m>(model: &'m mut ModelProto, name: &str) -> &'m mut TensorProto {
    model.graph.as_mut().unwrap().initializer.iter_mut().find(|t| t.name() == name).unwrap()
}

/// True if the line holds every word.
#[track_caller]
fn says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "`{word}` is missing: {line}");
    }
}

#[test]
fn files_that_are_no_models() {
    says(&refused(b""), &["bad.onnx", "is empty", "export or download"]);
    says(&refused(b"<html>not found</html>"), &["bad.onnx", "looks like text"]);
    says(&refused(&[0xff; 300]), &["bad.onnx", "not an ONNX file, or is damaged"]);
    let random: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    says(&refused(&random), &["bad.onnx", "download or export it again"]);
    let folder = folder(b"x");
    says(&folder.fail(2, &["missing.onnx", "out.onnx", "--ratio", "0.5"]), &["missing.onnx"]);
    says(&folder.fail(2, &[".", "out.onnx", "--ratio", "0.5"]), &["."]);
}

#[test]
fn truncated_files() {
    let whole = text::parse(TWO_TASKS).unwrap().encode_to_vec();
    for length in [1, 2, 10, whole.len() / 2, whole.len() - 3] {
        let line = refused(&whole[..length]);
        says(&line, &["bad.onnx"]);
    }
    says(&refused(&whole[..whole.len() / 2]), &["truncated"]);
}

#[test]
fn missing_external_data() {
    let line = damaged(|model| {
        let tensor = weight(model, "trunk");
        tensor.raw_data = None;
        tensor.data_location = Some(DataLocation::External as i32);
        let entry = |key: &str, value: &str| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
        };
        tensor.external_data = vec![entry("location", "weights.bin"), entry("length", "1728")];
    });
    says(&line, &["weights.bin"]);
}

#[test]
fn a_data_file_of_a_constant_node_is_not_overwritten() {
    let folder = Folder::new();
    let mut model = text::parse(TWO_TASKS).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let at = graph.initializer.iter().position(|tensor| tensor.name() == "trunk_bias").unwrap();
    let mut tensor = graph.initializer.remove(at);
    let bytes = tensor.raw_data.take().unwrap();
    tensor.data_location = Some(DataLocation::External as i32);
    let location = StringStringEntryProto { key: Some("location".into()), value: Some("out.onnx.data".into()) };
    tensor.external_data = vec![location];
    let value = AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(tensor),
        ..Default::default()
    };
    let node = NodeProto {
        op_type: Some("Constant".to_owned()),
        output: vec!["trunk_bias".to_owned()],
        attribute: vec![value],
        ..Default::default()
    };
    graph.node.insert(0, node);
    folder.proto("model.onnx", &model);
    std::fs::write(folder.file("out.onnx.data"), bytes).unwrap();
    let line = folder.fail(2, &["model.onnx", "out.onnx", "--ratio", "0.5"]);
    says(&line, &["the data file of OUT is the same file as an input"]);
    folder.succeed(&["model.onnx", "other.onnx", "--ratio", "0.5"]);
}

#[test]
fn graphs_that_are_not_well_formed() {
    let line = damaged(|model| model.graph.as_mut().unwrap().node[0].input[0] = "b2".to_owned());
    says(&line, &["cycle", "node `Conv:"]);
    let line = damaged(|model| model.graph.as_mut().unwrap().node[1].input[1] = "nobody".to_owned());
    says(&line, &["reads a tensor that nothing computes", "`nobody`"]);
    let line = damaged(|model| model.graph.as_mut().unwrap().node[1].output[0] = "t".to_owned());
    says(&line, &["same name", "tensor `t`"]);
    let line = damaged(|model| model.graph.as_mut().unwrap().output[0].name = Some("z".to_owned()));
    says(&line, &["returns a tensor that nothing computes", "`z`"]);
    let line = damaged(|model| model.graph = None);
    says(&line, &["no graph"]);
}

#[test]
fn tensors_whose_parts_do_not_fit() {
    // `shift` is never sliced, `trunk` is; both must be refused.
    for name in ["shift", "trunk"] {
        let named = format!("tensor `{name}`");
        let raw = |model: &mut ModelProto, change: fn(&mut Vec<u8>)| {
            let tensor = weight(model, name);
            let mut bytes = tensor.raw_data.clone().unwrap().to_vec();
            change(&mut bytes);
            tensor.raw_data = Some(bytes.into());
        };
        says(&damaged(|m| raw(m, |b| b.truncate(b.len() - 4))), &["the bytes of its raw data are", "needs", &named]);
        says(&damaged(|m| raw(m, |b| b.extend([0; 4]))), &["the bytes of its raw data are", "needs", &named]);
        // As if half precision had been declared single.
        says(&damaged(|m| raw(m, |b| b.truncate(b.len() / 2))), &["the bytes of its raw data are", "FLOAT", &named]);
        let integers = |m: &mut ModelProto| {
            let tensor = weight(m, name);
            let count = tensor.dims.iter().product::<i64>();
            tensor.int32_data = (0..count).map(|i| i as i32).collect();
            tensor.raw_data = None;
        };
        says(&damaged(integers), &["its entries number 0", "FLOAT", &named]);
        says(&damaged(|m| weight(m, name).dims[0] = -16), &["negative", &named]);
        says(&damaged(|m| weight(m, name).dims[0] = i64::MAX), &["more elements than a computer can hold", &named]);
        says(&damaged(|m| weight(m, name).dims[0] = 1 << 40), &["the bytes of its raw data are", &named]);
        says(
            &damaged(|m| weight(m, name).data_type = Some(DataType::Float16 as i32)),
            &["the bytes of its raw data are", &named],
        );
        says(&damaged(|m| weight(m, name).data_type = None), &["its element type 0 is not known", &named]);
    }
}

#[test]
fn options_that_make_no_sense() {
    let folder = folder(&text::parse(TWO_TASKS).unwrap().encode_to_vec());
    let run = |words: &[&str]| folder.fail(2, &[&["bad.onnx", "out.onnx"], words].concat());
    for ratio in ["1", "1.5", "-0.1", "NaN", "inf", "half", ""] {
        says(&run(&["--ratio", ratio]), &["--ratio"]);
    }
    for (option, value) in [
        ("--min-channels", "0"),
        ("--round-to", "0"),
        ("--max-ratio", "1.1"),
        ("--max-ratio", "NaN"),
        ("--tolerance", "-1"),
        ("--tolerance", "NaN"),
        ("--criterion", "best"),
        ("--input-shape", "x=0x3"),
        ("--input-shape", "3x3"),
        ("--task", "=a"),
        ("--seed", "-1"),
    ] {
        says(&run(&["--ratio", "0.5", option, value]), &[option]);
    }
    says(&run(&["--ratio", "0.5", "--task", "t=q"]), &["`q`", "its outputs are a, b"]);
    says(&run(&["--ratio", "0.5", "--task", "t=a", "--task", "u=a"]), &["two tasks"]);
    says(&run(&["--ratio", "0.5", "--plan", "p.json"]), &["--plan"]);
    says(&run(&[]), &["required"]);
    says(&run(&["--plan", "missing.json"]), &["missing.json", "cannot read the plan"]);
}

#[test]
fn folders_that_cannot_be_written_to() {
    let folder = Folder::with_model();
    says(&folder.fail(2, &["model.onnx", "no/s.onnx", "--ratio", "0.5"]), &["does not exist", "create it first"]);
    says(&folder.fail(2, &["model.onnx", ".", "--ratio", "0.5"]), &["is a folder"]);
    says(&folder.fail(2, &["model.onnx", "/dev/null", "--ratio", "0.5"]), &["not a regular file"]);
    for option in ["--report", "--plan-out"] {
        let line = folder.fail(2, &["model.onnx", "s.onnx", "--ratio", "0.5", option, "no/file"]);
        says(&line, &["does not exist"]);
    }
}

#[test]
fn a_read_only_folder() {
    let folder = Folder::with_model();
    let Some(_mounted) = Mounted::on(&folder, "size=64k,ro") else { return };
    says(&folder.fail(2, &["model.onnx", "disk/s.onnx", "--ratio", "0.5"]), &["s.onnx", "read-only"]);
    let line = folder.fail(2, &["model.onnx", "s.onnx", "--ratio", "0.5", "--report", "disk/r.json"]);
    says(&line, &["r.json"]);
}

#[test]
fn a_full_disk() {
    let folder = Folder::new();
    folder.model("model.onnx", "in x [1,64,8,8]\n a = Conv(x, w[256,64,3,3])\n y = Conv(a, v[8,256,1,1])\n out y");
    let Some(_mounted) = Mounted::on(&folder, "size=64k") else { return };
    fs::write(folder.file("disk/s.onnx"), "precious").unwrap();
    says(&folder.fail(2, &["model.onnx", "disk/s.onnx", "--ratio", "0.2"]), &["s.onnx", "disk is full"]);
    assert_eq!(fs::read(folder.file("disk/s.onnx")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(folder.file("disk")).unwrap().count(), 1, "temporary files are gone");
}

/// A small file system in memory at `disk`; gone when dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn on(folder: &Folder, options: &str) -> Option<Self> {
        let place = folder.file("disk");
        fs::create_dir(&place).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&place).output();
        if mount.is_ok_and(|m| m.status.success()) {
            return Some(Self(place));
        }
        common::skipped("mounting a file system in memory is not permitted here");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}
