//! Folders of pictures: decoded, resized and scaled when their turn comes.
//!
//! Pixels are taken as they are stored: tags of orientation and colour profiles do nothing and transparency is dropped,
//! as in most training code. Resizing is bilinear over the whole area that becomes a pixel. Invariants: nothing larger
//! than the bounds is decoded, whatever a file declares.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::imageops::{FilterType, crop_imm, overlay, resize};
use image::{DynamicImage, GrayImage, ImageBuffer, ImageReader, Limits, Luma, Pixel};

use super::files::open;
use super::folder::entries;
use super::preprocess::{Channels, Layout, Numbers, Preprocess, Recipe, Resize};
use crate::calibration::Source;
use crate::engine::inputs::InputDeclaration;
use crate::engine::value::from_vec;
use crate::engine::{Feeds, Value};
use crate::{Error, Result};

/// Endings of the names of pictures, in lower case.
pub(super) const ENDINGS: &[&str] = &["jpeg", "jpg", "png"];

/// The file that says how pictures become an input.
const FILE: &str = "preprocess.toml";

/// How deep folders in folders are searched.
const DEEPEST: usize = 8;

/// The longest side of a picture, in pixels.
const LONGEST_SIDE: u32 = 1 << 15;

/// The most memory that decoding one picture may take, in bytes.
const MOST_MEMORY: u64 = 512 << 20;

/// A picture with 8 bits per channel.
type Buffer<P> = ImageBuffer<P, Vec<u8>>;

/// Pictures as samples of one input.
pub(super) struct Pictures {
    paths: Vec<PathBuf>,
    recipe: Recipe,
    notes: Vec<String>,
}

/// Opens the pictures in a folder and the folders in it; `None` when there are none.
pub(super) fn open_folder(
    folder: &Path,
    inputs: &[InputDeclaration],
    said: Option<&Preprocess>,
) -> Result<Option<Pictures>> {
    let mut paths = Vec::new();
    collect(folder, DEEPEST, &mut BTreeSet::new(), &mut paths)?;
    if paths.is_empty() {
        return Ok(None);
    }
    let file = folder.join(FILE);
    let recipe = match said {
        Some(said) => Recipe::new(said, inputs),
        None if file.exists() => Recipe::new(&Preprocess::read(&file)?, inputs),
        None => Recipe::new(&Preprocess::default(), inputs),
    };
    let recipe = recipe.map_err(|e| e.file(if file.exists() { &file } else { folder }))?;
    let notes = vec![recipe.note()];
    Ok(Some(Pictures { paths, recipe, notes }))
}

