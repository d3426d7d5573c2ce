//! Reading and writing of whole files: byte identity, external data, slices, and every refusal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use onnx_mtprune::proto::onnx::attribute_proto::AttributeType;
use onnx_mtprune::proto::onnx::tensor_proto::{DataLocation, DataType, Segment};
use onnx_mtprune::proto::onnx::*;
use onnx_mtprune::proto::{ExternalStyle, Output, Slice, WriteOptions, decode, read, tensor, write};
use prost::Message;

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

fn floats(name: &str, count: usize) -> TensorProto {
    let values: Vec<f32> = (0..count).map(|value| value as f32).collect();
    tensor::from_f32(name, &[count as i64], &values)
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind.into()), ..Default::default() }
}

fn graph(initializer: Vec<TensorProto>, node: Vec<NodeProto>) -> GraphProto {
    GraphProto { name: Some("graph".into()), initializer, node, ..Default::default() }
}

fn model(graph: GraphProto) -> ModelProto {
    let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(21) }];
    ModelProto { ir_version: Some(10), opset_import, graph: Some(graph), ..Default::default() }
}

/// A model that uses every field of `ModelProto`, `GraphProto` and `TensorProto`, and tensors in every place.
fn everything() -> ModelProto {
    let strings = TensorProto {
        name: Some("strings".into()),
        dims: vec![2],
        data_type: Some(DataType::String.into()),
        string_data: vec![b"one".to_vec(), b"two".to_vec()],
        ..Default::default()
    };
    let odd = TensorProto {
        name: Some("odd".into()),
        dims: vec![1],
        data_type: Some(DataType::Float.into()),
        segment: Some(Segment { begin: Some(0), end: Some(1) }),
        float_data: vec![1.0],
        int32_data: vec![-1],
        int64_data: vec![i64::MIN],
        double_data: vec![0.5],
        uint64_data: vec![u64::MAX],
        raw_data: Some(Bytes::from_static(&[0, 0, 128, 63])),
        doc_string: Some("odd, but it must survive".into()),
        metadata_props: vec![entry("k", "v")],
        data_location: Some(DataLocation::Default.into()),
        ..Default::default()
    };
    let empty = TensorProto { raw_data: Some(Bytes::new()), dims: vec![0], ..floats("empty", 0) };
    let sparse = SparseTensorProto {
        values: Some(floats("sparse", 300)),
        indices: Some(tensor::from_i64("", &[1], &[3])),
        dims: vec![1000],
    };
    let constant = NodeProto {
        op_type: Some("Constant".into()),
        output: vec!["c".into()],
        attribute: vec![
            AttributeProto { t: Some(floats("c", 300)), ..attribute("value", AttributeType::Tensor) },
            AttributeProto { tensors: vec![floats("list", 2)], ..attribute("list", AttributeType::Tensors) },
            AttributeProto { sparse_tensor: Some(sparse.clone()), ..attribute("s", AttributeType::SparseTensor) },
            AttributeProto { floats: vec![1.0, 2.0], ..attribute("f", AttributeType::Floats) },
        ],
        metadata_props: vec![entry("node", "yes")],
        device_configurations: vec![NodeDeviceConfigurationProto {
            configuration_id: Some("cfg".into()),
            pipeline_stage: Some(1),
            ..Default::default()
        }],
        ..Default::default()
    };
    let branch = AttributeProto {
        g: Some(graph(vec![floats("inner", 400)], vec![constant.clone()])),
        ..attribute("then_branch", AttributeType::Graph)
    };
    let conditional = NodeProto { op_type: Some("If".into()), attribute: vec![branch], ..Default::default() };
    let value = ValueInfoProto { name: Some("x".into()), doc_string: Some("d".into()), ..Default::default() };
    let main = GraphProto {
        sparse_initializer: vec![sparse],
        doc_string: Some("graph doc".into()),
        input: vec![value.clone()],
        output: vec![value.clone()],
        value_info: vec![value.clone()],
        quantization_annotation: vec![TensorAnnotation {
            tensor_name: Some("x".into()),
            quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "s")],
        }],
        metadata_props: vec![entry("graph", "yes")],
        ..graph(vec![floats("w", 600), strings, odd, empty, floats("b", 4)], vec![constant.clone(), conditional])
    };
    let function = FunctionProto {
        name: Some("f".into()),
        node: vec![constant],
        attribute_proto: vec![AttributeProto {
            t: Some(floats("default", 2)),
            ..attribute("a", AttributeType::Tensor)
        }],
        value_info: vec![value],
        ..Default::default()
    };
    ModelProto {
        producer_name: Some("test".into()),
        producer_version: Some("1".into()),
        domain: Some("d".into()),
        model_version: Some(3),
        doc_string: Some("doc".into()),
        metadata_props: vec![entry("author", "somebody")],
        training_info: vec![TrainingInfoProto {
            initialization: Some(graph(vec![floats("t", 300)], Vec::new())),
            algorithm: Some(graph(Vec::new(), Vec::new())),
            initialization_binding: vec![entry("a", "b")],
            update_binding: vec![entry("c", "d")],
        }],
        functions: vec![function],
        configuration: vec![DeviceConfigurationProto {
            name: Some("cfg".into()),
            num_devices: Some(2),
            device: Vec::new(),
        }],
        ..model(main)
    }
}

