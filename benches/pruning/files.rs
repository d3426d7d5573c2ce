//! Pruning big files with the real program, beside `cp` of the same file.

use std::fs;
use std::path::Path;
use std::process::Command;

use onnx_mtprune::text;
use prost::Message;

use crate::measure::{PAIRS, Verdict, run as run_program};
use crate::{Outcome, networks};

/// The most time that pruning may take, as a multiple of copying the file.
const WALL: f64 = 3.0;

/// The most memory that pruning may hold, as a multiple of the size of the file; the mapped file itself counts.
const MEMORY: f64 = 1.4;

pub(crate) fn run() -> Outcome<Vec<Verdict>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    fs::create_dir_all(&folder)?;
    let mut verdicts = Vec::new();
    for megabytes in [100, 500] {
        verdicts.extend(one_size(&folder, megabytes)?);
    }
    fs::remove_dir_all(&folder)?;
    Ok(verdicts)
}

fn one_size(folder: &Path, megabytes: usize) -> Outcome<Vec<Verdict>> {
    let (input, pruned, copy) = (folder.join("in.onnx"), folder.join("pruned.onnx"), folder.join("copy.onnx"));
    fs::write(&input, text::parse(&networks::heavy(megabytes * 1_000_000))?.encode_to_vec())?;
    let size = fs::metadata(&input)?.len();
    let (mut wall, mut memory) = (Vec::new(), Vec::new());
    let mut kept = 0;
    // The first pair brings the file into the page cache and is not counted.
    for pair in 0..=PAIRS {
        for output in [&pruned, &copy] {
            if output.exists() {
                fs::remove_file(output)?;
            }
        }
        let copying = run_program(Command::new("cp").arg(&input).arg(&copy))?;
        let mut program = Command::new(env!("CARGO_BIN_EXE_onnx-mtprune"));
        let pruning = run_program(program.arg(&input).arg(&pruned).args(["--ratio", "0.5", "--no-verify", "-q"]))?;
        kept = fs::metadata(&pruned).map_err(|_| "the program wrote no output")?.len();
        if pair > 0 {
            wall.push(pruning.wall.as_secs_f64() / copying.wall.as_secs_f64());
            memory.extend(pruning.peak.map(|peak| peak as f64 / size as f64));
        }
    }
    fs::remove_file(&input)?;
    let megabytes = size / 1_000_000;
    println!("{megabytes} MB: the pruned file has {:.1} % of the size", 100.0 * kept as f64 / size as f64);
    let mut verdicts = vec![Verdict::of(&format!("{megabytes} MB: time to prune / time of cp"), wall, WALL)];
    if memory.is_empty() {
        println!("skipped: peak memory, because this system has no /proc/PID/status");
    } else {
        verdicts.push(Verdict::of(&format!("{megabytes} MB: peak memory / size of the file"), memory, MEMORY));
    }
    Ok(verdicts)
}
