"""What a run learns, as functions: its path, its network, and the field, or another thing, of its parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from cfgjax import conversions, guidance, paths
from cfgjax.models import Weakening
from cfgjax.models.weakening import UNWEAKENED
from cfgjax.types import Array, Both, Condition, GaussianPath, LabelledField, LogClassifier, Tree
from experiments.cli.main import UserError
from experiments.config.samplers import Jumps, Rule, classifier_free
from experiments.config.schema import Experiment
from experiments.runtime.matmul_precision import at_precision, matmul_precision_of
from experiments.tasks.task import Autoencoder, Objective, TaskFacts

PATHS: dict[str, Callable[[], GaussianPath]] = {
    "linear": paths.linear,
    "cosine": paths.cosine,
    "variance_preserving": paths.variance_preserving,
    "polynomial": lambda: paths.polynomial(2),
    "ddpm": paths.ddpm,
}
SAMPLED_ON = {"ddpm": "linear"}
"""The paths on which fields of those are sampled that do not lead from noise to data."""


def path_of_field(experiment: Experiment) -> str:
    """The name of the path on which an experiment's field is sampled."""
    return SAMPLED_ON.get(experiment.path, experiment.path)


class Network(NamedTuple):
    """A network's functions, as of a Linen module, with products of matrices in the precision of its run."""

    init: Callable[..., Tree]
    apply: Callable[..., Any]


class Model(NamedTuple):
    """The functions that a run learns.

    Attributes:
        path: on which the field is sampled.
        network: of its parameters.
        init: key -> parameters.
        field: parameters, and by default no weakening -> field; with guidance inside it is that at w = 1.
        sides: parameters -> the fields that a network predicts in its middle and at its end.
        rule: parameters -> the guidance of the field: classifier-free, or what is inside.
        jumps: parameters -> flow map at a guidance scale; None where none is learned.
        log_classifier: parameters -> noisy classifier.
        autoencoder: parameters -> autoencoder.
    """

    path: GaussianPath
    network: Network
    init: Callable[[Array], Tree]
    field: Callable[..., LabelledField]
    sides: Callable[[Tree], Both]
    rule: Callable[[Tree], Rule]
    jumps: Callable[[Tree], Jumps] | None
    log_classifier: Callable[[Tree], LogClassifier]
    autoencoder: Callable[[Tree], Autoencoder]


def _network_of(experiment: Experiment, task: TaskFacts) -> Network:
    module: Any = task.objective.network(experiment.network, task)
    precision = matmul_precision_of(experiment)
    return Network(at_precision(module.init, precision), at_precision(module.apply, precision))


def _jumps_of(network: Network, objective: Objective, params: Tree) -> Jumps:
    """What a network with guidance inside predicts at a scale; of a field alone r is not told."""
    return lambda scale: lambda x, t, r, y: network.apply(params, x, t, objective.told(y, scale, r - t))


def _rule_of(jumps: Callable[[Tree], Jumps], params: Tree) -> Rule:
    """The guidance inside, of any scale: at each time the network is told that of the time."""
    at = jumps(params)
    return lambda scale: guidance.at_scale(lambda x, t, y, w: at(w)(x, t, t, y), scale)


def _free_rule_of(field: Callable[[Tree], LabelledField], task: TaskFacts, params: Tree) -> Rule:
    return classifier_free(field(params), task.conditions.null)


def _as_it_is(field: LabelledField) -> LabelledField:
    return field


OnPath = Callable[[LabelledField], LabelledField]
"""What makes of a field on the path of training that on the path of sampling."""


def _field_of(
    network: Network,
    objective: Objective,
    path: GaussianPath,
    on_path: OnPath,
    params: Tree,
    weakening: Weakening = UNWEAKENED,
) -> LabelledField:
    options = {} if weakening == UNWEAKENED else {"weakening": weakening}

    def prediction(x: Array, t: Array, y: Condition) -> Array:
        return network.apply(params, x, t, objective.told(y, 1.0, 0.0), **options)

    return on_path(objective.to_field(path, prediction))


def _sides_of(network: Network, on_path: OnPath, params: Tree) -> Both:
    """Both fields; on a changed path by two calls, which are one evaluation where they are compiled together."""

    def sides(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        return network.apply(params, x, t, y, method="sides")

    if on_path is _as_it_is:
        return sides
    internal, final = (on_path(lambda x, t, y, index=index: sides(x, t, y)[index]) for index in range(2))
    return lambda x, t, y: (internal(x, t, y), final(x, t, y))


def model_of(experiment: Experiment, task: TaskFacts) -> Model:
    """The functions that an experiment learns.

    Raises:
        UserError: a network, or a path, that is not for what is trained; of ``init``: one that does not fit the data.
    """
    path = PATHS[experiment.path]()
    changes_path = path_of_field(experiment) != experiment.path
    sampled_on = PATHS[path_of_field(experiment)]() if changes_path else path
    if changes_path and task.objective.kind != "field":
        raise UserError(f"objective {experiment.objective!r} needs the path of a field, not {experiment.path!r}")
    network = _network_of(experiment, task)
    on_path = partial(conversions.change_path, path, sampled_on) if changes_path else _as_it_is
    field = partial(_field_of, network, task.objective, path, on_path)

    def init(key: Array) -> Tree:
        try:
            return jax.jit(network.init)(key, *task.inputs)
        except ValueError as error:
            raise UserError(f"network does not fit data of shape {task.shape}: {error}") from None

    def log_classifier(params: Tree) -> LogClassifier:
        return lambda x, t: network.apply(params, x, t)

    def autoencoder(params: Tree) -> Autoencoder:
        return Autoencoder(*(partial(network.apply, params, method=name) for name in Autoencoder._fields))

    jumps = partial(_jumps_of, network, task.objective)
    rule = partial(_rule_of, jumps) if task.objective.is_guided else partial(_free_rule_of, field, task)
    maps = jumps if task.objective.kind == "flow_map" else None
    return Model(
        sampled_on, network, init, field, partial(_sides_of, network, on_path), rule, maps, log_classifier, autoencoder
    )