/// Calls `visit` on every tensor of `everything()`; written out by hand so that it shares nothing with the library's
/// walk.
fn visit_all(model: &mut ModelProto, visit: &mut dyn FnMut(&mut TensorProto)) {
    fn in_node(node: &mut NodeProto, visit: &mut dyn FnMut(&mut TensorProto)) {
        for attribute in &mut node.attribute {
            attribute.t.iter_mut().for_each(&mut *visit);
            attribute.tensors.iter_mut().for_each(&mut *visit);
            if let Some(sparse) = &mut attribute.sparse_tensor {
                sparse.values.iter_mut().for_each(&mut *visit);
                sparse.indices.iter_mut().for_each(&mut *visit);
            }
            attribute.g.iter_mut().for_each(|graph| in_graph(graph, visit));
        }
    }
    fn in_graph(graph: &mut GraphProto, visit: &mut dyn FnMut(&mut TensorProto)) {
        graph.initializer.iter_mut().for_each(&mut *visit);
        for sparse in &mut graph.sparse_initializer {
            sparse.values.iter_mut().for_each(&mut *visit);
            sparse.indices.iter_mut().for_each(&mut *visit);
        }
        graph.node.iter_mut().for_each(|node| in_node(node, visit));
    }
    in_graph(model.graph.as_mut().unwrap(), visit);
    in_graph(model.training_info[0].initialization.as_mut().unwrap(), visit);
    visit(model.functions[0].attribute_proto[0].t.as_mut().unwrap());
    in_node(&mut model.functions[0].node[0], visit);
}

/// The same model with every tensor that holds raw data in `weights.bin`, and that file.
fn outside(mut model: ModelProto) -> (ModelProto, Vec<u8>) {
    let mut data = vec![0xee; 5];
    visit_all(&mut model, &mut |tensor| {
        if let Some(raw) = tensor.raw_data.take() {
            let (offset, length) = (data.len().to_string(), raw.len().to_string());
            data.extend_from_slice(&raw);
            tensor.set_data_location(DataLocation::External);
            tensor.external_data =
                vec![entry("location", "weights.bin"), entry("offset", &offset), entry("length", &length)];
        }
    });
    (model, data)
}

/// The same model with everything that says where data lies removed, for comparing contents.
fn contents(mut model: ModelProto) -> ModelProto {
    visit_all(&mut model, &mut |tensor| {
        tensor.data_location = None;
        tensor.external_data.clear();
    });
    model
}

fn round_trip(path: &Path, to: &Path) -> u64 {
    let output = Output { model: read(path).unwrap().model, slices: BTreeMap::new(), ..Output::default() };
    write(&output, to, &WriteOptions::default()).unwrap()
}

fn options(external: ExternalStyle) -> WriteOptions {
    WriteOptions { external, ..WriteOptions::default() }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn real_models_come_back_byte_for_byte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models");
    let Ok(folders) = fs::read_dir(&root) else {
        common::skipped(&format!("{} is absent", root.display()));
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out.onnx");
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).into_iter().flatten());
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no model", root.display());
    for path in &paths {
        let file = read(path).unwrap();
        assert_eq!((file.length_change, file.unknown_bytes), (0, 0), "{}", path.display());
        round_trip(path, &to);
        assert!(fs::read(path).unwrap() == fs::read(&to).unwrap(), "{} changed", path.display());
    }
    println!("{} models came back byte for byte", paths.len());
}

