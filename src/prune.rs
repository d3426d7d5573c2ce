//! The stages in order: analyse -> score -> allocate -> rewrite. Verification and writing follow in `cli` and in
//! whoever uses the library, because they need an engine and a place.
//!
//! ```
//! use onnx_mtprune::prune::{Analysis, PruneConfig};
//!
//! let model = onnx_mtprune::text::parse(
//!     "in x [1,3,8,8]
//!      a = Conv(x, w0[16,3,3,3])
//!      b = Relu(a)
//!      y = Conv(b, w1[10,16,1,1])
//!      out y",
//! )?;
//! let config = PruneConfig { ratio: 0.5, ..PruneConfig::default() };
//! let analysis = Analysis::of(&model, &[])?;
//! let smaller = analysis.apply(&analysis.plan(&config)?)?;
//! assert_eq!(smaller.kept.constants["w0"][0].as_ref().map(|kept| kept.len()), Some(8));
//! # Ok::<(), onnx_mtprune::Error>(())
//! ```
//!
//! [`prune`] is all of it in one call. A model that calls local functions is analysed with its calls written out
//! ([`Analysis::of_inlined`]); [`Analysis::apply`] puts back those in which nothing has changed.

mod protected;
mod scoring;

pub use scoring::Evidence;

use std::collections::{BTreeMap, BTreeSet};

use crate::Result;
use crate::aggregate::{self, AggregateConfig, Neighbour, Room, Scope, Scores, TaskScores};
use crate::allocate::{self, AllocateConfig, Choice, Held, Plan, Rounding, TaskRatios};
use crate::calibration::Taps;
use crate::coupling::{self, Coupling, Rules};
use crate::functions::{self, Inlined};
use crate::graph::{Graph, Pins, Place};
use crate::groups::{self, Group, sharing};
use crate::ops::rule_for;
use crate::proto::Pages;
use crate::proto::onnx::ModelProto;
use crate::rewrite::{self, Rewritten};
use crate::score;
use crate::tasks::Tasks;

/// What a user may ask of a pruning run; the defaults are those of the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct PruneConfig {
    /// The criterion's name, see [`score::CRITERIA`].
    pub criterion: String,
    /// The fraction of the channels of every prunable group that goes; 0 <= ratio < 1.
    pub ratio: f64,
    /// What kept counts are rounded to.
    pub rounding: Rounding,
    /// No group keeps fewer channels than this.
    pub min_channels: usize,
    /// No group loses more than this fraction.
    pub max_ratio: f64,
    /// Name patterns of nodes and tensors whose groups stay whole.
    pub protect: Vec<String>,
    /// What becomes of whole heads of attention products; `None` chooses between them and `head_dims`.
    pub heads: Option<Choice>,
    /// What becomes of the dimensions inside their heads.
    pub head_dims: Option<Choice>,
    /// The ratio for groups that feed one task alone, by the name of the task.
    pub task_ratios: Vec<(String, f64)>,
    /// The ratio for groups that feed two tasks or more.
    pub trunk_ratio: Option<f64>,
    /// The tasks whose own groups stay whole and whose needs come first in shared ones.
    pub protect_tasks: Vec<String>,
    /// How the scores of tasks are combined.
    pub aggregation: AggregateConfig,
    /// What a channel is worth to criteria that work out which others can replace it.
    pub importance: score::Importance,
    /// The seed of everything random.
    pub seed: u64,
}

impl PruneConfig {
    /// True if any ratio asks for channels to go.
    pub fn removes(&self) -> bool {
        let ratios = self.task_ratios.iter().map(|(_, ratio)| *ratio).chain(self.trunk_ratio).chain([self.ratio]);
        ratios.into_iter().any(|ratio| ratio > 0.0)
    }
}

impl Default for PruneConfig {
    fn default() -> Self {
        Self {
            criterion: score::DEFAULT.to_owned(),
            ratio: 0.0,
            rounding: Rounding::Auto,
            min_channels: 1,
            max_ratio: 1.0,
            protect: Vec::new(),
            heads: None,
            head_dims: None,
            task_ratios: Vec::new(),
            trunk_ratio: None,
            protect_tasks: Vec::new(),
            aggregation: AggregateConfig::default(),
            importance: score::Importance::default(),
            seed: 0,
        }
    }
}

/// How a model is to be understood; the defaults are those of the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of tasks with their outputs; outputs that are not named are tasks of their own.
    pub tasks: Vec<(String, Vec<String>)>,
    /// Shapes of graph inputs, by name, for what the file leaves open; the pruned model stays as open.
    pub input_shapes: BTreeMap<String, Vec<usize>>,
    /// True if axes over which statistics are taken may shrink, which equals no masked original.
    pub allow_approximate: bool,
    /// Where the rules of operators come from.
    pub rules: Rules,
}

