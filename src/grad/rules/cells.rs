//! The cells of LSTM, GRU and RNN: from one state to the next.
//!
//! Spec: <https://onnx.ai/onnx/operators/onnx__LSTM.html>, `onnx__GRU.html`, `onnx__RNN.html`.

use super::super::compose::Composition;
use super::super::step::Step;
use crate::proto::build::float;

/// Sequence, batch, state: the axes of what goes along a sequence.
const STATE: usize = 2;

/// One direction of a recurrent node.
pub(super) struct Direction {
    /// The input times its weight and bias, for every step in the order of time: [1, batch, gates · hidden].
    pub(super) steps: Vec<String>,
    /// The weight of the state: [hidden, gates · hidden], and its bias where it is kept apart.
    pub(super) recurrent: String,
    pub(super) bias: Option<String>,
    /// What the state and the cell begin with; 0 where there is nothing.
    pub(super) state: Option<String>,
    pub(super) cell: Option<String>,
    /// By what i, o and f see the cell, or nothing: [1, hidden].
    pub(super) peepholes: Vec<String>,
    pub(super) activations: Vec<Activation>,
    /// What goes into a gate is bounded by this.
    pub(super) clip: Option<f64>,
    /// f is 1 - i.
    pub(super) is_coupled: bool,
    pub(super) backwards: bool,
}

/// How a node goes from one state to the next; gives the new state and the new cell.
pub(super) type Cell =
    fn(&mut Composition, &Direction, &str, Option<&str>, Option<&str>) -> Result<(String, Option<String>), String>;

/// A function of one number, and its numbers.
#[derive(Clone)]
pub(super) struct Activation {
    name: String,
    alpha: Option<f32>,
    beta: Option<f32>,
}

/// The functions that take numbers, and which they take where none are given.
const NUMBERED: &[(&str, Option<f32>, Option<f32>)] = &[
    ("Affine", Some(1.0), Some(0.0)),
    ("Elu", Some(1.0), None),
    ("HardSigmoid", Some(0.2), Some(0.5)),
    ("LeakyRelu", Some(0.01), None),
    ("ScaledTanh", Some(1.0), Some(1.0)),
    ("ThresholdedRelu", Some(1.0), None),
];
const PLAIN: &[&str] = &["Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"];

/// One function per gate kind and direction. Lists of numbers hold those of the functions that take some.
pub(super) fn activations(step: &Step, defaults: &[&str], directions: usize) -> Result<Vec<Activation>, String> {
    let given = step.attribute("activations").map(|a| &a.strings);
    let names: Vec<String> = match given.filter(|names| !names.is_empty()) {
        Some(names) => names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        None => defaults.repeat(directions).into_iter().map(str::to_owned).collect(),
    };
    if names.len() != defaults.len() * directions {
        return Err("too few activations".to_owned());
    }
    let list = |name: &str| step.attribute(name).map_or(&[][..], |a| a.floats.as_slice()).iter().copied();
    let (mut alphas, mut betas) = (list("activation_alpha"), list("activation_beta"));
    let mut activations = Vec::new();
    for name in names {
        let numbered = NUMBERED.iter().find(|row| row.0.eq_ignore_ascii_case(&name));
        let plain = PLAIN.iter().find(|known| known.eq_ignore_ascii_case(&name));
        activations.push(match (numbered, plain) {
            (Some((name, alpha, beta)), _) => Activation {
                name: (*name).to_owned(),
                alpha: alpha.map(|default| alphas.next().unwrap_or(default)),
                beta: beta.map(|default| betas.next().unwrap_or(default)),
            },
            (None, Some(name)) => Activation { name: (*name).to_owned(), alpha: None, beta: None },
            (None, None) => return Err(format!("activation `{name}`")),
        });
    }
    Ok(activations)
}

impl Direction {
    /// What comes out of a gate: bounded, then through its function.
    fn apply(&self, plain: &mut Composition, place: usize, x: &str) -> Result<String, String> {
        let Some(clip) = self.clip else { return self.activated(plain, place, x) };
        let shape = plain.shape(x)?;
        let (low, high) = (plain.number(x, -clip)?, plain.number(x, clip)?);
        let bounded = plain.node("Clip", &[x, &low, &high], Vec::new(), shape);
        self.activated(plain, place, &bounded)
    }