#[test]
fn a_model_with_every_field_comes_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (path, to) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    let bytes = everything().encode_to_vec();
    fs::write(&path, &bytes).unwrap();
    assert_eq!(round_trip(&path, &to), bytes.len() as u64);
    assert_eq!(fs::read(&to).unwrap(), bytes);
    // Onto itself, while it is mapped.
    round_trip(&path, &path);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(names_in(folder.path()), ["in.onnx", "out.onnx"]);
}

#[test]
fn raw_data_lies_inside_the_mapping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.onnx");
    fs::write(&path, everything().encode_to_vec()).unwrap();
    let mut file = read(&path).unwrap();
    let range = file.bytes.as_ptr_range();
    let mut seen = 0;
    visit_all(&mut file.model, &mut |tensor| {
        if let Some(raw) = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty()) {
            let at = raw.as_ptr_range();
            assert!(range.start <= at.start && at.end <= range.end, "{} was copied", tensor.name());
            seen += 1;
        }
    });
    assert!(seen > 10, "{seen} tensors");
}

#[test]
fn unknown_fields_and_other_encodings_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.onnx");
    let mut bytes = everything().encode_to_vec();
    // Field 999, four bytes long: two bytes of key, one of length.
    bytes.extend_from_slice(&[0xba, 0x3e, 4, 1, 2, 3, 4]);
    fs::write(&path, &bytes).unwrap();
    let file = read(&path).unwrap();
    assert_eq!((file.unknown_bytes, file.length_change), (7, -7));
    // The shape of the first dimension list packed, as proto3 tools write it: same content, another length.
    let tensor = [0x0a, 3, 1, 1, 1, 0x10, 1];
    let mut graph = vec![0x2a, tensor.len() as u8];
    graph.extend_from_slice(&tensor);
    let mut bytes = vec![0x08, 10, 0x3a, graph.len() as u8];
    bytes.extend_from_slice(&graph);
    fs::write(&path, &bytes).unwrap();
    let file = read(&path).unwrap();
    assert_eq!(file.model.graph.unwrap().initializer[0].dims, [1, 1, 1]);
    assert_eq!((file.unknown_bytes, file.length_change), (0, 1));
}

#[test]
fn external_data_is_read_kept_outside_or_brought_inside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.onnx");
    let (external, data) = outside(everything());
    fs::write(&path, external.encode_to_vec()).unwrap();
    fs::write(folder.path().join("weights.bin"), &data).unwrap();
    let file = read(&path).unwrap();
    assert!(file.has_external);
    assert_eq!(contents(file.model.clone()), contents(everything()));

    for style in [ExternalStyle::Inline, ExternalStyle::External, ExternalStyle::Auto] {
        let to = folder.path().join("out.onnx");
        let output = Output { model: file.model.clone(), slices: BTreeMap::new(), ..Output::default() };
        let length = write(&output, &to, &options(style)).unwrap();
        let written = read(&to).unwrap();
        assert_eq!(contents(written.model.clone()), contents(everything()), "{style:?}");
        let data_path = folder.path().join("out.onnx.data");
        let on_disk: u64 =
            [&to, &data_path].iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len()).sum();
        assert_eq!(length, on_disk, "{style:?}");
        assert_eq!(data_path.exists(), style != ExternalStyle::Inline);
        let mut model = written.model;
        visit_all(&mut model, &mut |tensor| {
            let out = tensor.data_location() == DataLocation::External;
            let large = tensor.raw_data.as_ref().is_some_and(|raw| raw.len() >= 1024);
            assert_eq!(out, large && style != ExternalStyle::Inline, "{style:?} {}", tensor.name());
            let offset = tensor.external_data.iter().find(|entry| entry.key() == "offset");
            assert!(offset.is_none_or(|offset| offset.value().parse::<u64>().unwrap().is_multiple_of(4096)));
        });
        // Onto itself, data file and all, while both are mapped.
        round_trip(&to, &to);
        assert_eq!(contents(read(&to).unwrap().model), contents(everything()), "{style:?}");
        for path in [to, data_path] {
            fs::remove_file(path).ok();
        }
    }
    assert_eq!(names_in(folder.path()), ["in.onnx", "weights.bin"]);
}

