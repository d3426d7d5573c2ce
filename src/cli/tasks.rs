//! Tasks that are kept alone: the part of the model that is pruned, and what the report says of the rest.

use onnx_mtprune::extract::{Extracted, extract};
use onnx_mtprune::functions;
use onnx_mtprune::plan_file::PlanFile;
use onnx_mtprune::proto::ModelFile;
use onnx_mtprune::prune::{Analysis, Options};
use onnx_mtprune::report::Dropped;
use onnx_mtprune::{Error, Result};

use super::arguments::PruneArguments;
use super::console::Console;
use super::values::TaskOutputs;

/// A part of the model that stands for it from here on.
pub(super) struct Part {
    /// The part.
    pub(super) extracted: Extracted,
    /// The tasks that were grouped and stay.
    pub(super) tasks: Vec<TaskOutputs>,
    /// What the report says; none where nothing went.
    pub(super) row: Option<Dropped>,
}

/// The part that `--keep-tasks` or a plan asks for; none where all tasks stay.
pub(super) fn part(
    arguments: &PruneArguments,
    planned: Option<&PlanFile>,
    file: &ModelFile,
    console: &mut Console,
) -> Result<Option<Part>> {
    let kept = &arguments.control.keep_tasks;
    let planned = planned.and_then(|plan| plan.outputs.as_ref());
    if kept.is_empty() && planned.is_none() {
        return Ok(None);
    }
    console.stage("extract", || {
        let inlined = functions::inline(&file.model);
        let tasks = arguments.tasks.tasks.clone();
        let options = Options { tasks, input_shapes: arguments.check.shapes.by_input(), ..Options::default() };
        let whole = Analysis::of_inlined(&inlined, &options)?;
        let outputs = match planned {
            Some(outputs) => outputs.clone(),
            None => outputs(&whole, kept)?,
        };
        let extracted = extract(&file.model, &outputs)?;
        let stays = |task: &TaskOutputs| task.1.iter().any(|output| outputs.contains(output));
        if let Some((name, _)) = arguments
            .tasks
            .tasks
            .iter()
            .find(|task| stays(task) && task.1.iter().any(|output| !outputs.contains(output)))
        {
            let error = Error::input(format!("task `{name}` has outputs that stay and outputs that go"));
            return Err(error.help("group the outputs as they were when the plan was made"));
        }
        let tasks = arguments.tasks.tasks.iter().filter(|task| stays(task)).cloned().collect();
        let row = Some(Dropped::new(&whole, &extracted)).filter(|row| !row.is_empty());
        Ok(Some(Part { extracted, tasks, row }))
    })
}

/// The outputs of the tasks of these names, in the order of the model.
fn outputs(whole: &Analysis, names: &[String]) -> Result<Vec<String>> {
    let found = names.iter().map(|name| whole.tasks.find(name)).collect::<Result<Vec<usize>>>()?;
    let tasks = found.iter().filter_map(|index| whole.tasks.tasks.get(*index));
    let outputs: Vec<_> = tasks.flat_map(|task| task.outputs.iter().copied()).collect();
    let in_order = whole.graph.outputs.iter().filter(|id| outputs.contains(id));
    Ok(in_order.map(|id| whole.graph.value(*id).name.to_owned()).collect())
}
