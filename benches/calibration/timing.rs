//! Timing: wall time, and the processor time of all threads of this process.

use std::fs;
use std::time::Instant;

use crate::Outcome;
use crate::measure::median;

/// What something took, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    pub(crate) wall: f64,
    /// User and system time of all threads; nothing where the system does not tell.
    pub(crate) processor: Option<f64>,
}

/// Runs something once.
pub(crate) fn time(work: &mut dyn FnMut() -> Outcome<()>) -> Outcome<Time> {
    let (start, before) = (Instant::now(), processor());
    work()?;
    let processor = processor().zip(before).map(|(after, before)| after - before);
    Ok(Time { wall: start.elapsed().as_secs_f64(), processor })
}

/// The medians of several times.
pub(crate) fn medians(times: &[Time]) -> Time {
    let processor: Option<Vec<f64>> = times.iter().map(|t| t.processor).collect();
    Time { wall: median(times.iter().map(|t| t.wall).collect()), processor: processor.map(median) }
}

/// The processor time of this process so far, in seconds. Linux counts it in hundredths for programs, whatever it
/// counts in itself.
fn processor() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}