#[test]
fn an_inline_model_above_the_limit_goes_outside() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out.onnx");
    let typed = TensorProto {
        raw_data: None,
        float_data: (0..500).map(|value| value as f32).collect(),
        ..floats("typed", 500)
    };
    let output = Output {
        model: model(graph(vec![floats("w", 600), typed], Vec::new())),
        slices: BTreeMap::new(),
        ..Output::default()
    };
    let limit = |external, inline_limit| WriteOptions { external, inline_limit };
    write(&output, &to, &limit(ExternalStyle::Auto, 5000)).unwrap();
    assert_eq!(names_in(folder.path()), ["out.onnx"]);
    write(&output, &to, &limit(ExternalStyle::Auto, 4000)).unwrap();
    assert_eq!(names_in(folder.path()), ["out.onnx", "out.onnx.data"]);
    let initializers = read(&to).unwrap().model.graph.unwrap().initializer;
    assert_eq!(tensor::to_f32(&initializers[0]).unwrap().len(), 600);
    assert_eq!(tensor::to_f32(&initializers[1]).unwrap()[499], 499.0);
    let before = fs::read(&to).unwrap();
    let error = write(&output, &to, &limit(ExternalStyle::Inline, 4000)).unwrap_err().to_string();
    assert!(error.contains("no more than 4000 can be read") && error.contains("data file"), "{error}");
    let error = write(&output, &to, &limit(ExternalStyle::External, 100)).unwrap_err().to_string();
    assert!(error.contains("constants inside nodes"), "{error}");
    assert_eq!(fs::read(&to).unwrap(), before);
}

#[test]
fn slices_replace_shape_and_data() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out.onnx");
    let mut typed = tensor::from_i64("typed", &[4], &[]);
    typed.raw_data = None;
    typed.int64_data = vec![10, 11, 12, 13];
    let mut matrix = floats("w", 6000);
    matrix.dims = vec![3, 2000];
    let model = model(graph(vec![matrix, floats("same", 3), typed], Vec::new()));
    let sources = &model.graph.as_ref().unwrap().initializer;
    let slice = |tensor: &TensorProto, keep| Slice {
        source: tensor::raw_bytes(tensor).unwrap(),
        element_bits: tensor::element_bits(tensor.data_type()).unwrap(),
        dims: tensor.dims.iter().map(|extent| *extent as usize).collect(),
        keep,
    };
    let even: Vec<u32> = (0..2000).step_by(2).collect();
    let slices = BTreeMap::from([
        (0, slice(&sources[0], vec![Some([0, 2].as_slice().into()), Some(even.as_slice().into())])),
        (2, slice(&sources[2], vec![Some([1, 3].as_slice().into())])),
    ]);
    let output = Output { model: model.clone(), slices, ..Output::default() };
    for style in [ExternalStyle::Inline, ExternalStyle::External] {
        write(&output, &to, &options(style)).unwrap();
        let written = read(&to).unwrap();
        assert_eq!(written.has_external, style == ExternalStyle::External);
        let initializers = written.model.graph.unwrap().initializer;
        let expected: Vec<f32> =
            [0, 4000].iter().flat_map(|row| (0..1000).map(move |at| (row + 2 * at) as f32)).collect();
        assert_eq!(initializers[0].dims, [2, 1000]);
        assert_eq!(tensor::to_f32(&initializers[0]).unwrap(), expected);
        assert_eq!(initializers[1], floats("same", 3));
        assert_eq!(initializers[2].dims, [2]);
        assert_eq!(tensor::to_i64(&initializers[2]).unwrap(), [11, 13]);
    }
    let before = fs::read(&to).unwrap();
    let refused = |change: &dyn Fn(&mut Output)| {
        let mut output = output.clone();
        change(&mut output);
        write(&output, &to, &options(ExternalStyle::Inline)).unwrap_err().to_string()
    };
    let message = refused(&|output| output.slices.get_mut(&2).unwrap().keep = vec![Some([9].as_slice().into())]);
    assert!(message.contains("kept index 9 is beyond the extent 4 (tensor `typed`, axis 0)"), "{message}");
    let message = refused(&|output| output.slices.get_mut(&2).unwrap().element_bits = 32);
    assert!(message.contains("elements of 32 bits"), "{message}");
    let message = refused(&|output| drop(output.slices.insert(3, output.slices[&2].clone())));
    assert!(message.contains("initializer 3, the graph has 3"), "{message}");
    assert_eq!(fs::read(&to).unwrap(), before);
    assert_eq!(names_in(folder.path()), ["out.onnx", "out.onnx.data"]);
}

