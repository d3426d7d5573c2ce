//! Published structural anchors: exact parameter counts that need no data.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;

use onnx_mtprune::allocate::Rounding;
use onnx_mtprune::coupling::Role;
use onnx_mtprune::plan_file::PlanFile;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::text;

/// torchvision's ResNet-18 with BatchNorm kept.
fn resnet18() -> ModelProto {
    let mut text = String::from("in x [1,3,224,224]\n");
    let mut count = 0;
    let mut conv_bn = |text: &mut String, x: &str, i: usize, o: usize, k: usize, stride: usize| -> String {
        count += 1;
        let n = count;
        let pad = k / 2;
        writeln!(
            text,
            "c{n} = Conv({x}, w{n}[{o},{i},{k},{k}], strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}])
             b{n} = BatchNormalization(c{n}, gamma{n}[{o}], beta{n}[{o}], mean{n}[{o}], var{n}[{o}])"
        )
        .unwrap();
        format!("b{n}")
    };
    let b = conv_bn(&mut text, "x", 3, 64, 7, 2);
    writeln!(text, "r0 = Relu({b})\nm = MaxPool(r0, kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1])").unwrap();
    let (mut x, mut channels) = ("m".to_owned(), 64);
    for (stage, out) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let a = conv_bn(&mut text, &x, channels, out, 3, stride);
            writeln!(text, "ra{stage}{block} = Relu({a})").unwrap();
            let b = conv_bn(&mut text, &format!("ra{stage}{block}"), out, out, 3, 1);
            let skip = if stride == 2 { conv_bn(&mut text, &x, channels, out, 1, 2) } else { x.clone() };
            writeln!(text, "s{stage}{block} = Add({b}, {skip})\nrb{stage}{block} = Relu(s{stage}{block})").unwrap();
            x = format!("rb{stage}{block}");
            channels = out;
        }
    }
    writeln!(
        text,
        "p = GlobalAveragePool({x})\nf = Flatten(p)\ny = Gemm(f, fc[1000,512], bias[1000], transB=1)\nout y"
    )
    .unwrap();
    text::parse(&text).unwrap()
}

/// Parameters as a training framework counts them: running statistics are state.
fn parameters(model: &ModelProto) -> usize {
    let analysis = Analysis::of(model, &[]).unwrap();
    let readings = analysis.coupling.readings.iter().filter(|r| r.roles.iter().all(|role| *role != Role::Statistic));
    readings
        .map(|r| {
            let dims = &analysis.graph.value(r.value).constant().unwrap().tensor.dims;
            dims.iter().product::<i64>() as usize
        })
        .sum()
}

#[test]
fn resnet18_at_half_has_the_published_parameter_count() {
    let model = resnet18();
    assert_eq!(parameters(&model), 11_689_512);
    let analysis = Analysis::of(&model, &[]).unwrap();
    let config = PruneConfig { ratio: 0.5, rounding: Rounding::Multiple(1), ..Default::default() };
    let pruned = analysis.apply(&analysis.plan(&config).unwrap()).unwrap().output.materialise().unwrap();
    // DepGraph's anchor: Torch-Pruning, local ratio 0.5, outputs of the classifier kept.
    assert_eq!(parameters(&pruned), 3_055_880);
}

/// The convolutions of VGG-16.
const VGG: [usize; 13] = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512];

/// The network of Structured Pruning for Multi-Task DNNs (arXiv 2304.06840): the convolutions of VGG-16 without
/// normalisation, and for each of three tasks four dilated branches whose results are summed.
fn vgg_of_three_tasks() -> ModelProto {
    let mut text = String::from("in x [1,3,64,64]\n");
    let (mut x, mut channels) = ("x".to_owned(), 3);
    for (layer, width) in VGG.into_iter().enumerate() {
        writeln!(
            text,
            "c{layer} = Conv({x}, w{layer}[{width},{channels},3,3], b{layer}[{width}], pads=[1,1,1,1])
             r{layer} = Relu(c{layer})"
        )
        .unwrap();
        x = format!("r{layer}");
        if [1, 3, 6, 9, 12].contains(&layer) {
            writeln!(text, "p{layer} = MaxPool({x}, kernel_shape=[2,2], strides=[2,2])").unwrap();
            x = format!("p{layer}");
        }
        channels = width;
    }
    let tasks = [("segment_semantic", 40), ("normal", 3), ("depth_zbuffer", 1)];
    for (task, classes) in tasks {
        for dilation in [1, 2, 4, 6] {
            let (d, n) = (dilation, format!("{task}{dilation}"));
            writeln!(
                text,
                "{n}a = Conv({x}, {n}wa[1024,512,3,3], {n}ba[1024], pads=[{d},{d},{d},{d}], dilations=[{d},{d}])
                 {n}r = Relu({n}a)
                 {n}b = Conv({n}r, {n}wb[1024,1024,1,1], {n}bb[1024])
                 {n}s = Relu({n}b)
                 {n}c = Conv({n}s, {n}wc[{classes},1024,1,1], {n}bc[{classes}])"
            )
            .unwrap();
        }
        writeln!(
            text,
            "{task}x = Add({task}1c, {task}2c)\n{task}y = Add({task}4c, {task}6c)\n{task} = Add({task}x, {task}y)"
        )
        .unwrap();
    }
    writeln!(text, "out {}", tasks.map(|(task, _)| task).join(", ")).unwrap();
    text::parse(&text).unwrap()
}

