"""The house rules, read from the sources: layers of imports, names, docstrings, and one shape for every solver."""

import ast
import graphlib
import importlib
import inspect
import pkgutil
import pydoc
import re
import subprocess
import sys
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import cfgjax
from cfgjax import guidance, paths, solvers, steering
from cfgjax.types import LabelledField, Pair
from tests.support.tables import SOLVERS

ROOT = Path(cfgjax.__file__).parent
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))

GROUND = [
    {"types", "xla_flags", "kernels"},
    {"checks"},
    {"contracts"},
    {"piecewise", "conditions"},
    {"paths"},
    {"conversions"},
]
SIBLINGS = {"guidance", "solvers", "losses", "mixtures", "models"}
UPPER = {"analysis", "checkpoints", "data", "metrics", "training", "verify"}
LAYERS = [*GROUND, SIBLINGS, {"flow_maps", "steering"}, UPPER]

BANNED = {"cfg", "x0", "x1", "x_0", "x_1", "sigma", "eps", "v", "alpha_bar", "fn", "func", "cond", "uncond", "N", "T"}
BANNED_FILES = {"utils", "util", "common", "misc", "helper", "helpers"}


def _part(module):
    """The first part of a module's path: ``solvers`` for solvers/ode.py."""
    return module.removesuffix(".py").split("/")[0]


def _layer(part):
    return next(index for index, layer in enumerate(LAYERS) if part in layer)


def _imports(source):
    """The full names of all that a source imports, at the top or inside a function."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _trespasses(part, source):
    """Imports of the source from the same layer (but its own package) or from one above."""
    inside = {name.split(".")[1] for name in _imports(source) if name.startswith("cfgjax.")}
    return {other for other in inside if other != part and _layer(other) >= _layer(part)}


def _objects():
    """(module, name, object) for every public function and class that the library defines."""
    for info in pkgutil.walk_packages([str(ROOT)], "cfgjax."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            is_defined_here = getattr(value, "__module__", None) == info.name
            if is_defined_here and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
                yield info.name.removeprefix("cfgjax."), name, value


def test_every_module_is_on_a_layer():
    known = set().union(*LAYERS) | {"__init__"}
    assert {_part(module) for module in MODULES} <= known


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__.py"])
def test_a_module_imports_only_from_layers_under_it(module):
    assert _trespasses(_part(module), (ROOT / module).read_text()) == set()


@pytest.mark.parametrize(
    ("part", "source", "expected"),
    [
        ("guidance", "from cfgjax.solvers import heun", {"solvers"}),
        ("guidance", "def run():\n    from cfgjax import losses", {"losses"}),
        ("paths", "import cfgjax.training", {"training"}),
        ("paths", "from cfgjax.conversions import from_field", {"conversions"}),
        ("solvers", "from cfgjax.solvers.integrate import integrate\nfrom cfgjax.paths import linear", set()),
    ],
)
def test_a_trespass_is_found(part, source, expected):
    assert _trespasses(part, source) == expected


@pytest.mark.parametrize("module", MODULES)
def test_only_models_know_flax_and_only_checkpoints_orbax(module):
    packages = {name.split(".")[0] for name in _imports((ROOT / module).read_text())}
    owners = {"flax": "models", "orbax": "checkpoints", "tensorflow_datasets": "data"}
    for package, owner in owners.items():
        assert package not in packages or _part(module) == owner
    assert "experiments" not in packages


EXPERIMENTS = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path.read_text()
    for path in (ROOT.parent / "experiments").rglob("*.py")
}
IS_RUN = '\nif __name__ == "__main__":\n    main()\n'
COMMANDS = {name for name, source in EXPERIMENTS.items() if source.endswith(IS_RUN)}


def _experiments_imported_by(source):
    names = _imports(source)
    return {name for each in names for name in (each, each.rpartition(".")[0]) if name in EXPERIMENTS}


def test_a_command_imports_no_command():
    assert len(COMMANDS) > 20
    found = {name: _experiments_imported_by(source) & COMMANDS for name, source in EXPERIMENTS.items()}
    assert {name: commands for name, commands in found.items() if commands} == {}


def test_imports_of_experiments_go_one_way():
    """No module imports one that imports it, over any number of others."""
    graph = {name: _experiments_imported_by(source) - {name} for name, source in EXPERIMENTS.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(EXPERIMENTS)


def _modules_after(statement):
    code = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return {name.split(".")[0] for name in run.stdout.split()}


def test_importing_the_solvers_is_light():
    loaded = _modules_after("import cfgjax.solvers, cfgjax.guidance, cfgjax.losses, cfgjax.mixtures")
    assert loaded.isdisjoint({"tensorflow_datasets", "tensorflow", "orbax", "flax", "grain"})


@pytest.mark.parametrize("statement", ["import cfgjax.data", "import experiments.sample.__main__"])
def test_what_only_some_need_is_imported_late(statement):
    """tensorflow-datasets and matplotlib take half of the seconds until a command's help is there."""
    assert _modules_after(statement).isdisjoint({"tensorflow_datasets", "matplotlib", "sklearn", "grain"})


