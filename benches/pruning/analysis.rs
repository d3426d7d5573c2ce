//! Analysis of graphs with many nodes: four times the nodes must not take five times as long.

use std::time::{Duration, Instant};

use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{Analysis, PruneConfig};
use onnx_mtprune::text;

use crate::measure::{PAIRS, Verdict};
use crate::{Outcome, networks};

const SMALL: usize = 10_000;
const LARGE: usize = 40_000;

/// The most that four times the nodes may cost: linear, and a quarter more for caches that no longer hold everything.
const LIMIT: f64 = 5.0;

pub(crate) fn run() -> Outcome<Vec<Verdict>> {
    let (small, large) = (text::parse(&networks::long(SMALL))?, text::parse(&networks::long(LARGE))?);
    let (mut analysis, mut all) = (Vec::new(), Vec::new());
    let mut last = Duration::ZERO;
    // The first pair warms caches and is not counted.
    for pair in 0..=PAIRS {
        let (few, many) = (time(&small)?, time(&large)?);
        if pair > 0 {
            analysis.push(many.analysis.as_secs_f64() / few.analysis.as_secs_f64());
            all.push(many.all.as_secs_f64() / few.all.as_secs_f64());
            last = many.analysis;
        }
    }
    println!("analysis of {LARGE} nodes: {:.0} ms in the last run", last.as_secs_f64() * 1e3);
    let of = |what| format!("{what}: time of {LARGE} nodes / time of {SMALL} nodes");
    Ok(vec![
        Verdict::of(&of("analysis"), analysis, LIMIT),
        Verdict::of(&of("analysis, scores, plan and rewriting"), all, LIMIT),
    ])
}

struct Times {
    analysis: Duration,
    all: Duration,
}

/// Analyses a model and prunes it; fails if that has no effect, because then nothing worth timing happened.
fn time(model: &ModelProto) -> Outcome<Times> {
    let start = Instant::now();
    let analysed = Analysis::of(model, &[])?;
    let analysis = start.elapsed();
    let plan = analysed.plan(&PruneConfig { ratio: 0.5, ..PruneConfig::default() })?;
    let smaller = analysed.apply(&plan)?;
    let all = start.elapsed();
    if smaller.kept.constants.is_empty() {
        return Err("nothing was pruned from the synthetic network".into());
    }
    Ok(Times { analysis, all })
}
