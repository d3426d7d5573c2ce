//! Listing: which engines run models here, and why others do not.

use std::path::PathBuf;

use onnx_mtprune::engine::onnxruntime::find::candidates;
use onnx_mtprune::engine::{Description, Device, Engine, OnnxRuntime, Tract};
use onnx_mtprune::{Error, Result};
use serde::Serialize;

use super::arguments::EnginesArguments;
use super::console::Console;
use super::runtime::{Choice, EngineArguments, has_cuda};

/// One engine on one device.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    device: String,
    usable: bool,
    version: Option<String>,
    library: Option<PathBuf>,
    /// How the library was found.
    origin: Option<&'static str>,
    /// Why the engine is not usable.
    reason: Option<String>,
}

/// Everything that is there.
#[derive(Serialize)]
struct Listing {
    engines: Vec<Row>,
    /// Libraries that were found and cannot be used.
    broken: Vec<String>,
    /// Libraries that come after the one that is used.
    unused: Vec<PathBuf>,
    /// What `--engine auto` takes.
    auto: String,
}

pub(super) fn run(arguments: &EnginesArguments) -> Result<()> {
    let console = Console::new(false, false);
    let listing =
        listing(&EngineArguments { onnxruntime: arguments.onnxruntime.clone(), ..EngineArguments::default() })?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&listing);
        let text = text.map_err(|e| Error::input("the list cannot be written as JSON").because(e))?;
        return console.print(&format!("{text}\n"));
    }
    console.print(&page(&listing))
}

fn listing(arguments: &EngineArguments) -> Result<Listing> {
    let mut engines = vec![usable(Tract.describe(), None)];
    let (mut broken, mut unused) = (Vec::new(), Vec::new());
    match arguments.onnx_runtime(Device::Cpu) {
        Ok(found) => {
            let (path, origin) = (&found.candidate.path, found.candidate.origin);
            engines.push(usable(found.runtime.describe(), Some(origin)));
            let cuda = OnnxRuntime::load(path, Device::Cuda(0));
            engines.push(match cuda {
                Ok(cuda) => usable(cuda.describe(), Some(origin)),
                Err(_) if !has_cuda(&found.candidate) => {
                    let reason =
                        "this library was built without CUDA; `pip install 'onnxruntime-gpu[cuda,cudnn]'` has it";
                    unusable("ONNX Runtime (CUDA)", Device::Cuda(0), reason.to_owned())
                }
                Err(error) => unusable("ONNX Runtime (CUDA)", Device::Cuda(0), error.to_string()),
            });
            broken.extend(found.broken.iter().map(ToString::to_string));
            let others = candidates(&arguments.near()).into_iter().map(|c| c.path);
            unused.extend(others.filter(|other| other.canonicalize().ok() != path.canonicalize().ok()));
        }
        Err(error) => engines.push(unusable("ONNX Runtime (CPU)", Device::Cpu, error.to_string())),
    }
    let auto = match arguments.engine(Choice::Auto) {
        Ok(engine) => engine.describe().label(),
        Err(error) => format!("nothing: {error}"),
    };
    Ok(Listing { engines, broken, unused, auto })
}

fn usable(description: Description, origin: Option<&'static str>) -> Row {
    let Description { name, version, library, device, .. } = description;
    Row { name, device, usable: true, version, library, origin, reason: None }
}

fn unusable(name: &'static str, device: Device, reason: String) -> Row {
    let device = device.to_string();
    Row { name, device, usable: false, version: None, library: None, origin: None, reason: Some(reason) }
}

fn page(listing: &Listing) -> String {
    let mut page = String::new();
    for row in &listing.engines {
        let runtime = row.name.split(" (").next().unwrap_or(row.name);
        let version = row.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
        let what = match (&row.reason, &row.library, row.origin) {
            (Some(reason), ..) => format!("not usable: {reason}"),
            (None, Some(library), Some(origin)) => format!("usable, {} ({origin})", library.display()),
            _ => "usable, built in".to_owned(),
        };
        page.push_str(&format!("{:<30}{what}\n", format!("{runtime}{version} ({})", row.device)));
    }
    for reason in &listing.broken {
        page.push_str(&format!("passed over                   {reason}\n"));
    }
    for path in &listing.unused {
        page.push_str(&format!("not used                      {}\n", path.display()));
    }
    page + &format!("--engine auto takes {}\n", listing.auto)
}
