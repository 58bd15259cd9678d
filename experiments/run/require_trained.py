"""Refuses what a run never trained: guidance scales and labels, null among them, by ``run.trained_labels``."""

from collections.abc import Iterable
from dataclasses import replace

from experiments.cli.main import UserError
from experiments.config.samplers import JUMPS
from experiments.run.restore import Run
from experiments.run.trained_labels import known_scales, knows_labels, knows_null, require_in_range, what_is_untrained
from experiments.runtime import distributed
from experiments.tasks.task import Task, TaskFacts


def with_known_scales(run: Run[Task]) -> Run[Task]:
    """The run, whose own guidance scales are those that it has learned; the others are named in a warning."""
    experiment, scales = run.experiment, run.experiment.sampling.scales
    known = known_scales(experiment, scales)
    if known == scales or not run.task.objective.is_field:
        return run
    texts = " ".join(f"{scale:g}" for scale in known)
    distributed.warn(f"warning: {what_is_untrained(experiment)} is learned; the report draws w = {texts} alone")
    return run._replace(experiment=replace(experiment, sampling=replace(experiment.sampling, scales=known)))


def require_rows(run: Run[TaskFacts], labels: Iterable[int], what: str) -> None:
    """Finds out whether a run trained the rows of some labels, null among them.

    Args:
        run: of a field.
        labels: whose rows are used.
        what: needs them, for the message.

    Raises:
        UserError: it did not train one of them.
    """
    experiment, null, used = run.experiment, run.task.num_classes, set(map(int, labels))
    folder, rate = experiment.run_dir, f"(label_drop_rate {experiment.label_drop_rate:g})"
    if null in used and not knows_null(experiment):
        raise UserError(f"{what} needs the null label, which {folder} never trained {rate}: only w = 1 is learned")
    if used - {null} and not knows_labels(experiment):
        raise UserError(f"{what} needs labels, of which {folder} trained none {rate}: only w = 0 is learned")
    absent = sorted(used.intersection(run.task.absent_labels))
    if absent:
        raise UserError(f"{what} needs label {absent[0]}, which {folder} never trained: it has no training example")


def rows_of(scale: float, labels: Iterable[int], others: Iterable[int]) -> set[int]:
    """The labels whose fields guidance puts together at a scale: those asked for, and what it leads away from."""
    return set(map(int, (*(labels if scale != 0 else ()), *(others if scale != 1 else ()))))


def require_scales(run: Run[TaskFacts], scales: Iterable[float], labels: Iterable[int] | None = None) -> None:
    """Finds out whether a run trained what classifier-free guidance needs, by default of all labels in its data.

    Raises:
        UserError: it did not.
    """
    labels = run.task.labels if labels is None else tuple(labels)
    if run.task.objective.is_guided:
        for scale in scales:
            require_in_range(str(run.experiment.run_dir), run.experiment, scale)
        require_rows(run, labels, "guidance inside")
        return
    for scale in scales:
        require_rows(run, rows_of(scale, labels, (run.task.num_classes,)), f"w = {scale:g}")


def require_solver(run: Run[TaskFacts], solver: str) -> None:
    """Finds out whether a run has what a solver steps by.

    Raises:
        UserError: a jump, of a run that learned no flow map.
    """
    if solver in JUMPS and run.jumps is None:
        raise UserError(
            f"solver {solver} needs a flow map, and {run.experiment.run_dir} holds none (objective flow_map)"
        )