def test_help_shows_types_by_their_names():
    """Annotations are kept as they are written: ``LabelledField``, not the Callable that it abbreviates."""
    shown = {f"{module}.{name}": str(inspect.signature(value)) for module, name, value in _objects() if _is_ours(value)}
    assert not [
        name for name, text in shown.items() if "jax.Array" in text or "[[jax" in text or "collections." in text
    ]
    free = pydoc.plaintext.document(guidance.classifier_free).splitlines()[0]
    assert free == "classifier_free(field: 'LabelledField', scale: 'Scale', null: 'Null') -> 'LabelledField'"
    for field in (typing.get_type_hints(guidance.classifier_free)["field"], typing.get_type_hints(Pair)["labelled"]):
        assert field == LabelledField  # what reads annotations at run time still finds the types


def _is_ours(value):
    return not (inspect.isclass(value) and issubclass(value, Exception))


def test_no_module_is_a_drawer():
    parts = {part for module in MODULES for part in module.removesuffix(".py").split("/")}
    assert parts.isdisjoint(BANNED_FILES)


def test_public_names_and_parameters_are_not_banned():
    found = []
    for module, name, value in _objects():
        is_error = inspect.isclass(value) and issubclass(value, Exception)
        parameters = [] if is_error else list(inspect.signature(value).parameters)
        found += [(module, name, word) for word in [name, *parameters] if word in BANNED]
    assert not found


@pytest.mark.parametrize("module", MODULES)
def test_no_variable_is_called_cfg(module):
    assert not re.search(r"\bcfg\b", (ROOT / module).read_text())


@pytest.mark.parametrize("module", MODULES)
def test_no_argument_is_a_config(module):
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.arg):
            assert node.arg not in {"config", "conf", "settings", "hparams"}


def _methods(value):
    return [item for name, item in vars(value).items() if inspect.isfunction(item) and not name.startswith("_")]


def test_every_public_function_class_and_method_has_a_docstring():
    for module, name, value in _objects():
        assert inspect.getdoc(value), f"{module}.{name}"
        for method in _methods(value) if inspect.isclass(value) and not issubclass(value, tuple) else []:
            assert method.__doc__ or method.__name__ == "setup", f"{module}.{name}.{method.__name__}"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_opens_with_a_docstring(module):
    assert ast.get_docstring(ast.parse((ROOT / module).read_text()))


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_are_uniform(name):
    """init(x) and step(key, carry, t, t_next), by these names; the carry keeps its tree, shapes and types."""
    solver = SOLVERS[name].build(paths.linear(), lambda x, t: -x)
    assert list(inspect.signature(solver.init).parameters) == ["x"]
    assert list(inspect.signature(solver.step).parameters) == ["key", "carry", "t", "t_next"]
    carry = solver.init(jnp.ones(2))
    after = solver.step(jax.random.key(0), carry, jnp.float32(0.25), jnp.float32(0.5))
    assert jax.tree.structure(after) == jax.tree.structure(carry)
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, carry)
    assert not bool(jnp.array_equal(after.x, carry.x))


