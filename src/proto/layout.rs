//! Where every byte of the output comes from and goes to, before anything is written.
//!
//! Spec of external data: <https://github.com/onnx/onnx/blob/main/docs/ExternalData.md>. Invariants: tensors inside the
//! file keep every field they had; tensors in the data file lie in walking order, at offsets that a reader can map.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::external::is_external;
use super::onnx::tensor_proto::DataLocation;
use super::onnx::{ModelProto, StringStringEntryProto, TensorProto};
use super::slice::Slice;
use super::{tensor, visit};
use crate::{Error, Result};

/// Smaller tensors stay inside the model, as the reference tools of ONNX have it.
const EXTERNAL_FROM_BYTES: usize = 1024;
/// The page size that the standard recommends, so that a tensor can be mapped on its own.
const ALIGNMENT: u64 = 4096;

/// Which tensors leave the model for the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// None.
    Inline,
    /// Those that were outside in the input.
    Keep,
    /// Those, and every initializer.
    All,
}

/// The data of one tensor, not yet gathered.
#[derive(Clone)]
pub(crate) enum Payload<'a> {
    /// Bytes as they are.
    Bytes(Bytes),
    /// What remains of a pruned tensor, and how many bytes that is.
    Slice(Cow<'a, Slice>, usize),
    /// Typed fields that become raw bytes, and how many.
    Typed(&'a TensorProto, usize),
}

impl Payload<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Slice(_, len) | Payload::Typed(_, len) => *len,
        }
    }

    /// The bytes that it is made from, where they may lie in a mapped file.
    pub(crate) fn source(&self) -> &[u8] {
        match self {
            Payload::Bytes(bytes) => bytes,
            Payload::Slice(slice, _) => &slice.source,
            Payload::Typed(..) => &[],
        }
    }

    /// The bytes, exactly `len` of them.
    pub(crate) fn materialize(&self) -> Result<Bytes> {
        let bytes = match self {
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Slice(slice, _) => slice.materialize()?,
            Payload::Typed(tensor, _) => tensor::raw_bytes(tensor)?,
        };
        if bytes.len() != self.len() {
            return Err(Error::input(format!("{} bytes of data where {} were announced", bytes.len(), self.len())));
        }
        Ok(bytes)
    }
}

/// One initializer of the main graph as it goes into the file.
pub(crate) enum Initializer<'a> {
    /// Encoded as it is: typed fields, strings, or no data.
    Whole(&'a TensorProto),
    /// Already encoded: its data goes to the data file.
    Encoded(Vec<u8>),
    /// The encoded fields before and after `raw_data`, and the raw data between them.
    Raw { name: &'a str, before: Vec<u8>, payload: Payload<'a>, after: Vec<u8> },
}

impl Initializer<'_> {
    /// The raw data and the name of the tensor, where there is raw data to write.
    pub(crate) fn payload(&self) -> Option<(&Payload<'_>, &str)> {
        match self {
            Initializer::Whole(_) | Initializer::Encoded(_) => None,
            Initializer::Raw { name, payload, .. } => Some((payload, name)),
        }
    }
}

/// One tensor in the data file.
pub(crate) struct Placed<'a> {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) payload: Payload<'a>,
}

/// The plan of the whole output.
pub(crate) struct Layout<'a> {
    /// Everything but the initializers of the main graph.
    pub(crate) model: Cow<'a, ModelProto>,
    pub(crate) initializers: Vec<Initializer<'a>>,
    pub(crate) data: DataFile<'a>,
}

/// The plan of the data file.
pub(crate) struct DataFile<'a> {
    placement: Placement,
    location: &'a str,
    pub(crate) tensors: Vec<Placed<'a>>,
    pub(crate) len: u64,
}

impl<'a> Layout<'a> {
    /// Decides every place. `location` is the name of the data file.
    pub(crate) fn new(
        model: &'a ModelProto,
        slices: &'a BTreeMap<usize, Slice>,
        placement: Placement,
        location: &'a str,
    ) -> Result<Self> {
        let mut data = DataFile { placement, location, tensors: Vec::new(), len: 0 };
        let sources = model.graph.as_ref().map(|graph| graph.initializer.as_slice()).unwrap_or_default();
        if let Some((index, _)) = slices.range(sources.len()..).next() {
            return Err(Error::input(format!("kept indices for initializer {index}, the graph has {}", sources.len())));
        }
        let mut initializers = Vec::with_capacity(sources.len());
        for (index, source) in sources.iter().enumerate() {
            let placed = initializer(source, slices.get(&index), &mut data);
            initializers.push(placed.map_err(|error| error.tensor(source.name()))?);
        }
        let mut model = Cow::Borrowed(model);
        if visit::any_nested(&model, &is_external) {
            let changed = model.to_mut();
            if let Some(graph) = &mut changed.graph {
                graph.initializer.clear();
            }
            visit::tensors_mut(changed, &mut |tensor| {
                nested(tensor, &mut data).map_err(|error| error.tensor(tensor.name()))
            })?;
        }
        Ok(Self { model, initializers, data })
    }
}

