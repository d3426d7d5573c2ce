//! The operators of ai.onnx.ml: classical models, encoders and scalers, whose numbers are attributes.
//!
//! Spec: <https://onnx.ai/onnx/operators/#ai-onnx-ml>. One row each, in alphabetical order; `table` says what a row is.

use super::Row;
use super::elementwise::Elementwise;
use super::norm_domains::Normalizer;
use super::selection;
use super::written::Locked;

const fn row(op_type: &'static str, rule: &'static dyn super::Rule, note: &'static str) -> Row {
    Row { domain: "ai.onnx.ml", op_type, rule, shape_inputs: &[], note }
}

/// An operator that is locked as a whole.
const fn locked(op_type: &'static str, rule: &'static Locked) -> Row {
    Row { domain: "ai.onnx.ml", op_type, rule, shape_inputs: &[], note: rule.0 }
}

/// One row per operator, in alphabetical order.
pub(super) const ROWS: &[Row] = &[
    row("ArrayFeatureExtractor", &selection::COLUMNS, "all but the last axis, from which columns are selected"),
    row("Binarizer", &Elementwise, "every axis passes through"),
    locked("CastMap", &Locked("nothing: a map is no tensor")),
    row("CategoryMapper", &Elementwise, "every axis passes through"),
    locked("DictVectorizer", &Locked("nothing: a map is no tensor")),
    locked("FeatureVectorizer", &Locked("nothing: the lengths of its parts are attributes")),
    locked("Imputer", &Locked("nothing: it has numbers per feature in attributes")),
    row("LabelEncoder", &Elementwise, "every axis passes through"),
    locked("LinearClassifier", &Locked("nothing: its coefficients are attributes")),
    locked("LinearRegressor", &Locked("nothing: its coefficients are attributes")),
    row(
        "Normalizer",
        &Normalizer,
        "every axis passes through; the axis of features is locked if divided by its largest entry",
    ),
    locked("OneHotEncoder", &Locked("nothing: its categories are attributes")),
    locked("SVMClassifier", &Locked("nothing: its coefficients are attributes")),
    locked("SVMRegressor", &Locked("nothing: its coefficients are attributes")),
    locked("Scaler", &Locked("nothing: it has numbers per feature in attributes")),
    locked("TreeEnsemble", &Locked("nothing: its trees ask for features by their number")),
    locked("TreeEnsembleClassifier", &Locked("nothing: its trees ask for features by their number")),
    locked("TreeEnsembleRegressor", &Locked("nothing: its trees ask for features by their number")),
    locked("ZipMap", &Locked("nothing: a map is no tensor")),
];
