//! How pictures become an input: what a person says, in a `preprocess.toml` beside them or in options, and what the
//! model says where the person is silent.
//!
//! Invariants: what both say must agree; whatever remains open is an error, never a guess.

use std::path::Path;

use serde::Deserialize;

use super::files::open;
use crate::engine::ElementType;
use crate::engine::inputs::InputDeclaration;
use crate::{Error, Result};

/// The longest side of an input, in pixels.
const LONGEST_SIDE: usize = 1 << 14;

/// The most bytes of a `preprocess.toml` that are read.
const LONGEST_FILE: u64 = 1 << 16;

/// What a person says about pictures. Keys of the file are the names of the fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preprocess {
    /// The graph input that takes the pictures; needed where there are several.
    pub input: Option<String>,
    /// Height and width in pixels; those of the input unless it leaves them open.
    pub size: Option<[usize; 2]>,
    /// How a picture gets that size.
    pub resize: Resize,
    /// The order of axes; that of the input unless it leaves open where the channels are.
    pub layout: Option<Layout>,
    /// The order of colours; gray for one channel and RGB for three unless said otherwise.
    pub channels: Option<Channels>,
    /// What pixels of 0 to 255 are multiplied with first; 1/255 by default.
    pub scale: Option<f64>,
    /// What is subtracted then: one number, or one per channel in the order of `channels`.
    pub mean: Vec<f64>,
    /// What the difference is divided by: one number, or one per channel in the order of `channels`.
    pub std: Vec<f64>,
    /// The type of the numbers; `uint8` keeps pixels as they are. That of the input unless said otherwise.
    pub dtype: Option<Numbers>,
    /// The colour, 0 to 255, around a picture that does not fill its place (`resize = "letterbox"`).
    pub fill: u8,
}

/// How a picture gets its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Both sides independently.
    #[default]
    Stretch,
    /// The largest part in the middle that has the right shape.
    Crop,
    /// The whole picture in the middle, keeping its shape, with a border.
    Letterbox,
}

/// The order of the axes of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// [batch, channels, height, width].
    Nchw,
    /// [batch, height, width, channels].
    Nhwc,
}

/// The channels of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as OpenCV has them.
    Bgr,
    /// Brightness alone.
    Gray,
}

/// The numbers that a picture becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// Single precision.
    Float32,
    /// Pixels as they are, 0 to 255.
    Uint8,
}

impl Preprocess {
    /// Reads a `preprocess.toml`.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or has a key that is not a field.
    pub fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        let file = open(path)?;
        let read = std::io::Read::read_to_string(&mut std::io::Read::take(file, LONGEST_FILE), &mut text);
        read.map_err(|e| Error::input("cannot read this file").file(path).because(e))?;
        toml::from_str(&text).map_err(|e| {
            // The whole message shows the place with lines of its own.
            let line = e.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
            Error::input(format!("line {line}: {}", e.message().replace('\n', ", "))).file(path)
        })
    }
}

/// Everything that is needed to turn a picture into numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    pub(super) input: String,
    pub(super) height: u32,
    pub(super) width: u32,
    pub(super) resize: Resize,
    pub(super) layout: Layout,
    pub(super) channels: Channels,
    pub(super) numbers: Numbers,
    pub(super) scale: f64,
    /// One number per channel, like `std`.
    pub(super) mean: Vec<f64>,
    pub(super) std: Vec<f64>,
    pub(super) fill: u8,
}

