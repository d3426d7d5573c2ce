//! Ratios by task: private branches, the trunk, and tasks that are protected.
//!
//! A group that feeds one task is private, one that feeds two or more is shared. What nobody asked for follows the ratio
//! for everything. Of a shared group that feeds n tasks, p of them protected, the share p/n of the channels is not up for
//! removal, and the ratio is taken of the rest: those that the protected tasks need most are kept first.
//!
//! Invariant: a ratio given for a task or for the trunk is used as it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::tasks::{TaskSet, Tasks};
use crate::{Error, Result};

/// What of tasks differs from the ratio for everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskRatios {
    /// The fraction of private groups that goes, by task.
    by_task: BTreeMap<usize, f64>,
    /// The fraction of shared groups that goes.
    trunk: Option<f64>,
    /// The tasks whose private groups stay whole.
    protected: BTreeSet<usize>,
}

/// What a ratio was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// All that has no other.
    Everything,
    /// What feeds several tasks.
    Trunk,
    /// The branch of a task.
    Task(usize),
}

impl TaskRatios {
    /// What a user asks of tasks by name.
    ///
    /// # Errors
    /// A task that the model does not have, one with two ratios, or with a ratio and protected; a ratio outside [0, 1);
    /// all tasks protected.
    pub fn of(tasks: &Tasks, by_task: &[(String, f64)], trunk: Option<f64>, protected: &[String]) -> Result<Self> {
        let mut own = Self { trunk, ..Self::default() };
        for name in protected {
            own.protected.insert(tasks.find(name)?);
        }
        for (name, ratio) in by_task {
            let task = tasks.find(name)?;
            if own.protected.contains(&task) {
                let error = Error::input(format!("task `{name}` is protected and has a ratio"));
                return Err(error.help("leave out its --task-ratio or its --protect-task"));
            }
            if own.by_task.insert(task, *ratio).is_some() {
                return Err(Error::input(format!("task `{name}` has two ratios")).help("give one --task-ratio for it"));
            }
        }
        if let Some(ratio) = own.by_task.values().copied().chain(trunk).find(|ratio| !(0.0..1.0).contains(ratio)) {
            return Err(Error::input(format!("the ratio of a task or of the trunk is {ratio}, it must lie in [0, 1)")));
        }
        if !own.protected.is_empty() && own.protected.len() == tasks.tasks.len() {
            let error = Error::input("every task is protected, so nothing may go");
            return Err(error.help("leave out --protect-task for one task at least"));
        }
        Ok(own)
    }

    /// The fraction that goes of groups that feed these tasks, where `everything` is the one for all groups.
    pub fn ratio(&self, tasks: &TaskSet, everything: f64) -> f64 {
        let mut own = tasks.iter();
        match (own.next(), own.next()) {
            (Some(task), None) => self.by_task.get(&task).copied().unwrap_or(everything),
            (Some(_), Some(_)) => self.trunk.unwrap_or_else(|| everything * (1.0 - self.share(tasks))),
            (None, _) => everything,
        }
    }

    /// Whose ratio that is: groups that follow the same one can make up for each other.
    pub(super) fn origin(&self, tasks: &TaskSet) -> Origin {
        let mut own = tasks.iter();
        match (own.next(), own.next()) {
            (Some(task), None) if self.by_task.contains_key(&task) => Origin::Task(task),
            (Some(_), Some(_)) if self.trunk.is_some() => Origin::Trunk,
            _ => Origin::Everything,
        }
    }

    /// True if all tasks of a set are protected.
    pub fn protects(&self, tasks: &TaskSet) -> bool {
        !tasks.is_empty() && tasks.iter().all(|task| self.protected.contains(&task))
    }

    /// The protected tasks.
    pub fn protected(&self) -> &BTreeSet<usize> {
        &self.protected
    }

    /// The part of a set of tasks that is protected.
    fn share(&self, tasks: &TaskSet) -> f64 {
        let protected = tasks.iter().filter(|task| self.protected.contains(task)).count();
        protected as f64 / tasks.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::graph::Graph;
    use crate::text;

    fn three() -> Tasks {
        let model = text::parse("in x [1,3]\na = Relu(x)\nb = Relu(x)\nc = Relu(x)\nout a, b, c").unwrap();
        Tasks::of(&Graph::new(&model).unwrap(), &[]).unwrap()
    }

    fn set(tasks: &[usize]) -> TaskSet {
        let mut set = TaskSet::default();
        tasks.iter().for_each(|task| set.insert(*task));
        set
    }

    #[test]
    fn branches_and_trunk_have_ratios_of_their_own() {
        let ratios = TaskRatios::of(&three(), &[("b".into(), 0.7)], Some(0.2), &["c".into()]).unwrap();
        let found = [&[][..], &[0], &[1], &[0, 1], &[1, 2]].map(|tasks| ratios.ratio(&set(tasks), 0.5));
        assert_eq!(found, [0.5, 0.5, 0.7, 0.2, 0.2]);
        let found = [&[][..], &[0], &[1], &[0, 1]].map(|tasks| ratios.origin(&set(tasks)));
        assert_eq!(found, [Origin::Everything, Origin::Everything, Origin::Task(1), Origin::Trunk]);
        let found = [&[][..], &[0], &[2], &[0, 2]].map(|tasks| ratios.protects(&set(tasks)));
        assert_eq!(found, [false, false, true, false]);
    }

    #[test]
    fn the_share_of_protected_tasks_is_not_up_for_removal() {
        let ratios = TaskRatios::of(&three(), &[], None, &["c".into()]).unwrap();
        let found = [&[0, 1][..], &[1, 2], &[0, 1, 2]].map(|tasks| ratios.ratio(&set(tasks), 0.6));
        assert!(
            found.iter().zip([0.6, 0.3, 0.4]).all(|(found, expected): (&f64, f64)| (found - expected).abs() < 1e-12)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |by_task: &[(String, f64)], trunk, protected: &[&str]| {
            let protected: Vec<String> = protected.iter().map(ToString::to_string).collect();
            TaskRatios::of(&three(), by_task, trunk, &protected).unwrap_err().to_string()
        };
        assert!(refused(&[("z".into(), 0.5)], None, &[]).contains("no task `z`"));
        assert!(refused(&[], None, &["z"]).contains("no task `z`"));
        assert!(refused(&[("a".into(), 1.0)], None, &[]).contains("[0, 1)"));
        assert!(refused(&[], Some(-0.1), &[]).contains("[0, 1)"));
        assert!(refused(&[("a".into(), 0.1), ("a".into(), 0.2)], None, &[]).contains("two ratios"));
        assert!(refused(&[("a".into(), 0.1)], None, &["a"]).contains("is protected and has a ratio"));
        assert!(refused(&[], None, &["a", "b", "c"]).contains("every task is protected"));
    }
}
