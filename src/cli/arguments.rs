//! What can be said on the command line. The texts here are the reference for users.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

use onnx_mtprune::allocate::Choice;
use onnx_mtprune::losses::LossRequest;
use onnx_mtprune::score::Importance;

use super::aggregation::AggregationArguments;
use super::calibrate::{CalibrateArguments, MergeArguments};
use super::gradient::GradientArguments;
use super::masks::MasksArguments;
use super::neighbours::NeighbourArguments;
use super::runtime::EngineArguments;
use super::values::{self, InputShape, TaskOutputs};

const EXAMPLES: &str = "\
Examples:
  onnx-mtprune model.onnx small.onnx --ratio 0.5
      remove half of the channels of every group that may shrink, verify, write
  onnx-mtprune inspect model.onnx
      show tasks and groups, and what keeps parameters from being pruned
  onnx-mtprune model.onnx small.onnx --ratio 0.5 --protect 'head.*' --task seg=mask,edges
      leave everything named head.* whole; report the outputs mask and edges as one task
  onnx-mtprune model.onnx seg.onnx --keep-tasks seg
      what the output seg needs and nothing else, bit by bit what it was; with --ratio pruned as well
  onnx-mtprune model.onnx small.onnx --ratio 0.5 --trunk-ratio 0.3 --task-ratio depth=0.7 --protect-task seg
      a ratio for what tasks share, one for the branch of depth; leave the branch of seg whole
  onnx-mtprune model.onnx small.onnx --ratio 0.5 --plan-out plan.json --report report.json
  onnx-mtprune finetuned.onnx smaller.onnx --ratio 0.3 --samples batch.npz --require-verify
  onnx-mtprune verify model.onnx small.onnx --plan plan.json

Exit codes: 0 done, 1 the pruned model is wrong and nothing was written, 2 any other error.";

/// Makes multi-task ONNX models smaller by removing whole channels, and verifies that what remains computes what it
/// should.
///
/// The pruned model is an ordinary ONNX file with the same inputs and outputs. It equals the original in which the
/// removed channels are zero; that is verified before the file is written.
#[derive(Debug, Parser)]
#[command(
    name = "onnx-mtprune",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    prune: Option<PruneArguments>,
    // Beside `prune` and not within: an optional set of arguments cannot contain further sets.
    #[command(flatten)]
    tasks: TaskArguments,
    #[command(flatten)]
    control: ControlArguments,
    #[command(flatten)]
    aggregation: AggregationArguments,
    #[command(flatten)]
    neighbours: NeighbourArguments,
    #[command(flatten)]
    check: CheckArguments,
    #[command(flatten)]
    calibration: CalibrationArguments,
}

impl Arguments {
    /// The subcommand or else the arguments of pruning; neither only if the parser let nothing through.
    pub(crate) fn split(self) -> (Option<Command>, Option<PruneArguments>) {
        let Self { command, prune, tasks, control, aggregation, neighbours, check, calibration } = self;
        let whole = |prune| PruneArguments { tasks, control, aggregation, neighbours, check, calibration, ..prune };
        (command, prune.map(whole))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a model consists of: tasks, channel groups, and what keeps parameters from being pruned
    Inspect(InspectArguments),
    /// Check a pruned model against its original
    Verify(VerifyArguments),
    /// List what can run models here, and what cannot and why
    Engines(EnginesArguments),
    /// Measure the activations of a model on samples, for criteria that look at them
    Calibrate(CalibrateArguments),
    /// Put together what several runs of `calibrate` have measured
    Merge(MergeArguments),
    /// Write the backward pass of a model as a model: gradients of its outputs with respect to weights or values
    Gradient(GradientArguments),
    /// Store what plans keep under names, so that models of similar tasks can vote with it (--neighbours)
    Masks(MasksArguments),
}

/// Pruning, the command without a name.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["ratio", "plan", "keep_tasks", "task_ratio", "trunk_ratio"]).required(true).multiple(true))]
pub(crate) struct PruneArguments {
    /// The model to prune (a file called like a subcommand is reached as ./inspect)
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// Where to write the pruned model; replaced as a whole, and only after success
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,

