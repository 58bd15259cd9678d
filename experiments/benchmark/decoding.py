"""Time the decoding of latents beside diffusers, and its memory.

In turns, diffusers' under torch.compile. Both decode the same latents with the same random weights; where images differ
by more than 1e-4 of their root mean square there are no figures. Needs PyTorch and diffusers. For example, of Stable
Diffusion's sizes, on 2 CPU cores in 20 minutes:
OMP_WAIT_POLICY=passive python -m experiments.benchmark.decoding --autoencoder SD --num-latents 64
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from cfgjax.models import AUTOENCODERS, LATENT_SCALINGS, AutoencoderKL, LatentScaling
from experiments.benchmark import memory
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.values import Count
from experiments.run.autoencoder import decoder_of

Name = Literal["cfgjax", "diffusers", "one_by_one"]
WHAT: dict[Name, str] = {
    "cfgjax": "cfgjax",
    "diffusers": "diffusers, torch.compile, a turn's latents at once",
    "one_by_one": "diffusers, torch.compile, one by one",
}
_COMMAND = "experiments.benchmark.decoding"
MOST = 1e-4
"""How far images may differ, relative to their root mean square."""

Decode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Options:
    """What is decoded."""

    autoencoder: Literal["SD", "SDXL", "SD3", "FLUX"] = "SD"
    """Whose sizes."""
    num_latents: Count = 64
    """How many latents are decoded by each."""
    per_turn: Count = 8
    """How many of them in one turn."""
    side: Annotated[int, Field(ge=8, le=128)] = 32
    """Of the latents; of the images it is 8 times as much."""
    memory_of: Annotated[Name | None, optional("NAME", "the times")] = None
    """Print the most memory that one implementation takes to decode all latents in one turn, as bytes."""


def _peers() -> tuple[Any, Any]:
    """PyTorch and diffusers.

    Raises:
        UserError: one is not installed.
    """
    try:
        import diffusers  # pyrefly: ignore[missing-import]
        import torch  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise UserError(f"{error}; pip install torch==2.13.0 diffusers==0.42.1") from None
    return torch, diffusers


def theirs_of(network: AutoencoderKL, scaling: LatentScaling) -> Any:
    """Their network of the sizes of ours, with random weights."""
    torch, diffusers = _peers()
    torch.manual_seed(0)
    count = len(network.widths)
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        block_out_channels=network.widths,
        layers_per_block=network.blocks_per_level,
        latent_channels=network.latent_channels,
        norm_num_groups=network.num_groups,
        scaling_factor=scaling.factor,
        shift_factor=scaling.shift or None,
        use_quant_conv=network.has_quant_convs,
        use_post_quant_conv=network.has_quant_convs,
    ).eval()


def _theirs(options: Options) -> Any:
    return theirs_of(AUTOENCODERS[options.autoencoder], LATENT_SCALINGS[options.autoencoder])


def _in_diffusers(options: Options, size: int) -> Decode:
    """Their decoder of so many latents at once."""
    torch, _ = _peers()
    network = _theirs(options)
    scaling = LATENT_SCALINGS[options.autoencoder]
    program = torch.compile(lambda z: network.decode(z, return_dict=False)[0])

    def one(latents: np.ndarray) -> np.ndarray:
        unscaled = (latents / scaling.factor + scaling.shift).transpose(0, 3, 1, 2)
        with torch.inference_mode():
            return program(torch.from_numpy(np.ascontiguousarray(unscaled))).numpy().transpose(0, 2, 3, 1)

    return lambda latents: np.concatenate([one(each) for each in np.split(latents, len(latents) // size)])


def _in_cfgjax(options: Options) -> Decode:
    """Ours, with their weights."""
    scaling = LATENT_SCALINGS[options.autoencoder]
    with tempfile.TemporaryDirectory() as folder:
        _theirs(options).save_pretrained(folder)
        return decoder_of(Path(folder), _shape(options), (float(scaling.factor), float(scaling.shift))).decode


def _shape(options: Options) -> tuple[int, int, int]:
    return options.side, options.side, AUTOENCODERS[options.autoencoder].latent_channels


def _builds(options: Options, per_turn: int) -> dict[Name, Callable[[], Decode]]:
    return {
        "cfgjax": partial(_in_cfgjax, options),
        "diffusers": partial(_in_diffusers, options, per_turn),
        "one_by_one": partial(_in_diffusers, options, 1),
    }


def _latents(options: Options) -> np.ndarray:
    shape = options.num_latents, *_shape(options)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _memory_here(name: Name, options: Options) -> int | None:
    """The most bytes that an implementation takes for all latents in this process, which did nothing else."""
    latents = _latents(options)

    def build() -> Callable[[], Any]:
        return partial(_builds(options, len(latents))[name](), latents)

    _peers()
    return memory.most_of(build, ("torch._dynamo", "torch._inductor.compile_fx"), is_torch=name != "cfgjax")


def _memory(name: Name, options: Options) -> int | None:
    """The same, in a process of its own; None where it fails."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in asdict(options).items() if value is not None]
    command = [sys.executable, "-m", _COMMAND, *flags]
    done = subprocess.run([*command, f"--memory-of={name}"], capture_output=True, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def _times(options: Options) -> dict[Name, np.ndarray]:
    """Seconds of each turn, the first latents decoded once before that.

    Raises:
        UserError: images that differ.
    """
    latents = _latents(options)
    decoders = {name: build() for name, build in _builds(options, options.per_turn).items()}
    first = {name: decode(latents[: options.per_turn]) for name, decode in decoders.items()}
    size = np.sqrt(np.mean(np.square(first["cfgjax"])))
    for name, images in first.items():
        difference = float(np.max(np.abs(images - first["cfgjax"])) / size)
        if not difference < MOST:
            raise UserError(f"the images of {name} differ by {difference:.1e} of their root mean square")
    seconds = {name: [] for name in decoders}
    for turn, part in enumerate(np.split(latents, len(latents) // options.per_turn)):
        names = list(decoders)
        for name in names[turn % 3 :] + names[: turn % 3]:
            start = time.perf_counter()
            decoders[name](part)
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def benchmark(options: Options) -> None:
    """Prints seconds a latent and memory of each, and how they compare with ours."""
    if options.memory_of is not None:
        print(json.dumps(_memory_here(options.memory_of, options)))
        return
    if options.num_latents % options.per_turn:
        raise UserError(f"per_turn must divide num_latents {options.num_latents}, got {options.per_turn}")
    _peers()
    for name, seconds in _times(options).items():
        each = seconds / options.per_turn
        spread = f"{each.min():.3f} to {each.max():.3f} in {len(each)} turns"
        print(f"{WHAT[name]}: {np.median(each):.3f} s a latent, {spread}", flush=True)
    for name, what in WHAT.items():
        found = _memory(name, options)
        size = "not known" if found is None else f"{found / 2**30:.2f} GiB"
        print(f"{what}: {size} for {options.num_latents} latents in one turn", flush=True)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(benchmark, Options, _COMMAND, __doc__, args)


if __name__ == "__main__":
    main()
