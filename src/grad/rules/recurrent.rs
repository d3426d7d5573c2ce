//! LSTM, GRU and RNN, written down step by step for the length of the sequence that was measured. A sample that is
//! shorter keeps its state and cell from its end on, and gives 0.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__LSTM.html>, `onnx__GRU.html`, `onnx__RNN.html`. Batches in front (`layout`)
//! are not covered.

use super::super::Gradients;
use super::super::compose::Composition;
use super::super::context::Context;
use super::super::step::Step;
use super::cells::{self, Activation, Cell, Direction, activations};
use crate::proto::build::int;

/// Longer sequences are not written down.
const LONGEST: usize = 1024;

pub(crate) fn lstm(step: &Step, context: &mut Context) -> Gradients {
    unrolled(step, context, 4, false, &["Sigmoid", "Tanh", "Tanh"], cells::lstm)
}

pub(crate) fn gru(step: &Step, context: &mut Context) -> Gradients {
    let reset = step.int("linear_before_reset", 0) != 0;
    unrolled(step, context, 3, true, &["Sigmoid", "Tanh"], if reset { cells::gru_reset_last } else { cells::gru })
}

pub(crate) fn rnn(step: &Step, context: &mut Context) -> Gradients {
    unrolled(step, context, 1, false, &["Tanh"], cells::rnn)
}

/// `apart`: the bias of the state is not added to that of the input.
fn unrolled(step: &Step, context: &mut Context, gates: usize, apart: bool, defaults: &[&str], cell: Cell) -> Gradients {
    if step.int("layout", 0) != 0 {
        return Err("batches in front (`layout`)".to_owned());
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
    let lengths = step.optional(4);
    let mut plain = Composition::new(step, context);
    let x = plain.input(0)?;
    let mut running = Vec::new();
    for place in 0..length {
        running.extend(lengths.map(|lengths| still_running(&mut plain, lengths, place)));
    }
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
        let each: Vec<Activation> = activations.get(place * defaults.len()..).unwrap_or_default().to_vec();
        let peepholes = match if gates == 4 { directed(&mut plain, 7, reversed.len(), place)? } else { None } {
            Some(all) => plain.split(&all, 1, 3)?,
            None => Vec::new(),
        };
        let direction = Direction {
            steps,
            recurrent,
            bias,
            state,
            cell: initial,
            peepholes,
            activations: each,
            clip: step.attribute("clip").map(|a| f64::from(a.f())),
            is_coupled: gates == 4 && step.int("input_forget", 0) != 0,
            backwards: *backwards,
        };
        let (sequence, last, memory) = run(&mut plain, &direction, &running, cell)?;
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

/// [batch, 1]: whether a sample has a step at a place.
fn still_running(plain: &mut Composition, lengths: &str, place: usize) -> String {
    let context = plain.context();
    let lengths = context.node("Cast", &[lengths], vec![int("to", 7)]);
    let place = context.nodes.integers(&[i64::try_from(place).unwrap_or(i64::MAX)]);
    let running = context.op("Greater", &[&lengths, &place]);
    context.unsqueeze(&running, &[1])
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
fn run(
    plain: &mut Composition,
    direction: &Direction,
    running: &[String],
    cell: Cell,
) -> Result<(String, String, Option<String>), String> {
    let mut states = Vec::new();
    let (mut state, mut memory) = (direction.state.clone(), direction.cell.clone());
    for place in 0..direction.steps.len() {
        let place = if direction.backwards { direction.steps.len() - 1 - place } else { place };
        let step = direction.steps.get(place).ok_or("a step that is not there")?;
        let (mut next, mut kept) = cell(plain, direction, step, state.as_deref(), memory.as_deref())?;
        let mut given = next.clone();
        if let Some(running) = running.get(place) {
            given = chosen(plain, running, &next, None)?;
            next = chosen(plain, running, &next, state.as_deref())?;
            kept = kept.map(|kept| chosen(plain, running, &kept, memory.as_deref())).transpose()?;
        }
        states.push(given);
        (state, memory) = (Some(next), kept);
    }
    if direction.backwards {
        states.reverse();
    }
    let last = state.ok_or("no step")?;
    let sequence = match states.as_slice() {
        [one] => one.clone(),
        all => plain.concat(all, 0)?,
    };
    Ok((sequence, last, memory))
}

/// What is new where a sample runs, what was before, or 0, elsewhere.
fn chosen(plain: &mut Composition, running: &str, new: &str, before: Option<&str>) -> Result<String, String> {
    let shape = plain.shape(new)?;
    let before = match before {
        Some(before) => before.to_owned(),
        None => plain.number(new, 0.0)?,
    };
    let chosen = plain.node("Where", &[running, new, &before], Vec::new(), shape.clone());
    plain.know(&chosen, new, shape);
    Ok(chosen)
}
