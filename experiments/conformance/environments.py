"""Folders of packages: one environment for each base, and beside them one folder for each library, made by pip.

A library's folder holds its own distribution without dependencies and stands first on the path of its child process,
so that the dependencies of two libraries never meet and PyTorch is installed once. A folder without its record of what
it holds was not finished, and is made anew.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from experiments.conformance.registry import BASES, Library

ROOT = Path(__file__).parent.parent.parent
_HOLDS = "holds.json"
_PIP = ("-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", "--no-input")


class NotInstalledError(Exception):
    """Why a library cannot be run, in one line."""


def _holds(folder: Path) -> list[str] | None:
    try:
        return json.loads((folder / _HOLDS).read_text())
    except (OSError, ValueError):
        return None


def _version_of(python: str) -> tuple[int, int]:
    """The version of an interpreter; (0, 0) where it does not answer."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
        major, minor = map(int, answer.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0
    return major, minor


def find_python(least: tuple[int, int]) -> str:
    """An interpreter of at least a version: this one, one on the path, or one of pyenv's.

    Raises:
        NotInstalledError: none is found.
    """
    names = [f"python{least[0]}.{minor}" for minor in range(least[1], least[1] + 3)]
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob("3.*/bin/python"))
    for python in (sys.executable, *filter(None, map(shutil.which, names)), *map(str, pyenv)):
        if _version_of(python) >= least:
            return python
    raise NotInstalledError(f"needs Python {least[0]}.{least[1]} or newer, and none was found")


def _install(python: Path | str, requirements: tuple[str, ...], *more: str) -> None:
    command = [str(python), *_PIP, *more, *requirements]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""}, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines() or ["?"]
        raise NotInstalledError(f"pip could not install {' '.join(requirements)}: {lines[-1].strip()}")


def _finish(folder: Path, requirements: tuple[str, ...]) -> None:
    (folder / _HOLDS).write_text(json.dumps(requirements) + "\n")


def base_python(places: Path, name: str) -> Path:
    """The interpreter of a base's environment, which is made where it is not there.

    Raises:
        NotInstalledError: there is no interpreter for it, or pip cannot install it.
    """
    base, folder = BASES[name], places / f"base_{name}"
    python = folder / "bin" / "python"
    if _holds(folder) != list(base.requirements):
        shutil.rmtree(folder, ignore_errors=True)
        made = subprocess.run(
            [find_python(base.least_python), "-m", "venv", str(folder)], capture_output=True, text=True
        )
        if made.returncode:
            raise NotInstalledError(f"venv could not be made: {(made.stdout + made.stderr).strip().splitlines()[-1]}")
        _install(python, base.requirements)
        _finish(folder, base.requirements)
    return python


def library_folder(places: Path, name: str, library: Library, python: Path) -> Path:
    """The folder of a library's packages, which is made where it is not there.

    Raises:
        NotInstalledError: pip cannot install it.
    """
    folder = places / name
    if _holds(folder) != list(library.requirements):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _install(python, library.requirements, "--no-deps", "--target", str(folder))
        _finish(folder, library.requirements)
    return folder
