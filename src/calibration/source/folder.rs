//! Folders of files of arrays: the samples of all files, one file after the other in the order of names.
//!
//! `.npy` files are one array each. Where they are named after the inputs, they stand side by side; otherwise they are
//! parts of the only input.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arrays::Arrays;
use super::files::Files;
use super::{Format, format_of, npy, open_file};
use crate::calibration::Source;
use crate::engine::Feeds;
use crate::engine::inputs::InputDeclaration;
use crate::{Error, Result};

/// How many sentences are worth reading.
const MOST_NOTES: usize = 3;

/// The entries of a folder, in the order of their names.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| Error::input("cannot list this folder").file(folder).because(e);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>>>()?;
    // What begins with a dot is hidden; other systems leave such files behind.
    paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
    paths.sort_unstable();
    Ok(paths)
}

/// Sources one after the other.
pub(super) struct Parts {
    parts: Vec<(PathBuf, Arrays)>,
    /// The number of the first sample of every part.
    starts: Vec<usize>,
    len: usize,
    notes: Vec<String>,
}

/// Opens the files of arrays among `paths`; `None` when there are none.
pub(super) fn open(paths: &[PathBuf], inputs: &[InputDeclaration], files: &Arc<Files>) -> Result<Option<Parts>> {
    let of_arrays: Vec<(&PathBuf, &Format)> =
        paths.iter().filter_map(|path| Some((path, format_of(path)?))).filter(|(path, _)| path.is_file()).collect();
    if of_arrays.is_empty() {
        return Ok(None);
    }
    if let Some(together) = side_by_side(&of_arrays, inputs, files)? {
        return Parts::new(vec![together]).map(Some);
    }
    let open = |(path, format): &(&PathBuf, &Format)| {
        let arrays = match inputs {
            [input] if is_single_sample(path, format, input)? => single_sample(path, input, files)?,
            _ => open_file(path, format, inputs, files)?,
        };
        Ok(((*path).clone(), arrays))
    };
    Parts::new(of_arrays.iter().map(open).collect::<Result<Vec<_>>>()?).map(Some)
}

/// The arrays of `.npy` files, when every input has one that is named after it.
fn side_by_side(
    of_arrays: &[(&PathBuf, &Format)],
    inputs: &[InputDeclaration],
    files: &Arc<Files>,
) -> Result<Option<(PathBuf, Arrays)>> {
    let mut found: Vec<(&InputDeclaration, &PathBuf)> = Vec::new();
    for input in inputs {
        let own = format!("{}.npy", input.name);
        let file = of_arrays.iter().find(|(path, _)| path.file_name().is_some_and(|name| name == own.as_str()));
        let Some((path, _)) = file else { return Ok(None) };
        found.push((input, path));
    }
    if found.is_empty() {
        return Ok(None);
    }
    let open =
        |(input, path): &(&InputDeclaration, &PathBuf)| Ok((input.name.clone(), npy::array(path, &input.name, files)?));
    let arrays = found.iter().map(open).collect::<Result<Vec<_>>>()?;
    let unused: Vec<String> = of_arrays
        .iter()
        .filter(|(path, _)| !found.iter().any(|(_, own)| own == path))
        .map(|(path, _)| path.display().to_string())
        .collect();
    let notes = match unused.is_empty() {
        true => Vec::new(),
        false => vec![format!("files that no graph input is named after are not used: {unused:?}")],
    };
    let folder = found.first().and_then(|(_, path)| path.parent()).unwrap_or(Path::new("")).to_path_buf();
    let arrays = Arrays::new(arrays, notes).map_err(|e| e.file(&folder))?;
    Ok(Some((folder, arrays)))
}

/// True for an `.npy` file that lacks the axis of samples: one sample of the only input.
fn is_single_sample(path: &Path, format: &Format, input: &InputDeclaration) -> Result<bool> {
    let Some(rank) = input.shape.as_ref().map(Vec::len).filter(|_| format.endings == ["npy"]) else { return Ok(false) };
    let header = npy::read_header(&mut super::files::open(path)?).map_err(|e| e.file(path))?;
    Ok(rank > 1 && header.shape.len() + 1 == rank)
}

fn single_sample(path: &Path, input: &InputDeclaration, files: &Arc<Files>) -> Result<Arrays> {
    let array = npy::array(path, &input.name, files)?;
    let array = array.into_one_sample().map_err(|e| e.file(path))?;
    let note = format!("every .npy file is one sample of the only input, `{}`", input.name);
    Arrays::new(vec![(input.name.clone(), array)], vec![note])
}

impl Parts {
    fn new(parts: Vec<(PathBuf, Arrays)>) -> Result<Self> {
        let mut starts = Vec::with_capacity(parts.len());
        let mut len = 0usize;
        let mut notes: Vec<String> = Vec::new();
        for (path, part) in &parts {
            starts.push(len);
            len = len
                .checked_add(part.len())
                .ok_or_else(|| Error::input("more samples than a computer can count").file(path))?;
            for note in part.notes().iter().filter(|note| !notes.contains(note)).take(MOST_NOTES).collect::<Vec<_>>() {
                if notes.len() < MOST_NOTES {
                    notes.push(note.clone());
                }
            }
        }
        Ok(Self { parts, starts, len, notes })
    }

