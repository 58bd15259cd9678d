"""How a file of samples was made, written into it and read back."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.renamed import with_older_names
from experiments.run.folder import settings_that_count
from experiments.run.restore import Run
from experiments.tasks.task import TaskFacts

NAMES = ("command", "settings", "step", "version")
_MOST_BYTES = 2**16
"""Of a text that is read back."""
_MOST_DIGITS = 16

Origin = Mapping[str, str]
"""By NAMES: the command line, the digest of the run's settings, the step of its checkpoint, cfgjax's version."""


def digest(run: Run[TaskFacts]) -> str:
    """Sixteen digits that change with every setting by which a run's parameters change, and with no other.

    Settings that were renamed count by their older names: files of older runs keep their digests.
    """
    settings = json.dumps(with_older_names(settings_that_count(run.experiment)), sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()[:_MOST_DIGITS]


def of_run(run: Run[TaskFacts]) -> Origin:
    """The origin of what this process's command makes of a run."""
    return {
        "command": cli.line(), "settings": digest(run), "step": str(run.step), "version": version("cfgjax"),
    }  # fmt: skip


def as_png(origin: Origin) -> PngInfo:
    """The origin as texts of a PNG."""
    texts = PngInfo()
    for name in NAMES:
        texts.add_text(name, origin[name])
    return texts


def as_comment(origin: Origin) -> bytes:
    """The origin as the comment of a GIF, in JSON."""
    return json.dumps(dict(origin)).encode()


def _of_arrays(file: Path) -> dict[str, str]:
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in NAMES:
            if archive.getinfo(f"{name}.npy").file_size > _MOST_BYTES:
                raise ValueError(f"{name} is too long")
            with archive.open(f"{name}.npy") as stream:
                found[name] = str(np.lib.format.read_array(stream, allow_pickle=False))
    return found


def _of_picture(file: Path) -> Mapping[Any, Any]:
    with Image.open(file, formats=("PNG", "GIF")) as picture:
        if picture.format == "PNG":
            return picture.info
        return json.loads(picture.info["comment"][:_MOST_BYTES])


def read(file: Path) -> Origin:
    """The origin that is written in a .png, .apng, .gif or .npz.

    Raises:
        UserError: no such file, or one without it.
    """
    if not file.is_file():
        raise UserError(f"{file} is no file")
    try:
        found = _of_arrays(file) if zipfile.is_zipfile(file) else _of_picture(file)
        return {name: str(found[name])[:_MOST_BYTES] for name in NAMES}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, NotImplementedError):
        raise UserError(f"{file} does not say how it was made: it is none of experiments.sample's files") from None
