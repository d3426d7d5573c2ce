//! Constants of a model that are read and written while it is repaired.
//!
//! Invariants: a constant keeps its name, shape and element type; one that several nodes read is never changed under
//! all of them: the node concerned gets a copy of its own. Every change is recorded with its size.

use std::collections::{BTreeMap, BTreeSet};

use half::{bf16, f16};

use super::quantised::Quantised;
use super::wiring::reads;
use crate::calibration::collect_names;
use crate::ops::dequantised;
use crate::proto::build::declaration;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{ModelProto, TensorProto};
use crate::proto::tensor;
use crate::{Error, Result};

#[derive(Clone, Copy, Debug)]
enum Place {
    Initializer(usize),
    Node(usize, usize),
}

/// The names of the constants behind numbers that are stored as integers.
#[derive(Clone, Debug)]
struct Parts {
    stored: String,
    scale: String,
    zero: Option<String>,
    axis: i64,
    /// True if the scale is read elsewhere, too.
    fixed: bool,
}

/// The constants of a model's main graph, and what was done to them.
pub(super) struct Constants {
    places: BTreeMap<String, Place>,
    /// Values that are constants by way of their quantisation.
    quantised: BTreeMap<String, Parts>,
    names: BTreeSet<String>,
    /// The largest relative change of every constant that was changed.
    pub(super) changed: BTreeMap<String, f64>,
    /// New constants, biases and copies for nodes that shared theirs, each with the node and slot that reads it.
    pub(super) added: BTreeMap<String, (usize, usize)>,
}

impl Constants {
    pub(super) fn of(model: &ModelProto) -> Self {
        let (mut places, mut names) = (BTreeMap::new(), BTreeSet::new());
        if let Some(graph) = &model.graph {
            for (index, tensor) in graph.initializer.iter().enumerate() {
                places.insert(tensor.name().to_owned(), Place::Initializer(index));
            }
            // Those inside bodies as well, which must not be given twice either.
            collect_names(graph, &mut names);
            for (index, node) in graph.node.iter().enumerate() {
                let attribute = node.attribute.iter().position(|a| a.t.is_some());
                if let (true, Some(attribute), Some(output)) =
                    (crate::graph::is_constant(node), attribute, node.output.first())
                {
                    places.insert(output.clone(), Place::Node(index, attribute));
                }
            }
        }
        let quantised = quantised(model, &places);
        Self { places, quantised, names, changed: BTreeMap::new(), added: BTreeMap::new() }
    }

