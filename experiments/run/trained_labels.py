"""Which rows of the label embedding a run trained: the others are as they were drawn, and their fields mean nothing.

Training reaches the null row by dropping labels, or by null_consistency, and a label's row by an example that keeps
its label. A network of labels alone (label_drop_rate 0) is whole at w = 1, one of the null label alone (1) at w = 0 and
under a classifier. One with guidance inside needs no null, and knows the scales that it was told.
"""

from experiments.cli.main import UserError
from experiments.config.distillation import GUIDED
from experiments.config.schema import Experiment


def _is_trained(experiment: Experiment, rate: float) -> bool:
    """Whether an event of such a rate is expected once among all examples of all steps."""
    return rate * experiment.num_steps * experiment.batch_size >= 1


def knows_null(experiment: Experiment) -> bool:
    """Whether training dropped labels, or had null_consistency, here or in the run that this one began with."""
    past = experiment.started_from
    rate = 1.0 if experiment.null_consistency else experiment.label_drop_rate
    return _is_trained(experiment, rate) or (past is not None and past.knows_null)


def knows_labels(experiment: Experiment) -> bool:
    """Whether training kept labels, here or in the run that this one began with."""
    past = experiment.started_from
    return _is_trained(experiment, 1 - experiment.label_drop_rate) or (past is not None and past.knows_labels)


def known_scales(experiment: Experiment, scales: tuple[float, ...]) -> tuple[float, ...]:
    """Of guidance scales those that need only rows that were trained; where there is none, the one that does."""
    if experiment.objective in GUIDED:
        return scales
    has_null, has_labels = knows_null(experiment), knows_labels(experiment)
    known = tuple(scale for scale in scales if (has_null or scale == 1) and (has_labels or scale == 0))
    return known or ((1.0,) if has_labels else (0.0,))


def what_is_untrained(experiment: Experiment) -> str:
    """Of a field's network: what the rate of dropped labels leaves untrained, in words; else empty."""
    rate = f"label_drop_rate {experiment.label_drop_rate:g} trains no"
    if experiment.objective in GUIDED or (knows_null(experiment) and knows_labels(experiment)):
        return ""
    return f"{rate} label: only w = 0" if knows_null(experiment) else f"{rate} null label: only w = 1"


def require_in_range(what: str, experiment: Experiment, scale: float) -> None:
    """Finds out whether a network with guidance inside was told a scale.

    Raises:
        UserError: it was not.
    """
    low, high = experiment.distillation.scales
    if experiment.objective in GUIDED and not low <= scale <= high:
        raise UserError(f"scale must be in {low:g}..{high:g}, in which {what} was trained, got {scale:g}")
