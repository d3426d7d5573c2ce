//! Which engine runs models: what was asked for, what is there, and where it was looked for.
//!
//! Invariants: an engine or device that was named is used or an error; nothing is waited for longer than a few seconds.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use onnx_mtprune::engine::onnxruntime::find::{Candidate, Places, candidates};
use onnx_mtprune::engine::{Device, Engine, Fallover, OnnxRuntime, Tract};
use onnx_mtprune::{Error, Result};

use super::values;

/// An engine, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// CUDA if it is usable, else ONNX Runtime if it is found, else tract.
    Auto,
    /// The one that is built in.
    Tract,
    /// The one that is looked for.
    OnnxRuntime,
}

/// What the command line says about engines.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EngineArguments {
    /// What runs models: tract (built in), onnxruntime (see `engines`), or auto: CUDA if usable, else ONNX Runtime if
    /// found, else tract
    #[arg(long, value_name = "NAME", value_parser = values::engines(), help_heading = "Engine")]
    pub(crate) engine: Option<Choice>,
    /// Where ONNX Runtime computes: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", value_parser = values::device, help_heading = "Engine")]
    pub(crate) device: Option<Device>,
    /// The library of ONNX Runtime, or a folder or Python environment that holds it; without it ORT_DYLIB_PATH and the
    /// usual places
    #[arg(long, value_name = "PATH", help_heading = "Engine")]
    pub(crate) onnxruntime: Option<PathBuf>,
}

impl EngineArguments {
    /// True if nothing was said.
    pub(crate) fn is_open(&self) -> bool {
        self.engine.is_none() && self.device.is_none() && self.onnxruntime.is_none()
    }

    /// The engine that was asked for, or `otherwise` where nothing was said.
    pub(crate) fn engine(&self, otherwise: Choice) -> Result<Box<dyn Engine + Send>> {
        let named = self.device.is_some() || self.onnxruntime.is_some();
        match self.engine.unwrap_or(if named { Choice::OnnxRuntime } else { otherwise }) {
            Choice::Tract if self.onnxruntime.is_some() => {
                Err(Error::input("--onnxruntime says where to find an engine that --engine tract does not use"))
            }
            Choice::Tract => match self.device {
                Some(device @ Device::Cuda(_)) => Err(Error::input(format!("tract cannot compute on {device}"))
                    .help("use --engine onnxruntime, or leave out --device")),
                _ => Ok(Box::new(Tract)),
            },
            Choice::OnnxRuntime => Ok(Box::new(self.onnx_runtime(self.device.unwrap_or_default())?.runtime)),
            // Where a device was named, there is nothing to choose from.
            Choice::Auto if matches!(self.device, Some(Device::Cuda(_))) => {
                Ok(Box::new(self.onnx_runtime(self.device.unwrap_or_default())?.runtime))
            }
            Choice::Auto => Ok(Box::new(self.best()?)),
        }
    }

    /// All engines that are usable, best first.
    fn best(&self) -> Result<Fallover> {
        let mut engines: Vec<Box<dyn Engine + Send>> = Vec::new();
        let mut notes = Vec::new();
        match self.onnx_runtime(Device::Cpu) {
            Ok(found) => {
                if self.device.is_none() && has_cuda(&found.candidate) {
                    match OnnxRuntime::load(&found.candidate.path, Device::Cuda(0)) {
                        Ok(cuda) => engines.push(Box::new(cuda)),
                        Err(error) => notes.push(error.to_string()),
                    }
                }
                engines.push(Box::new(found.runtime));
            }
            // What a person named must work.
            Err(error) if self.near().is_named() => return Err(error),
            Err(error) => notes.push(format!("tract computes, because of this: {error}")),
        }
        engines.push(Box::new(Tract));
        Fallover::new(engines, notes)
    }

    /// Loads the first library that works.
    pub(crate) fn onnx_runtime(&self, device: Device) -> Result<Found> {
        // What costs nothing comes first, and nobody waits for Python where a library was found without it.
        let steps: [&dyn Fn() -> Places; 3] =
            [&|| self.near(), &|| Places { package: python_package(), ..Places::default() }, &|| Places {
                system: true,
                ..Places::default()
            }];
        let mut broken: Vec<Error> = Vec::new();
        for step in steps {
            let places = step();
            let mut found = candidates(&places);
            if self.device != Some(Device::Cpu) {
                found.sort_by_key(|candidate| !has_cuda(candidate));
            }
            for candidate in found {
                match OnnxRuntime::load(&candidate.path, device) {
                    Ok(runtime) => return Ok(Found { runtime, candidate, broken }),
                    Err(error) if places.is_named() => return Err(error),
                    // That the system knows no such name is no news.
                    Err(_) if places.system => {}
                    Err(error) => broken.push(error),
                }
            }
        }
        let help =
            "install it with `pip install onnxruntime`, name its library with --onnxruntime, or use --engine tract";
        Err(broken.into_iter().next().unwrap_or_else(|| Error::input("no ONNX Runtime was found").help(help)))
    }

    /// What the command line and the environment say.
    pub(crate) fn near(&self) -> Places {
        Places {
            argument: self.onnxruntime.clone(),
            variable: path_in("ORT_DYLIB_PATH"),
            program: std::env::current_exe().ok().map(|program| program.canonicalize().unwrap_or(program)),
            working: std::env::current_dir().ok(),
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path_in).collect(),
            package: None,
            system: false,
        }
    }
}

/// A library that was loaded.
pub(crate) struct Found {
    pub(crate) runtime: OnnxRuntime,
    pub(crate) candidate: Candidate,
    /// Libraries that come before it and cannot be used.
    pub(crate) broken: Vec<Error>,
}

/// True if the library was installed with the provider for CUDA.
pub(crate) fn has_cuda(candidate: &Candidate) -> bool {
    candidate.path.parent().is_some_and(|folder| folder.join("libonnxruntime_providers_cuda.so").is_file())
}

fn path_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of the package `onnxruntime`, found without importing it.
fn python_package() -> Option<PathBuf> {
    const QUESTION: &str = "import importlib.util as u; s = u.find_spec('onnxruntime'); \
                            print(s.submodule_search_locations[0] if s else '')";
    let mut command = Command::new(if cfg!(windows) { "python" } else { "python3" });
    // Python imports from the folder that it is started in, which may be anybody's.
    command.current_dir("/").args(["-c", QUESTION]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let folder = answer(command.spawn().ok()?)?;
    let folder = folder.trim();
    (!folder.is_empty()).then(|| PathBuf::from(folder))
}

/// What a process prints, unless it takes too long.
fn answer(mut child: Child) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = Instant::now();
    // A path fits into the pipe, so the process can end before anything is read.
    while child.try_wait().ok()?.is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
}
