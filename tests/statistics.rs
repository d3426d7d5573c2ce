//! What calibration measures: against numbers computed from whole activations, whatever the operator set, the layout,
//! the batches and the machines they run on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use onnx_mtprune::calibration::statistics_file::{Measurer, Origin, StatisticsFile};
use onnx_mtprune::calibration::{
    Batch, Batches, Gathering, MEASURES, Measure, Segment, Shard, Statistics, Sums, TapStatistics, Taps, Wish,
};
use onnx_mtprune::engine::{Engine, Feeds, Tract, Value, inputs, run_once, samples};
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::Analysis;
use onnx_mtprune::{Result, text};

/// Batches in memory.
struct Fixed(Vec<Batch>);

impl Batches for Fixed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn samples(&self) -> usize {
        self.0.iter().map(|b| b.samples.len()).sum()
    }

    fn batch(&self, index: usize) -> Result<Batch> {
        Ok(self.0[index].clone())
    }
}

fn every() -> Wish {
    Wish { measures: MEASURES.iter().map(|(measure, _)| *measure).collect(), products: true, features: true }
}

/// `count` batches of random numbers of the size that the model declares.
fn random(model: &ModelProto, count: usize) -> Fixed {
    let facts = inputs::input_shapes(model, &BTreeMap::new()).unwrap().remove(0);
    let size = facts[0].shape[0];
    let batch = |index: usize| Batch {
        feeds: samples::random_feeds(&facts, index as u64).unwrap(),
        samples: (index * size..(index + 1) * size).collect(),
        filler: 0,
    };
    Fixed((0..count).map(batch).collect())
}

fn gather(model: &ModelProto, batches: &Fixed, shard: Shard, with_samples: bool) -> (Taps, Statistics) {
    let analysis = Analysis::of(model, &[]).unwrap();
    let taps = analysis.taps();
    let mut statistics = Statistics::empty(&taps);
    let wish = if with_samples { every() } else { Wish { products: true, ..Wish::every_sum() } };
    let mut gathering = Gathering::new(model, &taps, &wish, &Tract);
    gathering.run(batches, shard, &mut statistics, &mut |_| Ok(())).unwrap();
    drop(gathering);
    (taps, statistics)
}

/// The values of a tap in all batches, position by position.
fn positions(model: &ModelProto, batches: &Fixed, tap: &TapStatistics) -> Vec<Vec<f64>> {
    let mut found = vec![Vec::new(); tap.extent];
    for batch in &batches.0 {
        let value = run_once(&Tract, model, &batch.feeds, std::slice::from_ref(&tap.name)).unwrap().remove(0);
        let inner: usize = value.shape()[tap.axis + 1..].iter().product();
        for (at, number) in value.to_f64().into_iter().enumerate() {
            found[at / inner % tap.extent].push(number);
        }
    }
    found
}

fn assert_near(what: &str, found: &[f64], expected: &[f64]) {
    let size = expected.iter().fold(1e-3, |m: f64, e| m.max(e.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 2e-5 * size, "{what} {at}: {f} instead of {e}");
    }
}