    /// The part that holds a sample, and its number there.
    fn part(&self, index: usize) -> Option<(&PathBuf, &Arrays, usize)> {
        if index >= self.len {
            return None;
        }
        let part = self.starts.partition_point(|start| *start <= index).checked_sub(1)?;
        let (path, arrays) = self.parts.get(part)?;
        Some((path, arrays, index.checked_sub(*self.starts.get(part)?)?))
    }
}

impl Source for Parts {
    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize) -> Result<Feeds> {
        let Some((_, arrays, inner)) = self.part(index) else {
            return Err(Error::input(format!("there is no sample {index}, only {}", self.len)));
        };
        arrays.sample(inner)
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.part(index).map(|(path, _, _)| path.as_path())
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::npy::tests::npy;
    use super::super::npz::tests::npz;
    use super::super::{SourceOptions, open as open_source};
    use super::*;
    use crate::engine::ElementType;
    use crate::engine::inputs::tests::model_with_inputs;

    fn bytes(from: u8, n: usize) -> Vec<u8> {
        npy("'|u1'", false, &[n, 2], &(from..from + 2 * n as u8).collect::<Vec<_>>())
    }

    fn source(names: &[&str], members: &[(&str, Vec<u8>)]) -> Result<Box<dyn Source>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in members {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let inputs: Vec<_> = names.iter().map(|n| (*n, ElementType::Float, Some(&["n", "2"][..]))).collect();
        // The folder lives as long as the process, because samples are read later.
        open_source(folder.keep(), &model_with_inputs(&inputs), &SourceOptions::new(std::env::temp_dir()))
    }

    fn numbers(source: &dyn Source) -> Vec<Vec<f64>> {
        let sample = |n| source.sample(n).unwrap().iter().flat_map(|(_, v)| v.to_f64()).collect();
        (0..source.len()).map(sample).collect()
    }

    #[test]
    fn files_follow_one_another_in_the_order_of_names() {
        let second = npz(&[("x", bytes(10, 1))], true);
        let first = npz(&[("x", bytes(0, 2)), ("label", bytes(0, 1))], false);
        let source = source(&["x"], &[("b.npz", second), ("a.npz", first), (".hidden.npz", vec![])]).unwrap();
        assert_eq!(numbers(source.as_ref()), [[0.0, 1.0], [2.0, 3.0], [10.0, 11.0]]);
        assert!(source.file(1).unwrap().ends_with("a.npz") && source.file(2).unwrap().ends_with("b.npz"));
        assert!(source.sample(3).unwrap_err().to_string().contains("no sample 3, only 3"));
        assert!(source.notes()[0].contains("not used: [\"label\"]"));
    }

    #[test]
    fn arrays_named_after_inputs_stand_side_by_side() {
        let members = [("y.npy", bytes(20, 2)), ("x.npy", bytes(0, 2)), ("z.npy", bytes(0, 9))];
        let source = source(&["x", "y"], &members).unwrap();
        assert_eq!(numbers(source.as_ref()), [[0.0, 1.0, 20.0, 21.0], [2.0, 3.0, 22.0, 23.0]]);
        assert!(source.notes()[0].contains("z.npy"), "{:?}", source.notes());
    }

    #[test]
    fn arrays_of_the_only_input_follow_one_another() {
        let together = source(&["x"], &[("part1.npy", bytes(2, 2)), ("part0.npy", bytes(0, 1))]).unwrap();
        assert_eq!(numbers(together.as_ref()), [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]);
        let single = npy("'|u1'", false, &[2], &[8, 9]);
        let singles = source(&["x"], &[("1.npy", single.clone()), ("2.npy", single)]).unwrap();
        assert_eq!(numbers(singles.as_ref()), [[8.0, 9.0], [8.0, 9.0]]);
        assert!(singles.notes()[0].contains("every .npy file is one sample"));
    }

    #[test]
    fn folders_that_cannot_be_used_say_so() {
        assert!(source(&["x"], &[]).err().unwrap().to_string().contains("no data in this folder"));
        assert!(source(&["x"], &[("notes.txt", vec![])]).err().unwrap().to_string().contains("no data in this folder"));
        let error = source(&["x", "y"], &[("x.npy", bytes(0, 1))]).err().unwrap().to_string();
        assert!(error.contains("x.npy: no array for a graph input") && error.contains("(tensor `y`)"), "{error}");
        let error = source(&["x", "y"], &[("x.npy", bytes(0, 1)), ("y.npy", bytes(0, 2))]).err().unwrap().to_string();
        assert!(error.contains("2 samples, but `x` has 1 (tensor `y`)"), "{error}");
    }
}
