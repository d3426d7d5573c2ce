//! Which provider got how many nodes: ONNX Runtime tells it in its log while a model is loaded.
//!
//! Invariant: what is not told is not guessed; without a line in the log the counts are empty, which means unknown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Nodes by provider, without the ending `ExecutionProvider` of its name.
pub(super) type Counts = BTreeMap<String, usize>;

/// The counts of the largest model that an engine has opened.
#[derive(Debug, Default)]
pub(super) struct Placement(Mutex<Counts>);

impl Placement {
    /// Keeps `counts` if they are those of a larger model than any before.
    pub(super) fn note(&self, counts: Counts) {
        let mut largest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() > largest.values().sum() {
            *largest = counts;
        }
    }

    /// Forgets what was noted.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Providers and their nodes, in the order of their names.
    pub(super) fn largest(&self) -> Vec<(String, usize)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(provider, nodes)| (provider.clone(), *nodes)).collect()
    }
}

/// Listens to the log of one session.
#[derive(Clone, Default)]
pub(super) struct Listener(Arc<Mutex<Counts>>);

impl Listener {
    /// Takes one message; most are of no interest.
    pub(super) fn hear(&self, message: &str) {
        if let Some((provider, nodes)) = placed(message) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(provider.to_owned(), nodes);
        }
    }

    /// What was told so far.
    pub(super) fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads ` Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 12` and its form for a single provider.
fn placed(message: &str) -> Option<(&str, usize)> {
    let (_, rest) = message.split_once("placed on [")?;
    let (provider, rest) = rest.split_once(']')?;
    let (_, nodes) = rest.split_once("Number of nodes: ")?;
    let nodes = nodes.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((provider.strip_suffix("ExecutionProvider").unwrap_or(provider), nodes.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_and_nothing_else() {
        let all = " All nodes placed on [CPUExecutionProvider]. Number of nodes: 7";
        assert_eq!(placed(all), Some(("CPU", 7)));
        assert_eq!(placed(" Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 120"), Some(("CUDA", 120)));
        assert_eq!(placed("Node placements"), None);
        assert_eq!(placed("placed on [X]. Number of nodes: many"), None);
    }

    #[test]
    fn the_largest_model_is_kept() {
        let placement = Placement::default();
        placement.note(Counts::from([("CPU".to_owned(), 2), ("CUDA".to_owned(), 5)]));
        placement.note(Counts::from([("CPU".to_owned(), 3)]));
        assert_eq!(placement.largest(), [("CPU".to_owned(), 2), ("CUDA".to_owned(), 5)]);
        placement.clear();
        assert!(placement.largest().is_empty());
    }
}
