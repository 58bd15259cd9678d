"""What the ladder compares: the published methods, weighted particles, and what knows the posterior."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance, mixtures, paths, solvers, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Field, Solver, WeightedSolver
from experiments.ladder_posterior.problems import Case

PATH = paths.linear()
START = 0.02
"""Until then the diffusion is that of this time, where the memoryless one diverges."""

Build = Callable[[LabelledMixture, Field, Case], Any]
"""``(mixture, guided field (x, t), case) -> Solver or WeightedSolver``."""


class Sampler(NamedTuple):
    """A rung: ``build`` makes its solver; one that knows the posterior makes ``own_evaluations`` in a step."""

    build: Build
    own_evaluations: int = 0


MEMORYLESS, MILD = solvers.memoryless(PATH, START), solvers.root_beta(PATH, 1.5)
"""The diffusions of samplers that estimate what the measurement says of a state, and of those that know it."""


def _of_method(method: steering.SteeringMethod) -> Sampler:
    def build(mixture: LabelledMixture, field: Field, case: Case) -> Any:
        return method.make_solver(PATH, field, case.measurement, solvers.heun, 1.0)

    return Sampler(build)


def _exact_ode(mixture: LabelledMixture, field: Field, case: Case) -> Solver:
    """The guided ODE of the exact posteriors of the label and of none."""
    exact = mixtures.posterior(mixture, case.measurement).vector_field(PATH)
    return solvers.heun(guidance.given(guidance.classifier_free(exact, case.scale, mixture.num_classes), case.label))


def _exact_particles(mixture: LabelledMixture, field: Field, case: Case) -> WeightedSolver:
    """Weighted particles of the guided SDE of the exact posteriors."""
    exact = mixtures.posterior(mixture, case.measurement).vector_field(PATH)
    pair = guidance.pair(exact, mixture.num_classes)
    return solvers.feynman_kac(PATH, pair, case.label, case.scale, MILD)


def _tilted(mixture: LabelledMixture, field: Field, case: Case) -> WeightedSolver:
    """Weighted particles of the field without label, whose reward is what the label and the measurement say of x."""
    null = jnp.asarray(mixture.num_classes)
    prior = mixture.log_density(PATH)
    posterior = mixtures.posterior(mixture, case.measurement).log_density(PATH)

    def reward(x: Array, t: Array) -> Array:
        labelled, unlabelled = (posterior(x, t, y) for y in (case.label, null))
        return unlabelled - prior(x, t, null) + case.scale * (labelled - unlabelled)

    return steering.tilted(PATH, guidance.given(mixture.vector_field(PATH), null), reward, MILD)


def _reward(field: Field, case: Case) -> Callable[[Array, Array], Array]:
    return steering.of_denoised(PATH, field, steering.log_likelihood(case.measurement))


def _twisted(mixture: LabelledMixture, field: Field, case: Case) -> WeightedSolver:
    return steering.twisted(PATH, field, _reward(field, case), MEMORYLESS)


def _fk_steering(mixture: LabelledMixture, field: Field, case: Case) -> WeightedSolver:
    return steering.fk_steering(solvers.euler_maruyama(PATH, field, MEMORYLESS), _reward(field, case))


SAMPLERS: dict[str, Sampler] = {
    **{name: _of_method(method) for name, method in steering.METHODS.items()},
    "fk_steering": Sampler(_fk_steering),
    "twisted": Sampler(_twisted),
    "tilted": Sampler(_tilted, 1),
    "exact_particles": Sampler(_exact_particles, 1),
    "exact_ode": Sampler(_exact_ode, 2),
}


class Cost(NamedTuple):
    """Of one sample: evaluations of the guided field, and products of a vector with its Jacobian."""

    evaluations: float
    products: float


def _field_of(mixture: LabelledMixture, case: Case) -> Field:
    guided = guidance.classifier_free(mixture.vector_field(PATH), case.scale, mixture.num_classes)
    return guidance.given(guided, case.label)


def cost_of(mixture: LabelledMixture, sampler: Sampler, case: Case, num_steps: int) -> Cost:
    """The counts of one sample, by tracing."""
    if sampler.own_evaluations:
        return Cost(float(num_steps * sampler.own_evaluations), 0.0)
    ts, x = np.linspace(0, 1, num_steps + 1), jnp.zeros(mixture.means.shape[-1:])
    is_population = isinstance(sampler.build(mixture, lambda x, t: x, case), WeightedSolver)
    size = 2 if is_population else 1
    state = jnp.stack([x] * size) if is_population else x
    counters = solvers.num_function_evaluations, solvers.num_vector_jacobian_products
    counts = [each(lambda field: sampler.build(mixture, field, case), lambda x, t: x, state, ts) for each in counters]
    return Cost(*(float(np.sum(each)) / size for each in counts))


Run = Callable[[Case, int], np.ndarray]
"""``(case, seed) -> samples [n, D]``."""


def compiled(mixture: LabelledMixture, sampler: Sampler, num_steps: int, num_samples: int) -> Run:
    """The samples of a case, compiled once for all of them."""
    ts, dimension = solvers.time_grids.uniform(num_steps), mixture.means.shape[-1]

    @jax.jit
    def draw(case: Case, key: Array) -> Array:
        noise_key, solver_key, last_key = jax.random.split(key, 3)
        x = jax.random.normal(noise_key, (num_samples, dimension))
        solver = sampler.build(mixture, _field_of(mixture, case), case)
        if isinstance(solver, WeightedSolver):
            particles, _ = solvers.solve(solver, solver_key, x, ts)
            return steering.draws(particles, last_key)
        keys = jax.random.split(solver_key, num_samples)
        return jax.vmap(partial(solvers.integrate, solver, ts=ts))(keys, x)

    return lambda case, seed: np.asarray(draw(case, jax.random.key(seed)), np.float64)