/// Compares all that was measured of a model with its definition.
fn check(text: &str) -> usize {
    let model = text::parse(text).unwrap();
    let batches = random(&model, 3);
    let (taps, statistics) = gather(&model, &batches, Shard::ALL, false);
    assert!(!statistics.taps.is_empty(), "nothing is measured of {text}");
    for tap in &statistics.taps {
        let values = positions(&model, &batches, tap);
        let over = |f: &dyn Fn(&[f64]) -> f64| values.iter().map(|v| f(v)).collect::<Vec<f64>>();
        assert_eq!(tap.count as usize, values[0].len(), "{text}");
        let sum = |measure: Measure| tap.sums[&measure].values();
        assert_near("sum", &sum(Measure::Sum), &over(&|v| v.iter().sum()));
        assert_near("square", &sum(Measure::Square), &over(&|v| v.iter().map(|x| x * x).sum()));
        assert_near("absolute", &sum(Measure::Absolute), &over(&|v| v.iter().map(|x| x.abs()).sum()));
        assert_near("not zero", &sum(Measure::NonZero), &over(&|v| v.iter().filter(|x| **x != 0.0).count() as f64));
        assert_near(
            "minimum",
            &tap.extremes[&Measure::Minimum],
            &over(&|v| v.iter().copied().fold(f64::MAX, f64::min)),
        );
        assert_near(
            "maximum",
            &tap.extremes[&Measure::Maximum],
            &over(&|v| v.iter().copied().fold(f64::MIN, f64::max)),
        );
    }
    let mut moments = 0;
    for place in taps.groups.iter().flatten() {
        let tap = statistics.tap(&taps.taps[place.tap].name, taps.taps[place.tap].axis).unwrap();
        let values = positions(&model, &batches, tap);
        let channels = place.segments[0].channels;
        // The positions of each channel, in one order for all channels.
        let mut of: Vec<Vec<usize>> = vec![Vec::new(); channels];
        place.segments.iter().flat_map(Segment::positions).for_each(|(position, channel)| of[channel].push(position));
        let mut expected = Vec::new();
        for a in 0..channels {
            for b in a..channels {
                let pairs = of[a].iter().zip(&of[b]);
                let dot =
                    |(p, q): (&usize, &usize)| values[*p].iter().zip(&values[*q]).map(|(x, y)| x * y).sum::<f64>();
                expected.push(pairs.map(dot).sum::<f64>());
            }
        }
        assert_near("moments", &tap.moments[&Segment::key(&place.segments)].values(), &expected);
        moments += 1;
    }
    moments
}

#[test]
fn measures_equal_their_definitions() {
    for opset in [9, 11, 13, 17, 18, 20] {
        let convolutions = "in x [2,3,6,6]
             a = Conv(x, w0[8,3,3,3], b0[8])
             r = Relu(a)
             d = Conv(r, wd[8,1,3,3], group=8)
             c = Concat(r2, d, axis=1)
             y = Conv(c, w1[5,12,1,1])
             out y";
        let convolutions = convolutions.replace("c = Concat", "r2 = Conv(x, w2[4,3,5,5])\n c = Concat");
        assert_eq!(check(&format!("opset {opset}\n{convolutions}")), 2);
    }
    // Flattened pictures: several positions per channel.
    assert_eq!(check("in x [2,3,4,4]\na = Conv(x, w[6,3,1,1])\nf = Flatten(a)\ny = Gemm(f, g[96,5])\nout y"), 1);
    // Grouped convolution: whole groups, and the same positions of each.
    assert!(check("in x [2,3,4]\na = Conv(x, w[6,3,1])\ny = Conv(a, v[4,3,1], group=2)\nout y") > 0);
    // Signals and volumes, with a bias that makes most numbers negative.
    for shape in ["5", "4,3,4"] {
        let kernel = shape.replace(|c: char| c.is_ascii_digit(), "1");
        let text = format!(
            "in x [2,3,{shape}]\na = Conv(x, w[6,3,{kernel}])\ns = Sub(a, <1.5>)\ny = Conv(s, v[4,6,{kernel}])\nout y"
        );
        assert_eq!(check(&text), 1, "{text}");
    }
    // Tokens: the channels come last.
    assert_eq!(check("in x [2,7,8]\na = MatMul(x, w[8,12])\nr = Relu(a)\ny = MatMul(r, v[12,3])\nout y"), 1);
    // A recurrent layer feeds another.
    let recurrent = "in x [5,2,4]
         h, _, _ = LSTM(x, w[1,24,4], r[1,24,6], hidden_size=6)
         s = Squeeze(h, {1})
         y = MatMul(s, v[6,3])
         out y";
    assert!(check(recurrent) > 0);
}

