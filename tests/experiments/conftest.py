"""A prepared data folder, and one finished run of each preset, shrunk."""

import pytest

from cfgjax import data
from tests.experiments.running import SMALL, command


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder with the prepared digits."""
    folder = tmp_path_factory.mktemp("data")
    data.prepare("digits", folder)
    return folder


@pytest.fixture(scope="session", params=["digits", "mixture"])
def trained(request, tmp_path_factory, data_dir):
    """The folder of a finished run."""
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    done = command("train", request.param, "--run-dir", run_dir, "--data-dir", data_dir, *SMALL)
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.fixture(scope="session")
def trained_mixture(tmp_path_factory):
    """The folder of a finished run of the mixture."""
    run_dir = tmp_path_factory.mktemp("mixture") / "mixture"
    done = command("train", "mixture", "--run-dir", run_dir, *SMALL)
    assert done.returncode == 0, done.stderr
    return run_dir
