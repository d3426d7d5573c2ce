//! LSTM, GRU and RNN: a cell run along the time axis.
//!
//! Specs: <https://onnx.ai/onnx/operators/onnx__LSTM.html>, <https://onnx.ai/onnx/operators/onnx__GRU.html>,
//! <https://onnx.ai/onnx/operators/onnx__RNN.html>. Operator set 14 adds `layout` (1 = batch before time); nothing else
//! that is read here differs between operator sets.
//!
//! The rows of W and R are gate by gate the hidden units, so an axis is (gates H); a bias holds both sides' rows,
//! (2·gates H), and the peepholes of an LSTM are (3 H). Inputs may go, because W contracts them. Hidden units may go,
//! because R contracts them and every reader sees them masked: what a unit without weights still holds (a decaying
//! state, or an activation that is not zero at zero) meets a column of zeros in R and a mask behind the outputs.

use super::{Change, Edit, NodeView, Refusal, Refused, Rule, Signature};
use crate::axes::Extent;

/// The cell that runs along the time axis.
pub(super) enum Recurrent {
    /// Four gates, a second state, peepholes.
    Lstm,
    /// Three gates.
    Gru,
    /// One gate: the cell itself.
    Rnn,
}

const LENGTHS: usize = 4;
const STATES: [usize; 2] = [5, 6];

impl Rule for Recurrent {
    fn signature(&self, node: &NodeView) -> Refused<Signature> {
        let directions = match node.string("direction", "forward").as_str() {
            "forward" | "reverse" => 1,
            "bidirectional" => 2,
            other => return Err(Refusal::new(format!("the direction `{other}` is not known"))),
        };
        let (sequence, state) = match node.int("layout", 0) {
            0 => ("t n", "d n"),
            1 => ("n t", "n d"),
            other => return Err(Refusal::new(format!("the layout {other} is not known"))),
        };
        let (gates, outputs) = match self {
            Recurrent::Lstm => (4, 3),
            Recurrent::Gru => (3, 2),
            Recurrent::Rnn => (1, 2),
        };
        if let Some(slot) = (0..3).find(|slot| !node.has(*slot)) {
            return Err(Refusal::new(format!("it has no input {slot}")));
        }
        let rows = if gates == 1 { "H" } else { "(g H)" };
        let inputs = (0..node.input_count()).map(|slot| match slot {
            _ if !node.has(slot) => Ok("_".to_owned()),
            0 => Ok(format!("{sequence} I")),
            1 => Ok(format!("d {rows} I")),
            2 => Ok(format!("d {rows} H")),
            3 => Ok("d (b H)".to_owned()),
            LENGTHS => Ok("_".to_owned()),
            slot if STATES.iter().take(outputs - 1).any(|s| *s == slot) => initial_state(node, slot, state),
            7 if outputs == 3 => Ok("d (p H)".to_owned()),
            _ => Err(Refusal::new(format!("it has an input {slot} that its specification does not know"))),
        });
        let inputs = inputs.collect::<Refused<Vec<_>>>()?.join(", ");
        let sequence = if sequence == "t n" { "t d n H" } else { "n t d H" };
        let states = vec![format!("{state} H"); outputs - 1].join(", ");
        let signature =
            Signature::parse(&format!("{inputs} -> {sequence}, {states}"), "a recurrent cell runs over it")?
                .with("d", Extent::known(directions))
                .with("g", Extent::known(gates))
                .with("b", Extent::known(2 * gates))
                .with("p", Extent::known(3))
                .because("d", "it counts the directions of a recurrent cell")
                .because("g", "it counts the gates of a recurrent cell")
                .because("b", "it counts the gates of a recurrent cell")
                .because("p", "it counts the gates of a recurrent cell");
        Ok(match node.maybe_int("hidden_size") {
            Some(hidden) => signature.with("H", Extent::known(hidden)),
            None => signature,
        })
    }

    fn patch(&self, before: &NodeView, change: &Change) -> Refused<Vec<Edit>> {
        let Some(old) = before.maybe_int("hidden_size") else { return Ok(Vec::new()) };
        let hidden = change.after.extent(2, 2)?.value().ok_or_else(|| Refusal::new("the hidden size is not known"))?;
        Ok(if hidden == old { Vec::new() } else { vec![Edit::Int("hidden_size", hidden)] })
    }

    fn macs(&self, node: &NodeView, _outputs: &[Option<Vec<Extent>>]) -> Option<Extent> {
        let steps = Extent::product(node.shape(0).ok()?.get(..2)?)?;
        let size = |slot: usize| Extent::product(node.shape(slot).ok()?)?.value();
        steps.times(&Extent::known(size(1)?.checked_add(size(2)?)?))
    }
}

/// The axes of an initial state. The specification wants the batch of the sequence, but where that is computed when the
/// model runs the two are not known to be equal; then the state's batch is a locked axis of its own.
fn initial_state(node: &NodeView, slot: usize, state: &str) -> Refused<String> {
    let by_layout = |time_first: usize, batch_first: usize| if state == "d n" { time_first } else { batch_first };
    let of_sequence = node.extent(0, by_layout(1, 0))?;
    let of_state = node.extent(slot, by_layout(1, 0))?;
    let comparable = of_sequence.value().is_some() && of_state.value().is_some();
    let own = of_sequence != of_state && !comparable;
    Ok(format!("{} H", if own { state.replace('n', &format!("n{slot}")) } else { state.to_owned() }))
}
