"""Eight virtual devices, strict ranks, shared compilations, and the paths and mixtures that many tests share."""

import atexit
import gc
import os
import shutil
import tempfile
from importlib.metadata import version

os.environ["PJRT_NPROC"] = "16"
if "XLA_FLAGS" not in os.environ:  # the tests compile much and compute little
    flags = ["--xla_backend_optimization_level=1", "--xla_llvm_disable_expensive_passes=true"]
    flags += ["--xla_cpu_parallel_codegen_split_count=1"]
    if version("jaxlib").startswith("0.10."):  # later versions do not know it, and what is unknown is fatal
        flags += ["--xla_cpu_use_fusion_emitters=false"]
    os.environ["XLA_FLAGS"] = " ".join(flags)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # shared with the workers and the processes that tests start
    compilations = tempfile.mkdtemp(prefix="cfgjax-compilations-")
    atexit.register(shutil.rmtree, compilations, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compilations
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import paths
from cfgjax.mixtures import LabelledMixture
from experiments.cli import malloc

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

EXACT_PATHS = {
    "linear": paths.linear(),
    "cosine": paths.cosine(),
    "variance_preserving": paths.variance_preserving(),
    "polynomial_2": paths.polynomial(2),
    "polynomial_3": paths.polynomial(3),
}
PATHS = EXACT_PATHS | {"original_variance_preserving": paths.variance_preserving(zero_terminal=False)}


PATH_FIXTURES = {"path", "exact_path", "plain_or_steep_path"}


def pytest_addoption(parser):
    """``--quick``: of what runs on several paths the first alone."""
    parser.addoption("--quick", action="store_true", help="run the tests of several paths on the first one alone")


def _is_quick(item):
    indices = item.callspec.indices if hasattr(item, "callspec") else {}
    return all(indices[name] == 0 for name in PATH_FIXTURES & indices.keys())


def pytest_collection_modifyitems(config, items):
    """Leaves out what is not quick, where that is asked for."""
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=[item for item in items if not _is_quick(item)])
        items[:] = [item for item in items if _is_quick(item)]


def pytest_collection_finish():
    """What is collected stays to the end: no search for garbage goes through it again."""
    gc.freeze()


@pytest.fixture(params=list(PATHS.values()), ids=list(PATHS))
def path(request):
    """Every path of the library."""
    return request.param


@pytest.fixture(params=list(EXACT_PATHS.values()), ids=list(EXACT_PATHS))
def exact_path(request):
    """Every path with alpha(0) = beta(1) = 0 and alpha(1) = beta(0) = 1 exactly."""
    return request.param


@pytest.fixture(params=["linear", "variance_preserving"])
def plain_or_steep_path(request):
    """The simplest path and the steepest, for what costs much and depends little on the path."""
    return PATHS[request.param]


@pytest.fixture(scope="module", autouse=True)
def _without_free_blocks():
    """Memory that a module's tests freed, and the allocator as the commands tune it keeps, goes back to the kernel."""
    yield
    malloc.trim()


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


def _covariances(rng, shape):
    factors = rng.normal(size=(*shape, 2, 2))
    return factors @ np.swapaxes(factors, -1, -2) * 0.3 + 0.1 * np.eye(2)


@pytest.fixture(scope="session")
def skewed_arrays():
    """Weights, means and anisotropic covariances of 3 labels in 2-D, as float64 of NumPy."""
    rng = np.random.default_rng(3)
    return np.array([0.5, 0.2, 0.3]), rng.normal(size=(3, 2)), _covariances(rng, (3,))


@pytest.fixture(scope="session")
def clustered_arrays():
    """Weights, means and anisotropic covariances of 3 labels with 2 components each, as float64 of NumPy."""
    rng = np.random.default_rng(4)
    return rng.uniform(0.2, 1.0, size=(3, 2)), 1.5 * rng.normal(size=(3, 2, 2)), _covariances(rng, (3, 2))


@pytest.fixture
def skewed(skewed_arrays):
    """A mixture of 3 labels with anisotropic covariances."""
    return LabelledMixture(*map(jnp.asarray, skewed_arrays))


@pytest.fixture
def clustered(clustered_arrays):
    """A mixture of 3 labels with 2 anisotropic components each."""
    return LabelledMixture(*map(jnp.asarray, clustered_arrays))
