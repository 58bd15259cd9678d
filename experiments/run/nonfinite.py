"""Losses and gradients that are not finite: skipped and counted, and after too many in a row, explained.

The optimizer leaves such updates out, so parameters stay finite. The watch reads each dispatch's count LAG dispatches
later, so that neither host nor device waits for the other, and the host is never further ahead than that.
"""

import json
import math
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax import training
from cfgjax.training import Metrics, Step
from cfgjax.types import Array, Loss, TrainState, Tree
from experiments.cli.main import EndingError
from experiments.run import folder as run_folder
from experiments.runtime import distributed
from experiments.runtime.distributed import LAG

NEVER = 2**31 - 2
"""More steps in a row than any run has: the optimizer itself never gives up and takes in what is not finite."""

IN_A_ROW, IN_ALL = "not_finite_in_a_row", "not_finite"
_MOST_SHOWN = 5


class DivergedError(EndingError):
    """A run that met losses or gradients that are not finite, too many steps in a row."""

    exit_code = 3


def skipping(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer that leaves out updates that are not finite and counts them, with ``apply_if_finite``'s state.

    Optax's asks every array whether it is finite and branches, so that compilers cannot fuse the update with what comes
    after it. Here the gradient's norm tells, which clipping and the metrics compute in any case, and each number
    chooses; a gradient whose squares exceed float32, some 1e19, counts as not finite.
    """

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        is_finite = jnp.isfinite(optax.tree.norm(updates))
        updates, inner = optimizer.update(updates, state.inner_state, params)
        updates = jax.tree.map(lambda leaf: jnp.where(is_finite, leaf, jnp.zeros_like(leaf)), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), inner, state.inner_state)
        in_a_row = jnp.where(is_finite, 0, state.notfinite_count + 1)
        in_all = state.total_notfinite + jnp.where(is_finite, 0, 1)
        return updates, optax.ApplyIfFiniteState(in_a_row, is_finite, in_all, inner)

    return optax.GradientTransformation(optax.apply_if_finite(optimizer, NEVER).init, update)


def counting(step: Step) -> Any:
    """The step whose metrics have the counts of a ``skipping`` optimizer."""

    def counted(
        state: TrainState, batch: Tree, source: Tree = None, *, axis_name: str | None = None
    ) -> tuple[TrainState, Metrics]:
        state, metrics = step(state, batch, source, axis_name=axis_name)  # pyrefly: ignore[not-iterable]
        counts = {
            IN_A_ROW: optax.tree.get(state.opt_state, "notfinite_count"),
            IN_ALL: optax.tree.get(state.opt_state, "total_notfinite"),
        }
        return state, metrics | counts

    return counted


class NonfiniteMonitor:
    """Takes the metrics of each dispatch and finds the step at which too many in a row were not finite.

    Args:
        most: steps in a row that end the run.
        lag: dispatches that may be under way while it reads.
    """

    def __init__(self, most: int, lag: int = LAG) -> None:
        self._most, self._lag = most, lag
        self._underway: deque[tuple[range, Array]] = deque()

    def first_bad(self, steps: range, metrics: Metrics) -> int | None:
        """The first of too many bad steps, among the dispatches that are surely done."""
        self._underway.append((steps, metrics[IN_A_ROW]))
        return self._next() if len(self._underway) > self._lag else None

    def first_bad_of_rest(self) -> int | None:
        """The first of too many bad steps among all dispatches, once they are done."""
        while self._underway:
            found = self._next()
            if found is not None:
                return found
        return None

    def _next(self) -> int | None:
        steps, counts = self._underway.popleft()
        for step, count in zip(steps, np.asarray(counts), strict=True):
            if count >= self._most:
                return step - int(count) + 1
        return None


def gradient_norms(loss: Loss, num_microbatches: int) -> Step:
    """The pure function (state, batch, source=None, *, axis_name=None) -> the loss, and the gradient norms."""
    gradient_of = training.make_value_and_grad(loss, num_microbatches)

    def norms(state: TrainState, batch: Tree, source: Tree = None, *, axis_name: str | None = None) -> Metrics:
        value, gradient = gradient_of(state, batch, source, axis_name=axis_name)
        leaves, _ = jax.tree_util.tree_flatten_with_path(gradient)
        named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        return {"loss": value} | {name: jnp.linalg.norm(jnp.ravel(leaf)) for name, leaf in named.items()}

    return norms


def first_operation(loss: Loss, state: TrainState, step: int, batch: Tree, source: Tree) -> str | None:
    """The first operation of a step's loss and gradient that gives NaN, with its place in the source; else infinity.

    None where no example of this process has any.

    Each example is computed in turn, operation by operation, without compiling.
    """
    num_examples = len(jax.tree.leaves(batch)[0])
    offset = jax.process_index() * num_examples
    keys = training.example_keys(state.key, step, offset + num_examples)[offset:]
    params = jax.tree.map(distributed.whole, state.params)
    slope = jax.value_and_grad(loss)
    for looks_for_infinity in (False, True):
        for index in range(num_examples):
            row = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[index]), batch)  # noqa: B023
            example = row if source is None else jax.tree.map(lambda leaf: leaf[row], source)  # noqa: B023
            found = _complaint(lambda: slope(params, keys[index], example), looks_for_infinity)  # noqa: B023
            if found is not None:
                return f"{found} (example {index} of the batch)"
    return None


def _complaint(compute: Callable[[], Any], looks_for_infinity: bool) -> str | None:
    try:
        with jax.disable_jit(), jax.debug_nans(True), jax.debug_infs(looks_for_infinity):
            compute()
    except FloatingPointError as error:
        return f"{_place(error)}: {str(error).splitlines()[0]}"
    return None


def _place(error: FloatingPointError) -> str:
    """The innermost line, of ours or of a user's, that led to the error; the backward pass has none of its own."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
    if not own:
        return "in the backward pass"
    return f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}: {own[-1].line}"


def _worst_first(norms: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(norms.items(), key=lambda pair: (math.isfinite(pair[1]), -pair[1])))


def explain(
    run_dir: Path, first: int, most: int, last_saved: int | None, norms: Mapping[str, float], place: str | None
) -> NoReturn:
    """Writes divergence.json and ends the run.

    Args:
        run_dir: the run's folder.
        first: the first of the steps.
        most: how many there were in a row.
        last_saved: the step of the last checkpoint.
        norms: the gradient's, by array, at the first step.
        place: the first operation, where it was looked for.

    Raises:
        DivergedError: always; the message has the step, the worst layers, and the checkpoint to go back to.
    """
    found = _worst_first(norms)
    record = {"step": first, "in_a_row": most, "last_checkpoint": last_saved, "first_operation": place}
    text = json.dumps(record | {"norms": {name: str(norm) for name, norm in found.items()}}, indent=2)
    try:
        run_folder.write_atomically(run_dir / "divergence.json", text + "\n")
    except OSError as error:
        distributed.warn(f"warning: {error.filename}: {error.strerror}")
    shown = ", ".join(f"{name} {norm:.3g}" for name, norm in list(found.items())[:_MOST_SHOWN])
    saved = "none was saved" if last_saved is None else f"the last good one is of step {last_saved}"
    operation = "--debug-nans names the first operation" if place is None else f"the first operation is {place}"
    raise DivergedError(
        f"loss or gradient not finite at {most} steps in a row, from step {first} on; these updates were left out. "
        f"Norms there: {shown} (all in {run_dir / 'divergence.json'}); {operation}. Checkpoints: {saved}"
    )
