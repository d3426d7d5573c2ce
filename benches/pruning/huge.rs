//! A model of 3 GB whose weights lie in data files: time beside `cp` of the same files, and the memory it takes.
//!
//! Not part of `make bench`, because it needs 10 GB of disk, and with verification as much memory: `make bench-huge`.
//! Memory is told apart: what the program allocated (`RssAnon`) and pages of mapped files (`RssFile`), which the system
//! may take back at any time without writing them anywhere. The limit holds for both together, as the system counts it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use onnx_mtprune::proto::onnx::{ModelProto, StringStringEntryProto, TensorProto, tensor_proto::DataLocation};
use onnx_mtprune::text;
use prost::Message;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::Outcome;
use crate::measure::{Run, Verdict, run as run_program};
use crate::networks;

/// How often pruning and copying are measured, in turns; each round moves some 10 GB.
const ROUNDS: usize = 3;

/// The most time that pruning may take, as a multiple of copying the files.
const WALL: f64 = 3.0;

/// Peak memory in bytes that a largest tensor of so many bytes allows: 1.3 times the tensor, and 500 MB.
fn allowed(largest: u64) -> f64 {
    1.3 * largest as f64 + 500e6
}

/// What the extents of the small network are multiplied by.
const SCALE: i64 = 64;

pub(crate) fn run() -> Outcome<Vec<Verdict>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-huge");
    let mut verdicts = Vec::new();
    for (what, many) in [("one data file", false), ("a data file for every tensor", true)] {
        fs::create_dir_all(&folder)?;
        let model = Huge::build(&folder.join("in"), many)?;
        println!("{what}: {} MB, the largest tensor has {} MB", model.bytes / 1_000_000, model.largest / 1_000_000);
        verdicts.extend(model.measure(&folder, what)?);
        if !many {
            model.verified(&folder)?;
        }
        fs::remove_dir_all(&folder)?;
    }
    Ok(verdicts)
}

/// A model on disk.
struct Huge {
    folder: PathBuf,
    bytes: u64,
    largest: u64,
}

impl Huge {
    /// Writes the model and its data, never holding more than a piece of a tensor.
    fn build(folder: &Path, many: bool) -> Outcome<Self> {
        fs::create_dir_all(folder)?;
        let mut model: ModelProto = text::parse(&networks::huge())?;
        let graph = model.graph.as_mut().ok_or("no graph")?;
        let (mut bytes, mut largest) = (0u64, 0u64);
        let mut files: Vec<(String, BufWriter<File>, u64)> = Vec::new();
        for (index, tensor) in graph.initializer.iter_mut().enumerate() {
            let is_vector = tensor.dims.len() < 2;
            tensor.dims.iter_mut().filter(|d| **d >= 32).for_each(|d| *d *= SCALE);
            let len = tensor.dims.iter().product::<i64>() as u64 * 4;
            (bytes, largest) = (bytes + len, largest.max(len));
            if many || files.is_empty() {
                let name = if many { format!("weights/{index}.bin") } else { "model.onnx.data".to_owned() };
                let path = folder.join(&name);
                fs::create_dir_all(path.parent().ok_or("no folder")?)?;
                files.push((name, BufWriter::new(File::create(&path)?), 0));
            }
            let Some((name, file, offset)) = files.last_mut() else { continue };
            move_out(tensor, name, *offset, len);
            // Small numbers, so that thirteen wide layers neither explode nor vanish.
            let scale = if is_vector { 0.1 } else { (12.0 * 4.0 * tensor.dims[0] as f32 / len as f32).sqrt() };
            fill(file, index as u64, len, scale)?;
            *offset += len;
        }
        for (_, mut file, _) in files {
            file.flush()?;
        }
        fs::write(folder.join("model.onnx"), model.encode_to_vec())?;
        Ok(Self { folder: folder.to_path_buf(), bytes, largest })
    }