#[test]
fn unreadable_files_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.onnx");
    let whole = everything().encode_to_vec();
    let mut deep = Vec::new();
    for _ in 0..200 {
        // A graph, in an attribute, in a node of the next graph, and so on.
        for tag in [0x32, 0x2a, 0x0a] {
            let mut framed = vec![tag];
            prost::encode_length_delimiter(deep.len(), &mut framed).unwrap();
            framed.append(&mut deep);
            deep = framed;
        }
    }
    let mut nested = vec![0x3a];
    prost::encode_length_delimiter(deep.len(), &mut nested).unwrap();
    nested.append(&mut deep);
    let mut latin = whole.clone();
    let at = latin.windows(9).position(|window| window == b"graph doc").unwrap();
    latin[at] = 0xe9;
    let no_graph = OperatorSetIdProto { domain: Some("not a model".into()), version: None }.encode_to_vec();
    let cases: [(&[u8], &str, &str); 8] = [
        (b"", "is empty", "again"),
        (b"# a read-me\nof three\nlines\n", "looks like text", "give the .onnx file"),
        (&[0x9f; 100], "not an ONNX file, or is damaged", "again"),
        (&whole[..whole.len() / 2], "the file is truncated", "again"),
        (&[0x08, 0x07, 0x0a], "is not an ONNX file, or is damaged", "again"),
        (&no_graph, "is not an ONNX", ""),
        (&nested, "nested more than 100", "flatten"),
        (&latin, "not UTF-8", "export"),
    ];
    for (bytes, what, advice) in cases {
        fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(advice) && error.contains("in.onnx"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    // A protobuf of something else whose fields happen to fit.
    fs::write(&path, [0x08, 0x07, 0x12, 0x03, 0x00, 0x01, 0x02]).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("has no graph, so it is not an ONNX model"));
    let error = read(&folder.path().join("absent.onnx")).unwrap_err().to_string();
    assert!(error.contains("absent.onnx: no such file; check the path"), "{error}");
    let error = read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is a folder, not an ONNX file"), "{error}");
}

#[test]
fn damaged_files_never_panic_and_decodable_ones_are_written_as_prost_would() {
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("out.onnx");
    let whole = everything().encode_to_vec();
    let (mut decoded, mut written) = (0, 0);
    for _ in 0..5000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.next_u32() % 3 {
            let at = random.next_u32() as usize % bytes.len();
            bytes[at] = random.next_u32() as u8;
        }
        let Ok(model) = decode(Bytes::from(bytes)) else { continue };
        decoded += 1;
        for tensor in &model.graph.as_ref().unwrap().initializer {
            // Any answer will do, as long as there is one.
            let _ = (tensor::raw_bytes(tensor), tensor::to_f32(tensor), tensor::to_i64(tensor));
        }
        let expected = model.encode_to_vec();
        if decoded % 50 == 0
            && write(&Output { model, slices: BTreeMap::new(), ..Output::default() }, &to, &WriteOptions::default())
                .is_ok()
        {
            written += 1;
            assert!(fs::read(&to).unwrap() == expected);
        }
    }
    assert!(decoded > 1000 && written > 10, "{decoded} decoded, {written} written");
}