    /// The fraction of channels to remove from every group that may shrink, 0 <= R < 1
    #[arg(long, value_name = "R", value_parser = values::ratio, help_heading = "What to remove", allow_negative_numbers = true)]
    pub(crate) ratio: Option<f64>,
    /// How channels are scored; the lowest go [default: l2; column-subset with --calibration]
    #[arg(long, value_name = "NAME", value_parser = values::criteria(), help_heading = "What to remove")]
    pub(crate) criterion: Option<String>,
    /// Round kept counts to multiples of N; without it groups of 64 channels or more that are a multiple of 8 stay one
    #[arg(long, value_name = "N", value_parser = values::positive, help_heading = "What to remove")]
    pub(crate) round_to: Option<usize>,
    /// Keep at least N channels in every group
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::positive, help_heading = "What to remove")]
    pub(crate) min_channels: usize,
    /// Remove at most this fraction of any group, 0 <= R <= 1
    #[arg(long, value_name = "R", default_value = "1", value_parser = values::fraction, help_heading = "What to remove", allow_negative_numbers = true)]
    pub(crate) max_ratio: f64,
    /// Leave groups whole that touch a node or tensor with a matching name (* and ? stand for any text, one character);
    /// may be repeated
    #[arg(long, value_name = "PATTERN", help_heading = "What to remove")]
    pub(crate) protect: Vec<String>,
    /// Whole heads of attention: keep them all, or prune them whatever becomes of their dimensions; without it the one
    /// of the two shrinks that comes nearest to the ratio
    #[arg(long, value_name = "WHAT", value_parser = values::choices(), help_heading = "What to remove")]
    pub(crate) heads: Option<Choice>,
    /// The dimensions inside heads: keep them all, or prune the same of every head
    #[arg(long, value_name = "WHAT", value_parser = values::choices(), help_heading = "What to remove")]
    pub(crate) head_dims: Option<Choice>,
    /// Prune also what LayerNormalization, GroupNormalization and the like take statistics over; the statistics are
    /// then those of what remains, so the result is near the masked original and no longer equal to it
    #[arg(long, help_heading = "What to remove")]
    pub(crate) allow_approximate: bool,
    /// Replay the cut of a plan file; the model must be the very file that it was made for
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "What to remove",
        conflicts_with_all = ["ratio", "keep_tasks", "task_ratio", "trunk_ratio", "protect_task", "criterion", "round_to", "min_channels", "max_ratio", "protect", "heads", "head_dims", "allow_approximate"]
    )]
    pub(crate) plan: Option<PathBuf>,

    #[arg(skip)]
    pub(crate) tasks: TaskArguments,
    #[arg(skip)]
    pub(crate) control: ControlArguments,
    #[arg(skip)]
    pub(crate) aggregation: AggregationArguments,
    #[arg(skip)]
    pub(crate) neighbours: NeighbourArguments,
    #[arg(skip)]
    pub(crate) check: CheckArguments,
    #[arg(skip)]
    pub(crate) calibration: CalibrationArguments,
    /// Write without verifying
    #[arg(long, help_heading = "Verification", conflicts_with_all = ["require_verify", "samples", "tolerance"])]
    pub(crate) no_verify: bool,
    /// Fail if the model cannot be verified because the engine cannot run it
    #[arg(long, help_heading = "Verification")]
    pub(crate) require_verify: bool,

    /// Do everything but write the model
    #[arg(long, help_heading = "Output")]
    pub(crate) dry_run: bool,
    /// Write which channels stay, of every tensor, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) plan_out: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) report: Option<PathBuf>,
    /// Write even if fields of the file that this program does not know get lost
    #[arg(long, help_heading = "Output")]
    pub(crate) drop_unknown_fields: bool,
    /// Print nothing but errors
    #[arg(short, long, help_heading = "Output", conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// List every group and every node that no rule describes
    #[arg(short, long, help_heading = "Output")]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// The model to look at
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) tasks: TaskArguments,
    #[command(flatten)]
    pub(crate) shapes: ShapeArguments,
    /// Explain why the channels of a group or tensor must stay: the chain of tensors to what locks them
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub(crate) explain: Option<String>,
    /// Show what may shrink with --allow-approximate
    #[arg(long)]
    pub(crate) allow_approximate: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Never shorten names
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The model before pruning
    #[arg(value_name = "ORIGINAL")]
    pub(crate) original: PathBuf,
    /// The model after pruning
    #[arg(value_name = "PRUNED")]
    pub(crate) pruned: PathBuf,
    /// The plan file that was written with --plan-out
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: PathBuf,
    #[command(flatten)]
    pub(crate) check: CheckArguments,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnginesArguments {
    /// The library of ONNX Runtime, or a folder or Python environment that holds it; without it ORT_DYLIB_PATH and the
    /// usual places
    #[arg(long, value_name = "PATH")]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct TaskArguments {
    /// Treat these outputs as one task; every other output is a task of its own; may be repeated
    #[arg(long = "task", value_name = "NAME=OUTPUT[,OUTPUT]…", value_parser = values::task, help_heading = "Tasks")]
    pub(crate) tasks: Vec<TaskOutputs>,
}

