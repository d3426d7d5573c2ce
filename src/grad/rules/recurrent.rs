//! LSTM, GRU and RNN, written down step by step for the length of the sequence that was measured.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__LSTM.html>, `onnx__GRU.html`, `onnx__RNN.html`. Peepholes, clipping, lengths
//! per sample and batches in front are not covered.

use super::super::Gradients;
use super::super::compose::Composition;
use super::super::context::Context;
use super::super::step::Step;

/// Longer sequences are not written down.
const LONGEST: usize = 1024;

/// Sequence, batch, state: the axes of what goes along a sequence.
const STATE: usize = 2;

/// One direction of a recurrent node.
struct Direction {
    /// The input times its weight and bias, for every step in the order of time: [1, batch, gates · hidden].
    steps: Vec<String>,
    /// The weight of the state: [hidden, gates · hidden], and its bias where it is kept apart.
    recurrent: String,
    bias: Option<String>,
    /// What the state and the cell begin with; 0 where there is nothing.
    state: Option<String>,
    cell: Option<String>,
    activations: Vec<String>,
    backwards: bool,
}

/// How a node goes from one state to the next; gives the new state and the new cell.
type Cell =
    fn(&mut Composition, &Direction, &str, Option<&str>, Option<&str>) -> Result<(String, Option<String>), String>;

pub(crate) fn lstm(step: &Step, context: &mut Context) -> Gradients {
    if step.optional(7).is_some() || step.int("input_forget", 0) != 0 {
        return Err("peepholes or coupled gates".to_owned());
    }
    unrolled(step, context, 4, false, &["Sigmoid", "Tanh", "Tanh"], lstm_cell)
}

pub(crate) fn gru(step: &Step, context: &mut Context) -> Gradients {
    let reset = step.int("linear_before_reset", 0) != 0;
    unrolled(step, context, 3, true, &["Sigmoid", "Tanh"], if reset { gru_cell_reset_last } else { gru_cell })
}

pub(crate) fn rnn(step: &Step, context: &mut Context) -> Gradients {
    unrolled(step, context, 1, false, &["Tanh"], rnn_cell)
}

/// `apart`: the bias of the state is not added to that of the input.
fn unrolled(step: &Step, context: &mut Context, gates: usize, apart: bool, defaults: &[&str], cell: Cell) -> Gradients {
    if step.int("layout", 0) != 0 || step.optional(4).is_some() || step.attribute("clip").is_some() {
        return Err("`layout`, `sequence_lens` or `clip`".to_owned());
    }
    let direction = step.text("direction");
    let reversed: &[bool] = match direction {
        b"" | b"forward" => &[false],
        b"reverse" => &[true],
        _ => &[false, true],
    };
    let activations = activations(step, defaults, reversed.len())?;
    let length = context.shape(step.input(0)?)?.first().copied().unwrap_or(0);
    if length > LONGEST || length == 0 {
        return Err(format!("a sequence of {length} steps"));
    }
    let mut plain = Composition::new(step, context);
    let x = plain.input(0)?;
    let (mut sequences, mut states, mut cells) = (Vec::new(), Vec::new(), Vec::new());
    for (place, backwards) in reversed.iter().enumerate() {
        let input = directed(&mut plain, 1, reversed.len(), place)?.ok_or("no weights")?;
        let recurrent = directed(&mut plain, 2, reversed.len(), place)?.ok_or("no weights")?;
        let biases = directed(&mut plain, 3, reversed.len(), place)?;
        let [input, recurrent] = [matrix(&mut plain, &input)?, matrix(&mut plain, &recurrent)?];
        let mut all = plain.matmul(&x, &input)?;
        let mut bias = None;
        if let Some(biases) = biases {
            let parts = plain.split(&biases, 1, 2)?;
            let [of_input, of_state] = parts.as_slice() else { return Err("no bias".to_owned()) };
            all = plain.join("Add", &all, of_input)?;
            match apart {
                true => bias = Some(of_state.clone()),
                false => all = plain.join("Add", &all, of_state)?,
            }
        }
        let steps = if length == 1 { vec![all] } else { plain.split(&all, 0, length)? };
        let state = directed(&mut plain, 5, reversed.len(), place)?;
        let initial = if gates == 4 { directed(&mut plain, 6, reversed.len(), place)? } else { None };
        let each = activations.get(place * defaults.len()..).unwrap_or_default().to_vec();
        let direction =
            Direction { steps, recurrent, bias, state, cell: initial, activations: each, backwards: *backwards };
        let (sequence, last, memory) = run(&mut plain, &direction, cell)?;
        sequences.push(plain.unsqueeze(&sequence, &[1])?);
        states.push(last);
        cells.extend(memory);
    }
    let mut together = |parts: &[String], axis: usize| match parts {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        more => plain.concat(more, axis).map(Some),
    };
    let results = [together(&sequences, 1)?, together(&states, 0)?, together(&cells, 0)?];
    plain.gradients(step, &results)
}

