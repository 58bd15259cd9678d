"""Learn a guidance schedule w(t, y) by gradients through the solver: one that brings the guided to the tilted law.

On a 3 x 3 grid of Gaussians, by the exact field: the guided ODE of a constant w does not sample
p(x)^(1-w) p(x|y)^w, but w(t, y) can be fitted so that it comes closest, in the Kullback-Leibler divergence
E[log p_w(x|y) - (1-w) log p(x) - w log p(x|y)] + log Z of samples that bring their own log-density.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from cfgjax import guidance, metrics, mixtures, paths, solvers
from cfgjax.analysis import likelihood
from cfgjax.types import Array, Field, Scale, Solver
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.evaluation.tilted_law import draw_tilted, sampling_floor, tilted_log_normaliser
from experiments.run import folder as run_folder
from experiments.runtime import progress

PATH, MIXTURE = paths.linear(), mixtures.grid(3)
NULL = MIXTURE.num_classes
FIELD = MIXTURE.vector_field(PATH)


@dataclass(frozen=True)
class Options:
    """What to fit, and how long."""

    scale: float = 3.0
    """The tilted law's w, and the constant w to start from."""
    num_knots: int = 9
    """Knots in time of each label's w(t), joined by straight lines."""
    num_updates: int = 200
    """Updates of Adam."""
    batch_size: int = 144
    """Samples in an update, over all labels."""
    num_steps: int = 32
    """Solver steps from noise to data."""
    learning_rate: float = 0.05
    """Adam's."""
    num_samples: int = 2_000
    """Samples of each label for the measured distances."""
    out: Path = Path("learned_guidance.png")
    """Picture to write."""


def schedule(knots: Array) -> Scale:
    """w(t, y): straight lines between the knots [K, n] at equal times."""
    times = jnp.linspace(0, 1, knots.shape[1])
    return lambda t, y: jnp.interp(t, times, knots[y])


def excess(knots: Array, scale: float, y: Array, noise: Array, ts: Array) -> Array:
    """log p_w(x|y) - log of the tilted density, unnormalised, of the sample that ``noise`` becomes, []."""
    guided = guidance.given(guidance.classifier_free(FIELD, schedule(knots), NULL), y)

    def make_solver(field: Field) -> Solver:
        return solvers.remat(solvers.heun(field))

    log_p, x = likelihood.sample_log_density(make_solver, likelihood.exact_divergence(guided), noise, ts)
    density, end = MIXTURE.log_density(PATH), jnp.ones(())
    return log_p - (1 - scale) * density(x, end, jnp.asarray(NULL)) - scale * density(x, end, y)


def fit(options: Options) -> tuple[Array, Array]:
    """The fitted knots [K, n], and the loss of each update, but for log Z."""
    ts, labels = jnp.linspace(0, 1, options.num_steps + 1), jnp.arange(options.batch_size) % NULL
    optimizer = optax.adam(optax.cosine_decay_schedule(options.learning_rate, options.num_updates))
    knots = jnp.full((NULL, options.num_knots), options.scale, jnp.float32)

    def loss(knots: Array, key: Array) -> Array:
        noise = jax.random.normal(key, (options.batch_size, 2))
        each = jax.vmap(excess, in_axes=(None, None, 0, 0, None))(knots, options.scale, labels, noise, ts)
        return jnp.mean(each)

    @jax.jit
    def update(knots: Array, memory: optax.OptState, key: Array) -> tuple[Array, optax.OptState, Array]:
        value, gradient = jax.value_and_grad(loss)(knots, key)
        change, memory = optimizer.update(gradient, memory, knots)
        return jnp.asarray(optax.apply_updates(knots, change)), memory, value

    memory, losses = optimizer.init(knots), []
    for key in progress.each(jax.random.split(jax.random.key(0), options.num_updates), "updates", "fitting"):
        knots, memory, value = update(knots, memory, key)
        losses.append(value.block_until_ready())
    return knots, jnp.stack(losses)


