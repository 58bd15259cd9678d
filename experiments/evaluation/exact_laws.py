"""How far the laws of guidance inside a network lie from the exact ones of a mixture.

The energy distance of samples, with the floor of what it tells; and the divergence KL, for which both densities exist.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import flow_maps, guidance, metrics, solvers
from cfgjax.analysis import certificates, likelihood
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array
from experiments.config.samplers import JUMP, ODE, classifier_free, times
from experiments.evaluation.guided_samples import Draws, Way, own_ways, ways_of
from experiments.evaluation.options import EvaluationOptions
from experiments.run.batch_sampling import draw_all
from experiments.runtime import progress
from experiments.tasks.conditions import take
from experiments.tasks.task import Learned

EXACT_STEPS = 128
"""Of Heun's rule, by which samples of the exact guided field are drawn."""
MOST = 2_048
"""Samples of a label that are compared."""
NUM_KL, KL_STEPS = 2_048, 64
"""Samples, of all labels in turn, of which KL is the mean, and steps of the exact density."""
Figures = dict[tuple[str, str, float], dict[str, float]]
"""By guidance, solver and scale."""


def _exact_draws(run: Learned, mixture: LabelledMixture, num_per_label: int, seed: int) -> np.ndarray:
    """Samples [scales, K, n, 2] of the exact guided field, of noise of their own."""
    rule = classifier_free(mixture.vector_field(run.path), mixture.num_classes)
    draw = Way(rule, ODE, EXACT_STEPS).draw_of(run)
    labels = take(run.task.conditions.rows, np.repeat(np.arange(mixture.num_classes), num_per_label))
    scales = run.experiment.sampling.scales
    samples = draw_all(draw, seed, labels, scales, run.experiment.sampling.chunk)
    return samples.reshape(len(scales), mixture.num_classes, num_per_label, 2)


def _of_each(samples: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The energy distance of each label's samples [K, n, 2], [K]."""
    return np.array([metrics.energy_distance(*pair) for pair in zip(samples, others, strict=True)])


def energy_distances(run: Learned, mixture: LabelledMixture, draws: Draws, options: EvaluationOptions) -> Figures:
    """For each guidance, solver and scale the energy distance to the law of the exact guided ODE, the mean over labels.

    Of solvers without noise alone: with guidance the others draw of another law.

    Beside it the floor: the root of the mean square over labels of that between two independent sets of exact samples.
    """
    num_per_label = min(MOST, run.experiment.sampling.num_per_class)
    if num_per_label < 2:
        return {}
    seed, scales = run.experiment.sampling.seed, run.experiment.sampling.scales
    exact, other = (_exact_draws(run, mixture, num_per_label, seed + more) for more in (1, 2))
    floors = [float(np.sqrt(np.mean(_of_each(*pair) ** 2))) for pair in zip(exact, other, strict=True)]
    of_ode = [name for name, way in ways_of(run, options).items() if way.is_of_ode]
    rows = [(way, index) for way in of_ode for index in range(len(scales))]
    return {
        (*way, scales[index]): {
            "energy_distance": float(np.mean(_of_each(draws[way][index, :, :num_per_label], exact[index]))),
            "energy_floor": floors[index],
        }
        for way, index in progress.each(rows, "scales", "comparing with the exact law")
    }


def _log_density_of(run: Learned, way: Way, y: Array, w: Array) -> Callable[[Array], tuple[Array, ...]]:
    """noise -> (log-density of the sample that it becomes, the sample, ...)."""
    ts = times(run.path, way.num_steps)
    if way.jumps is not None:
        flow_map = flow_maps.given(way.jumps(w), y)
        return lambda noise: certificates.jump_log_density(flow_map, noise, ts)
    divergence = likelihood.exact_divergence(guidance.given(way.rule(w), y))
    return lambda noise: likelihood.sample_log_density(solvers.heun, divergence, noise, ts)


def kl_divergences(run: Learned, mixture: LabelledMixture, options: EvaluationOptions) -> Figures:
    """For the run's jumps, and its solves by Heun's rule, KL from the exact guided law in nats, by scale.

    It is the mean over labels and samples, with its standard error. Of jumps that fold the plane it is a lower bound.
    """
    rule = classifier_free(mixture.vector_field(run.path), mixture.num_classes)
    backwards, scales = np.linspace(1, 0, KL_STEPS + 1, dtype=np.float32), run.experiment.sampling.scales
    noise = jax.random.normal(jax.random.key(run.experiment.sampling.seed), (NUM_KL, 2))
    labels = jnp.arange(NUM_KL) % mixture.num_classes
    found = {}
    for name, way in own_ways(run, options).items():
        if way.solver not in (ODE, JUMP):
            continue

        def one(noise: Array, y: Array, w: Array, way: Way = way) -> Array:
            exact = likelihood.exact_divergence(guidance.given(rule(w), y))
            return certificates.log_ratio(solvers.heun, exact, _log_density_of(run, way, y, w), noise, backwards)

        each = jax.jit(jax.vmap(one, (0, 0, None)))
        for scale in scales:
            kl = certificates.kl_divergence(each(noise, labels, jnp.float32(scale)))
            found[(*name, scale)] = {"kl": float(kl.value), "kl_standard_error": float(kl.standard_error)}
    return found
