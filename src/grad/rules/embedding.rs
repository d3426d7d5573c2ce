//! EmbedLayerNormalization: words, positions and segments looked up, added and normalised.
//!
//! Spec: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use super::super::Gradients;
use super::super::compose::Composition;
use super::super::context::Context;
use super::super::step::Step;
use super::sample::signed;

/// Rows of a table [entries, hidden] at places [batch, length]: [batch, length, hidden].
fn looked_up(plain: &mut Composition, table: &str, places: &str, shape: &[usize]) -> Result<String, String> {
    let hidden = plain.shape(table)?.last().copied().ok_or("a table without rows")?;
    Ok(plain.node("Gather", &[table, places], Vec::new(), [shape, &[hidden]].concat()))
}

pub(crate) fn embedded(step: &Step, context: &mut Context) -> Gradients {
    let mut plain = Composition::new(step, context);
    let (ids, words, positions) = (plain.input(0)?, plain.input(2)?, plain.input(3)?);
    let shape = plain.shape(&ids)?;
    let length = shape.last().copied().ok_or("no words")?;
    let mut sum = looked_up(&mut plain, &words, &ids, &shape)?;
    let (places, extent) = match plain.optional(8) {
        Some(given) => {
            let shape = plain.shape(&given)?;
            (given, shape)
        }
        None => {
            let places: Vec<i64> = (0..signed(length)?).collect();
            let places = plain.context().nodes.integers(&places);
            plain.know(&places, &ids, vec![length]);
            (places, vec![length])
        }
    };
    let here = looked_up(&mut plain, &positions, &places, &extent)?;
    sum = plain.join("Add", &sum, &here)?;
    if let (Some(segments), Some(table)) = (plain.optional(1), plain.optional(4)) {
        let here = looked_up(&mut plain, &table, &segments, &shape)?;
        sum = plain.join("Add", &sum, &here)?;
    }
    let axis = shape.len();
    let mean = average(&mut plain, &sum, axis)?;
    let centred = plain.join("Sub", &sum, &mean)?;
    let square = plain.join("Mul", &centred, &centred)?;
    let variance = average(&mut plain, &square, axis)?;
    let epsilon = plain.number(&sum, step.float("epsilon", 1e-12))?;
    let shifted = plain.join("Add", &variance, &epsilon)?;
    let root = plain.map("Sqrt", &shifted)?;
    let standard = plain.join("Div", &centred, &root)?;
    let (scale, bias) = (plain.input(5)?, plain.input(6)?);
    let scaled = plain.join("Mul", &standard, &scale)?;
    let result = plain.join("Add", &scaled, &bias)?;
    plain.gradients(step, &[Some(result), None, Some(sum)])
}

fn average(plain: &mut Composition, x: &str, axis: usize) -> Result<String, String> {
    let mut shape = plain.shape(x)?;
    shape.truncate(axis);
    shape.push(1);
    let mean = plain.context().mean(x, &[axis]);
    plain.know(&mean, x, shape);
    Ok(mean)
}
