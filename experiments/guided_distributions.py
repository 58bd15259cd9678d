"""Print what guided samplers sample: the guided ODE, the guided SDE, and the tilted law, against closed form.

First two Gaussians in 1-D, where every mean and variance is known; then a ring of eight in 2-D, where the energy
distance to exact draws of the tilted law is held against that of exact draws to each other. A run of the preset
mixture may take the place of the ring's exact field.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance, metrics, mixtures, paths, solvers
from cfgjax.mixtures import LabelledMixture
from cfgjax.solvers.population import systematic_resampling
from cfgjax.types import Array, GaussianPath, LabelledField, Pair
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.evaluation.tilted_law import draw_tilted, sampling_floor
from experiments.presets.registry import PRESETS
from experiments.run.require_trained import require_scales
from experiments.run.restore import restore_run
from experiments.runtime import progress

STRENGTHS = (0.5, 1.0, 2.0)
RING_STRENGTH = 2.0
PATH = paths.linear()


@dataclass(frozen=True)
class Options:
    """How much to draw."""

    scales: tuple[float, ...] = (2.0, 3.0, 5.0)
    """Guidance scales w."""
    num_particles: int = 20_000
    """Particles in each population of the Gaussians."""
    num_populations: int = 16
    """Independent populations: their spread is the standard error of one."""
    num_steps: int = 400
    """Solver steps from noise to data."""
    num_samples: int = 5_000
    """Samples of the ring in each set."""
    label: int = 1
    """The ring's label that is asked for."""
    run_dir: Annotated[Path | None, optional("FOLDER", "the exact field")] = None
    """Folder of a run of the preset mixture, whose network takes the exact field's place; only the ring is printed."""


def gaussian_pair() -> Pair:
    """Null N(0, 2) and label N(1, 1) in 1-D, as the two sides of guidance."""

    def field(mean: float, variance: float) -> LabelledField:
        return LabelledMixture(jnp.ones(1), jnp.array([[mean]]), jnp.array([[[variance]]])).vector_field(PATH)

    null, labelled = field(0.0, 2.0), field(1.0, 1.0)
    return guidance.autoguidance_pair(labelled, null)


def moments(x: Array, weights: Array) -> Array:
    """The mean and the variance of numbers [n] under weights [n] that sum to 1, [2]."""
    average = partial(jnp.dot, weights, precision=jax.lax.Precision.HIGHEST)
    mean = average(x)
    return jnp.stack([mean, average(jnp.square(x - mean))])


def _gaussian_table(options: Options) -> None:
    pair, ts = gaussian_pair(), jnp.linspace(0, 1, options.num_steps + 1)
    equal = jnp.full(options.num_particles, 1 / options.num_particles)

    def one(key: Array, scale: Array, strength: Array) -> tuple[Array, Array, Array]:
        noise_key, solver_key = jax.random.split(key)
        noise, diffusion = jax.random.normal(noise_key, (options.num_particles, 1)), solvers.constant(strength)
        solver = solvers.feynman_kac(PATH, pair, 0, scale, diffusion)
        particles, sizes = solvers.solve(solver, solver_key, noise, ts, observe=lambda carry, t: carry.effective_size)
        plain, _ = solvers.solve(solvers.feynman_kac(PATH, pair, 0, scale, diffusion, 0.0), solver_key, noise, ts)
        tilted = moments(particles.x[:, 0], jax.nn.softmax(particles.log_weights))
        return tilted, moments(plain.x[:, 0], equal), jnp.min(sizes)

    keys = jax.random.split(jax.random.key(0), options.num_populations)
    run = jax.jit(lambda scale, strength: jax.lax.map(lambda key: one(key, scale, strength), keys))
    print(f"N(0, 2) and N(1, 1): mean and variance of {options.num_populations} x {options.num_particles} particles")
    print("   w  sigma  tilted law     weighted particles (errors of one population)   uncorrected     least ESS")
    for scale, strength in progress.each(list(product(options.scales, STRENGTHS)), "rows", "weighing particles"):
        precision = scale + (1 - scale) / 2
        exact = np.array([scale / precision, 1 / precision])
        tilted, plain, sizes = (np.asarray(each) for each in run(scale, strength))
        mean, error, raw = tilted.mean(axis=0), tilted.std(axis=0, ddof=1), plain.mean(axis=0)
        away = (mean - exact) / error
        cli.print_result(
            f"{scale:4g}  {strength:5g}  {exact[0]:.4f} {exact[1]:.4f}  {mean[0]:.4f} {mean[1]:.4f} +- "
            f"{error[0]:.4f} {error[1]:.4f} ({away[0]:+.1f} {away[1]:+.1f})   {raw[0]:.4f} {raw[1]:.4f}   "
            f"{sizes.mean() / options.num_particles:8.0%}"
        )


