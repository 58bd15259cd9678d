"""Compiled programs are kept where the user wants them, by default in a cache folder of this machine."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import compilation_cache


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """The process's own settings, back again after the test."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_the_folder_is_the_machine_s_own(monkeypatch):
    monkeypatch.delitem(os.environ, "XDG_CACHE_HOME", raising=False)
    compilation_cache.enable()
    expected = Path.home() / ".cache" / "cfgjax" / "compilations" / platform.node()
    assert Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) == expected
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "1"


def test_the_user_s_cache_folder_is_used(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path))
    compilation_cache.enable()
    assert Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).is_relative_to(tmp_path)


def test_a_folder_that_the_environment_names_is_left(monkeypatch):
    monkeypatch.setitem(os.environ, "JAX_COMPILATION_CACHE_DIR", "elsewhere")
    monkeypatch.delitem(os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    compilation_cache.enable()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


def test_no_command_waits_for_what_few_of_them_need():
    """scikit-learn and scipy.stats take a second to import: what needs them does so itself."""
    asked = "import sys, experiments.train, experiments.sample; print({'sklearn', 'scipy.stats'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
