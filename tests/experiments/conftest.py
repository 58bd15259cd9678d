"""A prepared data folder, and one finished run of each preset, shrunk."""

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
def data_dir(tmp_path_factory):
    """A folder with the prepared digits, and a small set of the form and name of Fashion-MNIST."""
    folder = tmp_path_factory.mktemp("data")
    data.prepare("digits", folder)
    data.prepare("fashion_mnist", folder, source=write_family(tmp_path_factory.mktemp("idx")))
    return folder


def _trained(preset, tmp_path_factory, *arguments):
    run_dir = tmp_path_factory.mktemp("runs") / preset
    done = command("train", preset, "--run-dir", run_dir, *SMALLER[preset], *arguments)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout + done.stderr
    return run_dir


@pytest.fixture(
    scope="session", params=["mixture", *(pytest.param(name, marks=pytest.mark.slow) for name in ("digits", "clothes"))]
)
def trained(request):
    """The folder of a finished run."""
    return request.getfixturevalue(f"trained_{request.param}")


@pytest.fixture(scope="session")
def trained_digits(tmp_path_factory, data_dir):
    """The folder of a finished run of the digits."""
    return _trained("digits", tmp_path_factory, "--data-dir", data_dir)


@pytest.fixture(scope="session")
def trained_clothes(tmp_path_factory, data_dir):
    """The folder of a finished run of the transformer."""
    return _trained("fashion_mnist", tmp_path_factory, "--data-dir", data_dir)


@pytest.fixture(scope="session")
def trained_classifier(tmp_path_factory, data_dir):
    """The folder of a finished run of the noisy classifier."""
    return _trained("fashion_mnist_classifier", tmp_path_factory, "--data-dir", data_dir)


@pytest.fixture(scope="session")
def trained_mixture(tmp_path_factory):
    """The folder of a finished run of the mixture."""
    return _trained("mixture", tmp_path_factory)
