//! One sample for one input of a model: type, shape and range are checked here, before anything is run.
//!
//! Invariants: anything becomes a float, integers become integers that can hold them, a float never becomes an integer;
//! NaN is refused, and so is a number that would become infinite when it is narrowed. Infinity as such is data: masks of
//! attention are minus infinity where nothing is to be seen.

use crate::engine::inputs::InputDeclaration;
use crate::engine::{Feeds, Value};
use crate::{Error, Result};

/// How samples become an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The first axis of the input is the batch; samples lack it.
    Stacked,
    /// A sample is the whole input.
    Whole,
}

/// An input, and how it gets its samples.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) input: InputDeclaration,
    pub(super) way: Way,
}

impl Slot {
    /// Decides by the rank of the first sample.
    pub(super) fn new(input: InputDeclaration, first: &Feeds) -> Result<Self> {
        let rank = value_of(first, &input.name)?.shape().len();
        let way = match &input.shape {
            Some(shape) if shape.len() == rank => Way::Whole,
            _ => Way::Stacked,
        };
        let slot = Self { input, way };
        slot.fit(first)?;
        Ok(slot)
    }

    /// The extent of the batch axis, where the file fixes it.
    pub(super) fn fixed_batch(&self) -> Option<usize> {
        match self.way {
            Way::Stacked => self.input.shape.as_ref()?.first()?.extent(),
            Way::Whole => None,
        }
    }

    /// The value of a sample for this input; with a batch axis of extent 1 where samples are stacked.
    pub(super) fn fit(&self, feeds: &Feeds) -> Result<Value> {
        let named = |e: Error| e.tensor(&self.input.name);
        let value = value_of(feeds, &self.input.name)?;
        self.check_shape(value.shape()).map_err(named)?;
        check_numbers(value).map_err(named)?;
        let cast = value.cast(self.input.element).map_err(named)?;
        if cast.element() != value.element() && infinities(&cast) > infinities(value) {
            let what = format!("a value is beyond the range of {}", self.input.element.as_str_name());
            return Err(named(Error::input(what)));
        }
        match self.way {
            Way::Whole => Ok(cast),
            Way::Stacked => {
                let mut shape = vec![1];
                shape.extend(cast.shape());
                cast.reshape(&shape).map_err(named)
            }
        }
    }

    fn check_shape(&self, shape: &[usize]) -> Result<()> {
        let Some(declared) = &self.input.shape else { return Ok(()) };
        let inner = match self.way {
            Way::Whole => declared.as_slice(),
            Way::Stacked => declared.get(1..).unwrap_or_default(),
        };
        let fits = inner.len() == shape.len()
            && !(self.way == Way::Stacked && declared.is_empty())
            && inner.iter().zip(shape).all(|(d, n)| d.extent().is_none_or(|extent| extent == *n));
        if fits {
            return Ok(());
        }
        let want: Vec<String> = declared.iter().map(ToString::to_string).collect();
        let what = format!("the shape {shape:?} does not fit the input [{}]", want.join(", "));
        Err(Error::input(what).help("the first axis of an array counts samples, the others are those of one input"))
    }
}

fn value_of<'a>(feeds: &'a Feeds, name: &str) -> Result<&'a Value> {
    let value = feeds.iter().find(|(n, _)| n == name);
    value.map(|(_, v)| v).ok_or_else(|| Error::input("has no value for a graph input").tensor(name))
}

fn check_numbers(value: &Value) -> Result<()> {
    let first = match value {
        Value::F32(a) => a.iter().position(|x| x.is_nan()),
        Value::F64(a) => a.iter().position(|x| x.is_nan()),
        Value::F16(a) => a.iter().position(|x| x.is_nan()),
        _ => None,
    };
    match first {
        None => Ok(()),
        Some(at) => {
            let error = Error::input(format!("NaN as element {at} of the shape {:?}", value.shape()));
            Err(error.help("remove the sample or clean the data"))
        }
    }
}

fn infinities(value: &Value) -> usize {
    match value {
        Value::F32(a) => a.iter().filter(|x| x.is_infinite()).count(),
        Value::F64(a) => a.iter().filter(|x| x.is_infinite()).count(),
        Value::F16(a) => a.iter().filter(|x| x.is_infinite()).count(),
        _ => 0,
    }
}
