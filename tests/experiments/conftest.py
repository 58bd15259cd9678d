"""A prepared data folder, and one finished run of each preset, shrunk: made by one worker for all of them."""

import shutil

import filelock
import pytest

from cfgjax import data
from experiments.runtime import progress
from tests.support.commands import SMALLER, command
from tests.support.pictures import write_family


@pytest.fixture(scope="session", autouse=True)
def _without_progress():
    """No lines of progress among what commands say, however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "PATIENCE", float("inf"))
        patch.setattr(progress, "LINE_SECONDS", float("inf"))
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """``(name, make) -> folder``: what ``make(folder)`` wrote in one of the workers, copied for this one."""
    own = tmp_path_factory.getbasetemp()
    shared = own / "shared" if worker_id == "master" else own.parent / "shared"
    shared.mkdir(exist_ok=True)

    def folder(name, make):
        first = shared / name
        with filelock.FileLock(shared / f"{name}.lock"):
            if not (shared / f"{name}.done").exists():
                make(first)
                (shared / f"{name}.done").touch()
        return shutil.copytree(first, tmp_path_factory.mktemp("copies") / name)

    return folder


def _prepare(folder, idx):
    data.prepare("digits", folder)
    data.prepare("fashion_mnist", folder, source=write_family(idx))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, made_once):
    """A folder with the prepared digits, and a small set of the form and name of Fashion-MNIST."""
    return made_once("data", lambda folder: _prepare(folder, tmp_path_factory.mktemp("idx")))


def _train(preset, run_dir, *arguments):
    done = command("train", preset, "--run-dir", run_dir, *SMALLER[preset], *arguments)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout + done.stderr


@pytest.fixture(
    scope="session", params=["mixture", *(pytest.param(name, marks=pytest.mark.slow) for name in ("digits", "clothes"))]
)
def trained(request):
    """The folder of a finished run."""
    return request.getfixturevalue(f"trained_{request.param}")


@pytest.fixture(scope="session")
def trained_digits(made_once, data_dir):
    """The folder of a finished run of the digits."""
    return made_once("digits", lambda folder: _train("digits", folder, "--data-dir", data_dir))


@pytest.fixture(scope="session")
def trained_clothes(made_once, data_dir):
    """The folder of a finished run of the transformer."""
    return made_once("clothes", lambda folder: _train("fashion_mnist", folder, "--data-dir", data_dir))


@pytest.fixture(scope="session")
def trained_classifier(made_once, data_dir):
    """The folder of a finished run of the noisy classifier."""
    return made_once("classifier", lambda folder: _train("fashion_mnist_classifier", folder, "--data-dir", data_dir))


@pytest.fixture(scope="session")
def trained_mixture(made_once):
    """The folder of a finished run of the mixture."""
    return made_once("mixture", lambda folder: _train("mixture", folder))
