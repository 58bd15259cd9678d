"""The weakened self that the options ask for: the run's own network without some of its blocks' work, or its middle."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance
from cfgjax.models import Weakening
from cfgjax.types import Array, Both, Condition, LabelledField, Null, Pair, Scale, Tree
from experiments.cli.main import UserError
from experiments.config.networks import DiTNetwork, UNetNetwork
from experiments.config.samplers import Rule, by_name, with_reuse
from experiments.run.restore import Run
from experiments.sample.options import GuidanceOptions
from experiments.tasks.conditions import take
from experiments.tasks.task import TaskFacts

INTERNAL = "internal"
"""What the option says for the network's middle."""

Placed = Callable[[LabelledField], LabelledField]
"""What is put in a network's place: the network, or what counts its evaluations."""


def _weakening_of(words: tuple[str, ...]) -> Weakening:
    """The weakening of words such as skipped=2,3; UserError for others."""
    found: dict[str, tuple[int, ...]] = {}
    for word in words:
        kind, _, numbers = word.partition("=")
        if kind not in Weakening._fields or kind in found or not all(each.isdecimal() for each in numbers.split(",")):
            kinds = ", ".join(f"{name}=2,3" for name in Weakening._fields)
            raise UserError(f"weakened must be {INTERNAL}, or some of {kinds}, each once, got {word}")
        found[kind] = tuple(int(each) for each in numbers.split(","))
    return Weakening(**found)


def _weak_field(run: Run[TaskFacts], words: tuple[str, ...], conditions: Tree) -> LabelledField:
    """The field of the weakened network; UserError where it has no such blocks."""
    if not isinstance(run.experiment.network, DiTNetwork | UNetNetwork):
        raise UserError("weakened must be left out: the network is no transformer and no U-Net, and has no such blocks")
    field, y = run.weakened(_weakening_of(words)), jax.tree.map(jnp.asarray, take(conditions, np.array(0)))
    try:
        jax.eval_shape(field, jnp.zeros(run.task.shape), jnp.zeros(()), y)
    except ValueError as error:
        raise UserError(str(error)) from None
    return field


def _internal_sides(run: Run[TaskFacts]) -> Both:
    network = run.experiment.network
    if not isinstance(network, DiTNetwork) or not network.internal_block:
        raise UserError(f"weakened must not be {INTERNAL}: the run has no network.internal_block")
    return run.sides


def _counted(sides: Both, placed: Placed) -> Both:
    """Both sides, the final one in its place, so that the one evaluation of both is counted once."""

    def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        internal, final = sides(x, t, y)
        return internal, placed(lambda *at: final)(x, t, y)

    return both


def _require_reuse_of_two(guided: GuidanceOptions) -> None:
    """Raises UserError for a reuse where no second side alone could be spared."""
    if guided.reuse is None:
        return
    if guided.weakened == (INTERNAL,) and guided.weak_scale is None:
        raise UserError(f"reuse must be left out where {INTERNAL} is weakened: both sides are one evaluation")
    if guided.weakened != (INTERNAL,) and guided.weak_scale is not None:
        raise UserError("reuse must be left out where blocks are weakened beside the null")


def _rule(guided: GuidanceOptions, run: Run[TaskFacts], pair: Pair) -> Rule:
    """The rule that the options ask for on a pair."""
    rule = by_name(guided.rule, run.path, pair, guided.interval)
    if guided.reuse is None:
        return rule
    return with_reuse(rule, guided.rule, run.path, pair, guided.interval, guided.reuse)


def rules_of(
    guided: GuidanceOptions, run: Run[TaskFacts], conditions: Tree, null: Null, between: Callable[[Scale], Scale]
) -> Callable[[Placed], Rule]:
    """The function that makes the guidance by the weakened self: in the null's place, or beside the null.

    Args:
        guided: the options.
        run: of a field.
        conditions: of all samples.
        null: what is led away from beside the weakened self.
        between: a scale -> that scale in the interval that is asked for.

    Raises:
        UserError: a network, or blocks, that cannot be weakened so, or a rule or reuse for two sides alone.
    """
    _require_reuse_of_two(guided)
    weak = guided.weak_scale
    if guided.weakened == (INTERNAL,):
        sides = _internal_sides(run)

        def of_sides(placed: Placed) -> Rule:
            pair: Pair = guidance.pair_of_sides(_counted(sides, placed))
            pair = pair if weak is None else guidance.pair(guidance.extrapolate(pair, between(weak)), null)
            return _rule(guided, run, pair)

        return of_sides
    weak_field = _weak_field(run, guided.weakened, conditions)
    if weak is None:
        return lambda placed: _rule(guided, run, guidance.autoguidance_pair(placed(run.field), placed(weak_field)))
    if guided.rule != "classifier_free":
        raise UserError(f"rule must be classifier_free where blocks are weakened beside the null, got {guided.rule}")
    return lambda placed: (
        lambda scale: guidance.weakened(
            guidance.pair(placed(run.field), null), placed(weak_field), between(scale), between(weak)
        )
    )
