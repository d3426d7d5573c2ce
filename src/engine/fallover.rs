//! The first of several engines that can run a model.
//!
//! Invariants: the first model that runs decides, and from then on everything runs in that engine; otherwise a model
//! that only one of them accepts would be compared with another engine's numbers, and a fault of a pruned model would
//! pass for one of an engine. When none can run a model, the reason is that of the first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Description, Engine, InputFact, Session, Value};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result};

/// Engines in the order in which they are tried.
pub struct Fallover {
    shared: Arc<Shared>,
}

struct Shared {
    engines: Vec<Box<dyn Engine + Send>>,
    /// The engine that ran the first model, or [`OPEN`].
    chosen: AtomicUsize,
    notes: Mutex<Vec<String>>,
}

/// Nothing has run yet.
const OPEN: usize = usize::MAX;

impl Fallover {
    /// Tries `engines` in their order. `notes` are what a person should know about how they were found.
    ///
    /// # Errors
    /// When there is no engine.
    pub fn new(engines: Vec<Box<dyn Engine + Send>>, notes: Vec<String>) -> Result<Self> {
        if engines.is_empty() {
            return Err(Error::input("there is no engine to run models with"));
        }
        let shared = Shared { engines, chosen: AtomicUsize::new(OPEN), notes: Mutex::new(notes) };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// The engine that runs everything, or would be tried first.
    fn current(&self) -> Option<&dyn Engine> {
        let index = match self.chosen.load(Ordering::Acquire) {
            OPEN => 0,
            index => index,
        };
        self.engines.get(index).map(|engine| engine.as_ref() as &dyn Engine)
    }

    /// Runs in the first engine from `from` on that can, and settles on it.
    fn first_run(
        &self,
        from: usize,
        question: &Question,
        feeds: &[(String, Value)],
        reason: Error,
    ) -> Result<Vec<Value>> {
        for (index, engine) in self.engines.iter().enumerate().skip(from) {
            let opened = engine.open(&question.model, &question.inputs, &question.wanted);
            if let Ok(values) = opened.and_then(|session| session.run(feeds)) {
                self.settle(index, Some(&reason));
                return Ok(values);
            }
        }
        Err(reason)
    }

    /// Settles on an engine unless another run has done so in the meantime.
    fn settle(&self, index: usize, reason: Option<&Error>) {
        if self.chosen.compare_exchange(OPEN, index, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        if let (Some(reason), Some(engine)) = (reason, self.engines.get(index)) {
            let note = format!("{} computes, because of this: {reason}", engine.name());
            self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
        }
    }
}

impl Engine for Fallover {
    fn name(&self) -> &'static str {
        self.shared.current().map_or("no engine", Engine::name)
    }

    fn describe(&self) -> Description {
        let mut description = match self.shared.current() {
            Some(engine) => engine.describe(),
            None => super::Tract.describe(),
        };
        description.notes.extend(self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        description
    }

    fn open(&self, model: &ModelProto, inputs: &[InputFact], wanted: &[String]) -> Result<Box<dyn Session>> {
        if let (false, Some(engine)) = (self.shared.chosen.load(Ordering::Acquire) == OPEN, self.shared.current()) {
            return engine.open(model, inputs, wanted);
        }
        let mut reason = None;
        for (index, engine) in self.shared.engines.iter().enumerate() {
            match engine.open(model, inputs, wanted) {
                Ok(session) => {
                    let question = Question { model: model.clone(), inputs: inputs.to_vec(), wanted: wanted.to_vec() };
                    let shared = self.shared.clone();
                    return Ok(Box::new(Undecided { session, index, question, reason, shared }));
                }
                Err(error) => reason = reason.or(Some(error)),
            }
        }
        Err(reason.unwrap_or_else(|| Error::input("there is no engine to run models with")))
    }
}

/// What an engine was asked to open.
struct Question {
    model: ModelProto,
    inputs: Vec<InputFact>,
    wanted: Vec<String>,
}

/// A session that was opened before any model had run. Opening proves little: shapes clash when a model runs.
struct Undecided {
    session: Box<dyn Session>,
    index: usize,
    question: Question,
    /// Why the engines before this one do not take the model.
    reason: Option<Error>,
    shared: Arc<Shared>,
}

impl Session for Undecided {
    fn run(&self, feeds: &[(String, Value)]) -> Result<Vec<Value>> {
        let outcome = self.session.run(feeds);
        let open = self.shared.chosen.load(Ordering::Acquire) == OPEN;
        match outcome {
            Err(error) if open => self.shared.first_run(self.index.saturating_add(1), &self.question, feeds, error),
            Ok(values) => {
                self.shared.settle(self.index, self.reason.as_ref());
                Ok(values)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::{Tract, facts_of, run_once, value::from_vec};
    use super::*;
    use crate::text;

    /// Fails when it opens a model, or when it runs one.
    struct Broken {
        opens: bool,
    }

    impl Engine for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }

        fn open(&self, _: &ModelProto, _: &[InputFact], _: &[String]) -> Result<Box<dyn Session>> {
            if self.opens { Ok(Box::new(Fails)) } else { Err(Error::engine("does not open")) }
        }
    }

    struct Fails;

    impl Session for Fails {
        fn run(&self, _: &[(String, Value)]) -> Result<Vec<Value>> {
            Err(Error::engine("does not run"))
        }
    }

    fn feeds() -> Vec<(String, Value)> {
        vec![("x".to_owned(), from_vec(&[1, 2], vec![1f32, -1.0]).unwrap().into())]
    }

    fn outputs(engine: &dyn Engine) -> Result<Vec<Value>> {
        let model = text::parse("in x [1,2]\ny = Relu(x)\nout y").unwrap();
        run_once(engine, &model, &feeds(), &["y".to_owned()])
    }

    #[test]
    fn the_first_that_runs_the_first_model_runs_everything() {
        for (opens, reason) in [(false, "does not open"), (true, "does not run")] {
            let engine = Fallover::new(vec![Box::new(Broken { opens }), Box::new(Tract)], Vec::new()).unwrap();
            assert_eq!(engine.name(), "broken");
            assert_eq!(outputs(&engine).unwrap()[0].to_f64(), [1.0, 0.0]);
            assert_eq!(engine.name(), Tract.name());
            assert_eq!(engine.describe().notes, [format!("tract (CPU) computes, because of this: {reason}")]);
        }
    }

    #[test]
    fn once_chosen_an_engine_is_not_left() {
        let engines: Vec<Box<dyn Engine + Send>> = vec![Box::new(Tract), Box::new(Broken { opens: true })];
        let engine = Fallover::new(engines, vec!["found".to_owned()]).unwrap();
        outputs(&engine).unwrap();
        let wrong = text::parse("in x [1,2]\ny = local.Unknown(x)\nout y").unwrap();
        let error = engine.open(&wrong, &facts_of(&feeds()), &["y".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("tract cannot"), "{error}");
        assert_eq!((engine.name(), engine.describe().notes), (Tract.name(), vec!["found".to_owned()]));
    }

    #[test]
    fn when_nothing_runs_the_first_reason_is_told() {
        let engines: Vec<Box<dyn Engine + Send>> =
            vec![Box::new(Broken { opens: true }), Box::new(Broken { opens: false })];
        let engine = Fallover::new(engines, Vec::new()).unwrap();
        assert_eq!(outputs(&engine).unwrap_err().to_string(), "does not run");
        assert!(Fallover::new(Vec::new(), Vec::new()).is_err());
    }
}