/// The same batches in another order, in parts, and after an interruption: the same statistics, bit by bit.
#[test]
fn batches_add_up_whatever_the_order() {
    let model = "in x [2,3,6,6]\na = Conv(x, w0[8,3,3,3], b0[8])\nr = Relu(a)\ny = Conv(r, w1[5,8,1,1])\nout y";
    let model = text::parse(model).unwrap();
    let batches = random(&model, 10);
    let (_, whole) = gather(&model, &batches, Shard::ALL, true);
    let parts = (0..4).map(|index| gather(&model, &batches, Shard { index, count: 4 }, true).1).collect::<Vec<_>>();
    let mut merged = parts[2].clone();
    [0, 3, 1].iter().for_each(|part| merged.merge(&parts[*part]).unwrap());
    assert_eq!(merged, whole);
    let origin = Origin { model: "aa".into(), samples: 20, batches: 10, cut: "batches of 2".into() };
    let engines = BTreeSet::from([Measurer::from(&Tract.describe())]);
    let file = |statistics: &Statistics| StatisticsFile {
        origin: origin.clone(),
        statistics: statistics.clone(),
        engines: engines.clone(),
    };
    let bytes = file(&whole).bytes().unwrap();
    assert_eq!(file(&merged).bytes().unwrap(), bytes);
    assert_eq!(StatisticsFile::parse(&bytes).unwrap(), file(&whole));
    assert!(file(&whole).is_complete() && !file(&parts[0]).is_complete());
    // Runs of batches that overlap: few bytes could stand for endless work.
    let mut some = whole.clone();
    some.batches.remove(&4);
    let text = file(&some).bytes().unwrap();
    let at = text.windows(13).position(|w| w == b"[[0,3],[5,9]]").unwrap();
    let mut twice = text.clone();
    twice[at..at + 13].copy_from_slice(b"[[0,3],[3,9]]");
    assert!(StatisticsFile::parse(&text).is_ok());
    assert!(StatisticsFile::parse(&twice).unwrap_err().to_string().contains("or one twice"));
    assert!(file(&whole).check_model("bb").unwrap_err().to_string().contains("another model"));
    for cut in (0..bytes.len()).step_by(bytes.len() / 97) {
        assert!(StatisticsFile::parse(&bytes[..cut]).is_err(), "{cut}");
    }
    assert_eq!((whole.samples, whole.batches.len()), (20, 10));
    // Contents that contradict one another, or are no numbers.
    let refused = |damage: &dyn Fn(&mut TapStatistics)| {
        let mut damaged = whole.clone();
        damage(&mut damaged.taps[0]);
        StatisticsFile::parse(&file(&damaged).bytes().unwrap()).unwrap_err().to_string()
    };
    let fewer = refused(&|tap| tap.moments.values_mut().for_each(|sums| *sums = Sums::zero(sums.len() - 1)));
    assert!(fewer.contains("lacks `0.products."), "{fewer}");
    let infinite = refused(&|tap| _ = tap.extremes.insert(Measure::Maximum, vec![f64::INFINITY; tap.extent]));
    assert!(infinite.contains("lacks `0.maximum` or it is damaged"), "{infinite}");
    let words = |tap: &TapStatistics| [64, 1, 0, 0].repeat(tap.extent);
    let beyond = refused(&|tap| _ = tap.sums.insert(Measure::Sum, Sums::from_words(&words(tap)).unwrap()));
    assert!(beyond.contains("lacks `0.sum` or it is damaged"), "{beyond}");
    let more = Statistics { samples: 21, ..whole.clone() };
    assert!(StatisticsFile::parse(&file(&more).bytes().unwrap()).is_err());
    let error = merged.merge(&parts[1]).unwrap_err().to_string();
    assert!(error.contains("batch 1 is in both"), "{error}");
    // Parts of several engines merge and say so; files that name no engine are read.
    let other = Measurer { engine: "ONNX Runtime".into(), version: Some("1.31.0".into()), device: "CUDA:0".into() };
    let mut mixed = file(&parts[0]);
    let part = StatisticsFile { engines: BTreeSet::from([other.clone()]), ..file(&parts[1]) };
    mixed.merge(&part).unwrap();
    assert_eq!(mixed.engines, engines.iter().cloned().chain([other.clone()]).collect());
    assert_eq!(StatisticsFile::parse(&mixed.bytes().unwrap()).unwrap(), mixed);
    assert_eq!(other.to_string(), "ONNX Runtime 1.31.0 (CUDA:0)");
    let unsaid = StatisticsFile { engines: BTreeSet::new(), ..file(&whole) };
    let older = without_engines(&unsaid.bytes().unwrap());
    assert_eq!(StatisticsFile::parse(&older).unwrap(), unsaid);

    let taps = Analysis::of(&model, &[]).unwrap().taps();
    let wish = every();
    let mut gathering = Gathering::new(&model, &taps, &wish, &Tract);
    let mut resumed = Statistics::empty(&taps);
    let mut left = 3;
    let stopped = gathering.run(&batches, Shard::ALL, &mut resumed, &mut |_| {
        left -= 1;
        if left == 0 { Err(onnx_mtprune::Error::input("interrupted")) } else { Ok(()) }
    });
    assert!(stopped.is_err() && resumed.batches.len() == 3);
    gathering.run(&batches, Shard::ALL, &mut resumed, &mut |_| Ok(())).unwrap();
    assert_eq!(resumed, whole);
}

