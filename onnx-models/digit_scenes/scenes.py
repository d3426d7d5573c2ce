"""Scenes of two handwritten digits on photographic texture, with labels for three tasks.

Everything comes from data that scikit-learn carries in its package: the 1,797 pictures of `load_digits` (UCI optical recognition of
handwritten digits, test part, 8x8, values 0..16) and the two photographs of `load_sample_images`.

Invariants:
- The three splits share neither a digit picture nor a pixel of a photograph.
- The same seed gives the same bytes.
"""

import numpy as np
from sklearn.datasets import load_digits, load_sample_images

SIZE = 48  # side of a scene in pixels
SPLITS = ("train", "calibration", "test")
# Share of the digit pictures, and of the width of each photograph, that each split owns.
SHARES = {"train": 0.65, "calibration": 0.12, "test": 0.23}
SPLIT_SEED = 20240917


def sources(split):
    """Digit pictures [n, 8, 8] in 0..1, their classes [n], and grey photograph strips in 0..1 that belong to `split` alone."""
    digits = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits.target))
    position = SPLITS.index(split)
    begin = sum(SHARES[name] for name in SPLITS[:position])
    end = begin + SHARES[split]
    chosen = order[round(begin * len(order)) : round(end * len(order))]
    pictures = (digits.images[chosen] / 16.0).astype(np.float32)
    strips = []
    for photograph in load_sample_images().images:
        grey = (photograph.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)) / 255.0
        width = grey.shape[1]
        strips.append(grey[:, round(begin * width) : round(end * width)])
    return pictures, digits.target[chosen].astype(np.int64), strips


def hats(centre, scale):
    """Bilinear enlargement as matrices [n, SIZE, 8]: a digit placed at `centre` [n] (pixels), enlarged `scale` [n] times."""
    place = (np.arange(SIZE)[None] - centre[:, None]) / scale[:, None] + 3.5
    return np.maximum(0.0, 1.0 - np.abs(place[:, :, None] - np.arange(8)[None, None])).astype(np.float32)


def centres(random, count):
    """Two centres (x, y) per scene [count, 2, 2] in pixels: the first is the left one, at least 9 pixels further left, and the two
    are 14 to 30 pixels apart, so that digits may touch or overlap a little."""
    found = np.empty((0, 2, 2), np.float32)
    while len(found) < count:
        draw = random.uniform(9.5, SIZE - 10.5, (4 * count, 2, 2)).astype(np.float32)
        apart = np.hypot(*(draw[:, 1] - draw[:, 0]).T)
        good = (draw[:, 1, 0] - draw[:, 0, 0] >= 9) & (apart >= 14) & (apart <= 30)
        found = np.concatenate([found, draw[good]])
    return found[:count]


def backgrounds(random, count, strips):
    """Random crops [count, SIZE, SIZE] of the photograph strips, mirrored at random."""
    crops = np.empty((count, SIZE, SIZE), np.float32)
    for index in range(count):
        strip = strips[random.integers(len(strips))]
        top = random.integers(strip.shape[0] - SIZE + 1)
        left = random.integers(strip.shape[1] - SIZE + 1)
        crop = strip[top : top + SIZE, left : left + SIZE]
        crops[index] = crop[:, ::-1] if random.random() < 0.5 else crop
    return crops


def make(split, count, seed):
    """`count` scenes of `split`.

    Returns a dictionary: `image` uint8 [n, 1, 48, 48]; `digit` int64 [n], the class of the left digit; `position` float32 [n, 4],
    x and y of the left and of the right centre in 0..1; `segmentation` uint8 [n, 48, 48]: 0 background, 1 left, 2 right digit.
    """
    random = np.random.default_rng([seed, SPLITS.index(split)])
    pictures, classes, strips = sources(split)
    pick = random.integers(len(pictures), size=(count, 2))
    place = centres(random, count)
    cover = np.empty((count, 2, SIZE, SIZE), np.float32)
    for one in range(2):
        size = random.uniform(1.9, 2.5, count)
        stretch = random.uniform(0.9, 1.1, count)
        rows = hats(place[:, one, 1], size * stretch)
        columns = hats(place[:, one, 0], size / stretch)
        cover[:, one] = np.clip(1.3 * (rows @ pictures[pick[:, one]] @ columns.transpose(0, 2, 1)), 0.0, 1.0)
    scene = 0.05 + 0.6 * backgrounds(random, count, strips)
    labels = np.zeros((count, SIZE, SIZE), np.uint8)
    # The right digit lies on top in half of the scenes; ink of both is brighter than the texture.
    on_top = random.integers(2, size=count)
    every = np.arange(count)
    for layer in (1 - on_top, on_top):
        alpha = cover[every, layer]
        ink = random.uniform(0.75, 1.0, (count, 1, 1)).astype(np.float32)
        scene = scene * (1.0 - alpha) + ink * alpha
        labels = np.where(alpha > 0.4, (layer + 1).astype(np.uint8)[:, None, None], labels)
    scene = np.where(random.random((count, 1, 1)) < 0.5, 1.0 - scene, scene)
    scene = scene + random.normal(0.0, 0.02, scene.shape)
    return {
        "image": np.clip(np.round(255.0 * scene), 0, 255).astype(np.uint8)[:, None],
        "digit": classes[pick[:, 0]],
        "position": (place.reshape(count, 4) / SIZE).astype(np.float32),
        "segmentation": labels,
    }
