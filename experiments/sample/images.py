"""Files of samples: one picture, one picture each, an animation of their solve, or arrays."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cfgjax import data
from experiments.cli.main import UserError
from experiments.figures.images import image_of
from experiments.run import provenance
from experiments.run.provenance import Origin
from experiments.sample import files as sample_files
from experiments.tasks.task import Samples

MOST_PIXELS = 2**28
"""Of all frames together."""
FILM_SECONDS, LEAST_SECONDS, MOST_SECONDS, LAST_SECONDS = 4.0, 0.02, 0.1, 2.0
"""A animation's length, the bounds of a frame's time, and that of the last frame."""


def require_drawable(samples: Samples, shape: tuple[int, ...], num_samples: int, num_frames: int = 1) -> None:
    """Looks at how many pixels a picture of samples would have, in all frames.

    Raises:
        UserError: more than MOST_PIXELS, or samples that are no pictures.
    """
    pixels = samples.num_pixels(num_samples)
    if pixels is None:
        raise UserError(f"out must end in .npz for samples of shape {shape}: they are no pictures")
    if num_frames * pixels > MOST_PIXELS:
        of = f" in each of {num_frames} frames" if num_frames > 1 else ""
        raise UserError(
            f"num_samples must be smaller: {num_samples} samples make {pixels:,} pixels{of}, more than {MOST_PIXELS:,}"
        )


def write_picture(picture: Image.Image, origin_of: Origin, file: Path) -> None:
    """Writes a PNG that says how it was made."""
    with sample_files.whole_file(file) as temporary:
        picture.save(temporary, format="PNG", pnginfo=provenance.as_png(origin_of))


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
    with sample_files.whole_file(file) as temporary:
        first.save(temporary, format="GIF" if file.suffix == ".gif" else "PNG", **how)


def write_each(samples: np.ndarray, labels: np.ndarray, null_label: int, origin_of: Origin, folder: Path) -> None:
    """Writes a PNG of its own size for each image [n, H, W, C], named by its number and label."""
    digits = max(3, len(str(len(samples) - 1)))
    with sample_files.whole_folder(folder) as temporary:
        for number, (sample, label) in enumerate(zip(data.to_pixels(samples), labels.tolist(), strict=True)):
            name = "null" if label == null_label else str(label)
            image_of(sample).save(
                temporary / f"{number:0{digits}d}-label-{name}.png", format="PNG", pnginfo=provenance.as_png(origin_of)
            )


def write_arrays(file: Path, origin_of: Origin, **arrays: np.ndarray) -> None:
    """Writes an .npz that says how it was made, in further arrays."""
    with sample_files.whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays, **{name: np.array(text) for name, text in origin_of.items()})
