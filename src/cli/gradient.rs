//! Gradients: the backward pass of a model, written as a model of its own.

use std::path::PathBuf;

use clap::Args;
use onnx_mtprune::functions;
use onnx_mtprune::grad::{self, Backward};
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
    let wanted: Vec<String> = or(&arguments.with_respect_to, graph.initializer.iter().map(|t| t.name()).collect());
    let backward = console.stage("differentiate", || grad::backward(&inlined.model, &facts, &of, &wanted))?;
    let page = page(&backward);
    if backward.gradients.is_empty() {
        return Err(Error::input(format!("no gradient can be written: {}", page.trim_end().replace('\n', "; ")))
            .help("name other values with --of and --with-respect-to"));
    }
    let output = Output { model: backward.model, pages: file.pages.clone(), ..Output::default() };
    console.stage("write", || proto::write(&output, &arguments.output, &WriteOptions::default()))?;
    console.print(&page)
}

/// What there is a gradient of, what stops and where.
fn page(backward: &Backward) -> String {
    let mut page = format!("gradients: {}\n", backward.gradients.len());
    for stop in &backward.stopped {
        page += &format!("stopped at {} `{}`: {}\n", stop.operator, stop.node, stop.reason);
    }
    for (what, names) in [("behind a stop", &backward.behind), ("not connected", &backward.unconnected)] {
        if !names.is_empty() {
            page += &format!("{what}, no gradient: {}\n", names.join(", "));
        }
    }
    page
}
