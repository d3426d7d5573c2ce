//! Small integer tensors with symbolic entries: what shape arithmetic computes.
//!
//! Invariants: row-major; `values.len()` is the product of `dims`; at most `MAX_ENTRIES` entries, because shapes are
//! short and anything longer is data.

use crate::axes::{Extent, Symbols};
use crate::proto::onnx::{TensorProto, tensor_proto::DataType};
use crate::proto::tensor;

/// The most entries that the scales of a resize may have: begin and end of a region of interest in five dimensions.
const MAX_SCALES: usize = 10;

/// The most entries a tensor of shape arithmetic may have.
pub const MAX_ENTRIES: usize = 4096;

/// An integer (or boolean) tensor whose entries may be symbolic or unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integers {
    /// Its shape; a scalar has none.
    pub dims: Vec<usize>,
    /// Its entries; `None` = not known before the model runs.
    pub values: Vec<Option<Extent>>,
}

impl Integers {
    /// A vector.
    pub fn vector(values: Vec<Option<Extent>>) -> Self {
        Self { dims: vec![values.len()], values }
    }

    /// A scalar.
    pub fn scalar(value: Option<Extent>) -> Self {
        Self { dims: Vec::new(), values: vec![value] }
    }

    /// A vector of plain integers.
    pub fn plain(values: &[i64]) -> Self {
        Self::vector(values.iter().map(|v| Some(Extent::known(*v))).collect())
    }

    /// The integers of a constant tensor of an integer or boolean type, if it is small enough to be a shape.
    pub fn from_tensor(tensor: &TensorProto) -> Option<Self> {
        let types = [DataType::Int64, DataType::Int32, DataType::Bool, DataType::Int8, DataType::Uint8];
        if !types.iter().any(|t| *t as i32 == tensor.data_type()) {
            return None;
        }
        let count = tensor::element_count(&tensor.dims).ok()?;
        if count > MAX_ENTRIES {
            return None;
        }
        let dims: Option<Vec<usize>> = tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
        let values = tensor::to_i64(tensor).ok()?;
        Some(Self { dims: dims?, values: values.into_iter().map(|v| Some(Extent::known(v))).collect() })
    }

    /// A short float constant, its entries as symbols: scales that are joined and cut like shapes.
    pub fn from_floats(tensor: &TensorProto, symbols: &mut Symbols) -> Option<Self> {
        let is_float = [DataType::Float, DataType::Float16].iter().any(|t| tensor.data_type() == *t as i32);
        let is_scales = is_float && tensor.dims.len() <= 1;
        let count = tensor::element_count(&tensor.dims).ok().filter(|n| is_scales && *n <= MAX_SCALES)?;
        let values = tensor::to_f32(tensor).ok()?;
        let dims = if tensor.dims.is_empty() { Vec::new() } else { vec![count] };
        Some(Self { dims, values: values.into_iter().map(|v| Some(symbols.float(v))).collect() })
    }

    /// All entries as plain integers, if all are known.
    pub fn known(&self) -> Option<Vec<i64>> {
        self.values.iter().map(|v| v.as_ref().and_then(Extent::value)).collect()
    }

    /// The only entry of a tensor with one entry.
    pub fn only(&self) -> Option<&Extent> {
        match self.values.as_slice() {
            [only] => only.as_ref(),
            _ => None,
        }
    }
}