/// How many channels each convolution of the trunk keeps.
fn widths(model: &ModelProto) -> Vec<usize> {
    let tensors = &model.graph.as_ref().unwrap().initializer;
    let width = |layer: usize| tensors.iter().find(|t| t.name() == format!("w{layer}")).unwrap().dims[0];
    (0..VGG.len()).map(|layer| usize::try_from(width(layer)).unwrap()).collect()
}

#[test]
fn vgg16_of_three_tasks_has_the_published_parameter_counts_at_the_published_widths() {
    let model = vgg_of_three_tasks();
    assert_eq!(parameters(&model), 84_125_680);
    let analysis = Analysis::of(&model, &[]).unwrap();
    // By task: the trunk feeds all three, the two inner widths of every branch feed one.
    let trunk: Vec<usize> = (0..analysis.groups.len())
        .filter(|g| analysis.groups[*g].tasks.len() == 3 && analysis.groups[*g].lock.is_none())
        .collect();
    assert_eq!(trunk.iter().map(|g| analysis.groups[*g].extent).collect::<Vec<_>>(), VGG);
    assert_eq!(analysis.groups.iter().filter(|g| g.tasks.len() == 1 && g.lock.is_none()).count(), 3 * 4 * 2);
    for (kept, expected) in [
        (VGG, 84_125_680),
        ([36, 60, 119, 123, 248, 252, 247, 494, 492, 439, 318, 175, 21], 23_746_774),
        ([19, 60, 113, 122, 236, 243, 223, 451, 419, 299, 173, 60, 6], 19_208_302),
        ([13, 59, 109, 117, 231, 238, 217, 424, 388, 234, 141, 48, 5], 18_211_667),
    ] {
        // As a plan file spells it, so that the way is the one that a user's plan takes.
        let groups: Vec<serde_json::Value> = trunk
            .iter()
            .zip(kept)
            .filter(|(group, kept)| analysis.groups[**group].extent > *kept)
            .map(|(group, kept)| {
                let group = &analysis.groups[*group];
                serde_json::json!({ "name": group.name, "extent": group.extent, "kept": (0..kept).collect::<Vec<_>>() })
            })
            .collect();
        let file = serde_json::json!({
            "format": 1, "sha256": "", "groups": groups, "initializers": {}, "activations": {}, "sets": [], "altered": []
        });
        let plan = PlanFile::parse(&file.to_string()).unwrap().plan(&analysis.groups).unwrap();
        let pruned = analysis.apply(&plan).unwrap().output.materialise().unwrap();
        assert_eq!(parameters(&pruned), expected, "{kept:?}");
        assert_eq!(widths(&pruned), kept);
    }
}

#[test]
fn the_guard_of_the_trunk_stops_with_thirteen_times_five() {
    let model = vgg_of_three_tasks();
    let analysis = Analysis::of(&model, &[]).unwrap();
    // Heads are never pruned there: only the trunk has a ratio.
    let config = PruneConfig {
        trunk_ratio: Some(0.999),
        min_channels: 5,
        rounding: Rounding::Multiple(1),
        criterion: "random".to_owned(),
        ..Default::default()
    };
    let pruned = analysis.apply(&analysis.plan(&config).unwrap()).unwrap().output.materialise().unwrap();
    assert_eq!(widths(&pruned), [5; 13]);
    assert_eq!(widths(&pruned).iter().sum::<usize>(), 13 * 5);
    let heads = pruned.graph.as_ref().unwrap().initializer.iter().filter(|t| t.name().ends_with("wb"));
    assert!(heads.clone().count() == 12 && heads.clone().all(|t| t.dims == [1024, 1024, 1, 1]));
}