/// What is asked of tasks; names are those of `--task` and of the other outputs.
#[derive(Debug, Default, Args)]
pub(crate) struct ControlArguments {
    /// Keep these tasks alone: their outputs, and nothing that only others need. Without a ratio nothing else is removed
    #[arg(
        long,
        value_name = "NAME[,NAME]…",
        value_delimiter = ',',
        conflicts_with = "statistics",
        help_heading = "Tasks"
    )]
    pub(crate) keep_tasks: Vec<String>,
    /// The ratio for groups that feed this task alone; may be repeated
    #[arg(long, value_name = "NAME=R", value_parser = values::task_ratio, help_heading = "Tasks")]
    pub(crate) task_ratio: Vec<(String, f64)>,
    /// The ratio for groups that feed two tasks or more
    #[arg(long, value_name = "R", value_parser = values::ratio, help_heading = "Tasks", allow_negative_numbers = true)]
    pub(crate) trunk_ratio: Option<f64>,
    /// Leave the groups whole that feed this task alone, and keep first what it needs of those that it shares; may be
    /// repeated
    #[arg(long, value_name = "NAME", help_heading = "Tasks")]
    pub(crate) protect_task: Vec<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ShapeArguments {
    /// The shape of an input that the model leaves open, as in image=1x3x224x224; may be repeated. The pruned model
    /// stays as open as the original
    #[arg(long, value_name = "NAME=DIMS", value_parser = values::input_shape, help_heading = "Shapes")]
    pub(crate) input_shape: Vec<InputShape>,
}

impl ShapeArguments {
    /// The shapes by the name of the input.
    pub(crate) fn by_input(&self) -> BTreeMap<String, Vec<usize>> {
        self.input_shape.iter().cloned().collect()
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct CheckArguments {
    /// Verify with real inputs: one array per graph input, the first axis counting samples
    #[arg(long, value_name = "FILE.npz", help_heading = "Verification")]
    pub(crate) samples: Option<PathBuf>,
    /// The largest difference at an output that passes, relative to its largest magnitude [default: 0.0001, in half
    /// precision 0.02, and more where the last bits of the original's numbers move it further]
    #[arg(long, value_name = "X", value_parser = values::tolerance, allow_negative_numbers = true, help_heading = "Verification")]
    pub(crate) tolerance: Option<f64>,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    #[command(flatten)]
    pub(crate) shapes: ShapeArguments,
    /// The seed of everything random: inputs that are fed, the criterion `random`, votes that are drawn
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true, help_heading = "Verification")]
    pub(crate) seed: u64,
}

