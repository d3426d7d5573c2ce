//! Replay: the cut that a plan describes, made once more, so that what a repair made of it can be judged.

use onnx_mtprune::extract::extract;
use onnx_mtprune::plan_file::PlanFile;
use onnx_mtprune::proto::ModelFile;
use onnx_mtprune::proto::onnx::ModelProto;
use onnx_mtprune::prune::{Analysis, Options};
use onnx_mtprune::{Result, functions};

use super::arguments::VerifyArguments;

/// What the plan leaves of the original.
///
/// # Errors
/// A plan that does not fit the model, or was made with other shapes of its inputs.
pub(super) fn cut(arguments: &VerifyArguments, original: &ModelFile, plan: &PlanFile) -> Result<ModelProto> {
    let part = plan.outputs.as_ref().map(|outputs| extract(&original.model, outputs)).transpose()?;
    let model = part.as_ref().map_or(&original.model, |part| &part.model);
    let mut input_shapes = arguments.check.shapes.by_input();
    input_shapes.retain(|name, _| part.as_ref().is_none_or(|part| !part.dropped_inputs.contains(name)));
    let options = Options { input_shapes, allow_approximate: !plan.approximated.is_empty(), ..Options::default() };
    let inlined = functions::inline(model);
    let analysis = Analysis::of_inlined(&inlined, &options)?;
    let plan = plan.plan(&analysis.groups).map_err(|error| error.file(&arguments.plan))?;
    analysis.apply(&plan)?.output.materialise()
}