def measure(knots: Array, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """For each label the divergence from the tilted law, and the energy distance to it in sampling floors, [K] each."""
    ts = jnp.linspace(0, 1, options.num_steps + 1)
    noise = jax.random.normal(jax.random.key(1), (options.num_samples, 2))

    @jax.jit
    def of_label(y: Array) -> tuple[Array, Array]:
        each = jax.vmap(lambda noise: excess(knots, options.scale, y, noise, ts))(noise)
        guided = guidance.given(guidance.classifier_free(FIELD, schedule(knots), NULL), y)
        solver = solvers.heun(guided)
        return jnp.mean(each), jax.vmap(lambda x: solvers.integrate(solver, jax.random.key(0), x, ts))(noise)

    divergences, distances = [], []
    for y in progress.each(range(NULL), "labels", "measuring"):
        mean, samples = of_label(jnp.asarray(y))
        *sets, exact = draw_tilted(MIXTURE, y, options.scale, options.num_samples, 4)
        divergences.append(float(mean) + tilted_log_normaliser(MIXTURE, y, options.scale))
        distances.append(metrics.energy_distance(np.asarray(samples), exact) / sampling_floor(np.stack(sets)))
    return np.array(divergences), np.array(distances)


def _draw(knots: Array, options: Options, before: np.ndarray, after: np.ndarray) -> None:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for y, row in enumerate(np.asarray(knots)):
        left.plot(np.linspace(0, 1, len(row)), row, label=f"{y}", color=f"C{y}")
    left.axhline(options.scale, color="gray", linestyle=":")
    left.set(xlabel="t (0 noise, 1 data)", ylabel="w(t, y)", title="fitted scale of each label")
    left.legend(ncols=3, fontsize="small")
    places = np.arange(NULL)
    right.bar(places - 0.2, before, 0.4, label=f"w = {options.scale:g}")
    right.bar(places + 0.2, after, 0.4, label="w(t, y) fitted")
    right.set(
        xlabel="label", ylabel="nats", title="KL from the tilted law", xticks=places, ylim=(0, 1.3 * before.max())
    )
    right.legend(fontsize="small")
    run_folder.make_folder("out", options.out.parent)
    figure.savefig(options.out, dpi=100)


def _check(options: Options) -> None:
    for name, least in (("num_knots", 2), ("num_updates", 1), ("batch_size", NULL), ("num_steps", 1)):
        if getattr(options, name) < least:
            raise UserError(f"{name} must be at least {least}, got {getattr(options, name)}")
    if options.num_samples < 2:
        raise UserError(f"num_samples must be at least 2, got {options.num_samples}")
    if not abs(options.scale) <= 100:
        raise UserError(f"scale must be finite, in -100..100, got {options.scale}")
    if not 0 < options.learning_rate < np.inf:
        raise UserError(f"learning_rate must be positive and finite, got {options.learning_rate}")
    if options.out.suffix != ".png":
        raise UserError(f"out must end in .png, got {options.out}")


def learn(options: Options) -> None:
    """Fits, measures before and after, and draws."""
    _check(options)
    start = jnp.full((NULL, options.num_knots), options.scale)
    knots, _ = fit(options)
    (before, far), (after, near) = measure(start, options), measure(knots, options)
    print("label  KL of constant w  of fitted w(t, y)   energy distance in sampling floors: constant  fitted")
    for y in range(NULL):
        print(f"{y:5d}  {before[y]:16.4f}  {after[y]:17.4f}  {far[y]:41.1f}  {near[y]:6.1f}")
    print(f" mean  {before.mean():16.4f}  {after.mean():17.4f}  {far.mean():41.1f}  {near.mean():6.1f}")
    _draw(knots, options, before, after)
    print(f"wrote {options.out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(learn, Options, "experiments.learn_schedule", __doc__, args)


if __name__ == "__main__":
    main()
