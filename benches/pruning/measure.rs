//! Measuring: medians, limits, and the peak memory of a child process.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

/// How often each pair of things is measured, in turns.
pub(crate) const PAIRS: usize = 5;

/// How long a child's memory is not looked at, in parts of the time it has run: looking costs the child time. The kernel
/// keeps the peak, so that only what happens in the last moments of a process can be missed.
const PAUSE: f64 = 0.01;

/// The shortest pause.
const POLL: Duration = Duration::from_millis(1);

/// One figure and its limit.
pub(crate) struct Verdict {
    ratio: f64,
    limit: f64,
}

impl Verdict {
    /// Prints the median of the ratios beside its limit.
    pub(crate) fn of(what: &str, ratios: Vec<f64>, limit: f64) -> Self {
        let verdict = Self { ratio: median(ratios), limit };
        let word = if verdict.holds() { "PASS" } else { "FAIL" };
        let limit = if limit.is_finite() { format!("limit {limit:<5.2}") } else { "no limit   ".to_owned() };
        println!("{word}  {:6.2}  {limit}  {what}", verdict.ratio);
        verdict
    }

    /// True if the figure is within its limit.
    pub(crate) fn holds(&self) -> bool {
        self.ratio <= self.limit
    }
}

/// The middle one of an odd number of values; the mean of the two middle ones otherwise.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// What running a program took.
pub(crate) struct Run {
    /// From start to exit.
    pub(crate) wall: Duration,
    /// The most memory it ever held, mapped files included, in bytes; `None` where the system does not tell.
    pub(crate) peak: Option<u64>,
    /// The most memory that was seen allocated, mapped files not counted, in bytes.
    pub(crate) anonymous: Option<u64>,
    /// The most memory that was seen as pages of mapped files, in bytes.
    pub(crate) mapped: Option<u64>,
}

/// Runs a program to its end; its standard output is dropped, its errors are shown.
pub(crate) fn run(command: &mut Command) -> Outcome<Run> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let (mut peak, mut anonymous, mut mapped) = (None, None, None);
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        // The kernel keeps the peak of the sum only.
        peak = entry(&status, "VmHWM:").max(peak);
        anonymous = entry(&status, "RssAnon:").max(anonymous);
        mapped = entry(&status, "RssFile:").max(mapped);
        if let Some(status) = child.try_wait()? {
            let wall = start.elapsed();
            if !status.success() {
                return Err(format!("{command:?} ended with {status}").into());
            }
            return Ok(Run { wall, peak, anonymous, mapped });
        }
        thread::sleep(start.elapsed().mul_f64(PAUSE).max(POLL));
    }
}

/// An entry of a process's status in bytes, which Linux tells in kB.
fn entry(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Says how many limits were exceeded, or what could not be run, and gives the exit code for it.
pub(crate) fn ended(verdicts: crate::Outcome<Vec<Verdict>>) -> std::process::ExitCode {
    match verdicts {
        Ok(verdicts) if verdicts.iter().all(Verdict::holds) => std::process::ExitCode::SUCCESS,
        Ok(verdicts) => {
            println!("{} of {} limits exceeded", verdicts.iter().filter(|v| !v.holds()).count(), verdicts.len());
            std::process::ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::from(2)
        }
    }
}