impl Default for Options {
    fn default() -> Self {
        Self { tasks: Vec::new(), input_shapes: BTreeMap::new(), allow_approximate: false, rules: rule_for }
    }
}

/// The whole of pruning in one call: what remains of a model, its calls of local functions followed.
///
/// # Errors
/// Those of [`Analysis::with_options`], [`Analysis::plan`] and [`Analysis::apply`].
pub fn prune(model: &ModelProto, options: &Options, config: &PruneConfig) -> Result<Rewritten> {
    let inlined = functions::inline(model);
    let analysis = Analysis::of_inlined(&inlined, options)?;
    analysis.apply(&analysis.plan(config)?)
}

/// A model understood: its graph, axes, tasks and groups.
#[derive(Debug)]
pub struct Analysis<'m> {
    /// Nodes and values.
    pub graph: Graph<'m>,
    /// The axes of every value.
    pub coupling: Coupling,
    /// The tasks and what feeds them.
    pub tasks: Tasks,
    /// The coupled channel groups.
    pub groups: Vec<Group>,
    /// The files that the weights lie in, if they are to be given back while they are read; empty at first.
    pub pages: Pages,
    /// The calls that were written out, to be put back.
    calls: Option<&'m Inlined<'m>>,
}

impl<'m> Analysis<'m> {
    /// Reads a model's structure; `tasks` are (name, outputs), outputs not named are tasks of their own.
    ///
    /// # Errors
    /// A graph that is not well formed, a task that names no output.
    pub fn of(model: &'m ModelProto, tasks: &[(String, Vec<String>)]) -> Result<Self> {
        Self::with_options(model, &Options { tasks: tasks.to_vec(), ..Options::default() })
    }

    /// As [`Analysis::with_options`] for a model whose calls of local functions are written out, so that they can be
    /// followed.
    ///
    /// # Errors
    /// As [`Analysis::with_options`].
    pub fn of_inlined(inlined: &'m Inlined<'m>, options: &Options) -> Result<Self> {
        Ok(Self { calls: Some(inlined), ..Self::with_options(&inlined.model, options)? })
    }

    /// As [`Analysis::of`], in other ways than by default, for example with approximations allowed.
    ///
    /// # Errors
    /// As [`Analysis::of`]; shapes that contradict the model.
    pub fn with_options(model: &'m ModelProto, options: &Options) -> Result<Self> {
        // Constants whose readings do not fit together are divided between them if that promises a smaller file: all of
        // them, or else one of the first few.
        const ATTEMPTS: usize = 4;
        let pins = Pins::of(model, &options.input_shapes)?;
        let coupling = coupling::Options { rules: options.rules, allow_approximate: options.allow_approximate, pins };
        let dividing = |divided: &BTreeSet<Place>| Self::dividing(model, &options.tasks, &coupling, divided);
        let undivided = dividing(&BTreeSet::new())?;
        let disputed = sharing::disputed(&undivided.graph, &undivided.coupling);
        if disputed.is_empty() {
            return Ok(undivided);
        }
        let all = dividing(&disputed)?;
        let mut best = if all.bits_when_halved() < undivided.bits_when_halved() { all } else { undivided };
        for place in disputed.iter().take(ATTEMPTS).filter(|_| disputed.len() > 1) {
            if !best.graph.divided.is_empty() {
                break;
            }
            let one = dividing(&BTreeSet::from([*place]))?;
            if one.bits_when_halved() < best.bits_when_halved() {
                best = one;
            }
        }
        Ok(best)
    }

    fn dividing(
        model: &'m ModelProto,
        tasks: &[(String, Vec<String>)],
        options: &coupling::Options,
        divided: &BTreeSet<Place>,
    ) -> Result<Self> {
        let graph = Graph::dividing(model, divided)?;
        let tasks = Tasks::of(&graph, tasks)?;
        let coupling = Coupling::with_options(&graph, options);
        let groups = groups::find(&graph, &coupling, &tasks);
        Ok(Self { graph, coupling, tasks, groups, pages: Pages::default(), calls: None })
    }

    /// What half of every group would leave of the constants.
    fn bits_when_halved(&self) -> u128 {
        sharing::constant_bits(&self.graph, &self.coupling, &sharing::halved(&self.groups))
    }

    /// How many bytes the products of the channels of every group with one another take, where all are measured.
    pub fn bytes_of_products(&self) -> usize {
        let taps = self.taps();
        let places = self.groups.iter().zip(&taps.groups).flat_map(|(group, own)| own.iter().map(|_| group.extent));
        places.fold(0, |all: usize, n| all.saturating_add(n.saturating_mul(n).saturating_mul(8)))
    }