#[test]
fn bad_external_data_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(outer.path().join("secret.bin"), [7; 64]).unwrap();
    fs::write(folder.join("weights.bin"), [1; 64]).unwrap();
    fs::write(folder.join("sub/weights.bin"), [2; 64]).unwrap();
    let path = folder.join("in.onnx");
    let attempt = |entries: &[(&str, &str)]| {
        let mut tensor = TensorProto { raw_data: None, ..floats("w", 4) };
        tensor.set_data_location(DataLocation::External);
        tensor.external_data = entries.iter().map(|(key, value)| entry(key, value)).collect();
        fs::write(&path, model(graph(vec![tensor], Vec::new())).encode_to_vec()).unwrap();
        read(&path)
            .map(|file| file.model.graph.unwrap().initializer[0].raw_data.clone().unwrap())
            .map_err(|e| e.to_string())
    };
    assert_eq!(attempt(&[("location", "weights.bin")]).unwrap(), [1; 16].as_slice());
    assert_eq!(attempt(&[("location", "./sub/weights.bin"), ("offset", "48")]).unwrap(), [2; 16].as_slice());
    assert_eq!(attempt(&[("location", "weights.bin"), ("offset", "64"), ("length", "0")]).unwrap().len(), 0);
    let absolute = folder.join("weights.bin");
    let mut cases = vec![
        (vec![("location", "absent.bin")], "data file `absent.bin` is missing"),
        (vec![("location", "weights.bin"), ("offset", "60")], "has 64 bytes, 16 at offset 60 are needed"),
        (vec![("location", "weights.bin"), ("length", "65")], "has 64 bytes, 65 at offset 0 are needed"),
        (vec![("location", "weights.bin"), ("offset", "18446744073709551615")], "are needed"),
        (vec![("location", "weights.bin"), ("offset", "-4")], "offset `-4`, which is not a number"),
        (vec![("location", "weights.bin"), ("length", "many")], "length `many`, which is not a number"),
        (vec![("offset", "0")], "without a location"),
        (vec![("location", "")], "outside the folder"),
        (vec![("location", "../secret.bin")], "outside the folder"),
        (vec![("location", "sub/../../secret.bin")], "outside the folder"),
        (vec![("location", absolute.to_str().unwrap())], "outside the folder"),
        (vec![("location", "sub")], "is a folder"),
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret.bin", folder.join("link.bin")).unwrap();
        std::os::unix::fs::symlink(outer.path(), folder.join("out")).unwrap();
        cases.push((vec![("location", "link.bin")], "outside the folder"));
        cases.push((vec![("location", "out/secret.bin")], "outside the folder"));
    }
    for (entries, what) in cases {
        let error = attempt(&entries).unwrap_err();
        assert!(error.contains(what) && !error.contains('\n'), "{entries:?}: {error}");
    }
}

#[test]
fn unwritable_targets_are_explained_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output { model: everything(), slices: BTreeMap::new(), ..Output::default() };
    let refused = |path: &Path| write(&output, path, &WriteOptions::default()).unwrap_err().to_string();
    let error = refused(folder.path());
    assert!(error.contains("is a folder, not a file to write; add a file name"), "{error}");
    assert!(refused(&folder.path().join("new/")).contains("is a folder"));
    let error = refused(&folder.path().join("absent/out.onnx"));
    assert!(error.contains("absent: the folder to write into does not exist; create it first"), "{error}");
    fs::create_dir(folder.path().join("m.onnx.data")).unwrap();
    let error =
        write(&output, &folder.path().join("m.onnx"), &options(ExternalStyle::External)).unwrap_err().to_string();
    assert!(error.contains("m.onnx.data: exists and is not a regular file"), "{error}");
    assert_eq!(names_in(folder.path()), ["m.onnx.data"]);
    #[cfg(unix)]
    assert!(refused(Path::new("/dev/null")).contains("not a regular file"));
    // Data that was never loaded must not become an empty tensor.
    let (external, _) = outside(everything());
    let output = Output { model: external, slices: BTreeMap::new(), ..Output::default() };
    let error = write(&output, &folder.path().join("m.onnx"), &WriteOptions::default()).unwrap_err().to_string();
    assert!(error.contains("not loaded (tensor `w`)"), "{error}");
    assert_eq!(names_in(folder.path()), ["m.onnx.data"]);
}

#[cfg(unix)]
#[test]
fn written_files_have_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.onnx");
    let output = Output { model: everything(), slices: BTreeMap::new(), ..Output::default() };
    write(&output, &path, &options(ExternalStyle::External)).unwrap();
    fs::write(folder.path().join("plain"), "").unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("out.onnx"), mode("plain"));
    assert_eq!(mode("out.onnx.data"), mode("plain"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_file() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder.path()).output();
    if !mount.is_ok_and(|mount| mount.status.success()) {
        common::skipped("mounting a small file system is not permitted");
        return;
    }
    let path = folder.path().join("out.onnx");
    let attempt = |style| {
        let output = Output {
            model: model(graph(vec![floats("w", 50_000)], Vec::new())),
            slices: BTreeMap::new(),
            ..Output::default()
        };
        write(&output, &path, &options(style)).unwrap_err().to_string()
    };
    fs::write(&path, "old").unwrap();
    let errors = [attempt(ExternalStyle::Inline), attempt(ExternalStyle::External)];
    let (old, names) = (fs::read_to_string(&path).unwrap(), names_in(folder.path()));
    let unmounted = Command::new("umount").arg(folder.path()).status().unwrap().success();
    assert!(unmounted);
    for error in errors {
        assert!(error.contains("out.onnx: the disk is full; free some space"), "{error}");
    }
    assert_eq!((old.as_str(), names), ("old", vec!["out.onnx".to_owned()]));
}