    /// The constant of a name, if it is stored as it is meant.
    pub(super) fn get<'m>(&self, model: &'m ModelProto, name: &str) -> Option<&'m TensorProto> {
        let graph = model.graph.as_ref()?;
        match *self.places.get(name)? {
            Place::Initializer(index) => graph.initializer.get(index),
            Place::Node(index, attribute) => graph.node.get(index)?.attribute.get(attribute)?.t.as_ref(),
        }
    }

    /// The extents of a constant.
    pub(super) fn dims(&self, model: &ModelProto, name: &str) -> Option<Vec<usize>> {
        let stored = self.quantised.get(name).map_or(name, |parts| &parts.stored);
        self.get(model, stored)?.dims.iter().map(|d| usize::try_from(*d).ok()).collect()
    }

    /// The element type and extents of a constant, as its readers see it.
    pub(super) fn header(&self, model: &ModelProto, name: &str) -> Option<(i32, Vec<i64>)> {
        let (kind, shape) = match self.quantised.get(name) {
            Some(parts) => (self.get(model, &parts.scale)?, self.get(model, &parts.stored)?),
            None => (self.get(model, name)?, self.get(model, name)?),
        };
        Some((kind.data_type(), shape.dims.clone()))
    }

    fn read(&self, model: &ModelProto, parts: &Parts) -> Option<Quantised> {
        let zero = match &parts.zero {
            Some(name) => Some(self.get(model, name)?),
            None => None,
        };
        Quantised::of(self.get(model, &parts.stored)?, self.get(model, &parts.scale)?, zero, parts.axis)
    }

    /// The numbers of a floating-point constant, or of one that is quantised.
    pub(super) fn numbers(&self, model: &ModelProto, name: &str) -> Option<Vec<f64>> {
        if let Some(parts) = self.quantised.get(name) {
            return Some(self.read(model, parts)?.numbers());
        }
        numbers(self.get(model, name)?).ok()
    }

    /// Gives a constant other numbers.
    ///
    /// # Errors
    /// A name that is no constant, numbers that do not fit its shape or type.
    pub(super) fn set(&mut self, model: &mut ModelProto, name: &str, values: &[f64]) -> Result<()> {
        self.store(model, name, values, false)
    }

    /// Gives the weight of a node other numbers, of which `bias` is about to get others as well. Where both are
    /// quantised, integers are added up before they are scaled: the scale of the bias is that of the data times that of
    /// the weight, and grows with it.
    ///
    /// # Errors
    /// As [`Constants::set`].
    pub(super) fn set_weight(
        &mut self,
        model: &mut ModelProto,
        name: &str,
        values: &[f64],
        bias: Option<&str>,
    ) -> Result<()> {
        let scales = |own: &Self, model: &ModelProto, name: &str| {
            let parts = own.quantised.get(name)?;
            Some(own.read(model, parts)?.scales().to_vec())
        };
        let follower = bias.and_then(|bias| Some((self.quantised.get(bias)?.clone(), scales(self, model, bias)?)));
        let (Some((parts, of_bias)), Some(before)) = (follower, scales(self, model, name)) else {
            return self.set(model, name, values);
        };
        let follows = !parts.fixed && (before.len() == 1 || before.len() == of_bias.len());
        self.store(model, name, values, !follows)?;
        let after = scales(self, model, name).filter(|after| *after != before);
        let Some(after) = after else { return Ok(()) };
        let growth = before.iter().zip(&after).map(|(before, after)| after / before).cycle();
        let grown: Vec<f64> = of_bias.iter().zip(growth).map(|(scale, growth)| scale * growth).collect();
        self.set(model, &parts.scale, &grown)
    }

    fn store(&mut self, model: &mut ModelProto, name: &str, values: &[f64], keeps_scale: bool) -> Result<()> {
        let missing = || Error::input("there is no such constant").tensor(name);
        if let Some(parts) = self.quantised.get(name).cloned() {
            let mut quantised = self.read(model, &parts).ok_or_else(missing)?;
            let old = quantised.numbers();
            let scales = quantised.scales().to_vec();
            quantised.store(values, parts.fixed || keeps_scale);
            let tensor = self.get_mut(model, &parts.stored).ok_or_else(missing)?;
            *tensor = quantised.encode(tensor)?;
            self.note(&parts.stored, &old, &quantised.numbers());
            if scales != quantised.scales() {
                self.set(model, &parts.scale, quantised.scales())?;
            }
            return Ok(());
        }
        let tensor = self.get_mut(model, name).ok_or_else(missing)?;
        let old = numbers(tensor)?;
        let new = encode(tensor, values)?;
        let now = numbers(&new)?;
        *tensor = new;
        self.note(name, &old, &now);
        Ok(())
    }

    fn get_mut<'m>(&self, model: &'m mut ModelProto, name: &str) -> Option<&'m mut TensorProto> {
        let graph = model.graph.as_mut()?;
        match *self.places.get(name)? {
            Place::Initializer(index) => graph.initializer.get_mut(index),
            Place::Node(index, attribute) => graph.node.get_mut(index)?.attribute.get_mut(attribute)?.t.as_mut(),
        }
    }

    /// Records a change.
    fn note(&mut self, name: &str, old: &[f64], now: &[f64]) {
        let largest = old.iter().fold(0f64, |all, x| all.max(x.abs()));
        let change = old.iter().zip(now).fold(0f64, |all, (a, b)| all.max((a - b).abs()));
        if change > 0.0 {
            let relative = change / largest.max(f64::MIN_POSITIVE);
            let entry = self.changed.entry(name.to_owned()).or_insert(0.0);
            *entry = entry.max(relative);
        }
    }

    /// Adds an initializer of this element type for the slot of a node and gives its name, which is like `wish`.
    ///
    /// # Errors
    /// Numbers that do not fit the shape or type.
    pub(super) fn add(
        &mut self,
        model: &mut ModelProto,
        wish: &str,
        reader: (usize, usize),
        (data_type, dims): (i32, &[i64]),
        values: &[f64],
    ) -> Result<String> {
        let mut name = wish.to_owned();
        let mut number = 1u64;
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{wish}_{number}");
        }
        let header = TensorProto {
            name: Some(name.clone()),
            data_type: Some(data_type),
            dims: dims.to_vec(),
            ..TensorProto::default()
        };
        let tensor = encode(&header, values)?;
        let old_version = model.ir_version() < 4;
        let graph = model.graph.as_mut().ok_or_else(|| Error::input("the model has no graph"))?;
        if old_version {
            // Before version 4, an initializer must be listed among the inputs.
            graph.input.push(declaration(tensor.name(), tensor.data_type(), &tensor.dims));
        }
        self.places.insert(name.clone(), Place::Initializer(graph.initializer.len()));
        graph.initializer.push(tensor);
        self.added.insert(name.clone(), reader);
        Ok(name)
    }
}

