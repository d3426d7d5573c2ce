//! Shows the axes of every value of a model file in text form: `cargo run --release --example axes -- FILE`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use onnx_mtprune::prune::Analysis;
use onnx_mtprune::{proto, text};

fn main() -> onnx_mtprune::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_default();
    let model = match std::fs::read_to_string(&path) {
        Ok(text) => text::parse(&text)?,
        Err(_) => proto::read(path.as_ref())?.model,
    };
    let analysis = Analysis::of(&model, &[])?;
    let (space, graph) = (&analysis.coupling.space, &analysis.graph);
    let name = |atom| {
        let extent = analysis.coupling.symbols.borrow().text(space.extent(atom));
        match analysis.groups.iter().position(|g| g.atom == atom) {
            Some(group) if space.lock_of(atom).is_none() => format!("G{group}[{extent}]"),
            _ => extent,
        }
    };
    for id in graph.value_ids() {
        let axes = analysis.coupling.axes[id.0 as usize].iter().flatten();
        let axes: Vec<String> = axes.map(|axis| space.text(*axis, &name)).collect();
        println!("{}: {}", graph.value(id).name, axes.join(", "));
    }
    Ok(())
}
