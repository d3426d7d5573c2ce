//! Inspection: what a model consists of and what can be pruned.

use onnx_mtprune::Result;
use onnx_mtprune::proto;
use onnx_mtprune::prune::Analysis;
use onnx_mtprune::report::{Inspection, explain, inspection_text};

use super::arguments::InspectArguments;
use super::console::Console;
use super::prune::input_row;

pub(super) fn run(arguments: &InspectArguments) -> Result<()> {
    let mut console = Console::new(false, arguments.verbose);
    let file = console.stage("read", || proto::read(&arguments.model))?;
    let shapes = arguments.shapes.by_input();
    let analysis = console.stage("analyse", || Analysis::pinned(&file.model, &arguments.tasks.tasks, &shapes))?;
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