def _ring_field(options: Options) -> tuple[GaussianPath, LabelledField]:
    """The field to guide: exact, or the run's."""
    if options.run_dir is None:
        return PATH, mixtures.ring(8).vector_field(PATH)
    run = restore_run(options.run_dir)
    if run.experiment.data != PRESETS["mixture"][1].data:
        raise UserError(f"run_dir must hold a run of the mixture preset's own ring of eight, got {options.run_dir}")
    require_scales(run, options.scales)
    return run.path, run.field


def _ring_table(options: Options) -> None:
    ring, size = mixtures.ring(8), options.num_samples
    path, field = _ring_field(options)
    pair, ts = guidance.pair(field, 8), jnp.linspace(0, 1, options.num_steps + 1)
    key = jax.random.key(1)
    noise, keys = jax.random.normal(key, (size, 2)), jax.random.split(key, size)

    @partial(jax.jit, static_argnums=1)
    def plain(scale: Array, is_stochastic: bool) -> Array:
        guided = guidance.given(guidance.extrapolate(pair, scale), options.label)
        sde = solvers.euler_maruyama(path, guided, solvers.root_beta(path))
        solver = sde if is_stochastic else solvers.heun(guided)
        return jax.vmap(lambda key, x: solvers.integrate(solver, key, x, ts))(keys, noise)

    @jax.jit
    def tilted(scale: Array) -> tuple[Array, Array]:
        solver = solvers.feynman_kac(path, pair, options.label, scale, solvers.root_beta(path, RING_STRENGTH))
        particles, sizes = solvers.solve(solver, key, noise, ts, observe=lambda carry, t: carry.effective_size)
        return particles.x[systematic_resampling(key, particles.log_weights)], jnp.min(sizes)

    print(f"\nring of 8, label {options.label}: energy distance of {size} samples to exact draws of the tilted law")
    print("   w   floor (largest of 15 exact pairs)   weighted particles   guided ODE   guided SDE   least ESS")
    for scale in progress.each(options.scales, "scales", "measuring the ring"):
        *sets, exact = draw_tilted(ring, options.label, scale, size, 7)
        floor = sampling_floor(np.stack(sets))
        samples, least = tilted(scale)
        found = [metrics.energy_distance(np.asarray(each), exact) for each in (samples, plain(scale, False))]
        found.append(metrics.energy_distance(np.asarray(plain(scale, True)), exact))
        numbers = f"{floor:10.6f}  {found[0]:27.6f}  {found[1]:20.5f}  {found[2]:11.5f}"
        cli.print_result(f"{scale:4g}  {numbers}  {least / size:8.0%}")


def print_distributions(options: Options) -> None:
    """Prints both tables."""
    for name in ("num_particles", "num_populations", "num_samples"):
        if getattr(options, name) < 2:
            raise UserError(f"{name} must be at least 2, got {getattr(options, name)}")
    if options.num_steps < 1:
        raise UserError(f"num_steps must be at least 1, got {options.num_steps}")
    if not 0 <= options.label < 8:
        raise UserError(f"label must be in 0..7, got {options.label}")
    if not all(np.isfinite(options.scales)):
        raise UserError(f"scales must be finite, got {options.scales}")
    if options.run_dir is None:
        _gaussian_table(options)
    _ring_table(options)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(print_distributions, Options, "experiments.guided_distributions", __doc__, args)


if __name__ == "__main__":
    main()
