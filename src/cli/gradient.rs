//! Gradients: the backward pass of a model, written as a model of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use onnx_mtprune::engine::samples::random_feeds;
use onnx_mtprune::engine::{Engine, InputFact, Value, run_once};
use onnx_mtprune::functions;
use onnx_mtprune::grad::{self, Backward, Facts};
use onnx_mtprune::proto::{self, Output, WriteOptions};
use onnx_mtprune::{Error, Result};

use super::arguments::ShapeArguments;
use super::console::Console;
use super::files::{self, Written};
use super::runtime::{Choice, EngineArguments};

#[derive(Debug, Args)]
pub(crate) struct GradientArguments {
    /// The model to differentiate
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Where to write the backward model; replaced as a whole
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// An output to start from; may be repeated [default: all outputs of floating-point numbers]
    #[arg(long, value_name = "OUTPUT")]
    of: Vec<String>,
    /// An input, a weight or any value inside to differentiate with respect to; may be repeated [default: all weights]
    #[arg(long, value_name = "NAME")]
    with_respect_to: Vec<String>,
    /// Run the backward model once, on random numbers, and say which gradients are not finite
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    shapes: ShapeArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

pub(super) fn run(arguments: &GradientArguments) -> Result<()> {
    let mut console = Console::new(false, false);
    let file = console.stage("read", || proto::read(&arguments.model))?;
    let data = files::data_files(&file.model, &arguments.model);
    let beside = files::data_file_of(&arguments.output);
    let mut outputs = vec![Written { path: &arguments.output, what: "the backward model" }];
    if file.has_external {
        outputs.push(Written { path: &beside, what: "its data file" });
    }
    let inputs: Vec<_> = data.iter().map(PathBuf::as_path).chain([arguments.model.as_path()]).collect();
    files::check(&inputs, &outputs)?;
    let inlined = functions::inline(&file.model);
    let engine = arguments.engine.engine(Choice::Auto)?;
    let shapes = arguments.shapes.by_input();
    let facts = console.stage("run", || grad::measure(&inlined.model, &shapes, engine.as_ref()))?;
    let graph = inlined.model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
    let is_float = |name: &str| facts.get(name).is_some_and(grad::Fact::is_float);
    let or = |named: &[String], all: Vec<&str>| match named {
        [] => all.into_iter().filter(|name| is_float(name)).map(str::to_owned).collect(),
        _ => named.to_vec(),
    };
    let of: Vec<String> = or(&arguments.of, graph.output.iter().map(|o| o.name()).collect());
    let wanted = match arguments.with_respect_to.as_slice() {
        [] => grad::weights(&inlined.model, &facts),
        named => named.to_vec(),
    };
    let backward = console.stage("differentiate", || grad::backward(&inlined.model, &facts, &of, &wanted))?;
    let mut page = page(&backward, &facts, &of);
    if backward.gradients.is_empty() {
        let why = reasons(&backward).into_keys().collect::<Vec<_>>().join("; ");
        let why = if why.is_empty() { "no weight is connected with the outputs".to_owned() } else { why };
        return Err(Error::input(format!("no gradient can be written: {why}"))
            .help("name other values with --of and --with-respect-to"));
    }
    if arguments.check {
        page += &console.stage("check", || checked(&backward, &facts, &of, engine.as_ref()))?;
    }
    let output = Output { model: backward.model, pages: file.pages.clone(), ..Output::default() };
    console.stage("write", || proto::write(&output, &arguments.output, &WriteOptions::default()))?;
    console.print(&page)
}

/// How many names a line lists.
const LISTED: usize = 6;

/// What there is a gradient of, what stops and where.
fn page(backward: &Backward, facts: &Facts, of: &[String]) -> String {
    let numbers = |name: &str| facts.get(name).map_or(0, |f| f.shape.iter().product::<usize>());
    let count: usize = backward.gradients.iter().map(|(name, _)| numbers(name)).sum();
    let mut page = format!(
        "gradients of {}: {}, {count} numbers in all, by {} nodes after those of the model\n",
        listed(of),
        backward.gradients.len(),
        backward.added
    );
    for (value, output) in backward.gradients.iter().take(LISTED) {
        let shape = facts.get(value).map(|f| f.shape.clone()).unwrap_or_default();
        page += &format!("  {output} {shape:?}\n");
    }
    if let Some(rest) = backward.gradients.len().checked_sub(LISTED).filter(|rest| *rest > 0) {
        page += &format!("  and {rest} more\n");
    }
    for (reason, nodes) in reasons(backward) {
        page += &format!("stopped at {reason}: {}\n", listed(&nodes));
    }
    for (what, names) in [("behind a stop", &backward.behind), ("not connected", &backward.unconnected)] {
        if !names.is_empty() {
            page += &format!("{what}, no gradient: {}\n", listed(names));
        }
    }
    page
}

/// Runs the backward model on random numbers.
fn checked(backward: &Backward, facts: &Facts, of: &[String], engine: &dyn Engine) -> Result<String> {
    let graph = backward.model.graph.as_ref().ok_or_else(|| Error::input("the model has no graph"))?;
    let stored: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let mut inputs = Vec::new();
    for input in graph.input.iter().map(|i| i.name()).filter(|name| !stored.contains(name)) {
        let output = of.iter().find(|output| input.strip_prefix("gradient/") == Some(output.as_str()));
        let fact = facts.get(output.map_or(input, String::as_str));
        let fact = fact.ok_or_else(|| Error::input("the model has no such value").tensor(input))?;
        inputs.push(InputFact { name: input.to_owned(), element: fact.element, shape: fact.shape.clone() });
    }
    let feeds = random_feeds(&inputs, 0)?;
    let wanted: Vec<String> = backward.gradients.iter().map(|(_, output)| output.clone()).collect();
    let found = run_once(engine, &backward.model, &feeds, &wanted)?;
    let broken = |value: &Value| value.to_f64().iter().any(|v| !v.is_finite());
    let broken: Vec<String> =
        wanted.iter().zip(&found).filter(|(_, value)| broken(value)).map(|(name, _)| name.clone()).collect();
    let label = engine.describe().label();
    Ok(match broken.as_slice() {
        [] => format!("checked: all gradients are finite in {label}\n"),
        _ => format!("checked: not finite in {label}: {}\n", listed(&broken)),
    })
}

/// Names, the first of many.
fn listed(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(LISTED).map(String::as_str).collect();
    match names.len().checked_sub(LISTED).filter(|rest| *rest > 0) {
        Some(rest) => format!("{} and {rest} more", first.join(", ")),
        None => first.join(", "),
    }
}

/// Operators with what stops at them, each with the nodes that do.
fn reasons(backward: &Backward) -> BTreeMap<String, Vec<String>> {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for stop in &backward.stopped {
        reasons.entry(format!("{} ({})", stop.operator, stop.reason)).or_default().push(stop.node.clone());
    }
    reasons
}
