"""What the presets need and reach, as far as it was measured: figures of docs/pictures.md."""

import textwrap
from typing import NamedTuple

NOT_MEASURED = "not measured"
LEGEND = "Times and what is reached: one run each, 2 CPU cores (docs/pictures.md and the pages of each kind)."
_DIGITS = "python -m experiments.prepare digits (they ship inside scikit-learn)"
_TENSORFLOW = "python -m experiments.prepare {}, once, with TensorFlow"
_FASHION = "python -m experiments.prepare fashion_mnist --source FOLDER_OF_ITS_IDX_FILES"


class Requirements(NamedTuple):
    """What a preset needs and reaches, as far as it was measured.

    Attributes:
        data: how to get its data.
        device: what it is meant for.
        time: to train and report.
        memory: of the process while it trains, where it was run; of each of 8 devices, where it was compiled for them.
        reaches: what it reaches.
    """

    data: str
    device: str
    time: str = NOT_MEASURED
    memory: str = NOT_MEASURED
    reaches: str = NOT_MEASURED


def _on_8_devices(state: str, inner: str, kind: str = "CPUs") -> str:
    return f"{state} + {inner} GiB on each of 8 devices (state + inner values, compiled for {kind}, not run)"


def _resident(memory: str) -> str:
    return f"{memory} GiB resident while it trains"


REQUIREMENTS = {
    "digits": Requirements(
        _DIGITS,
        "2 CPU cores",
        "3 min 24 s",
        _resident("0.9"),
        "class accuracy at w = 0, 1, 2, 4 by the ODE: 9.3, 99.7, 100, 100 %",
    ),
    "digits_flow_map": Requirements(
        f"{_DIGITS}; --teacher RUN of the preset digits",
        "2 CPU cores",
        "2 min 34 s",
        reaches="at w = 2 with 1, 2, 4 evaluations: class accuracy 100 %, Frechet distance 1.00, 0.99, 1.00 times the "
        "teacher's with 64; a sample 75.1 times faster",
    ),
    "measured_digits": Requirements(
        _DIGITS,
        "2 CPU cores",
        "2 min 4 s beside other work",
        reaches="root mean square error of the properties asked at w = 0, 1, 2, 3 by the ODE, in standard deviations: "
        "1.27, 0.23, 0.17, 0.20",
    ),
    "described_digits": Requirements(
        _DIGITS,
        "2 CPU cores",
        "4 min 44 s beside other work",
        reaches="at w = 3 by the ODE: class accuracy 100 %, one word met 99.6 %, both of two 98.8 % each, of "
        "combinations never learned 95.2 %",
    ),
    "conditioned_images": Requirements(
        "python -m experiments.prepare NAME --source FOLDER (metadata.jsonl or .csv beside pictures, or .parquet)",
        "2 CPU cores",
    ),
    "mixture": Requirements(
        "none",
        "2 CPU cores",
        "2 min 9 s",
        _resident("0.9"),
        "relative L2 error of the learned field, mean over t in [0.05, 0.95]: 1.4 % labelled, 6.8 % null",
    ),
    "mixture_flow_map": Requirements(
        "none",
        "2 CPU cores",
        "1 min 56 s",
        reaches="one evaluation at w = 1, 2, 3: energy distance to the exact law 0.58, 0.64, 0.58 of its floor",
    ),
    "fashion_mnist": Requirements(
        _FASHION,
        "2 CPU cores",
        "30 min + 6 min beside other work",
        _resident("1.3"),
        "at w = 1.5 by the ODE: class accuracy 90.9 %, Frechet distance 18.3 (real 9.3), coverage 0.90 (real 0.97)",
    ),
    "fashion_mnist_flow_map": Requirements(
        f"{_FASHION}; --teacher RUN of the preset fashion_mnist",
        "2 CPU cores",
        "14 min 26 s beside other work",
        reaches="at w = 1.5 with 1, 2, 4 evaluations: class accuracy 91.7, 91.3, 91.0 % (the teacher's 91.2), Frechet "
        "distance 1.17, 1.15, 1.12 times the teacher's with 64; a sample 68.1 times faster",
    ),
    "fashion_latents": Requirements(
        "python -m experiments.encode fashion_mnist --autoencoder PATH --out fashion_latents",
        "2 CPU cores",
    ),
    "fashion_mnist_classifier": Requirements(
        _FASHION,
        "2 CPU cores",
        "18 min beside other work",
        _resident("1.4"),
        "right at t = 0, 0.2, 0.5, 1: 9.6, 56.6, 80.5, 86.9 %",
    ),
    "fashion_mnist_autoencoder": Requirements(
        _FASHION,
        "2 CPU cores",
        "24 min beside other work",
        reaches="root mean square error 0.120 of held-out pictures in [-1, 1], 24.5 dB",
    ),
    "fashion_mnist_gpu": Requirements(_FASHION, "one GPU", memory=_on_8_devices("0.23", "2.3")),
    "cifar10": Requirements(_TENSORFLOW.format("cifar10"), "GPUs or TPUs", memory=_on_8_devices("0.57", "4.6")),
    "cifar10_classifier": Requirements(
        _TENSORFLOW.format("cifar10"), "GPUs or TPUs", memory=_on_8_devices("0.05", "0.68")
    ),
    "imagenet64": Requirements(
        _TENSORFLOW.format("imagenet_resized/64x64"), "8 GPUs or TPUs", memory=_on_8_devices("4.1", "34.6")
    ),
    "imagenet64_classifier": Requirements(
        _TENSORFLOW.format("imagenet_resized/64x64"), "8 GPUs or TPUs", memory=_on_8_devices("0.75", "3.6")
    ),
    "imagenet256_latent": Requirements(
        "latents.npy and labels.npy of your own in data/imagenet256_latents",
        "8 or more GPUs or TPUs",
        memory=_on_8_devices("10.1", "8.2", "v6e TPUs"),
    ),
}


def text(name: str, what: str, width: int) -> str:
    """What a preset needs and reaches, a line or more for each part."""
    rows = {"": what, **REQUIREMENTS[name]._asdict()}
    lines = [
        textwrap.fill(f"  {title:8s} {value}" if title else f"  {value}", max(width, 40), subsequent_indent=" " * 11)
        for title, value in rows.items()
    ]
    return "\n".join([name, *lines])