fn initializer<'a>(
    source: &'a TensorProto,
    slice: Option<&'a Slice>,
    data: &mut DataFile<'a>,
) -> Result<Initializer<'a>> {
    let payload = match slice {
        Some(slice) => Some(sliced(source, slice)?),
        None => existing(source, data.placement == Placement::All)?,
    };
    let Some(payload) = payload else { return Ok(Initializer::Whole(source)) };
    let out = data.takes(is_external(source), payload.len());
    if let (Payload::Typed(..), false) = (&payload, out) {
        return Ok(Initializer::Whole(source));
    }
    let mut header = TensorProto { raw_data: None, ..source.clone() };
    if let Some(slice) = slice {
        header.dims = slice.dims_after().into_iter().map(|extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect();
    }
    if out || slice.is_some() {
        clear_typed(&mut header);
    }
    if out {
        data.place(&mut header, payload)?;
        return Ok(Initializer::Encoded(header.encode_to_vec()));
    }
    bring_inside(&mut header);
    let (before, after) = around_raw_data(header);
    Ok(Initializer::Raw { name: source.name(), before, payload, after })
}

fn nested(tensor: &mut TensorProto, data: &mut DataFile<'_>) -> Result<()> {
    if !is_external(tensor) {
        return Ok(());
    }
    let Some(Payload::Bytes(bytes)) = existing(tensor, false)? else { return Ok(()) };
    if data.takes(true, bytes.len()) {
        clear_typed(tensor);
        tensor.raw_data = None;
        data.place(tensor, Payload::Bytes(bytes))
    } else {
        bring_inside(tensor);
        tensor.raw_data = Some(bytes);
        Ok(())
    }
}

fn sliced<'a>(source: &TensorProto, slice: &'a Slice) -> Result<Payload<'a>> {
    if tensor::element_bits(source.data_type()) != Some(slice.element_bits) {
        return Err(Error::input(format!(
            "kept indices for elements of {} bits do not fit its type",
            slice.element_bits
        )));
    }
    let len = slice.byte_len().ok_or_else(|| Error::input(format!("shape {:?} is too large", slice.dims)))?;
    Ok(Payload::Slice(Cow::Borrowed(slice), len))
}

/// The data that a tensor has, unless it lies in typed fields that stay as they are.
fn existing(source: &TensorProto, typed_too: bool) -> Result<Option<Payload<'_>>> {
    if let Some(raw) = &source.raw_data {
        return Ok(Some(Payload::Bytes(raw.clone())));
    }
    if is_external(source) {
        // Succeeds for an empty tensor and says for any other that its data was not loaded.
        return tensor::raw_bytes(source).map(|bytes| Some(Payload::Bytes(bytes)));
    }
    match tensor::element_bits(source.data_type()) {
        Some(bits) if typed_too => {
            let len = tensor::byte_count(tensor::element_count(&source.dims)?, bits);
            Ok(len.map(|len| Payload::Typed(source, len)))
        }
        _ => Ok(None),
    }
}

impl<'a> DataFile<'a> {
    fn takes(&self, was_external: bool, len: usize) -> bool {
        let wanted = match self.placement {
            Placement::Inline => false,
            Placement::Keep => was_external,
            Placement::All => true,
        };
        wanted && len >= EXTERNAL_FROM_BYTES
    }

    fn place(&mut self, header: &mut TensorProto, payload: Payload<'a>) -> Result<()> {
        let too_long = || Error::input("the data file would be longer than a file can be");
        let offset = self.len.checked_next_multiple_of(ALIGNMENT).ok_or_else(too_long)?;
        let len = payload.len() as u64;
        self.len = offset.checked_add(len).ok_or_else(too_long)?;
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        // A checksum would be that of the old data file.
        header.external_data.retain(|old| !matches!(old.key(), "location" | "offset" | "length" | "checksum"));
        let place = [
            entry("location", self.location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", len.to_string()),
        ];
        header.external_data.splice(0..0, place);
        header.set_data_location(DataLocation::External);
        self.tensors.push(Placed { name: header.name().to_owned(), offset, payload });
        Ok(())
    }
}

fn bring_inside(header: &mut TensorProto) {
    if is_external(header) {
        header.data_location = None;
        header.external_data.clear();
    }
}

fn clear_typed(header: &mut TensorProto) {
    header.float_data = Vec::new();
    header.int32_data = Vec::new();
    header.int64_data = Vec::new();
    header.double_data = Vec::new();
    header.uint64_data = Vec::new();
}

/// The encoded fields whose tags are below and above that of `raw_data`, which is 9.
fn around_raw_data(header: TensorProto) -> (Vec<u8>, Vec<u8>) {
    // Without `..`, so that a new field of the schema is a compile error here, not a lost field.
    let TensorProto {
        dims,
        data_type,
        segment,
        float_data,
        int32_data,
        string_data,
        int64_data,
        name, // tags 1 to 8
        raw_data: _,
        double_data,
        uint64_data,
        doc_string,
        external_data,
        data_location,
        metadata_props, // tags 10 to 16
    } = header;
    let before = TensorProto {
        dims,
        data_type,
        segment,
        float_data,
        int32_data,
        string_data,
        int64_data,
        name,
        ..TensorProto::default()
    };
    let after = TensorProto {
        double_data,
        uint64_data,
        doc_string,
        external_data,
        data_location,
        metadata_props,
        ..TensorProto::default()
    };
    (before.encode_to_vec(), after.encode_to_vec())
}
