"""Samples as pictures: a grid of images or a plot of points, one picture each, or an animation of their solve."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cfgjax import data
from experiments.cli.main import UserError
from experiments.config.schema import ImageData, LatentData, MixtureData
from experiments.run import provenance
from experiments.run.provenance import Origin
from experiments.sample import files as sample_files

PIXELS = 8
"""Screen pixels for each pixel of an image of 8 x 8, fewer for larger ones."""
MOST_PIXELS = 2**28
"""Of all frames together."""
POINTS_SIDE = 600
"""Pixels of a side of a plot of points."""
FILM_SECONDS, LEAST_SECONDS, MOST_SECONDS, LAST_SECONDS = 4.0, 0.02, 0.1, 2.0
"""A animation's length, the bounds of a frame's time, and that of the last frame."""


def _columns(num_samples: int) -> int:
    return math.ceil(math.sqrt(num_samples))


def _times(height: int) -> int:
    return max(1, PIXELS // max(1, height // 8))


def require_drawable(num_samples: int, shape: tuple[int, ...], num_frames: int = 1) -> None:
    """Looks at how many pixels a grid or a plot of samples would have, in all frames.

    Raises:
        UserError: more than MOST_PIXELS, or samples that are neither points nor images of 1 or 3 channels.
    """
    if shape != (2,) and (len(shape) != 3 or shape[-1] not in (1, 3)):
        raise UserError(f"out must end in .npz for samples of shape {shape}: they are no pictures")
    pixels = POINTS_SIDE**2
    if len(shape) == 3:
        columns = _columns(num_samples)
        rows = math.ceil(num_samples / columns)
        pixels = rows * (shape[0] + 1) * columns * (shape[1] + 1) * _times(shape[0]) ** 2
    if num_frames * pixels > MOST_PIXELS:
        of = f" in each of {num_frames} frames" if num_frames > 1 else ""
        raise UserError(
            f"num_samples must be smaller: {num_samples} samples make {pixels:,} pixels{of}, more than {MOST_PIXELS:,}"
        )


def grid(samples: np.ndarray) -> Image.Image:
    """One picture of images [n, height, width, channels] in [-1, 1], as near to a square as can be."""
    columns = _columns(len(samples))
    rows = math.ceil(len(samples) / columns)
    blank = np.full((rows * columns - len(samples), *samples.shape[1:]), -1.0)
    framed = np.pad(
        data.to_pixels(np.concatenate([samples, blank])), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=128
    )
    height, width, channels = framed.shape[1:]
    tiles = framed.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    picture = _image(tiles.reshape(rows * height, columns * width, channels))
    times = _times(samples.shape[1])
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def plots(frames: Iterable[np.ndarray], labels: np.ndarray, limit: float | None = None) -> Iterator[Image.Image]:
    """A scatter plot of points [n, 2] for each frame, coloured by label, all to the same ``limit`` if there is one."""
    figure = Figure(figsize=(5, 5), dpi=POINTS_SIDE / 5, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for points in frames:
        axes.clear()
        axes.scatter(*points.T, s=8, c=labels, cmap="tab10", linewidths=0)
        axes.set_aspect("equal")
        if limit is not None:
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
        canvas.draw()
        figure.set_layout_engine("none")  # all frames lie as the first
        yield Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB")


def picture_of(samples: np.ndarray, labels: np.ndarray) -> Image.Image:
    """One picture of images [n, H, W, C] or of points [n, 2]."""
    return grid(samples) if samples.ndim == 4 else next(plots([samples], labels))


def animation_of(seen: np.ndarray, labels: np.ndarray) -> Iterator[Image.Image]:
    """The frames of what was seen of n samples at all times, [n, times, *D]."""
    frames = np.moveaxis(seen, 1, 0)
    if seen.ndim == 5:
        return map(grid, frames)
    return plots(frames, labels, limit=1.05 * float(np.abs(seen).max()))


def write_picture(picture: Image.Image, origin_of: Origin, file: Path) -> None:
    """Writes a PNG that says how it was made."""
    with sample_files.whole_file(file) as draft:
        picture.save(draft, format="PNG", pnginfo=provenance.as_png(origin_of))


def write_animation(frames: Iterable[Image.Image], num_frames: int, origin_of: Origin, file: Path) -> None:
    """Writes an animated GIF or PNG, by the file's suffix; its last frame is held."""
    seconds = min(MOST_SECONDS, max(LEAST_SECONDS, FILM_SECONDS / num_frames))
    first, *rest = frames
    how: dict[str, Any] = {
        "save_all": True, "append_images": rest, "loop": 0,
        "duration": [round(1000 * each) for each in [seconds] * (num_frames - 1) + [LAST_SECONDS]],
    }  # fmt: skip
    how |= (
        {"comment": provenance.as_comment(origin_of)}
        if file.suffix == ".gif"
        else {"pnginfo": provenance.as_png(origin_of)}
    )
    with sample_files.whole_file(file) as draft:
        first.save(draft, format="GIF" if file.suffix == ".gif" else "PNG", **how)


def write_each(samples: np.ndarray, labels: np.ndarray, null_label: int, origin_of: Origin, folder: Path) -> None:
    """Writes a PNG of its own size for each image [n, H, W, C], named by its number and label."""
    digits = max(3, len(str(len(samples) - 1)))
    with sample_files.whole_folder(folder) as draft:
        for number, (sample, label) in enumerate(zip(data.to_pixels(samples), labels.tolist(), strict=True)):
            name = "null" if label == null_label else str(label)
            _image(sample).save(
                draft / f"{number:0{digits}d}-label-{name}.png", format="PNG", pnginfo=provenance.as_png(origin_of)
            )


def arrays_of(
    samples: np.ndarray, labels: np.ndarray, of: MixtureData | ImageData | LatentData
) -> dict[str, np.ndarray]:
    """The arrays of an .npz: x, y, and of pictures [n, H, W, C] their pixels as arr_0, the name that FID tools read.

    Of latents ``factor`` as well, by which the encoder's latents were multiplied.
    """
    found = {"x": samples, "y": labels}
    if isinstance(of, LatentData):
        return found | {"factor": np.asarray(of.factor)}
    is_of_pictures = isinstance(of, ImageData) and samples.ndim == 4
    return found | {"arr_0": data.to_pixels(samples)} if is_of_pictures else found


def write_arrays(file: Path, origin_of: Origin, **arrays: np.ndarray) -> None:
    """Writes an .npz that says how it was made, in further arrays."""
    with sample_files.whole_file(file) as draft, draft.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays, **{name: np.array(text) for name, text in origin_of.items()})
