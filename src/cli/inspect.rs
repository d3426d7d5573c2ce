//! Inspection: what a model consists of and what can be pruned.

use onnx_mtprune::Result;
use onnx_mtprune::functions;
use onnx_mtprune::proto;
use onnx_mtprune::prune::{Analysis, Options};
use onnx_mtprune::report::{Inspection, explain, inspection_text};

use super::arguments::InspectArguments;
use super::console::Console;
use super::prune::input_row;

pub(super) fn run(arguments: &InspectArguments) -> Result<()> {
    let mut console = Console::new(false, arguments.verbose);
    let file = console.stage("read", || proto::read(&arguments.model))?;
    let options = Options {
        tasks: arguments.tasks.tasks.clone(),
        input_shapes: arguments.shapes.by_input(),
        allow_approximate: arguments.allow_approximate,
        ..Default::default()
    };
    let inlined = functions::inline(&file.model);
    let analysis = console.stage("analyse", || Analysis::of_inlined(&inlined, &options))?;
    if let Some(name) = &arguments.explain {
        return console.print(&explain(&analysis, name)?);
    }
    let inspection = Inspection::new(&analysis, input_row(&arguments.model, &file));
    if arguments.json {
        return console.print(&inspection.json()?);
    }
    let width = if arguments.verbose { None } else { console.width() };
    console.print(&inspection_text(&inspection, width))
}
