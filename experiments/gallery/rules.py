"""The rules of guidance as one function each, for the gallery: (key, scale) -> one sample of one label.

All act on one mixture, a ring of eight Gaussians, by its exact field; label 1 is requested.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.types import Array, LabelledField, Number, Pair
from experiments.config.samplers import Draw

PATH, MIXTURE = paths.linear(), mixtures.ring(8)
NULL, LABEL, OPPOSITE, NEIGHBOUR = 8, 1, 5, 2
FIELD = MIXTURE.vector_field(PATH)
WORSE = mixtures.ring(8, radius=1.8, std=0.7).vector_field(PATH)
PAIR = guidance.pair(FIELD, NULL)
SCALES = (1.0, 2.0, 4.0, 8.0)
NUM_STEPS = 64
BOUND = 1.8
LEVEL = 2 / 3
"""The time at which the path has half as much noise as data."""

Guided = Callable[[Number], LabelledField]
"""guidance scale [] -> the guided field."""


class GalleryRow(NamedTuple):
    """A rule to show: its samplers (key, label, value) -> x, the name of the value that grows, and its values."""

    title: str
    draw: Draw
    number: str = "w"
    values: tuple[float, ...] = SCALES


def _start(key: Array) -> tuple[Array, Array]:
    noise_key, solver_key = jax.random.split(key)
    return jax.random.normal(noise_key, (2,)), solver_key


def by_ode(guided: Guided) -> Draw:
    """Heun's rule on the guided field."""

    def draw(key: Array, y: Array, scale: Number) -> Array:
        noise, solver_key = _start(key)
        solver = solvers.heun(guidance.given(guided(scale), y))
        return solvers.integrate(solver, solver_key, noise, solvers.time_grids.uniform(NUM_STEPS))

    return draw


def _on_pair(change: Callable[[Pair], Pair]) -> Draw:
    return by_ode(lambda scale: guidance.extrapolate(change(PAIR), scale))


def _free(scale: Number) -> LabelledField:
    return guidance.classifier_free(FIELD, scale, NULL)


def _by_classifier(scale: Number) -> LabelledField:
    return guidance.classifier(PATH, guidance.given(FIELD, NULL), MIXTURE.label_log_probs(PATH), scale)


def _of_labels(weights: Callable[[Number], Array], labels: tuple[int, ...]) -> Draw:
    return by_ode(lambda scale: lambda x, t, y: guidance.compose(FIELD, jnp.array(labels), weights(scale))(x, t))


def _by_momentum(key: Array, y: Array, scale: Number) -> Array:
    noise, solver_key = _start(key)
    field = guidance.adaptive_projected(PATH, PAIR, scale, y, momentum=-0.5, eta=0.0, max_norm=1.0)
    ts = solvers.time_grids.uniform(NUM_STEPS)
    return solvers.integrate(solvers.with_field_state(solvers.euler, field), solver_key, noise, ts)


def _by_cfg_plus_plus(key: Array, y: Array, scale: Number) -> Array:
    noise, solver_key = _start(key)
    ts = solvers.time_grids.uniform(NUM_STEPS)
    return solvers.integrate(solvers.cfg_plus_plus(PATH, PAIR, y, scale), solver_key, noise, ts)


def _by_diffusion(key: Array, y: Array, scale: Number) -> Array:
    noise, solver_key = _start(key)
    solver = solvers.euler_maruyama(PATH, guidance.given(_free(scale), y), solvers.root_beta(PATH))
    return solvers.integrate(solver, solver_key, noise, solvers.time_grids.uniform(2 * NUM_STEPS))


def _by_corrections(key: Array, y: Array, scale: Number) -> Array:
    noise, solver_key = _start(key)
    labelled, guided = guidance.given(FIELD, y), guidance.given(_free(scale), y)
    size = solvers.relative_step(PATH, 0.1)
    solver = solvers.predictor_corrector_guidance(PATH, labelled, guided, size, num_corrections=10)
    return solvers.integrate(solver, solver_key, noise, solvers.time_grids.uniform(NUM_STEPS))