/// One function per gate kind and direction.
fn activations(step: &Step, defaults: &[&str], directions: usize) -> Result<Vec<String>, String> {
    let given = step.attribute("activations").map(|a| &a.strings);
    let names: Vec<String> = match given.filter(|names| !names.is_empty()) {
        Some(names) => names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        None => defaults.repeat(directions).into_iter().map(str::to_owned).collect(),
    };
    match names.iter().find(|name| !["Sigmoid", "Tanh", "Relu"].contains(&name.as_str())) {
        Some(other) => Err(format!("activation `{other}`")),
        None if names.len() != defaults.len() * directions => Err("too few activations".to_owned()),
        None => Ok(names),
    }
}

/// The part of an input that belongs to one direction, with the axis of directions.
fn directed(plain: &mut Composition, slot: usize, directions: usize, place: usize) -> Result<Option<String>, String> {
    let Some(input) = plain.optional(slot) else { return Ok(None) };
    if directions == 1 {
        return Ok(Some(input));
    }
    Ok(plain.split(&input, 0, directions)?.get(place).cloned())
}

/// [1, gates · hidden, inside] -> [inside, gates · hidden]
fn matrix(plain: &mut Composition, weight: &str) -> Result<String, String> {
    let shape = plain.shape(weight)?;
    let [_, rows, columns] = shape.as_slice() else { return Err("a weight of three axes is needed".to_owned()) };
    let number = |n: &usize| i64::try_from(*n).map_err(|e| e.to_string());
    let flat = plain.reshape(weight, &[number(rows)?, number(columns)?], vec![*rows, *columns]);
    plain.transpose(&flat, &[1, 0])
}

/// All states in the order of time, the last one, and the last cell.
fn run(plain: &mut Composition, direction: &Direction, cell: Cell) -> Result<(String, String, Option<String>), String> {
    let mut states = Vec::new();
    let (mut state, mut memory) = (direction.state.clone(), direction.cell.clone());
    for place in 0..direction.steps.len() {
        let place = if direction.backwards { direction.steps.len() - 1 - place } else { place };
        let step = direction.steps.get(place).ok_or("a step that is not there")?;
        let (next, kept) = cell(plain, direction, step, state.as_deref(), memory.as_deref())?;
        states.push(next.clone());
        (state, memory) = (Some(next), kept);
    }
    if direction.backwards {
        states.reverse();
    }
    let last = state.ok_or("no step")?;
    let sequence = if states.len() == 1 { last.clone() } else { plain.concat(&states, 0)? };
    Ok((sequence, last, memory))
}

fn activation(direction: &Direction, place: usize) -> &str {
    direction.activations.get(place).map_or("Tanh", String::as_str)
}

/// What a step gets from the state: `step + state R`, or the step alone where the state is 0.
fn with_state(
    plain: &mut Composition,
    direction: &Direction,
    step: &str,
    state: Option<&str>,
) -> Result<String, String> {
    let Some(state) = state else { return Ok(step.to_owned()) };
    let product = plain.matmul(state, &direction.recurrent)?;
    plain.join("Add", step, &product)
}

/// Gates i, o, f, c: C' = f C + i c, H' = o h(C').
fn lstm_cell(
    plain: &mut Composition,
    direction: &Direction,
    step: &str,
    state: Option<&str>,
    cell: Option<&str>,
) -> Result<(String, Option<String>), String> {
    let all = with_state(plain, direction, step, state)?;
    let parts = plain.split(&all, STATE, 4)?;
    let [i, o, f, c] = parts.as_slice() else { return Err("four gates are needed".to_owned()) };
    let [gate, inner, outer] = [0, 1, 2].map(|place| activation(direction, place));
    let (i, c) = (plain.map(gate, i)?, plain.map(inner, c)?);
    let mut next = plain.join("Mul", &i, &c)?;
    if let Some(cell) = cell {
        let f = plain.map(gate, f)?;
        let kept = plain.join("Mul", &f, cell)?;
        next = plain.join("Add", &kept, &next)?;
    }
    let o = plain.map(gate, o)?;
    let shown = plain.map(outer, &next)?;
    Ok((plain.join("Mul", &o, &shown)?, Some(next)))
}

