//! ONNX Runtime, loaded at run time from wherever it is installed, on the CPU or on a CUDA device.
//!
//! Nothing is linked: the program runs without it. Docs: <https://onnxruntime.ai/docs/>.
//! Invariants: the provider asked for is the one that runs, or opening fails; operators that the provider lacks run on
//! the CPU, and [`OnnxRuntime::describe`](super::Engine::describe) counts them; shapes that the file declares for inner
//! values are not believed, those of the inputs are the ones given.

mod cuda;
mod elf;
pub mod find;
mod library;
mod message;
mod model;
mod placement;
mod session;
mod tensor;

use std::path::Path;

use self::library::Library;
use self::placement::Placement;
use super::{Description, Engine, InputFact, Session};
use crate::proto::onnx::ModelProto;
use crate::{Error, Result, text};

/// Where ONNX Runtime computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The graphics card of this number.
    Cuda(u16),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("CPU"),
            Self::Cuda(number) => write!(f, "CUDA:{number}"),
        }
    }
}

/// ONNX Runtime on one device.
#[derive(Debug)]
pub struct OnnxRuntime {
    library: Library,
    device: Device,
    placement: Placement,
    /// Models that take more bytes than this get their weights one by one, because no encoded model may pass 2 GB.
    most_inline: usize,
}

impl OnnxRuntime {
    /// Loads the library at `path` and makes sure that it computes on `device`. A process holds one library: a second
    /// call with the same file shares it.
    ///
    /// # Errors
    /// When the file is no library, is too old, is another one than was loaded before, or the device is not usable.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        const MOST_INLINE: usize = 1 << 30;
        let library = Library::load(path)?;
        if let Device::Cuda(_) = device {
            cuda::preload(library.path());
        }
        let engine = Self { library, device, placement: Placement::default(), most_inline: MOST_INLINE };
        engine.try_out()?;
        engine.placement.clear();
        Ok(engine)
    }

    /// Hands big weights over one by one from models of more than `bytes` bytes on, as those of more than 2 GB need.
    #[must_use]
    pub fn inline_up_to(mut self, bytes: usize) -> Self {
        self.most_inline = bytes;
        self
    }

    /// The device that was asked for.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Runs the smallest of models, because a driver that does not fit shows at the first call and not before.
    fn try_out(&self) -> Result<()> {
        let model = text::parse("in x [1,1,2,2]\ny = Conv(x, w[1,1,1,1])\nout y")?;
        let feeds = super::samples::random_feeds(
            &super::inputs::input_shapes(&model, &Default::default())?.into_iter().next().unwrap_or_default(),
            0,
        )?;
        let what = format!("ONNX Runtime {} cannot compute on {}", self.library.version(), self.device);
        // That it is a model that cannot be loaded says nothing: the smallest one is always at hand.
        let unusable = |error: Error| {
            let why = error.to_string();
            let why = why.strip_prefix("ONNX Runtime cannot load the model: ").unwrap_or(&why);
            let error = Error::engine(format!("{what}: {why}"));
            if self.device == Device::Cpu { error } else { error.help(cuda::HELP) }
        };
        super::run_once(self, &model, &feeds, &["y".to_owned()]).map(drop).map_err(unusable)
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        match self.device {
            Device::Cpu => "ONNX Runtime (CPU)",
            Device::Cuda(_) => "ONNX Runtime (CUDA)",
        }
    }

    fn describe(&self) -> Description {
        Description {
            name: self.name(),
            version: Some(self.library.version().to_owned()),
            library: Some(self.library.path().to_path_buf()),
            device: self.device.to_string(),
            nodes: self.placement.largest(),
            notes: Vec::new(),
        }
    }

    fn open(&self, model: &ModelProto, inputs: &[InputFact], wanted: &[String]) -> Result<Box<dyn Session>> {
        let prepared = model::prepare(model, inputs, wanted, self.most_inline)?;
        let opened = session::open(&self.library, self.device, prepared)?;
        self.placement.note(opened.placed());
        Ok(Box::new(opened))
    }
}
