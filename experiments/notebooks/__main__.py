"""Build the notebooks: run the scripts of experiments/notebooks and write each with its figures, as NAME.ipynb.

A script NAME.py is the source: in it a change reads line by line, and ruff checks it. NAME.ipynb beside it is what a
reader opens, figures inside; nothing in it tells when or where it was built. Opened in Jupyter with jupytext the two
are one: what is edited in the notebook is saved into the script.
"""

import base64
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from PIL import Image

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.run import folder as run_folder
from experiments.runtime import progress

FOLDER = Path(__file__).parent
NAMES = (
    *("from_path_to_guidance", "what_guidance_does", "train_your_own", "bring_your_own", "say_it_in_words", "sweep"),
    *("one_evaluation", "steer_by_measurements"),
)
_SECONDS, _COLOURS, _PNG = 600, 128, "image/png"
"""What one cell may take, and one figure."""
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Options:
    """What to build, and where."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, optional("[NAME ...]", "all")] = ()
    """Notebooks to build."""
    out: Annotated[Path | None, optional("FOLDER", "beside the scripts")] = None
    """Folder to write to."""


def _environment(folder: str) -> dict[str, str]:
    """What the kernel is started with: inline figures, no profile of the user's, the repository's own packages."""
    paths = [str(FOLDER.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "IPYTHONDIR": folder,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def read_script(file: Path) -> Any:
    """The notebook that a script is, without outputs, each cell named by its number.

    Raises:
        UserError: the packages for notebooks are not installed.
    """
    try:
        import jupytext
    except ImportError:
        raise UserError("notebooks need jupytext and nbclient: python -m pip install -e '.[notebooks]'") from None
    notebook: Any = jupytext.read(file)
    notebook.metadata = {"jupytext": {"formats": "ipynb,py:percent"}, "kernelspec": _KERNEL}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return notebook


def figures(notebook: Any) -> Iterator[Any]:
    """The outputs that hold a figure, by their kinds."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return (output["data"] for output in outputs if _PNG in output.get("data", {}))


def _smaller(figure: str) -> str:
    """A PNG in base64, in few colours and without a word on what wrote it."""
    with Image.open(io.BytesIO(base64.b64decode(figure))) as image:
        small = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    content = io.BytesIO()
    small.save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def execute(notebook: Any, name: str) -> Any:
    """The notebook with the outputs of its cells, run one after another in a kernel of its own.

    Raises:
        UserError: a cell that raises, or takes too long; the message names it.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError
    from traitlets.config import Config

    settings = Config(KernelManager={"transport_encryption": "auto"})
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=_SECONDS, startup_timeout=_SECONDS,
        record_timing=False, coalesce_streams=True, config=settings,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        try:
            client.execute(cwd=folder, env=_environment(folder))
        except CellExecutionError as error:
            raise UserError(f"notebook {name}: {error.ename}: {error.evalue}") from None
        except CellTimeoutError:
            raise UserError(f"notebook {name}: a cell takes more than {_SECONDS} seconds") from None
    for kinds in figures(notebook):
        kinds[_PNG] = _smaller(kinds[_PNG])
    notebook.metadata["language_info"] = {"file_extension": ".py", "name": "python"}
    return notebook


def _write(notebook: Any, file: Path) -> None:
    import nbformat

    nbformat.write(notebook, file)


def build(options: Options) -> None:
    """Builds the notebooks."""
    for name in options.names:
        if name not in NAMES:
            raise UserError(f"names must be of {', '.join(NAMES)}, got {name}")
    out = run_folder.make_folder("out", options.out or FOLDER)
    for name in progress.each(options.names or NAMES, "notebooks", "executing"):
        notebook = execute(read_script(FOLDER / f"{name}.py"), name)
        file = out / f"{name}.ipynb"
        _write(notebook, file)
        cli.print_result(f"wrote {file}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(build, Options, "experiments.notebooks", __doc__, args)


if __name__ == "__main__":
    main()
