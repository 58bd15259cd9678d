"""What sampling leaves, whole or not at all: one picture, one picture each, an animation of the solve, or arrays."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cfgjax import data
from cfgjax.types import Tree
from experiments.cli.main import UserError
from experiments.figures.image_grid import image_of
from experiments.run import folder as run_folder
from experiments.run import provenance
from experiments.run.drafts import whole_file, whole_folder
from experiments.run.provenance import Origin
from experiments.run.restore import Run
from experiments.sample.options import NUMBER_BYTES, OutputOptions
from experiments.tasks.latents import as_shown
from experiments.tasks.task import Samples, TaskFacts

STILLS, ANIMATIONS, ARRAYS = (".png",), (".gif", ".apng"), (".npz",)
MOST_PIXELS = 2**28
"""Of all frames together."""
FILM_SECONDS, LEAST_SECONDS, MOST_SECONDS, LAST_SECONDS = 4.0, 0.02, 0.1, 2.0
"""An animation's length, the bounds of a frame's time, and that of the last frame."""


def _is_folder(out: str) -> bool:
    """Whether a folder is meant: a path that ends in a slash, or one that is a folder already."""
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def _require_kind(output: OutputOptions) -> None:
    """Raises UserError where the path's suffix is of another kind than what is asked for."""
    out, is_folder, suffix = output.out, _is_folder(output.out), Path(output.out).suffix
    if output.show != "state" and not output.trajectory:
        raise UserError("show is for a --trajectory")
    if output.trajectory and (is_folder or suffix not in ANIMATIONS + ARRAYS):
        raise UserError(f"out must end in .gif, .apng or .npz for a trajectory, got {out}")
    if output.trajectory or is_folder:
        return
    if suffix in ANIMATIONS:
        raise UserError(f"{suffix} is for a --trajectory, got out {out}")
    if suffix not in STILLS + ARRAYS:
        raise UserError(f"out must end in .png or .npz, or be a folder with a slash at its end, got {out}")


def require_writable(output: OutputOptions) -> None:
    """Finds out whether the output can be written: a file, whose folder is made, or a folder that is empty.

    Raises:
        UserError: it cannot be written, is of the wrong kind, or a folder with something in it.
    """
    _require_kind(output)
    path = Path(output.out)
    if not _is_folder(output.out):
        run_folder.make_folder("out", path.parent)
        return
    if path.exists() and not path.is_dir():
        raise UserError(f"out {path} is a file, not a folder; leave the slash out to overwrite it")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"out must be a file, or a folder that is new or empty; {path} holds something")
    run_folder.make_folder("out", path.absolute().parent)


def _require_drawable(samples: Samples, shape: tuple[int, ...], num_samples: int, num_frames: int) -> None:
    """Raises UserError for more than MOST_PIXELS in all frames, or for samples that are no pictures."""
    pixels = samples.num_pixels(num_samples)
    if pixels is None:
        raise UserError(
            f"out must end in .npz for samples of shape {shape}: they are no pictures; --autoencoder decodes latents"
        )
    if num_frames * pixels > MOST_PIXELS:
        of = f" in each of {num_frames} frames" if num_frames > 1 else ""
        raise UserError(
            f"num_samples must be smaller: {num_samples} samples make {pixels:,} pixels{of}, more than {MOST_PIXELS:,}"
        )


def require_room(output: OutputOptions, task: TaskFacts, num_samples: int, num_frames: int) -> None:
    """Finds out whether all that is drawn fits this machine and its kind of file.

    Raises:
        DataError: it takes more than the machine's memory.
        UserError: too many pixels, or samples that are no pictures.
    """
    name, shape = "num_samples x num_steps" if output.trajectory else "num_samples", task.shape
    data.check_memory(name, 2 * NUMBER_BYTES * num_samples * num_frames * int(np.prod(shape)))
    if _is_folder(output.out):
        if len(shape) != 3 or shape[-1] not in (1, 3):
            raise UserError(f"out must be a file for samples of shape {shape}: they are no images")
    elif Path(output.out).suffix not in ARRAYS:
        _require_drawable(task.samples, shape, num_samples, num_frames)


def _write_each(folder: Path, samples: np.ndarray, names: list[str], origin_of: Origin) -> None:
    """Writes a PNG of its own size for each image [n, H, W, C], named by its number and its condition."""
    digits = max(3, len(str(len(samples) - 1)))
    for number, (sample, name) in enumerate(zip(data.to_pixels(samples), names, strict=True)):
        file = folder / f"{number:0{digits}d}-{name}.png"
        image_of(sample).save(file, format="PNG", pnginfo=provenance.as_png(origin_of))


def _write_arrays(file: Path, arrays: dict[str, np.ndarray], origin_of: Origin) -> None:
    with file.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays, **{name: np.array(text) for name, text in origin_of.items()})


def _write_animation(
    file: Path, frames: Iterable[Image.Image], num_frames: int, is_gif: bool, origin_of: Origin
) -> None:
    """Writes an animated GIF or PNG; its last frame is held."""
    seconds = min(MOST_SECONDS, max(LEAST_SECONDS, FILM_SECONDS / num_frames))
    first, *rest = frames
    how: dict[str, Any] = {
        "save_all": True, "append_images": rest, "loop": 0,
        "duration": [round(1000 * each) for each in [seconds] * (num_frames - 1) + [LAST_SECONDS]],
    }  # fmt: skip
    how |= {"comment": provenance.as_comment(origin_of)} if is_gif else {"pnginfo": provenance.as_png(origin_of)}
    first.save(file, format="GIF" if is_gif else "PNG", **how)


def write(output: OutputOptions, run: Run[TaskFacts], samples: np.ndarray, conditions: Tree, num_frames: int) -> None:
    """Writes the samples as they are asked for, with how they were made.

    Raises:
        OSError: they cannot be written.
    """
    out, origin_of = Path(output.out), provenance.of_run(run)
    shown, known = run.task.samples, run.task.conditions
    if _is_folder(output.out):
        with whole_folder(out) as temporary:
            _write_each(temporary, as_shown(run.task, samples), known.names(conditions), origin_of)
        return
    with whole_file(out) as temporary:
        if out.suffix in ARRAYS:
            _write_arrays(temporary, shown.arrays(samples, known.stored(conditions)), origin_of)
        elif output.trajectory:
            frames = shown.frames(as_shown(run.task, samples), conditions)
            _write_animation(temporary, frames, num_frames, out.suffix == ".gif", origin_of)
        else:
            picture = shown.picture(as_shown(run.task, samples), conditions)
            picture.save(temporary, format="PNG", pnginfo=provenance.as_png(origin_of))
