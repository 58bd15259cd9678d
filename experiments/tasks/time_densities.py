"""The density of training times, by its name."""

from cfgjax import losses
from cfgjax.types import TimeDensity
from experiments.cli.main import UserError
from experiments.config.schema import Experiment


def time_density_of(experiment: Experiment) -> TimeDensity:
    """The density of training times.

    Raises:
        UserError: the logit of times that are not drawn by it.
    """
    if experiment.time_density == "logit_normal":
        return losses.logit_normal(*experiment.time_logit)
    if experiment.time_logit != (0.0, 1.0):
        raise UserError(f"time_logit is of the time_density 'logit_normal', got it with {experiment.time_density!r}")
    return losses.uniform()