def _builders(package, *kinds):
    functions = {name: value for name, value in vars(package).items() if inspect.isfunction(value)}
    return {name for name, value in functions.items() if inspect.signature(value).return_annotation in kinds}


def test_every_builder_of_solvers_is_in_the_table():
    assert _builders(solvers, "Solver", "WeightedSolver", "AnySolver") | _builders(steering, "Solver") == SOLVERS.keys()


def _parameters(view):
    return list(inspect.signature(view).parameters)


@pytest.mark.parametrize("name", ["vector_field", "score", "noise", "denoiser", "log_density"])
def test_labelled_fields_are_uniform(name, skewed):
    """Every view of the oracle takes (x, t, y) by these names."""
    assert _parameters(getattr(skewed, name)(paths.linear())) == ["x", "t", "y"]


@pytest.mark.parametrize("name", ["flow_matching", "noise_matching", "score_matching", "denoiser_matching"])
def test_losses_are_uniform(name):
    """(path, field, key, z, *y, time_density, weight): path, field, key, arrays, then keyword settings."""
    losses = importlib.import_module("cfgjax.losses")
    predicted = name.removesuffix("_matching").replace("flow", "field")
    assert _parameters(getattr(losses, name)) == ["path", predicted, "key", "z", "y", "time_density", "weight"]


def test_losses_of_flow_maps_are_uniform():
    """(path, flow_map, a teacher, key, z), then keyword settings, of which times and weight are two."""
    modules = ("flow_maps.from_data", "flow_maps.consistency_models", "flow_maps.distillation")
    found = [value for module, name, value in _objects() if module in modules and name != "pass_gradient"]
    assert len(found) == 9
    for loss in found:
        parameters = inspect.signature(loss).parameters.values()
        given = [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]
        assert [name for name in given if name not in {"field", "solver", "teacher"}] == [
            "path",
            "flow_map",
            "key",
            "z",
        ]
        assert {each.name for each in parameters} >= {"times", "weight"}


KINDS_IN_ORDER = (
    {"GaussianPath"},
    {"Field", "LabelledField", "StateField", "LabelledStateField", "FieldLikeX", "LearnedField", "LogClassifier"}
    | {
        "LinearOperator",
        "LogLikelihood",
        "LogLikelihoodOfData",
        "Reward",
        "Pair",
        "StatefulField",
        "Solver",
        "SolverLike",
    },
    {"Key"},
    {"Array", "RealArray", "DataPoint", "TimeGrid", "Number", "Finite", "Positive", "Time"}
    | {"AnyCondition", "AnyNull", "Conditions", "Scales", "Matrix", "AnyMeasurement", "NoisyMeasurement"},
)
"""Words of annotations, by the place that the arguments have: the path, fields, the key, then arrays and numbers."""


def _places(function):
    """The places of the arguments that must be given, of those kinds."""
    needed = [each for each in inspect.signature(function).parameters.values() if each.default is each.empty]
    words = [set(re.findall(r"\w+", str(each.annotation))) for each in needed]
    found = [[place for place, kind in enumerate(KINDS_IN_ORDER) if each & kind] for each in words]
    return [min(places) for places in found if places]


def test_arguments_come_in_one_order():
    """A path, then fields, then a key, then arrays and numbers.

    Not of ``verify``, where what is looked at comes first, and of the convolution, whose arguments are JAX's.
    """
    others = "checks", "verify", "models.convolution"
    functions = {f"{module}.{name}": value for module, name, value in _objects() if inspect.isfunction(value)}
    places = {name: _places(value) for name, value in functions.items() if not name.startswith(others)}
    assert sum(0 in each for each in places.values()) > 30
    assert not {name for name, each in places.items() if each != sorted(each)}
