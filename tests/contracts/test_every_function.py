"""Every public function of the library is checked by contracts, or has a case: no wrong argument goes untried."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import cfgjax
from tests.contracts.test_values import is_checked

INNER = (
    "analysis.certificates",
    "analysis.guidance_diagnostics",
    "analysis.importance",
    "analysis.likelihood",
    "analysis.residuals",
    "analysis.reuse",
    "analysis.sweep",
    "data.described",
    "data.measured",
    "data.sentences",
    "guidance.filters",
    "models.inception_inputs",
    "models.pretrained",
    "models.pretrained_autoencoder",
    "models.pretrained_inception",
    "training.freezing",
    "training.fsdp",
    "training.posthoc_ema",
)
"""Modules of packages that are used by their own names."""
PARTS = sorted(
    {info.name for info in pkgutil.iter_modules(cfgjax.__path__)} - {"analysis", "checks", "contracts"} | set(INNER)
)
"""Without the checks themselves, which contracts are made of."""
TABLES = sorted(path.stem for path in Path(__file__).parent.glob("test_calls_*.py"))

WITHOUT = {
    "data.DataError": "error",
    "checkpoints.CheckpointError": "error",
    "checkpoints.NoCheckpointError": "error",
    "checkpoints.UnreachableError": "error",
    "verify.VerificationError": "error",
    "data.Split": "tests/data/test_untrusted_sets.py",
    "piecewise.Piecewise": "tests/guidance/test_intervals.py",
    "piecewise.piecewise": "decorator",
    "steering.difference": "tests/steering/test_particles.py",
    "steering.maximum": "tests/steering/test_particles.py",
    "steering.total": "tests/steering/test_particles.py",
    "training.MultiStep": "record",
    "verify.Check": "record",
    "verify.Report": "record",
}
"""A public name without a case -> why it needs none, or the file where its wrong arguments are tested."""


def _place(value):
    """The full name of the module where a function or a class is defined."""
    return value.__module__ if inspect.isroutine(value) or inspect.isclass(value) else ""


def _public(part):
    """The public functions and classes of a part: those of its ``__all__``, else those that are defined in it."""
    module = importlib.import_module(f"cfgjax.{part}")
    own = [name for name, value in vars(module).items() if _place(value).startswith(module.__name__)]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    label = part.rpartition(".")[2]
    return {f"{label}.{name}": getattr(module, name) for name in names}


def _is_asked(value):
    """Whether it is a function with arguments, or a class that is neither a record nor a type alone."""
    if inspect.isclass(value):
        return not issubclass(value, tuple) and not getattr(value, "_is_protocol", False)
    return inspect.isfunction(inspect.unwrap(value)) and bool(inspect.signature(value).parameters)


ASKED = [name for part in PARTS for name, value in _public(part).items() if _is_asked(value)]


def _with_cases():
    """The names that the cases of all tables call: "part.name", or "part.name, another" for two of a part."""
    tables = [importlib.import_module(f"tests.contracts.{table}").CASES for table in TABLES]
    found = set()
    for case in (case for table in tables for case in table):
        part, _, rest = case.name.partition(".")
        found |= {f"{part}.{word}" for word in re.findall(r"(?:^|, )(\w+)", rest)}
    return found


CHECKED = {name for part in PARTS for name, value in _public(part).items() if is_checked(value)}
"""Those whose arguments ``test_values`` tries."""


def test_every_public_function_is_checked_or_has_a_case_or_a_reason():
    assert sorted(set(ASKED) - CHECKED - _with_cases() - WITHOUT.keys()) == []


def test_no_reason_is_given_for_what_has_a_case_or_is_not_there():
    assert sorted(WITHOUT.keys() - set(ASKED)) == []
    assert sorted(WITHOUT.keys() & _with_cases()) == []


@pytest.mark.parametrize("file", sorted({reason for reason in WITHOUT.values() if reason.endswith(".py")}))
def test_a_file_that_is_named_is_there(file):
    assert (Path(__file__).parent.parent.parent / file).is_file()