    fn prune(&self, output: &Path, more: &[&str]) -> Outcome<Run> {
        fs::create_dir_all(output)?;
        let mut program = Command::new(env!("CARGO_BIN_EXE_onnx-mtprune"));
        program.arg(self.folder.join("model.onnx")).arg(output.join("model.onnx"));
        let run = run_program(program.args(["--ratio", "0.5", "-q"]).args(more))?;
        if !output.join("model.onnx.data").exists() {
            return Err("the program wrote no data file".into());
        }
        Ok(run)
    }

    fn measure(&self, folder: &Path, what: &str) -> Outcome<Vec<Verdict>> {
        let (pruned, copy) = (folder.join("pruned"), folder.join("copy"));
        let (mut wall, mut memory) = (Vec::new(), Vec::new());
        // The first round brings the files into the page cache and is not counted.
        for round in 0..=ROUNDS {
            // Each starts from the same state: nothing of the other is left in memory, nor waits for the disk.
            settle();
            let copying = run_program(Command::new("cp").arg("-r").arg(&self.folder).arg(&copy))?;
            fs::remove_dir_all(&copy)?;
            settle();
            let pruning = self.prune(&pruned, &["--no-verify"])?;
            fs::remove_dir_all(&pruned)?;
            if round > 0 {
                wall.push(pruning.wall.as_secs_f64() / copying.wall.as_secs_f64());
                memory.extend(pruning.peak.map(|peak| peak as f64 / allowed(self.largest)));
            }
            tell("without verification", &pruning, &format!(", cp {:.2} s", copying.wall.as_secs_f64()));
        }
        let mut verdicts = vec![Verdict::of(&format!("{what}: time to prune / time of cp"), wall, WALL)];
        if memory.is_empty() {
            println!("skipped: peak memory, because this system has no /proc/PID/status");
        } else {
            verdicts.push(Verdict::of(&format!("{what}: peak memory / (1.3 x largest tensor + 500 MB)"), memory, 1.0));
        }
        Ok(verdicts)
    }

    /// No limit here: the engine holds the weights in a form of its own. The figure is printed.
    fn verified(&self, folder: &Path) -> Outcome<()> {
        let pruned = folder.join("pruned");
        let run = self.prune(&pruned, &["--require-verify"])?;
        tell("with verification", &run, "");
        Ok(fs::remove_dir_all(&pruned)?)
    }
}

/// Waits until the system has written what it holds back for the disk; without `sync` the figures are rougher.
fn settle() {
    let _ = Command::new("sync").status();
}

fn tell(what: &str, run: &Run, more: &str) {
    let megabytes = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), |b| (b / 1_000_000).to_string());
    println!(
        "  {what}: {:.2} s{more}; peak {} MB, of it allocated at most {} MB, mapped at most {} MB",
        run.wall.as_secs_f64(),
        megabytes(run.peak),
        megabytes(run.anonymous),
        megabytes(run.mapped)
    );
}

/// Makes the tensor say that its data lies in a file.
fn move_out(tensor: &mut TensorProto, file: &str, offset: u64, length: u64) {
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.raw_data = None;
    tensor.set_data_location(DataLocation::External);
    tensor.external_data = vec![
        entry("location", file.to_owned()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ];
}

/// Writes seeded fp32 numbers between minus and plus half of `scale`.
fn fill(file: &mut impl Write, seed: u64, bytes: u64, scale: f32) -> Outcome<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut piece = vec![0u8; 1 << 20];
    let mut rest = bytes;
    while rest > 0 {
        random.fill_bytes(&mut piece);
        for cell in piece.as_chunks_mut::<4>().0 {
            // The mantissa of a number from 1 to 2.
            let number = f32::from_bits(u32::from_le_bytes(*cell) >> 9 | 0x3f80_0000);
            *cell = ((number - 1.5) * scale).to_le_bytes();
        }
        let now = usize::try_from(rest).unwrap_or(usize::MAX).min(piece.len());
        file.write_all(&piece[..now])?;
        rest -= now as u64;
    }
    Ok(())
}
