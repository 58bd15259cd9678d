"""A process for each library, in its environment and with a time limit; whatever happens to it ends in rows."""

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from experiments.conformance.environments import ROOT, NotInstalledError, base_python, library_folder
from experiments.conformance.names import RUN
from experiments.conformance.records import Finding, Row, read_rows
from experiments.conformance.registry import LIBRARIES, Library

_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "PYTHONWARNINGS": "ignore",
}


def not_run(name: str, library: Library, why: str) -> Row:
    """The row of a library that was not run, or not to its end."""
    findings = (Finding("run", False, None, None, why),)
    date = datetime.now(UTC).date().isoformat()
    return Row(name, library.version, RUN, "run", findings, (), "", 0.0, "-", "-", "-", date)


def rows_of(name: str, library: Library, places: Path, work: Path, seconds: float) -> list[Row]:
    """The rows of a library, run in its environment below ``places``; its lines and its output are left in ``work``."""
    try:
        python = base_python(places, library.base)
        folder = library_folder(places, name, library, python)
    except NotInstalledError as error:
        return [not_run(name, library, str(error))]
    return run_child([str(python), "-m", "experiments.conformance.child", name], name, library, folder, work, seconds)


def run_child(command: list[str], name: str, library: Library, folder: Path, work: Path, seconds: float) -> list[Row]:
    """The rows that a command writes into the file that it is given last, and one more where it does not end well.

    Args:
        command: without the file.
        name: the library's.
        library: its facts.
        folder: what stands first on its path.
        work: where the file and its output are kept.
        seconds: after which it is stopped.
    """
    file, log = work / f"{name}.jsonl", work / f"{name}.log"
    file.write_text("")
    environment = os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    with log.open("w") as output:
        try:
            code = subprocess.run(
                [*command, str(file)],
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
            why = "" if code == 0 else f"ended with exit code {code}: {_last_line(log)}"
        except subprocess.TimeoutExpired:
            why = f"stopped after {seconds:g} s"
    rows, num_bad = read_rows(file)
    if num_bad:
        why = why or "ended well"
        why += f"; {num_bad} of its lines are no rows"
    return [*rows, not_run(name, library, f"{why}, after {len(rows)} rows")] if why else rows


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no word"


def chosen(name: str, version: str | None) -> Library:
    """A library's facts, at another version or from a file where one is given."""
    return LIBRARIES[name] if version is None else replace(LIBRARIES[name], version=version)
