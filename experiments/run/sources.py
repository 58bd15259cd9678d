"""What a new run can begin with: the parameters of another run, or of a file of published weights."""

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cfgjax import checkpoints
from cfgjax.checks import short_repr
from cfgjax.models import SIZES, pretrained
from cfgjax.models.weight_files import require_weights_file
from cfgjax.types import Tree
from experiments.cli.main import UserError
from experiments.config.history import StartedFrom, Which
from experiments.config.schema import Experiment
from experiments.run import folder as run_folder
from experiments.run.model import model_of
from experiments.run.parts import flatten
from experiments.run.published import TELL_HEADS, TRAINED
from experiments.run.trained_labels import knows_labels, knows_null
from experiments.tasks.conditions import of_labels, what_is_told
from experiments.tasks.label_names import numbers_of
from experiments.tasks.registry import facts_of
from experiments.tasks.task import TaskFacts

_OF_THE_FUNCTION = "network.", "objective", "path"
_FREE = {"network.dropout", "network.dtype", "network.rematerialise"}
"""Settings of a network that leave its parameters what they are."""
_OPTIONS = re.compile(r"network\.(?!kind$)|objective$|path$")
_OF_CONDITIONS = re.compile(r"(^|/)(LabelEmbedding_\d+|conditioning|CrossAttention_\d+)(/|$)")
"""Parts that embed a condition, or attend to one."""


class Source(NamedTuple):
    """What a new run can begin with.

    Attributes:
        function: the settings by their names, and the data's shape, which must be those of the new run.
        conditions: what the field is told; where that is another, the parts that embed it are new.
        class_names: what the labels are called, None where that is not known.
        scaling: factor and shift of latents, as ``TaskFacts.scaling``; None where that is not known.
        like: the shapes of its parameters.
        read: -> its parameters.
    """

    function: dict[str, object]
    conditions: dict[str, object]
    class_names: tuple[str, ...] | None
    scaling: tuple[float, float] | None
    like: Tree
    read: Callable[[], Tree]


class Plan(NamedTuple):
    """The names of a new run's parameters that are taken, and of those that are drawn by its seed."""

    taken: frozenset[str]
    new: frozenset[str]


def _of_kind(kind: str, network: dict[str, object]) -> dict[str, object]:
    settings = {"network.kind": kind} | {f"network.{name}": value for name, value in network.items()}
    return {name: value for name, value in settings.items() if name not in _FREE}


def settings_of_network(experiment: Experiment) -> dict[str, object]:
    """The settings of a network that its parameters are for."""
    return _of_kind(type(experiment.network).__name__, asdict(experiment.network))


def _function_of(experiment: Experiment, facts: TaskFacts) -> dict[str, object]:
    """The settings of what an experiment learns, whatever its data and its optimizer."""
    own = {"path": experiment.path, "objective": experiment.objective, "data.shape": facts.shape}
    return own | settings_of_network(experiment)


def _conditions_of(experiment: Experiment, facts: TaskFacts) -> dict[str, object]:
    return {"data.num_classes": facts.num_classes} | what_is_told(experiment, facts.conditions)


def _run(started: StartedFrom) -> Source:
    where = Path(started.run_dir)
    experiment = run_folder.read_config(where)
    facts = facts_of(experiment)
    like = jax.eval_shape(model_of(experiment, facts).init, jax.random.key(0))

    def read() -> Tree:
        return checkpoints.restore_params(run_folder.checkpoints_of(where), started.step, started.which, like).state

    function, conditions = _function_of(experiment, facts), _conditions_of(experiment, facts)
    return Source(function, conditions, facts.class_names, facts.scaling, like, read)


def _with_heads(kind: str, architecture: pretrained.Architecture, experiment: Experiment) -> pretrained.Architecture:
    """The architecture with the number of heads; one that no file tells is the paper size's, else the new run's."""
    if kind in TELL_HEADS:
        return architecture
    its = architecture.width, architecture.depth
    of_paper = [size.num_heads for size in SIZES.values() if (size.width, size.depth) == its]
    own = getattr(experiment.network, "num_heads", architecture.num_heads)
    return architecture._replace(num_heads=of_paper[0] if of_paper else own)


def _settings_of(kind: str, architecture: pretrained.Architecture, experiment: Experiment) -> dict[str, object]:
    """What published weights compute, in settings like those of an experiment."""
    module: Any = pretrained.network(kind, _with_heads(kind, architecture, experiment))
    network = {name: getattr(module, name) for name in asdict(experiment.network) if hasattr(module, name)}
    trained = {"path": "linear", "objective": "field"} | TRAINED[kind]
    return {
        "path": trained["path"],
        "objective": trained["objective"],
        "data.shape": (architecture.side, architecture.side, architecture.channels),
    } | _of_kind(f"{type(module).__name__}Network", network)