impl Recipe {
    /// Joins what the person and the model say.
    pub(super) fn new(said: &Preprocess, inputs: &[InputDeclaration]) -> Result<Self> {
        let input = the_input(said, inputs)?;
        let named = |e: Error| e.tensor(&input.name);
        let declared: Option<Vec<Option<usize>>> =
            input.shape.as_ref().map(|shape| shape.iter().map(|d| d.extent()).collect());
        let [a, b, c] = match declared.as_deref() {
            None => [None; 3],
            Some([_, a, b, c]) => [*a, *b, *c],
            Some(other) => {
                let what = format!("pictures need an input of rank 4, this one has {}", other.len());
                return Err(named(Error::input(what).help("give the data as an .npz file")));
            }
        };
        let is_count = |extent: Option<usize>| matches!(extent, Some(1 | 3));
        let layout = match (said.layout, is_count(a), is_count(c)) {
            (Some(layout), _, _) => layout,
            (None, true, false) => Layout::Nchw,
            (None, false, true) => Layout::Nhwc,
            _ => return Err(named(missing("layout = \"nchw\" or \"nhwc\""))),
        };
        let (count, height, width) = match layout {
            Layout::Nchw => (a, b, c),
            Layout::Nhwc => (c, a, b),
        };
        let channels = match (said.channels, count) {
            (Some(Channels::Gray), None | Some(1)) | (None, Some(1)) => Channels::Gray,
            (Some(colours @ (Channels::Rgb | Channels::Bgr)), None | Some(3)) => colours,
            (None, Some(3)) => Channels::Rgb,
            (None, None) => return Err(named(missing("channels = \"rgb\", \"bgr\" or \"gray\""))),
            (_, Some(count)) => {
                let what = format!("an input with {count} channels cannot take these pictures");
                return Err(named(Error::input(what).help("correct `channels` or `layout` in preprocess.toml")));
            }
        };
        let side = |declared: Option<usize>, said: Option<usize>| match (declared, said) {
            (Some(d), Some(s)) if d != s => {
                Err(named(Error::input(format!("takes a side of {d} pixels, but `size` says {s}"))))
            }
            (None, None) => Err(named(missing("size = [height, width]"))),
            (Some(side), _) | (None, Some(side)) if (1..=LONGEST_SIDE).contains(&side) => Ok(side as u32),
            (side, _) => Err(named(Error::input(format!("a side of {} pixels is not usable", side.unwrap_or(0))))),
        };
        let places = if channels == Channels::Gray { 1 } else { 3 };
        let numbers = said.dtype.unwrap_or(match input.element {
            ElementType::Uint8 => Numbers::Uint8,
            _ => Numbers::Float32,
        });
        if numbers == Numbers::Uint8 && (said.scale.is_some() || !said.mean.is_empty() || !said.std.is_empty()) {
            let error = Error::input("pixels of the type uint8 are fed as they are, without scale, mean and std");
            return Err(named(error.help("remove those keys, or set dtype = \"float32\"")));
        }
        let recipe = Self {
            input: input.name.clone(),
            height: side(height, said.size.map(|s| s[0]))?,
            width: side(width, said.size.map(|s| s[1]))?,
            resize: said.resize,
            layout,
            channels,
            numbers,
            scale: said.scale.unwrap_or(1.0 / 255.0),
            mean: per_channel(&said.mean, 0.0, places, "mean").map_err(named)?,
            std: per_channel(&said.std, 1.0, places, "std").map_err(named)?,
            fill: said.fill,
        };
        if !recipe.scale.is_finite() || recipe.std.contains(&0.0) {
            return Err(named(Error::input("`scale` must be a number, and `std` must not be 0")));
        }
        Ok(recipe)
    }

    /// What is done, for a report.
    pub(super) fn note(&self) -> String {
        let Self { input, height, width, resize, layout, channels, .. } = self;
        let size = format!("pictures become `{input}`: {resize:?} to {height} x {width}, {layout:?}, {channels:?}");
        let numbers = match self.numbers {
            Numbers::Uint8 => "pixels as they are".to_string(),
            Numbers::Float32 => format!("(pixel * {:.6} - {:?}) / {:?}", self.scale, self.mean, self.std),
        };
        format!("{size}, {numbers}").to_lowercase().replacen(&input.to_lowercase(), input, 1)
    }
}

fn the_input<'a>(said: &Preprocess, inputs: &'a [InputDeclaration]) -> Result<&'a InputDeclaration> {
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    match (inputs, &said.input) {
        ([input], None) => Ok(input),
        ([input], Some(name)) if *name == input.name => Ok(input),
        (_, Some(name)) if !names.contains(&name.as_str()) => {
            Err(Error::input(format!("`input` says `{name}`, but the graph inputs are {names:?}")))
        }
        _ => {
            let error = Error::input(format!("pictures are one input, but the model has {names:?}"));
            Err(error.help("give the data as an .npz file with an array for every input"))
        }
    }
}

fn missing(key: &str) -> Error {
    Error::input(format!("the model leaves open how pictures become its input: {key} is missing"))
        .help("write it into preprocess.toml beside the pictures")
}