#[derive(Debug, Default, Args)]
pub(crate) struct CalibrationArguments {
    /// Real samples: an .npz, .npy or .safetensors file with one array per graph input (the first axis counts samples),
    /// a folder of those, of pictures, or of test_data_set_*. What remains is then repaired, and fidelity is measured
    #[arg(long, value_name = "PATH", help_heading = "Calibration")]
    pub(crate) calibration: Option<PathBuf>,
    /// How many samples run at a time, where the model leaves that open [default: 32]
    #[arg(long, value_name = "N", value_parser = values::positive, requires = "calibration", help_heading = "Calibration")]
    pub(crate) batch_size: Option<usize>,
    /// Use at most N samples, picked by the seed
    #[arg(long, value_name = "N", value_parser = values::positive, requires = "calibration", help_heading = "Calibration")]
    pub(crate) max_samples: Option<usize>,
    /// Multiply the samples of an input, as in image=0.00392156862745098 for pictures kept in bytes; may be repeated
    #[arg(long, value_name = "NAME=X", value_parser = values::input_scale, requires = "calibration", help_heading = "Calibration")]
    pub(crate) input_scale: Vec<(String, f64)>,
    /// What `calibrate` has measured, for criteria that look at activations
    #[arg(long, value_name = "FILE", help_heading = "Calibration")]
    pub(crate) statistics: Option<PathBuf>,
    /// How remaining weights are repaired, so that layers give again what they gave before [default: least-squares]
    #[arg(long, value_name = "METHOD", value_parser = values::repairs(), requires = "calibration", help_heading = "Calibration")]
    pub(crate) repair: Option<String>,
    /// How strongly least squares draws weights towards the old ones, in parts of the mean variance of the inputs
    /// [default: 0.01]
    #[arg(long, value_name = "X", value_parser = values::tolerance, requires = "calibration", allow_negative_numbers = true, help_heading = "Calibration")]
    pub(crate) lambda: Option<f64>,
    /// How many GB values and moments may take [default: 4]
    #[arg(long, value_name = "GB", value_parser = values::tolerance, requires = "calibration", allow_negative_numbers = true, help_heading = "Calibration")]
    pub(crate) memory: Option<f64>,
    /// Labels of the samples, by task or output, for metrics and losses
    #[arg(long, value_name = "FILE", requires = "calibration", help_heading = "Calibration")]
    pub(crate) labels: Option<PathBuf>,
    /// What the labels judge a task by; may be repeated
    #[arg(long, value_name = "TASK=METRIC", value_parser = values::task_metric, requires = "labels", help_heading = "Calibration")]
    pub(crate) metric: Vec<(String, String)>,
    /// The loss of a task or output that gradients are taken of, for criteria that look at gradients; may be repeated
    /// [default: by the labels; probe without labels]
    #[arg(long, value_name = "TASK=LOSS[:WEIGHT]", value_parser = values::task_loss, requires = "calibration", help_heading = "Calibration")]
    pub(crate) loss: Vec<LossRequest>,
    /// How often every sample is run with other random numbers, where the loss draws some [default: 4]
    #[arg(long, value_name = "N", value_parser = values::positive, requires = "calibration", help_heading = "Calibration")]
    pub(crate) probes: Option<usize>,
    /// What a channel is worth to column-subset: its energy, or the criterion fisher, mean or largest over tasks
    /// [default: energy]
    #[arg(long, value_name = "NAME", value_parser = values::importances(), requires = "calibration", help_heading = "Calibration")]
    pub(crate) importance: Option<Importance>,
}

impl CalibrationArguments {
    /// How many bytes values and moments may take.
    pub(crate) fn bytes(&self) -> usize {
        (self.memory.unwrap_or(4.0) * 1e9) as usize
    }
}