/// Files need not hold their nodes in the order of the data.
#[test]
fn the_order_of_nodes_does_not_matter() {
    let model = "in x [2,3,6,6]\na = Conv(x, w0[8,3,3,3], b0[8])\nr = Relu(a)\ny = Conv(r, w1[5,8,1,1])\nout y";
    let model = text::parse(model).unwrap();
    let mut turned = model.clone();
    turned.graph.as_mut().unwrap().node.reverse();
    let batches = random(&model, 2);
    assert_eq!(gather(&turned, &batches, Shard::ALL, true).1, gather(&model, &batches, Shard::ALL, true).1);
}

/// A statistics file as it was before it named its engines.
fn without_engines(bytes: &[u8]) -> Vec<u8> {
    let (length, rest) = bytes.split_at(8);
    let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
    let header = std::str::from_utf8(&rest[..length]).unwrap();
    let (entry, none) = (r#"\"engines\":[],"#, "");
    assert!(header.contains(entry), "{header}");
    let header = header.replace(entry, none);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &rest[length..]].concat()
}

/// A model that takes four samples gets five: the three places that only fill up must not count.
#[test]
fn filler_does_not_count() {
    let text = "in x [4,3,6]\na = Conv(x, w0[8,3,3], b0[8])\nr = Relu(a)\ny = Conv(r, w1[5,8,1])\nout y";
    let fixed = text::parse(text).unwrap();
    let open = text::parse(&text.replace("[4,3,6]", "[n,3,6]")).unwrap();
    let five = random(&text::parse(&text.replace("[4,3,6]", "[5,3,6]")).unwrap(), 1).0.remove(0);
    let pick = |indices: &[usize]| -> Feeds {
        five.feeds.iter().map(|(name, value)| (name.clone(), value.select(0, indices).unwrap())).collect()
    };
    let chunks = Fixed(vec![
        Batch { feeds: pick(&[0, 1, 2, 3]), samples: vec![0, 1, 2, 3], filler: 0 },
        Batch { feeds: pick(&[4, 4, 4, 4]), samples: vec![4], filler: 3 },
    ]);
    let (_, filled) = gather(&fixed, &chunks, Shard::ALL, true);
    let (_, exact) = gather(&open, &Fixed(vec![five.clone()]), Shard::ALL, true);
    assert_eq!((filled.samples, filled.taps[0].count), (exact.samples, exact.taps[0].count));
    for (filled, exact) in filled.taps.iter().zip(&exact.taps) {
        for (measure, sums) in &filled.sums {
            assert_near(measure.name(), &sums.values(), &exact.sums[measure].values());
        }
        for (key, sums) in &filled.moments {
            assert_near(key, &sums.values(), &exact.moments[key].values());
        }
        assert_eq!(filled.extremes, exact.extremes);
        assert!(filled.features.keys().eq(exact.features.keys()) && filled.features.len() == 5);
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    let model = text::parse("in x [1,2]\na = MatMul(x, w[2,4])\ny = MatMul(a, v[4,2])\nout y").unwrap();
    for number in [f32::NAN, f32::NEG_INFINITY] {
        let mut batches = random(&model, 1);
        batches.0[0].feeds[0].1 = Value::from(ndarray::arr2(&[[number, 1.0]]).into_dyn());
        let taps = Analysis::of(&model, &[]).unwrap().taps();
        let mut statistics = Statistics::empty(&taps);
        let error = Gathering::new(&model, &taps, &Wish::default(), &Tract)
            .run(&batches, Shard::ALL, &mut statistics, &mut |_| Ok(()))
            .unwrap_err();
        assert!(error.to_string().contains("not finite") && error.to_string().contains("tensor `a`"), "{error}");
    }
}