fn per_channel(said: &[f64], default: f64, channels: usize, key: &str) -> Result<Vec<f64>> {
    if said.iter().any(|number| !number.is_finite()) {
        return Err(Error::input(format!("`{key}` must hold numbers")));
    }
    match said {
        [] => Ok(vec![default; channels]),
        [one] => Ok(vec![*one; channels]),
        all if all.len() == channels => Ok(all.to_vec()),
        all => Err(Error::input(format!("`{key}` has {} numbers for {channels} channels", all.len()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::engine::inputs::declared_inputs;
    use crate::engine::inputs::tests::model_with_inputs;

    fn recipe(toml: &str, element: ElementType, shape: &[&str]) -> Result<Recipe> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("preprocess.toml");
        std::fs::write(&path, toml).unwrap();
        let model = model_with_inputs(&[("image", element, Some(shape))]);
        Recipe::new(&Preprocess::read(&path)?, &declared_inputs(&model).unwrap())
    }

    fn message(toml: &str, shape: &[&str]) -> String {
        recipe(toml, ElementType::Float, shape).unwrap_err().to_string()
    }

    #[test]
    fn the_model_answers_where_the_person_is_silent() {
        let plain = recipe("", ElementType::Float, &["n", "3", "32", "48"]).unwrap();
        assert_eq!((plain.height, plain.width, plain.layout, plain.channels), (32, 48, Layout::Nchw, Channels::Rgb));
        assert_eq!((plain.scale, plain.mean, plain.std), (1.0 / 255.0, vec![0.0; 3], vec![1.0; 3]));
        let bytes = recipe("size = [5, 6]", ElementType::Uint8, &["n", "h", "w", "1"]).unwrap();
        assert_eq!((bytes.height, bytes.width, bytes.layout, bytes.channels), (5, 6, Layout::Nhwc, Channels::Gray));
        assert_eq!(bytes.numbers, Numbers::Uint8);
        let open =
            "layout = 'nhwc'\nchannels = 'bgr'\nsize = [4, 4]\nscale = 1\nmean = [103.9, 116.8, 123.7]\nstd = [2]";
        let open = recipe(open, ElementType::Float, &["n", "h", "w", "c"]).unwrap();
        assert_eq!((open.channels, open.scale, open.std.as_slice()), (Channels::Bgr, 1.0, &[2.0; 3][..]));
        let note = open.note();
        assert_eq!(
            note,
            "pictures become `image`: stretch to 4 x 4, nhwc, bgr, (pixel * 1.000000 - [103.9, 116.8, 123.7]) / [2.0, 2.0, 2.0]"
        );
    }

    #[test]
    fn what_is_open_or_contradicts_is_said() {
        let fixed = &["n", "3", "32", "32"];
        assert!(message("", &["n", "3", "h", "w"]).contains("size = [height, width] is missing"));
        assert!(message("", &["n", "c", "32", "32"]).contains("layout = \"nchw\" or \"nhwc\" is missing"));
        assert!(message("layout = 'nchw'", &["n", "c", "32", "32"]).contains("channels = \"rgb\""));
        assert!(message("channels = 'gray'", fixed).contains("an input with 3 channels"));
        assert!(message("size = [32, 33]", fixed).contains("takes a side of 32 pixels, but `size` says 33"));
        assert!(message("mean = [1, 2]", fixed).contains("`mean` has 2 numbers for 3 channels"));
        assert!(message("std = [0]", fixed).contains("`std` must not be 0"));
        assert!(message("scale = nan", fixed).contains("`scale` must be a number"));
        assert!(message("dtype = 'uint8'\nscale = 1", fixed).contains("fed as they are"));
        assert!(
            message("input = 'other'", fixed).contains("`input` says `other`, but the graph inputs are [\"image\"]")
        );
        assert!(message("", &["n", "32", "32"]).contains("rank 4, this one has 3"));
        assert!(message("size = [99999, 1]", &["n", "3", "h", "w"]).contains("a side of"));
    }

    #[test]
    fn the_documented_file_is_understood() {
        let page = include_str!("../../../docs/calibration-data.md");
        let toml = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let recipe = recipe(toml, ElementType::Float, &["n", "3", "h", "w"]).unwrap();
        assert_eq!((recipe.height, recipe.resize, recipe.mean[0], recipe.std[2]), (224, Resize::Crop, 0.485, 0.225));
        assert!((recipe.scale - 1.0 / 255.0).abs() < 1e-12);
        let fields = toml.lines().count();
        assert_eq!(fields, 10, "every field of `Preprocess` has its line");
    }

    #[test]
    fn mistakes_in_the_file_are_placed() {
        let wrong = message("scale = 1\nresise = 'crop'", &["n", "3", "8", "8"]);
        assert!(wrong.contains("preprocess.toml: line 2: unknown field `resise`"), "{wrong}");
        assert!(message("= 3", &["n", "3", "8", "8"]).contains("line 1"));
        assert!(!message("resize = 'squeeze'", &["n", "3", "8", "8"]).contains('\n'));
    }
}
