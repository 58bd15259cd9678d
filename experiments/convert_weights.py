"""Make a run folder of published weights: of SiT, DiT, LightningDiT or JiT, to be read as one trained here.

For example: python -m experiments.convert_weights sit.safetensors --kind sit --out runs/sit

docs/published_weights.md says how to rewrite published .pt weights as safetensors, and how to decode the latents.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import jax
import tyro

from cfgjax import checkpoints
from cfgjax.models import pretrained
from cfgjax.models.pretrained import Architecture
from cfgjax.types import Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.kinds import LatentData
from experiments.config.networks import DiTNetwork
from experiments.config.schema import ADAPTER, Experiment, Sampling
from experiments.run import folder as run_folder
from experiments.run.published import TRAINED, KindName
from experiments.runtime import progress
from experiments.tasks.memory_limit import require_affordable
from experiments.tasks.registry import facts_of


@dataclass(frozen=True)
class Options:
    """What to read, and where the run goes."""

    weights: Annotated[Path, tyro.conf.Positional]
    """The safetensors file, with the published names."""
    kind: KindName
    """SiT's velocity on the linear path, repa: the same with REPA's time; DiT's noise prediction at the steps of DDPM,
    diffusers_dit: the same with the frequencies of time by which diffusers computes; LightningDiT's velocity; JiT's
    prediction of pixels."""
    out: Path
    """Folder of the run to make."""
    num_heads: Annotated[int | None, optional("INT", "the papers'")] = None
    """Heads of attention, needed where width and depth are none of the papers' sizes (S, B, L, XL) and no tensor tells
    them."""
    side: int = 32
    """Side of the latents of a file in diffusers' layout, which does not tell it: 32 of pictures of 256 x 256."""
    noise_scale: Annotated[float | None, optional("FLOAT", "the paper's: 1 of side 256, 2 of 512")] = None
    """Standard deviation of the noise that JiT was trained with."""


def experiment_of(kind: KindName, architecture: Architecture, run_dir: Path) -> Experiment:
    """The experiment that the weights are a run of; its latents are not here."""
    network, shape = pretrained.network(kind, architecture), (architecture.side, architecture.side)
    names = {each.name for each in fields(DiTNetwork)} - {"dtype"}
    data = LatentData(Path("latents"), (*shape, architecture.channels), network.num_classes)
    if kind in ("lightningdit", "jit"):
        data = replace(data, factor=1 / architecture.noise_scale)
    return Experiment(
        f"published_{kind}",
        run_dir,
        data,
        network=DiTNetwork(**{name: getattr(network, name) for name in names}),
        sampling=Sampling((1.0, 1.5, 4.0), num_steps=32, num_per_class=1),
        **TRAINED[kind],
    )


def _of_repa(architecture: Architecture) -> str:
    """What no file of SiT tells, and would make its field wrong."""
    hint = "" if architecture.has_variance else ", as the missing channels of variance suggest"
    return (
        f"if these weights were trained with REPA{hint}, the field is minus the right one, as its time runs the other "
        "way: convert them with --kind repa; nothing else in the file tells (docs/published_weights.md)"
    )


def _read(options: Options) -> tuple[Architecture, Tree]:
    try:
        return pretrained.read(options.weights, options.num_heads, options.kind, options.side, options.noise_scale)
    except (ImportError, ValueError) as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{options.weights} cannot be read: {error.strerror or error}") from None


def _write(options: Options, architecture: Architecture, params: Tree) -> None:
    experiment = run_folder.validate(experiment_of(options.kind, architecture, options.out))
    facts = facts_of(experiment)
    require_affordable(experiment, facts.shape, facts.num_classes, num_copies=1)
    run_folder.make_folder("out", options.out)
    run_folder.open_run(experiment)
    with checkpoints.Writer(run_folder.checkpoints_of(options.out)) as writer:
        writer.save(0, {"params": params}, ADAPTER.dump_python(experiment, mode="json"))


def convert(options: Options) -> None:
    """Reads the weights and writes the run's config.json and a checkpoint of its parameters alone."""
    if checkpoints.all_steps(run_folder.checkpoints_of(options.out)):
        raise UserError(f"out {options.out} holds a run already; name another folder")
    with progress.bar(2, "parts", "reading, then writing") as shown:
        architecture, params = _read(options)
        shown.update()
        _write(options, architecture, params)
        shown.update()
    if options.kind == "sit":
        cli.warn(f"warning: {_of_repa(architecture)}")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    size = f"{architecture.depth} blocks of width {architecture.width}, patches of {architecture.patch}"
    print(f"wrote {options.kind} ({size}, {count / 1e6:.0f} million parameters) as the run {options.out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(convert, Options, "experiments.convert_weights", __doc__, args)


if __name__ == "__main__":
    main()
