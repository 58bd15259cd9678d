"""The held-out losses of runs by side: of unknown fields the mean square errors, but for a constant of each side."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import losses
from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.run.require_trained import require_rows
from experiments.run.restore import Run
from experiments.tasks.task import Task


def side_losses(run: Run[Task], num_points: int) -> np.ndarray:
    """Held-out flow matching losses of the labelled and of the null side, [2, n], of the same draws for every run."""
    null, sizes = run.task.conditions.null, [len(leaf) for leaf in jax.tree.leaves(run.task.held_out)]

    def one(key: Array, example: Tree) -> Array:
        data_key, loss_key = jax.random.split(key)
        z, y = run.task.example(data_key, example)
        return jnp.stack([losses.flow_matching(run.path, run.field, loss_key, z, side) for side in (y, null)])

    examples = jax.tree.map(lambda leaf: jnp.asarray(leaf)[jnp.arange(num_points) % sizes[0]], run.task.held_out)
    keys = jax.random.split(jax.random.key(0), num_points)
    return np.asarray(jax.jit(lambda *rows: jax.lax.map(lambda row: one(*row), rows, batch_size=256))(keys, examples)).T


def runs_table(runs: Iterable[Run[Task]], num_points: int, scales: tuple[float, ...]) -> str:
    """A line for each run: both losses, and w^2 labelled + (w - 1)^2 null less the first run's.

    With standard errors over draws. The constants cancel in the difference: it is that of w^2 E_y + (w - 1)^2 E_null,
    per number of x.
    """
    heads = ["run", "drop rate", "labelled", "null", *(f"w = {scale:g}, - first" for scale in scales)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    first, data = None, None
    for run in runs:
        folder, known = run.experiment.run_dir, (run.task.shape, run.task.test_digest, run.experiment.path)
        if run.task.objective.kind != "field":
            raise UserError(f"drop_rates needs runs of a field of two sides, not {folder}")
        require_rows(run, (*run.task.labels, run.task.num_classes), "drop_rates")
        if data not in (None, known):
            raise UserError(f"run_dirs must be of the same data on the same path: {folder} is not")
        found = side_losses(run, num_points)
        first, data = found if first is None else first, known
        labelled, null = found - first
        cells = [str(folder), f"{run.experiment.label_drop_rate:g}", *(f"{side.mean():.4f}" for side in found)]
        for gap in (scale**2 * labelled + (scale - 1) ** 2 * null for scale in scales):
            cells.append(f"{gap.mean():+.4f} ± {gap.std() / np.sqrt(num_points):.4f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