def _published(started: StartedFrom, experiment: Experiment, facts: TaskFacts) -> Source:
    """A file of published weights; in a layout that does not tell the size of latents it is that of the new run."""
    kind = str(started.kind)
    num_heads = None if kind in TELL_HEADS else 1
    try:
        architecture, params = pretrained.read(Path(started.run_dir), num_heads, kind, facts.shape[0])
    except (ImportError, OSError, ValueError) as error:
        hint = "; convert it first (convert_weights --noise-scale)" if "noise_scale" in str(error) else ""
        raise UserError(f"from {error}{hint}") from None
    count = architecture.num_classes
    told = of_labels(count, np.arange(count), numbers_of(count))
    conditions = {"data.num_classes": count} | dict.fromkeys(what_is_told(experiment, told))
    return Source(
        _settings_of(kind, architecture, experiment),
        conditions | {"conditions": str(np.shape(told.null))},
        None,
        None,
        jax.eval_shape(lambda: params),
        lambda: params,
    )


def what_no_file_tells(kind: str, experiment: Experiment) -> str:
    """What is taken on trust of published weights, in words."""
    if kind in TELL_HEADS:
        return "no file of weights tells how its data were scaled"
    heads = f"the number of heads, {getattr(experiment.network, 'num_heads', 'none')} here"
    repa = ", nor whether they were trained with REPA: then the field is minus the right one, and from_kind is repa"
    return f"no file of weights tells {heads}{repa if kind == 'sit' else ''}"


def source_of(started: StartedFrom, experiment: Experiment, facts: TaskFacts) -> Source:
    """What a run was told to begin with.

    Raises:
        UserError: no run there, or a file that is none of such weights.
    """
    return _run(started) if started.kind is None else _published(started, experiment, facts)


def started_from_run(run_dir: Path, which: Which) -> StartedFrom:
    """The newest checkpoint of a run, as a start.

    Raises:
        UserError: no run there, or none that was saved.
    """
    source = run_folder.read_config(run_dir)
    step = checkpoints.latest_step(run_folder.checkpoints_of(run_dir))
    if step is None:
        raise UserError(f"from {run_dir} holds no checkpoint")
    return StartedFrom(str(run_dir), which, step, knows_null(source), knows_labels(source))


def started_from_file(file: Path, kind: str | None) -> StartedFrom:
    """A file of published weights, as a start.

    Raises:
        UserError: another kind of file, or nothing said of whose weights these are.
    """
    try:
        require_weights_file(file)
    except (OSError, ValueError) as error:
        raise UserError(f"from {error}") from None
    if kind not in pretrained.KINDS:
        given = f"{file} is a file of weights" if kind is None else f"got {kind!r}"
        raise UserError(f"from_kind must say whose weights they are, one of {', '.join(pretrained.KINDS)}: {given}")
    return StartedFrom(str(file), "ema", 0, True, True, kind)


def _as_words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _as_options(function: dict[str, object], names: list[str]) -> str:
    """The options that make settings those of a source, where there are such options for all of them."""
    if not all(map(_OPTIONS.match, names)):
        return ""
    flags = (f"--{name.replace('_', '-')} {_as_words(function[name])}" for name in names)
    return f" (pass {' '.join(flags)})"


def _require_same_function(where: str, source: Source, function: dict[str, object]) -> None:
    theirs = source.function
    names = sorted(theirs.keys() | function.keys(), key=lambda name: (name != "network.kind", name))
    others = [name for name in names if theirs.get(name) != function.get(name)]
    if others:
        one, other = short_repr(theirs.get(others[0])), short_repr(function.get(others[0]))
        hint = _as_options(theirs, others)
        raise UserError(f"from {where}: its {others[0]} is {one}, this run's {other}; both must be the same{hint}")


def _is_of_labels(old: tuple[int, ...], new: tuple[int, ...], num_classes: tuple[Any, Any]) -> bool:
    """Whether two shapes are of a layer with an output for each label."""
    return (old[-1:], new[-1:]) == ((num_classes[0],), (num_classes[1],)) and old[:-1] == new[:-1]


def what_is_taken(where: str, source: Source, experiment: Experiment, facts: TaskFacts, params: Tree) -> Plan:
    """Which parameters of a new run are taken.

    Args:
        where: what the source is called.
        source: of these.
        experiment: the new run.
        facts: of its task.
        params: its parameters, or their shapes.

    Raises:
        UserError: another network, another function, another shape of data; or a parameter of another shape that embeds
            no condition.
    """
    _require_same_function(where, source, _function_of(experiment, facts))
    conditions = _conditions_of(experiment, facts)
    is_told_otherwise = conditions != source.conditions
    num_classes = source.conditions["data.num_classes"], conditions["data.num_classes"]
    old, new = ({name: tuple(leaf.shape) for name, leaf in flatten(tree).items()} for tree in (source.like, params))
    drawn = {name for name in new if is_told_otherwise and (name not in old or _OF_CONDITIONS.search(name))}
    if not facts.objective.is_field:
        drawn |= {
            name for name in new if old.get(name) != new[name] and _is_of_labels(old[name], new[name], num_classes)
        }
    wrong = [name for name in new if name not in drawn and old.get(name) != new[name]]
    if wrong:
        shapes = f"has the shape {old.get(wrong[0])}, this run's {new[wrong[0]]}"
        raise UserError(
            f"from {where}: its {wrong[0]} {shapes}; only what embeds labels and other conditions may differ"
        )
    return Plan(frozenset(new.keys() - drawn), frozenset(drawn))