    /// Where the channels of the groups are measured.
    pub fn taps(&self) -> Taps {
        Taps::of(&self.graph, &self.coupling, &self.groups)
    }

    /// Which channels stay, from scores; with [`Scope::Global`] those of all groups are compared as they are.
    ///
    /// # Errors
    /// Numbers that make no sense.
    pub fn allocate(&self, scores: &[Vec<f64>], config: &PruneConfig) -> Result<Plan> {
        let allocate = match config.aggregation.scope {
            Scope::Group => allocate::uniform,
            Scope::Global => allocate::global,
        };
        let plan = allocate(&self.graph, &self.coupling, &self.groups, scores, &self.allocation(config)?)?;
        Ok(self.settled(plan))
    }

    /// Which channels stay, from what every task says of them and what pruned models of similar tasks keep.
    ///
    /// # Errors
    /// As [`Analysis::allocate`]; an aggregation or weights that make no sense.
    pub fn allocate_by_tasks(
        &self,
        scores: &TaskScores,
        neighbours: &[Neighbour],
        config: &PruneConfig,
    ) -> Result<Plan> {
        let rooms = self.rooms(config)?;
        let combined = aggregate::combine(scores, &rooms, neighbours, &config.aggregation, config.seed)?;
        self.allocate(&combined, config)
    }

    /// How many channels of every group the ratio leaves.
    ///
    /// # Errors
    /// Numbers that make no sense.
    pub fn rooms(&self, config: &PruneConfig) -> Result<Vec<Room>> {
        let (plan, counts) = allocate::counts(&self.graph, &self.coupling, &self.groups, &self.allocation(config)?)?;
        let rooms = self.groups.iter().zip(counts).enumerate().map(|(index, (group, count))| Room {
            name: group.name.clone(),
            extent: group.extent,
            count,
            open: group.lock.is_none() && !plan.held.contains_key(&index),
        });
        Ok(rooms.collect())
    }

    /// The same scores for every task that a group feeds, for criteria that know no tasks.
    pub fn same_for_tasks(&self, scores: &[Vec<f64>]) -> TaskScores {
        TaskScores::same(&self.tasks, &self.groups, scores)
    }

    /// What is asked of the allocation.
    fn allocation(&self, config: &PruneConfig) -> Result<AllocateConfig> {
        Ok(AllocateConfig {
            ratio: config.ratio,
            rounding: config.rounding,
            min_channels: config.min_channels.max(score::criterion(&config.criterion).map_or(1, |row| row.guard)),
            max_ratio: config.max_ratio,
            protect: config.protect.clone(),
            heads: config.heads,
            head_dims: config.head_dims,
            tasks: TaskRatios::of(&self.tasks, &config.task_ratios, config.trunk_ratio, &config.protect_tasks)?,
        })
    }

    /// A plan without what would make the file larger.
    fn settled(&self, plan: Plan) -> Plan {
        if self.graph.divided.is_empty() { plan } else { self.without_growth(plan) }
    }

    /// Leaves the groups of divided constants whole where their copies would take more than what is removed.
    fn without_growth(&self, plan: Plan) -> Plan {
        let bits = |plan: &Plan| sharing::constant_bits(&self.graph, &self.coupling, &plan.masks(&self.groups));
        let mut held = plan.clone();
        for group in sharing::touching(&self.graph, &self.groups) {
            if held.kept.get_mut(group).and_then(Option::take).is_some() {
                held.held.insert(group, Held::Copies);
            }
        }
        if bits(&held) < bits(&plan) { held } else { plan }
    }

    /// Scores and allocates.
    ///
    /// # Errors
    /// As [`Analysis::score`] and [`Analysis::allocate`].
    pub fn plan(&self, config: &PruneConfig) -> Result<Plan> {
        match self.protected(Scores::Same(self.score(config)?), config, Evidence::default())? {
            Scores::Same(scores) if config.aggregation.name.is_none() => self.allocate(&scores, config),
            Scores::Same(scores) => self.allocate_by_tasks(&self.same_for_tasks(&scores), &[], config),
            Scores::PerTask(scores) => self.allocate_by_tasks(&scores, &[], config),
        }
    }

    /// The smaller model, with calls of local functions where nothing inside has changed.
    ///
    /// # Errors
    /// A node that cannot be spelled any more.
    pub fn apply(&self, plan: &Plan) -> Result<Rewritten> {
        let mut rewritten = rewrite::rewrite(&self.graph, &self.coupling, &plan.masks(&self.groups))?;
        rewritten.output.pages = self.pages.clone();
        if let Some(folded) = self.calls.and_then(|calls| calls.fold(&rewritten.output)) {
            rewritten.output = folded;
        }
        Ok(rewritten)
    }
}