    fn activated(&self, plain: &mut Composition, place: usize, x: &str) -> Result<String, String> {
        let Activation { name, alpha, beta } = self.activations.get(place).ok_or("too few activations")?;
        let (a, b) = (f64::from(alpha.unwrap_or(1.0)), f64::from(beta.unwrap_or(0.0)));
        match name.as_str() {
            "Affine" => {
                let scaled = plain.scale(x, a)?;
                let shift = plain.number(x, b)?;
                plain.join("Add", &scaled, &shift)
            }
            "ScaledTanh" => {
                let scaled = plain.scale(x, b)?;
                let bent = plain.map("Tanh", &scaled)?;
                plain.scale(&bent, a)
            }
            name => {
                let shape = plain.shape(x)?;
                let numbers = [("alpha", alpha), ("beta", beta)];
                let attributes = numbers.iter().filter_map(|(name, n)| Some(float(name, (**n)?))).collect();
                Ok(plain.node(name, &[x], attributes, shape))
            }
        }
    }
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

/// Gates i, o, f, c: C' = f C + i c, H' = o h(C'). Peepholes let gates see the cell, i and f the old one, o the new one.
pub(super) fn lstm(
    plain: &mut Composition,
    direction: &Direction,
    step: &str,
    state: Option<&str>,
    cell: Option<&str>,
) -> Result<(String, Option<String>), String> {
    let all = with_state(plain, direction, step, state)?;
    let parts = plain.split(&all, STATE, 4)?;
    let [i, o, f, c] = parts.as_slice() else { return Err("four gates are needed".to_owned()) };
    let i = peeped(plain, direction, i, cell, 0)?;
    let (i, c) = (direction.apply(plain, 0, &i)?, direction.apply(plain, 1, c)?);
    let mut next = plain.join("Mul", &i, &c)?;
    if let Some(cell) = cell {
        let f = if direction.is_coupled {
            let one = plain.number(&i, 1.0)?;
            plain.join("Sub", &one, &i)?
        } else {
            let f = peeped(plain, direction, f, Some(cell), 2)?;
            direction.apply(plain, 0, &f)?
        };
        let kept = plain.join("Mul", &f, cell)?;
        next = plain.join("Add", &kept, &next)?;
    }
    let o = peeped(plain, direction, o, Some(&next), 1)?;
    let o = direction.apply(plain, 0, &o)?;
    let shown = direction.activated(plain, 2, &next)?;
    Ok((plain.join("Mul", &o, &shown)?, Some(next)))
}

/// A gate that sees a cell through its peephole, if it has one.
fn peeped(
    plain: &mut Composition,
    direction: &Direction,
    gate: &str,
    cell: Option<&str>,
    place: usize,
) -> Result<String, String> {
    let (Some(cell), Some(hole)) = (cell, direction.peepholes.get(place)) else { return Ok(gate.to_owned()) };
    let seen = plain.join("Mul", cell, hole)?;
    plain.join("Add", gate, &seen)
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
pub(super) fn gru(
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
    let add = |plain: &mut Composition, part: &str, state: Option<&str>, weight: &str| -> Result<String, String> {
        let Some(state) = state else { return Ok(part.to_owned()) };
        let product = plain.matmul(state, weight)?;
        plain.join("Add", part, &product)
    };
    let z = add(plain, z, state, of_z)?;
    let z = direction.apply(plain, 0, &z)?;
    let reset = match state {
        Some(state) => {
            let r = add(plain, r, Some(state), of_r)?;
            let r = direction.apply(plain, 0, &r)?;
            Some(plain.join("Mul", &r, state)?)
        }
        None => None,
    };
    let h = add(plain, h, reset.as_deref(), of_h)?;
    let h = direction.apply(plain, 1, &h)?;
    mixed(plain, &z, &h, state)
}

/// With `linear_before_reset`: h = g(Wx + r (H R + b)).
pub(super) fn gru_reset_last(
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
    let Some(of_state) = of_state else {
        let (z, h) = (direction.apply(plain, 0, z)?, direction.apply(plain, 1, h)?);
        return mixed(plain, &z, &h, None);
    };
    // A bias has no axis of the sequence.
    let axis = plain.shape(&of_state)?.len().saturating_sub(1);
    let others = plain.split(&of_state, axis, 3)?;
    let [of_z, of_r, of_h] = others.as_slice() else { return Err("three gates are needed".to_owned()) };
    let z = plain.join("Add", z, of_z)?;
    let z = direction.apply(plain, 0, &z)?;
    let r = plain.join("Add", r, of_r)?;
    let r = direction.apply(plain, 0, &r)?;
    let part = plain.join("Mul", &r, of_h)?;
    let h = plain.join("Add", h, &part)?;
    let h = direction.apply(plain, 1, &h)?;
    mixed(plain, &z, &h, state)
}

/// H' = f(Wx + H R + b)
pub(super) fn rnn(
    plain: &mut Composition,
    direction: &Direction,
    step: &str,
    state: Option<&str>,
    _: Option<&str>,
) -> Result<(String, Option<String>), String> {
    let all = with_state(plain, direction, step, state)?;
    Ok((direction.apply(plain, 0, &all)?, None))
}