/// Links may lead back to a folder, whose pictures would then count again.
fn collect(folder: &Path, depth: usize, seen: &mut BTreeSet<PathBuf>, paths: &mut Vec<PathBuf>) -> Result<()> {
    if !seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())) {
        return Ok(());
    }
    for path in entries(folder)? {
        if path.is_dir() {
            if let Some(depth) = depth.checked_sub(1) {
                collect(&path, depth, seen, paths)?;
            }
            continue;
        }
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        if ENDINGS.contains(&ending.as_str()) {
            paths.push(path);
        }
    }
    Ok(())
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn sample(&self, index: usize) -> Result<Feeds> {
        let Some(path) = self.paths.get(index) else {
            return Err(Error::input(format!("there is no sample {index}, only {}", self.paths.len())));
        };
        let value = read(path, &self.recipe).map_err(|e| e.file(path).tensor(&self.recipe.input))?;
        Ok(vec![(self.recipe.input.clone(), value)])
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.paths.get(index).map(PathBuf::as_path)
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn read(path: &Path, recipe: &Recipe) -> Result<Value> {
    let undecodable = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::input("this picture does not decode").because(e).help("remove it or save it again")
    };
    let reader = ImageReader::new(BufReader::new(open(path)?)).with_guessed_format();
    let mut reader = reader.map_err(|e| undecodable(e.into()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| undecodable(e.into()))?;
    match recipe.channels {
        Channels::Gray => numbers(&sized(&gray(picture), recipe), recipe),
        Channels::Rgb | Channels::Bgr => numbers(&sized(&picture.into_rgb8(), recipe), recipe),
    }
}

/// Brightness as training code has it, Pillow and OpenCV alike: the weights of ITU-R BT.601, in 16 bits after the point.
/// What decodes pictures here has those of BT.709, which differ by up to 36 of 255.
fn gray(picture: DynamicImage) -> GrayImage {
    if !picture.color().has_color() {
        return picture.into_luma8();
    }
    let coloured = picture.into_rgb8();
    GrayImage::from_fn(coloured.width(), coloured.height(), |x, y| {
        let [red, green, blue] = coloured.get_pixel(x, y).0.map(u32::from);
        // The weights add up to 2^16, so the sum has 8 bits before the point.
        Luma([((19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16) as u8])
    })
}

/// The picture in the size of the input.
fn sized<P: Pixel<Subpixel = u8> + 'static>(picture: &Buffer<P>, recipe: &Recipe) -> Buffer<P> {
    let (width, height) = (recipe.width, recipe.height);
    let to_size = |picture: &Buffer<P>, width: u32, height: u32| match picture.dimensions() == (width, height) {
        true => picture.clone(),
        false => resize(picture, width, height, FilterType::Triangle),
    };
    match recipe.resize {
        Resize::Stretch => to_size(picture, width, height),
        Resize::Crop => {
            let (from_width, from_height) = picture.dimensions();
            let (w, h) = inside(width, height, from_width, from_height);
            let middle = crop_imm(picture, (from_width - w) / 2, (from_height - h) / 2, w, h);
            to_size(&middle.to_image(), width, height)
        }
        Resize::Letterbox => {
            let (from_width, from_height) = picture.dimensions();
            let (w, h) = inside(from_width, from_height, width, height);
            let small = to_size(picture, w, h);
            let colour = *P::from_slice(&vec![recipe.fill; usize::from(P::CHANNEL_COUNT)]);
            let mut whole = Buffer::from_pixel(width, height, colour);
            overlay(&mut whole, &small, i64::from((width - w) / 2), i64::from((height - h) / 2));
            whole
        }
    }
}

/// The largest extents in the ratio of `width` and `height` that lie inside the others; at least one pixel each.
fn inside(width: u32, height: u32, outer_width: u32, outer_height: u32) -> (u32, u32) {
    let [w, h, outer_w, outer_h] = [width, height, outer_width, outer_height].map(u64::from);
    // Rounded to the nearest pixel, which never exceeds the outer extent.
    let scaled = |side: u64, by: u64, of: u64| ((side * by + of / 2) / of.max(1)).max(1);
    let (w, h) = match w * outer_h >= h * outer_w {
        true => (outer_w, scaled(h, outer_w, w).min(outer_h)),
        false => (scaled(w, outer_h, h).min(outer_w), outer_h),
    };
    // Both are at most the outer extents, which are 32-bit numbers.
    (u32::try_from(w).unwrap_or(outer_width), u32::try_from(h).unwrap_or(outer_height))
}

/// The pixels as an array, [channels, height, width] or [height, width, channels].
fn numbers<P: Pixel<Subpixel = u8>>(picture: &Buffer<P>, recipe: &Recipe) -> Result<Value> {
    let channels = usize::from(P::CHANNEL_COUNT);
    let mut order: Vec<usize> = (0..channels).collect();
    if recipe.channels == Channels::Bgr {
        order.reverse();
    }
    let (height, width) = (recipe.height as usize, recipe.width as usize);
    let pixels = picture.as_raw();
    let stored = |pixel: usize, channel: usize| pixels.get(pixel * channels + channel).copied().unwrap_or(0);
    let count = height * width;
    let places: Vec<(usize, usize)> = match recipe.layout {
        Layout::Nchw => (0..channels).flat_map(|c| (0..count).map(move |p| (p, c))).collect(),
        Layout::Nhwc => (0..count).flat_map(|p| (0..channels).map(move |c| (p, c))).collect(),
    };
    let shape = match recipe.layout {
        Layout::Nchw => [channels, height, width],
        Layout::Nhwc => [height, width, channels],
    };
    // Every byte of a channel has one outcome, so that it is computed once.
    let outcomes: Vec<[f32; 256]> = recipe
        .mean
        .iter()
        .zip(&recipe.std)
        .map(|(mean, std)| std::array::from_fn(|byte| ((byte as f64 * recipe.scale - mean) / std) as f32))
        .collect();
    let source = |channel: usize| order.get(channel).copied().unwrap_or(channel);
    match recipe.numbers {
        Numbers::Uint8 => {
            let data = places.into_iter().map(|(pixel, channel)| stored(pixel, source(channel))).collect();
            Ok(from_vec(&shape, data)?.into())
        }
        Numbers::Float32 => {
            let number = |(pixel, channel): (usize, usize)| {
                let byte = usize::from(stored(pixel, source(channel)));
                outcomes.get(channel).and_then(|o| o.get(byte)).copied().unwrap_or(0.0)
            };
            Ok(from_vec(&shape, places.into_iter().map(number).collect())?.into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::{SourceOptions, open as open_source};
    use super::*;
    use crate::engine::ElementType;
    use crate::engine::inputs::tests::model_with_inputs;
    use image::{Rgb, RgbImage, Rgba, RgbaImage};

    /// 2 rows of 4 pixels: red runs from 0 to 7, green is 100, blue 200.
    fn small() -> RgbImage {
        RgbImage::from_fn(4, 2, |x, y| Rgb([(y * 4 + x) as u8, 100, 200]))
    }

    fn opened(folder: &Path, toml: &str, element: ElementType, shape: &[&str]) -> Result<Box<dyn Source>> {
        std::fs::write(folder.join(FILE), toml).unwrap();
        open_source(folder, &model_with_inputs(&[("image", element, Some(shape))]), &SourceOptions::new(folder))
    }

    fn first(toml: &str, element: ElementType, shape: &[&str]) -> Value {
        let folder = tempfile::tempdir().unwrap();
        small().save(folder.path().join("a.png")).unwrap();
        opened(folder.path(), toml, element, shape).unwrap().sample(0).unwrap().remove(0).1
    }

    #[test]
    fn layout_channels_and_numbers_are_as_said() {
        let plain = first("", ElementType::Float, &["n", "3", "2", "4"]);
        assert_eq!(plain.shape(), [3, 2, 4]);
        let numbers = plain.to_f64();
        assert_eq!((numbers[7] * 255.0).round(), 7.0);
        assert!((numbers[8] - 100.0 / 255.0).abs() < 1e-7 && (numbers[23] - 200.0 / 255.0).abs() < 1e-7);
        let last = first(
            "channels = 'bgr'\nscale = 1\nmean = [1, 2, 3]\nstd = [2]",
            ElementType::Float,
            &["n", "2", "4", "3"],
        );
        assert_eq!((last.shape(), &last.to_f64()[3..6]), (&[2, 4, 3][..], &[99.5, 49.0, -1.0][..]));
        let bytes = first("", ElementType::Uint8, &["n", "2", "4", "3"]);
        assert_eq!((bytes.element(), &bytes.to_f64()[21..]), (ElementType::Uint8, &[7.0, 100.0, 200.0][..]));
        assert_eq!(first("", ElementType::Float, &["n", "1", "2", "4"]).shape(), [1, 2, 4]);
    }

    #[test]
    fn sizes_are_reached_in_three_ways() {
        let red = |value: &Value| value.to_f64()[..value.len() / 3].to_vec();
        let shape = &["n", "3", "2", "2"];
        let at = |toml: &str, shape: &[&str]| first(&format!("scale = 1\n{toml}"), ElementType::Float, shape);
        // The middle two columns of both rows.
        assert_eq!(red(&at("resize = 'crop'", shape)), [1.0, 2.0, 5.0, 6.0]);
        // Half the width: pixels 0 and 1 become about 0.5.
        let stretched = red(&at("resize = 'stretch'", shape));
        assert!(stretched[0] <= 1.0 && (2.0..=3.0).contains(&stretched[1]), "{stretched:?}");
        // The picture is wider than its place, so there are rows of colour 9 around it.
        let boxed = red(&at("resize = 'letterbox'\nfill = 9", &["n", "3", "4", "4"]));
        assert_eq!(boxed[..4], [9.0; 4]);
        assert_eq!(boxed[4..12], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(boxed[12..], [9.0; 4]);
    }

    #[test]
    fn proportions_fit_inside() {
        assert_eq!(inside(4, 2, 2, 2), (2, 1));
        assert_eq!(inside(2, 2, 4, 2), (2, 2));
        assert_eq!(inside(1, 32768, 224, 224), (1, 224));
        assert_eq!(inside(32768, 1, 224, 224), (224, 1));
        assert_eq!(inside(3, 3, 7, 5), (5, 5));
    }

    #[test]
    fn folders_are_searched_in_order_and_every_kind_is_decoded() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        RgbImage::from_pixel(8, 8, Rgb([200, 200, 200])).save(folder.path().join("b/2.JPG")).unwrap();
        RgbaImage::from_pixel(2, 2, Rgba([50, 50, 50, 0])).save(folder.path().join("a.png")).unwrap();
        GrayImage::from_pixel(3, 3, image::Luma([70])).save(folder.path().join("c.jpeg")).unwrap();
        let source = opened(folder.path(), "scale = 1", ElementType::Float, &["n", "3", "2", "2"]).unwrap();
        let value = |n| source.sample(n).unwrap()[0].1.to_f64()[0].round();
        assert_eq!((source.len(), value(0), value(1), value(2)), (3, 50.0, 200.0, 70.0));
        assert!(source.file(1).unwrap().ends_with("b/2.JPG"));
        assert!(source.notes()[0].starts_with("pictures become `image`: stretch to 2 x 2, nchw, rgb"));
    }

    /// What Pillow's `convert("L")` gives.
    #[test]
    fn brightness_is_that_of_training_code() {
        let folder = tempfile::tempdir().unwrap();
        for (colour, expected) in [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29), ([10, 200, 90], 131)] {
            RgbImage::from_pixel(2, 2, Rgb(colour)).save(folder.path().join("a.png")).unwrap();
            let source = opened(folder.path(), "", ElementType::Uint8, &["n", "1", "2", "2"]).unwrap();
            assert_eq!(source.sample(0).unwrap()[0].1.to_f64(), [f64::from(expected); 4], "{colour:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_back_count_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        small().save(folder.path().join("inner/a.png")).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("inner/back")).unwrap();
        let source = opened(folder.path(), "", ElementType::Float, &["n", "3", "2", "4"]).unwrap();
        assert_eq!(source.len(), 1);
    }

    #[test]
    fn a_picture_that_does_not_decode_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        small().save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let source = opened(folder.path(), "", ElementType::Float, &["n", "3", "2", "4"]).unwrap();
            source.sample(0).unwrap_err().to_string()
        };
        for bytes in [&b"GIF89a"[..], b"", &whole[..whole.len() / 2], b"not a picture at all"] {
            let error = message(bytes);
            assert!(error.contains("a.png: this picture does not decode (tensor `image`)"), "{error}");
        }
        // A header that claims 2^31 - 1 by 2^31 - 1 pixels.
        let mut huge = whole.clone();
        huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        assert!(message(&huge).contains("does not decode"), "{}", message(&huge));
        let broken = opened(folder.path(), "scale = 'big'", ElementType::Float, &["n", "3", "2", "4"]);
        assert!(broken.err().unwrap().to_string().contains("preprocess.toml: line 1"));
    }
}
