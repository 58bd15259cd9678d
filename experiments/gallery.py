"""Draw the README's picture: what guidance does to a ring of eight Gaussians, by the exact field.

Columns are guidance scales; the upper row follows the ODE, the lower one the SDE. Colours are labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure

from cfgjax import mixtures, paths
from experiments import command, runs
from experiments.command import UserError
from experiments.sampling import ODE, SDE, classifier_free, draw_all, make_draw

SCALES = (0.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Options:
    """Where to draw."""

    out: Path = Path("docs/guided_ring.png")
    """File to write."""
    num_samples: int = 4096
    """Samples in each panel."""


def draw_gallery(options: Options) -> None:
    """Draws the picture."""
    if options.out.suffix != ".png":
        raise UserError(f"out must end in .png, got {options.out}")
    if options.num_samples < 1:
        raise UserError(f"num_samples must be at least 1, got {options.num_samples}")
    path, mixture = paths.linear(), mixtures.ring(num_classes=8)
    field, null = mixture.vector_field(path), mixture.num_labels
    labels = np.arange(options.num_samples) % null
    figure = Figure(figsize=(2.3 * len(SCALES), 5.0), layout="constrained")
    for row, (name, solver) in zip(figure.subplots(2, len(SCALES)), {"ODE": ODE, "SDE": SDE}.items(), strict=True):
        draw = make_draw(classifier_free(field, null), path, (2,), solver, 64)
        samples = draw_all(draw, (2,), 0, labels, SCALES)
        for axes, scale, points in zip(row, SCALES, samples, strict=True):
            axes.scatter(*points.T, s=1.5, c=labels, cmap="tab10", vmax=9, linewidths=0)
            axes.set(xlim=(-4, 4), ylim=(-4, 4), xticks=[], yticks=[], aspect="equal", title=f"{name}, w = {scale:g}")
    runs.make_folder("out", options.out.parent)
    figure.savefig(options.out, dpi=100)
    print(f"wrote {options.out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    command.run(
        lambda: tyro.cli(Options, prog="python -m experiments.gallery", description=__doc__, args=args), draw_gallery
    )


if __name__ == "__main__":
    main()