/// True if numbers stay finite as this element type, as which readers see them.
pub(super) fn holds(kind: i32, values: &[f64]) -> bool {
    values.iter().all(|value| match DataType::try_from(kind) {
        Ok(DataType::Float) => (*value as f32).is_finite(),
        Ok(DataType::Float16) => f16::from_f64(*value).is_finite(),
        Ok(DataType::Bfloat16) => bf16::from_f64(*value).is_finite(),
        _ => value.is_finite(),
    })
}

/// The numbers of a floating-point tensor, as exact as they are stored.
pub(super) fn numbers(tensor: &TensorProto) -> Result<Vec<f64>> {
    if tensor.data_type() == DataType::Double as i32 {
        let raw = tensor::raw_bytes(tensor)?;
        return Ok(raw.as_chunks::<8>().0.iter().map(|cell| f64::from_le_bytes(*cell)).collect());
    }
    Ok(tensor::to_f32(tensor)?.into_iter().map(f64::from).collect())
}

/// A tensor like `header` with other numbers.
fn encode(header: &TensorProto, values: &[f64]) -> Result<TensorProto> {
    if tensor::element_count(&header.dims)? != values.len() {
        return Err(
            Error::input(format!("{} numbers do not fit shape {:?}", values.len(), header.dims)).tensor(header.name())
        );
    }
    let raw: Vec<u8> = match DataType::try_from(header.data_type()) {
        Ok(DataType::Float) => values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        Ok(DataType::Double) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Ok(DataType::Float16) => values.iter().flat_map(|v| f16::from_f64(*v).to_le_bytes()).collect(),
        Ok(DataType::Bfloat16) => values.iter().flat_map(|v| bf16::from_f64(*v).to_le_bytes()).collect(),
        _ => return Err(Error::input("only floating-point constants are repaired").tensor(header.name())),
    };
    Ok(with_data(header, raw))
}

/// A tensor like `header` with other data.
pub(super) fn with_data(header: &TensorProto, raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: header.name.clone(),
        data_type: header.data_type,
        dims: header.dims.clone(),
        doc_string: header.doc_string.clone(),
        metadata_props: header.metadata_props.clone(),
        raw_data: Some(raw.into()),
        // A data file stays one: the writer puts the data there again.
        data_location: header.data_location,
        external_data: header.external_data.clone(),
        ..TensorProto::default()
    }
}

/// The quantised constants of a model: what a node makes of constants that nothing else reads.
fn quantised(model: &ModelProto, places: &BTreeMap<String, Place>) -> BTreeMap<String, Parts> {
    let Some(graph) = &model.graph else { return BTreeMap::new() };
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for name in graph.node.iter().flat_map(reads).chain(graph.output.iter().map(|o| o.name().to_owned())) {
        *count.entry(name).or_default() += 1;
    }
    let alone = |name: &String| count.get(name) == Some(&1);
    let mut found = BTreeMap::new();
    for node in &graph.node {
        let Some(axis) = dequantised::axis(node) else { continue };
        let [stored, scale, zero] = dequantised::SLOTS.map(|slot| node.input.get(slot).filter(|name| !name.is_empty()));
        let (Some(stored), Some(scale), Some(output)) = (stored, scale, node.output.first()) else { continue };
        let constant = |name: &String| places.contains_key(name);
        if constant(stored) && constant(scale) && zero.is_none_or(constant) && alone(stored) {
            let (stored, fixed, scale) = (stored.clone(), !alone(scale), scale.clone());
            found.insert(output.clone(), Parts { stored, scale, zero: zero.cloned(), axis, fixed });
        }
    }
    found
}