/// H' = (1 - z) h + z H
fn mixed(plain: &mut Composition, z: &str, h: &str, state: Option<&str>) -> Result<(String, Option<String>), String> {
    let part = plain.join("Mul", z, h)?;
    let fresh = plain.join("Sub", h, &part)?;
    let Some(state) = state else { return Ok((fresh, None)) };
    let kept = plain.join("Mul", z, state)?;
    Ok((plain.join("Add", &fresh, &kept)?, None))
}

/// Gates z, r, h: h = g(Wx + (r H) R + b).
fn gru_cell(
    plain: &mut Composition,
    direction: &Direction,
    step: &str,
    state: Option<&str>,
    _: Option<&str>,
) -> Result<(String, Option<String>), String> {
    let step = match &direction.bias {
        Some(bias) => plain.join("Add", step, bias)?,
        None => step.to_owned(),
    };
    let parts = plain.split(&step, STATE, 3)?;
    let weights = plain.split(&direction.recurrent, 1, 3)?;
    let ([z, r, h], [of_z, of_r, of_h]) = (parts.as_slice(), weights.as_slice()) else {
        return Err("three gates are needed".to_owned());
    };
    let [gate, inner] = [0, 1].map(|place| activation(direction, place));
    let add = |plain: &mut Composition, part: &str, state: Option<&str>, weight: &str| -> Result<String, String> {
        let Some(state) = state else { return Ok(part.to_owned()) };
        let product = plain.matmul(state, weight)?;
        plain.join("Add", part, &product)
    };
    let z = add(plain, z, state, of_z)?;
    let z = plain.map(gate, &z)?;
    let reset = match state {
        Some(state) => {
            let r = add(plain, r, Some(state), of_r)?;
            let r = plain.map(gate, &r)?;
            Some(plain.join("Mul", &r, state)?)
        }
        None => None,
    };
    let h = add(plain, h, reset.as_deref(), of_h)?;
    let h = plain.map(inner, &h)?;
    mixed(plain, &z, &h, state)
}

/// With `linear_before_reset`: h = g(Wx + r (H R + b)).
fn gru_cell_reset_last(
    plain: &mut Composition,
    direction: &Direction,
    step: &str,
    state: Option<&str>,
    _: Option<&str>,
) -> Result<(String, Option<String>), String> {
    let product = match state {
        Some(state) => Some(plain.matmul(state, &direction.recurrent)?),
        None => None,
    };
    let of_state = match (product, &direction.bias) {
        (Some(product), Some(bias)) => Some(plain.join("Add", &product, bias)?),
        (product, bias) => product.or_else(|| bias.clone()),
    };
    let parts = plain.split(step, STATE, 3)?;
    let [z, r, h] = parts.as_slice() else { return Err("three gates are needed".to_owned()) };
    let [gate, inner] = [0, 1].map(|place| activation(direction, place));
    let Some(of_state) = of_state else {
        let (z, h) = (plain.map(gate, z)?, plain.map(inner, h)?);
        return mixed(plain, &z, &h, None);
    };
    // A bias has no axis of the sequence.
    let axis = plain.shape(&of_state)?.len().saturating_sub(1);
    let others = plain.split(&of_state, axis, 3)?;
    let [of_z, of_r, of_h] = others.as_slice() else { return Err("three gates are needed".to_owned()) };
    let z = plain.join("Add", z, of_z)?;
    let z = plain.map(gate, &z)?;
    let r = plain.join("Add", r, of_r)?;
    let r = plain.map(gate, &r)?;
    let part = plain.join("Mul", &r, of_h)?;
    let h = plain.join("Add", h, &part)?;
    let h = plain.map(inner, &h)?;
    mixed(plain, &z, &h, state)
}

/// H' = f(Wx + H R + b)
fn rnn_cell(
    plain: &mut Composition,
    direction: &Direction,
    step: &str,
    state: Option<&str>,
    _: Option<&str>,
) -> Result<(String, Option<String>), String> {
    let all = with_state(plain, direction, step, state)?;
    Ok((plain.map(activation(direction, 0), &all)?, None))
}