def _in_rounds(key: Array, y: Array, scale: Number) -> Array:
    noise, solver_key = _start(key)
    labelled, guided = (solvers.heun(guidance.given(_free(w), y)) for w in (1.0, scale))
    grid = solvers.time_grids.uniform(NUM_STEPS)
    refining = LEVEL + (1 - LEVEL) * solvers.time_grids.uniform(NUM_STEPS // 2)
    return solvers.gibbs_like(PATH, labelled, guided, solver_key, noise, grid, refining, num_rounds=4)


GALLERY_ROWS = {
    "classifier_free": GalleryRow("classifier-free guidance, ODE", by_ode(_free)),
    "classifier": GalleryRow("classifier guidance, ODE", by_ode(_by_classifier)),
    "diffusion": GalleryRow("classifier-free guidance, SDE with sigma^2 = 2 beta", _by_diffusion),
    "interval": GalleryRow(
        "guidance between t = 0.4 and t = 0.8 alone", by_ode(lambda w: _free_in_interval(w, 0.4, 0.8))
    ),
    "schedule": GalleryRow(
        "w(t) = 1 + (w - 1) t", by_ode(lambda w: guidance.extrapolate(PAIR, lambda t: 1 + (w - 1) * t))
    ),
    "negative": GalleryRow(
        "away from the neighbour on the left instead of the null label",
        by_ode(lambda w: guidance.classifier_free(FIELD, w, NEIGHBOUR)),
        values=(1.0, 1.25, 1.5, 2.0),
    ),
    "compose": GalleryRow(
        "weights (w, w, 1 - 2 w) over two neighbours and null",
        _of_labels(lambda w: jnp.stack([w, w, 1 - 2 * w]), (LABEL, NEIGHBOUR, NULL)),
        values=(0.5, 1.0, 2.0, 4.0),
    ),
    "interpolate_conditions": GalleryRow(
        "between two labels: (1 - a) u_1 + a u_5",
        _of_labels(lambda a: jnp.stack([1 - a, a]), (LABEL, OPPOSITE)),
        "a",
        (0.0, 0.25, 0.5, 1.0),
    ),
    "autoguidance": GalleryRow(
        "away from a worse field, of a smaller and wider ring", by_ode(lambda w: guidance.autoguidance(FIELD, WORSE, w))
    ),
    "magnitude_aware": GalleryRow(
        "magnitude-aware, damping 2", _on_pair(lambda pair: guidance.magnitude_aware(pair, 2.0))
    ),
    "negative_window": GalleryRow(
        "w until t = 0.6, then the null field",
        by_ode(lambda w: guidance.stages(PAIR, (0.6,), (w, 0.0))),
    ),
    "gibbs_like": GalleryRow("Gibbs-like: 4 rounds from the noise level 1/2", _in_rounds),
    "rescaled": GalleryRow("rescaled by 0.7", by_ode(lambda w: guidance.rescaled(PAIR, w, 0.7))),
    "projected": GalleryRow(
        "projected, length up to 1", _on_pair(lambda pair: guidance.projected(PATH, pair, 0.0, 1.0))
    ),
    "adaptive_projected": GalleryRow("adaptive projected, momentum -1/2, length up to 1", _by_momentum),
    "cfg_zero_star": GalleryRow("CFG-Zero*, without zero-init", _on_pair(guidance.cfg_zero_star)),
    "zero_init": GalleryRow("no movement before t = 1/8", by_ode(lambda w: guidance.zero_init(_free(w), 0.125))),
    "tangential_damping": GalleryRow(
        "tangential damping", _on_pair(lambda pair: guidance.tangential_damping(PATH, pair))
    ),
    "cfg_plus_plus": GalleryRow("CFG++ with 64 steps", _by_cfg_plus_plus, "l", (0.0, 0.02, 0.1, 0.5)),
    "static_threshold": GalleryRow(
        f"denoiser clipped to [-{BOUND}, {BOUND}]", by_ode(lambda w: guidance.static_threshold(PATH, _free(w), BOUND))
    ),
    "dynamic_threshold": GalleryRow(
        f"dynamic threshold, bound {BOUND}",
        by_ode(lambda w: guidance.dynamic_threshold(PATH, _free(w), 100.0, BOUND)),
    ),
    "predictor_corrector": GalleryRow("predictor-corrector guidance, 10 corrections a step", _by_corrections),
}


def _free_in_interval(scale: Number, start: float, stop: float) -> LabelledField:
    return guidance.classifier_free(FIELD, guidance.interval(scale, start, stop), NULL)
