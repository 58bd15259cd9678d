"""Draw what each rule of guidance does to eight Gaussians: the pictures of the documents, by the exact field.

ring.png is the README's: columns are guidance scales; the upper row follows the ODE, the lower one the SDE, and colours
are labels. The others show one rule each: the density of one label's samples as the scale grows.

The quickest picture: python -m experiments.gallery --only ring. Those of docs/: --out docs/guidance
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfgjax import solvers
from cfgjax.solvers.population import systematic_resampling
from cfgjax.types import Array
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.samplers import ODE, SDE, classifier_free, make_draw, times
from experiments.gallery.rules import (
    FIELD,
    GALLERY_ROWS,
    LABEL,
    MIXTURE,
    NULL,
    NUM_STEPS,
    PAIR,
    PATH,
    SCALES,
    GalleryRow,
)
from experiments.run import folder as run_folder
from experiments.run.batch_sampling import draw_all

RING_SCALES = (0.0, 1.0, 2.0, 4.0)
WIDTH = 4.0
RING, TILTED = "ring", "feynman_kac"
NAMES = (RING, *GALLERY_ROWS, TILTED)


@dataclass(frozen=True)
class Options:
    """What to draw, and where."""

    out: Path = Path("runs/gallery")
    """Folder to write to."""
    only: Annotated[tuple[str, ...], optional("NAME [NAME ...]", "all")] = ()
    """Names of the pictures to draw: ring, feynman_kac, or a rule as docs/guidance/ has them."""
    num_samples: int = 4096
    """Samples in each panel."""


def _ring(num_samples: int) -> Figure:
    labels = np.arange(num_samples) % NULL
    figure = Figure(figsize=(2.3 * len(RING_SCALES), 5.0), layout="constrained")
    for row, (name, solver) in zip(figure.subplots(2, len(RING_SCALES)), {"ODE": ODE, "SDE": SDE}.items(), strict=True):
        draw = make_draw(classifier_free(FIELD, NULL), PATH, (2,), solver, times(PATH, 64))
        samples = draw_all(draw, 0, labels, RING_SCALES)
        for axes, scale, points in zip(row, RING_SCALES, samples, strict=True):
            axes.scatter(*points.T, s=1.5, c=labels, cmap="tab10", vmax=9, linewidths=0)
            axes.set(
                xlim=(-WIDTH, WIDTH), ylim=(-WIDTH, WIDTH), xticks=[], yticks=[], aspect="equal",
                title=f"{name}, w = {scale:g}",
            )  # fmt: skip
    return figure


def _panel(axes: Axes, points: np.ndarray, title: str) -> None:
    """The density of the points over circles at one and two standard deviations of each component."""
    bins = np.linspace(-WIDTH, WIDTH, 97)
    counts, *_ = np.histogram2d(*points.T, bins=[bins, bins])
    peak = max(1.0, float(np.quantile(counts[counts > 0], 0.99))) if counts.any() else 1.0
    axes.imshow(counts.T, origin="lower", extent=(-WIDTH, WIDTH) * 2, cmap="Blues", vmax=peak)
    for mean in np.asarray(MIXTURE.means).reshape(-1, 2):
        for radius in (0.4, 0.8):
            turn = np.linspace(0, 2 * np.pi, 49)
            axes.plot(mean[0] + radius * np.cos(turn), mean[1] + radius * np.sin(turn), color="0.75", linewidth=0.6)
    inside = np.mean(np.max(np.abs(points), axis=1) <= WIDTH)
    note = "" if inside > 0.995 else f", {inside:.0%} in view"
    axes.set(xticks=[], yticks=[], title=title + note, xlim=(-WIDTH, WIDTH), ylim=(-WIDTH, WIDTH))
    axes.title.set_fontsize("medium")


def _row(title: str, number: str, values: tuple[float, ...], samples: np.ndarray) -> Figure:
    figure = Figure(figsize=(2.4 * len(values), 2.9), layout="constrained")
    for axes, value, points in zip(figure.subplots(1, len(values)), values, samples, strict=True):
        _panel(axes, points, f"{number} = {value:g}")
    figure.suptitle(title)
    return figure


def _drawn(rule: GalleryRow, num_samples: int) -> Figure:
    labels = np.full(num_samples, LABEL)
    samples = draw_all(rule.draw, 0, labels, rule.values)
    return _row(rule.title, rule.number, rule.values, samples)


def _tilted(num_samples: int) -> Figure:
    """The tilted law by weighted particles, resampled to equal weights."""
    key = jax.random.key(0)

    @jax.jit
    def draw(scale: Array) -> Array:
        solver = solvers.feynman_kac(PATH, PAIR, LABEL, scale, solvers.constant(2.0))
        noise = jax.random.normal(key, (num_samples, 2))
        particles, _ = solvers.solve(solver, key, noise, solvers.time_grids.uniform(4 * NUM_STEPS))
        return particles.x[systematic_resampling(key, particles.log_weights)]

    samples = np.stack([np.asarray(draw(jnp.float32(scale))) for scale in SCALES])
    return _row("the tilted law p(x)^(1-w) p(x|y)^w, by weighted particles", "w", SCALES, samples)


def draw_gallery(options: Options) -> None:
    """Draws the pictures."""
    if options.num_samples < 1:
        raise UserError(f"num_samples must be at least 1, got {options.num_samples}")
    for name in options.only:
        if name not in NAMES:
            raise UserError(f"only must be of {', '.join(NAMES)}, got {name}")
    run_folder.make_folder("out", options.out)
    for name in options.only or NAMES:
        if name == RING:
            figure = _ring(options.num_samples)
        else:
            figure = _tilted(options.num_samples) if name == TILTED else _drawn(GALLERY_ROWS[name], options.num_samples)
        figure.savefig(options.out / f"{name}.png", dpi=100)
        print(f"wrote {options.out / name}.png", flush=True)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(draw_gallery, Options, "experiments.gallery", __doc__, args)


if __name__ == "__main__":
    main()
