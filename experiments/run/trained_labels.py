"""Which rows of the label embedding a run trained: the others are as they were drawn, and their fields mean nothing.

Training reaches the null row by dropping labels, and a label's row by an example that keeps its label. A network of
labels alone (label_drop_rate 0) is whole at w = 1, one of the null label alone (1) at w = 0 and under a classifier.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.runtime import distributed

if TYPE_CHECKING:
    from experiments.run.restore import Run


def _is_trained(experiment: Experiment, rate: float) -> bool:
    """Whether an event of such a rate is expected once among all examples of all steps."""
    return rate * experiment.num_steps * experiment.batch_size >= 1


def knows_null(experiment: Experiment) -> bool:
    """Whether training dropped labels, here or in the run that this one began with."""
    past = experiment.started_from
    return _is_trained(experiment, experiment.label_drop_rate) or (past is not None and past.knows_null)


def knows_labels(experiment: Experiment) -> bool:
    """Whether training kept labels, here or in the run that this one began with."""
    past = experiment.started_from
    return _is_trained(experiment, 1 - experiment.label_drop_rate) or (past is not None and past.knows_labels)


def known_scales(experiment: Experiment, scales: tuple[float, ...]) -> tuple[float, ...]:
    """Of guidance scales those that need only rows that were trained; where there is none, the one that does."""
    has_null, has_labels = knows_null(experiment), knows_labels(experiment)
    known = tuple(scale for scale in scales if (has_null or scale == 1) and (has_labels or scale == 0))
    return known or ((1.0,) if has_labels else (0.0,))


def what_is_untrained(experiment: Experiment) -> str:
    """What the rate of dropped labels leaves untrained, in words; else empty."""
    rate = f"label_drop_rate {experiment.label_drop_rate:g} trains no"
    if experiment.objective == "classifier" or (knows_null(experiment) and knows_labels(experiment)):
        return ""
    return f"{rate} label: only w = 0" if knows_null(experiment) else f"{rate} null label: only w = 1"


def with_known_scales(run: Run) -> Run:
    """The run, whose own guidance scales are those that it knows; the others are told."""
    experiment, scales = run.experiment, run.experiment.sampling.scales
    known = known_scales(experiment, scales)
    if known == scales or experiment.objective == "classifier":
        return run
    texts = " ".join(f"{scale:g}" for scale in known)
    distributed.warn(f"warning: {what_is_untrained(experiment)} is learned; the report draws w = {texts} alone")
    return run._replace(experiment=replace(experiment, sampling=replace(experiment.sampling, scales=known)))


def require_rows(run: Run, labels: Iterable[int], what: str) -> None:
    """Finds out whether a run trained the rows of some labels, null among them.

    Args:
        run: of a field.
        labels: whose rows are used.
        what: needs them, for the message.

    Raises:
        UserError: it did not train one of them.
    """
    experiment, null, used = run.experiment, run.problem.num_classes, set(map(int, labels))
    folder, rate = experiment.run_dir, f"(label_drop_rate {experiment.label_drop_rate:g})"
    if null in used and not knows_null(experiment):
        raise UserError(f"{what} needs the null label, which {folder} never trained {rate}: only w = 1 is learned")
    if used - {null} and not knows_labels(experiment):
        raise UserError(f"{what} needs labels, of which {folder} trained none {rate}: only w = 0 is learned")
    absent = sorted(used.intersection(run.problem.absent_labels))
    if absent:
        raise UserError(f"{what} needs label {absent[0]}, which {folder} never trained: it has no training example")


def rows_of(scale: float, labels: Iterable[int], others: Iterable[int]) -> set[int]:
    """The labels whose fields guidance puts together at a scale: those asked for, and what it leads away from."""
    return set(map(int, (*(labels if scale != 0 else ()), *(others if scale != 1 else ()))))


def require_scales(run: Run, scales: Iterable[float], labels: Iterable[int] | None = None) -> None:
    """Finds out whether a run trained what classifier-free guidance needs, by default of all labels in its data.

    Raises:
        UserError: it did not.
    """
    labels = run.problem.labels if labels is None else tuple(labels)
    for scale in scales:
        require_rows(run, rows_of(scale, labels, (run.problem.num_classes,)), f"w = {scale:g}")
