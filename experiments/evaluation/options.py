"""What is asked of a report."""

from dataclasses import dataclass

from cfgjax.types import LogClassifier
from experiments.evaluation.feature_classifier import Features
from experiments.evaluation.frechet import FrechetMeasure
from experiments.run.decoder import Decoder


@dataclass(frozen=True)
class EvaluationOptions:
    """What is asked of a report beyond the run's own settings.

    Attributes:
        solvers: to sample with; empty for those of what the run learned, ODE and SDE of a field.
        log_classifier: a noisy classifier, to guide the null field with.
        classifier_scales: its guidance scales; by default those of the run.
        num_likelihoods: held-out images whose bits per dimension are wanted.
        features: the space of the distances between images.
        frechet: further distances, in the space of a network whose weights are named: FID.
        decoder: of latents, to show what is drawn as pictures.
        reuse: each how many-th step evaluates the null field, of the run's own guidance; None for all.
        is_kept: whether a feature classifier that is trained now is written beside the data.
    """

    solvers: tuple[str, ...] = ()
    log_classifier: LogClassifier | None = None
    classifier_scales: tuple[float, ...] | None = None
    num_likelihoods: int = 0
    features: Features | None = None
    frechet: FrechetMeasure | None = None
    decoder: Decoder | None = None
    reuse: int | None = None
    is_kept: bool = True


NOTHING_MORE = EvaluationOptions()
"""The report by the run's own settings."""
