//! Encoding a model straight into a file, so that the output is never held in memory as a whole.
//!
//! Spec: <https://protobuf.dev/programming-guides/encoding/>. Invariants: fields go out in the order of their tags,
//! which is how prost and protobuf's own encoders write; one function serves for counting and for writing, so lengths
//! cannot disagree with contents.

use std::io::{self, Write};

use prost::Message;

use super::layout::{Initializer, Layout, Placed};
use super::map::Pages;
use super::onnx::{GraphProto, ModelProto};
use super::pieces;
use crate::{Error, Result};

/// The length of the encoded model.
pub(crate) fn model_len(layout: &Layout<'_>) -> u64 {
    let mut count = Counter(0);
    // The counter cannot fail; it has no file.
    let _ = model(layout, &mut count);
    count.0
}

/// Writes the encoded model. `failed` turns what the file system says into an error.
pub(crate) fn write_model(
    layout: &Layout<'_>,
    file: impl Write,
    pages: &Pages,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<()> {
    let mut writer = Writer { file: io::BufWriter::with_capacity(1 << 20, file), pages, failed };
    model(layout, &mut writer)?;
    writer.file.flush().map_err(failed)
}

/// Writes the tensors of the data file, each at its offset.
pub(crate) fn write_data(
    tensors: &[Placed<'_>],
    file: impl Write,
    pages: &Pages,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<()> {
    let mut file = io::BufWriter::with_capacity(1 << 20, file);
    let mut position = 0u64;
    pieces::in_order(
        tensors,
        pages,
        |placed| Some((&placed.payload, placed.name.as_str())),
        |piece| {
            if piece.first {
                let gap = piece.item.offset.saturating_sub(position);
                io::copy(&mut io::Read::take(io::repeat(0), gap), &mut file).map_err(failed)?;
                position = position.saturating_add(gap);
            }
            position = position.saturating_add(piece.bytes.len() as u64);
            file.write_all(piece.bytes).map_err(failed)
        },
    )?;
    file.flush().map_err(failed)
}

/// Where encoded fields go.
trait Sink {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()>;
    fn message<M: Message>(&mut self, tag: u32, message: &M) -> Result<()>;
    fn initializers(&mut self, tag: u32, initializers: &[Initializer<'_>]) -> Result<()>;

    fn messages<M: Message>(&mut self, tag: u32, messages: &[M]) -> Result<()> {
        messages.iter().try_for_each(|message| self.message(tag, message))
    }
}

fn model(layout: &Layout<'_>, sink: &mut impl Sink) -> Result<()> {
    // Without `..`, so that a new field of the schema is a compile error here, not a lost field. Same for the graph.
    let ModelProto {
        ir_version,
        producer_name,
        producer_version,
        domain,
        model_version,
        doc_string, // tags 1 to 6
        graph,
        opset_import,
        metadata_props,
        training_info,
        functions,
        configuration, // tags 7 to 26
    } = layout.model.as_ref();
    let head = ModelProto {
        ir_version: *ir_version,
        producer_name: producer_name.clone(),
        producer_version: producer_version.clone(),
        domain: domain.clone(),
        model_version: *model_version,
        doc_string: doc_string.clone(),
        ..ModelProto::default()
    };
    sink.bytes(&head.encode_to_vec())?;
    if let Some(content) = graph {
        let mut count = Counter(0);
        graph_fields(content, &layout.initializers, &mut count)?;
        sink.bytes(&frame(7, count.0))?;
        graph_fields(content, &layout.initializers, sink)?;
    }
    sink.messages(8, opset_import)?;
    sink.messages(14, metadata_props)?;
    sink.messages(20, training_info)?;
    sink.messages(25, functions)?;
    sink.messages(26, configuration)
}

fn graph_fields(graph: &GraphProto, initializers: &[Initializer<'_>], sink: &mut impl Sink) -> Result<()> {
    let GraphProto {
        node,
        name,
        initializer: _,
        doc_string,
        input,
        output,
        value_info,
        quantization_annotation,
        sparse_initializer,
        metadata_props,
    } = graph;
    sink.messages(1, node)?;
    sink.bytes(&GraphProto { name: name.clone(), ..GraphProto::default() }.encode_to_vec())?;
    sink.initializers(5, initializers)?;
    sink.bytes(&GraphProto { doc_string: doc_string.clone(), ..GraphProto::default() }.encode_to_vec())?;
    sink.messages(11, input)?;
    sink.messages(12, output)?;
    sink.messages(13, value_info)?;
    sink.messages(14, quantization_annotation)?;
    sink.messages(15, sparse_initializer)?;
    sink.messages(16, metadata_props)
}

/// The key and length that stand before a field with contents (wire type 2).
fn frame(tag: u32, len: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    put_varint(u64::from(tag << 3 | 2), &mut bytes);
    put_varint(len, &mut bytes);
    bytes
}

fn put_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The length of an encoded initializer without its own frame.
fn initializer_len(initializer: &Initializer<'_>) -> u64 {
    match initializer {
        Initializer::Whole(tensor) => tensor.encoded_len() as u64,
        Initializer::Encoded(bytes) => bytes.len() as u64,
        Initializer::Raw { before, payload, after, .. } => {
            let raw = payload.len() as u64;
            before.len() as u64 + frame(9, raw).len() as u64 + raw + after.len() as u64
        }
    }
}

/// Adds up lengths and keeps nothing.
struct Counter(u64);

impl Sink for Counter {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn message<M: Message>(&mut self, tag: u32, message: &M) -> Result<()> {
        let len = message.encoded_len() as u64;
        self.0 += frame(tag, len).len() as u64 + len;
        Ok(())
    }

    fn initializers(&mut self, tag: u32, initializers: &[Initializer<'_>]) -> Result<()> {
        for len in initializers.iter().map(initializer_len) {
            self.0 += frame(tag, len).len() as u64 + len;
        }
        Ok(())
    }
}

/// Writes through a buffer; tensors larger than the buffer go to the file directly.
struct Writer<'a, W: Write> {
    file: io::BufWriter<W>,
    pages: &'a Pages,
    failed: &'a dyn Fn(io::Error) -> Error,
}

impl<W: Write> Sink for Writer<'_, W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(self.failed)
    }

    fn message<M: Message>(&mut self, tag: u32, message: &M) -> Result<()> {
        let encoded = message.encode_to_vec();
        self.bytes(&frame(tag, encoded.len() as u64))?;
        self.bytes(&encoded)
    }

    fn initializers(&mut self, tag: u32, initializers: &[Initializer<'_>]) -> Result<()> {
        let pages = self.pages;
        pieces::in_order(
            initializers,
            pages,
            |initializer| initializer.payload(),
            |piece| match piece.item {
                Initializer::Whole(tensor) => self.message(tag, *tensor),
                Initializer::Encoded(bytes) => {
                    self.bytes(&frame(tag, bytes.len() as u64))?;
                    self.bytes(bytes)
                }
                Initializer::Raw { before, after, .. } => {
                    if piece.first {
                        self.bytes(&frame(tag, initializer_len(piece.item)))?;
                        self.bytes(before)?;
                        self.bytes(&frame(9, piece.len as u64))?;
                    }
                    self.bytes(piece.bytes)?;
                    if piece.last { self.bytes(after) } else { Ok(()) }
                }
            },
        )
    }
}
