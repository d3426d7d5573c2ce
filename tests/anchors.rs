//! Published structural anchors: exact parameter counts that need no data.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write;

use onnx_mtprune::allocate::Rounding;
use onnx_mtprune::coupling::Role;
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
