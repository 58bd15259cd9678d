"""The presets: experiments by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cfgjax.models import SIZES, UNET_SIZES
from experiments.config.distillation import EXACT, Distillation, TaughtBy
from experiments.config.kinds import (
    ConditionedData,
    DescribedDigits,
    ImageData,
    LatentData,
    MeasuredDigits,
    MixtureData,
)
from experiments.config.networks import AutoencoderNetwork, DiTNetwork, MLPNetwork, UNetNetwork
from experiments.config.schema import Experiment, Optimizer, Sampling
from experiments.presets import requirements


def dit(size: str, patch: int, **settings: Any) -> DiTNetwork:
    """The transformer of a size of the paper."""
    return DiTNetwork(**SIZES[size]._asdict(), patch=patch, **settings)


_DIGITS = ImageData(shape=(8, 8, 1), num_classes=10)


_FASHION = ImageData("fashion_mnist", shape=(28, 28, 1), num_classes=10, dequantise=True)


_IMAGENET64 = ImageData(
    "imagenet_resized/64x64",
    test_split="validation",
    shape=(64, 64, 3),
    num_classes=1000,
    flip=True,
    in_memory=False,
)


_GPU_SAMPLING = Sampling((1.0, 1.5, 2.0, 3.0), num_steps=32, num_per_class=100)


_LARGE_SAMPLING = Sampling((1.0, 1.5, 2.0), num_steps=32, num_per_class=5)


_CIFAR = ImageData("cifar10", shape=(32, 32, 3), num_classes=10, flip=True, dequantise=True)


PRESETS: dict[str, tuple[str, Experiment]] = {
    "digits": (
        "8 x 8 handwritten digits, 10 labels, from scikit-learn",
        Experiment(
            "digits",
            Path("runs/digits"),
            _DIGITS,
            num_steps=2_500,
            save_every=500,
            network=MLPNetwork(width=384, dropout=0.2),
            sampling=Sampling(num_steps=32),
        ),
    ),
    "digits_flow_map": (
        "the guided flow map of the digits, from a run of them",
        Experiment(
            "digits_flow_map",
            Path("runs/digits_flow_map"),
            _DIGITS,
            objective="flow_map",
            num_steps=4_000,
            save_every=500,
            network=MLPNetwork(width=384),
            optimizer=Optimizer(warmup_steps=300),
            distillation=Distillation(
                scales=(1.0, 3.0), equal_rate=0.1, teacher_steps=1, trajectories=32_768, num_times=8, whole_rate=0.5
            ),
            sampling=Sampling((1.0, 2.0, 3.0), num_steps=4),
        ),
    ),
    "measured_digits": (
        "the same digits by stroke weight, width, height and slant",
        Experiment(
            "measured_digits",
            Path("runs/measured_digits"),
            MeasuredDigits(),
            num_steps=2_000,
            save_every=500,
            network=MLPNetwork(width=384, dropout=0.2),
            sampling=Sampling((0.0, 1.0, 2.0, 3.0), num_steps=32),
        ),
    ),
    "described_digits": (
        'the same digits by sentences: "a thin seven leaning left"',
        Experiment(
            "described_digits",
            Path("runs/described_digits"),
            DescribedDigits(),
            num_steps=4_000,
            save_every=500,
            network=MLPNetwork(width=384, dropout=0.2),
            sampling=Sampling((0.0, 1.0, 2.0, 3.0), num_steps=32),
        ),
    ),
    "conditioned_images": (
        "pictures of your own with texts, numbers or classes, a small transformer",
        Experiment(
            "conditioned_images",
            Path("runs/conditioned_images"),
            ConditionedData(Path("pictures")),
            batch_size=64,
            num_steps=3_000,
            save_every=500,
            network=DiTNetwork(width=128, depth=4, num_heads=4, patch=4),
            optimizer=Optimizer(learning_rate=1e-3, warmup_steps=200, ema_decay=0.998),
            sampling=Sampling((0.0, 1.0, 2.0, 3.0), num_steps=24, num_per_class=4),
        ),
    ),
    "mixture": (
        "8 Gaussians on a ring in 2-D, measured against the exact field",
        Experiment(
            "mixture",
            Path("runs/mixture"),
            MixtureData(),
            label_drop_rate=0.4,
            batch_size=512,
            num_steps=7_000,
            network=MLPNetwork(depth=2),
            optimizer=Optimizer(learning_rate=3e-3),
            sampling=Sampling(num_steps=32),
        ),
    ),
    "mixture_flow_map": (
        "the guided flow map of these Gaussians, from the exact field",
        Experiment(
            "mixture_flow_map",
            Path("runs/mixture_flow_map"),
            MixtureData(),
            objective="flow_map",
            batch_size=512,
            num_steps=12_000,
            network=MLPNetwork(width=128, depth=3, max_frequency=20.0),
            optimizer=Optimizer(learning_rate=3e-3, warmup_steps=300),
            distillation=Distillation(scales=(0.0, 5.0), equal_rate=0.1, teacher=TaughtBy(EXACT)),
            sampling=Sampling((1.0, 2.0, 3.0), num_steps=4, num_per_class=2_048),
        ),
    ),
    "fashion_mnist": (
        "28 x 28 pictures of clothes, 10 labels, a small transformer",
        Experiment(
            "fashion_mnist",
            Path("runs/fashion_mnist"),
            _FASHION,
            batch_size=64,
            num_microbatches=4,
            num_steps=6_000,
            save_every=500,
            network=DiTNetwork(width=128, depth=5, num_heads=2, patch=4),
            optimizer=Optimizer(learning_rate=2e-3, warmup_steps=200, ema_decay=0.998),
            sampling=Sampling((1.0, 2.0, 3.0), num_steps=24, num_per_class=10),
        ),
    ),
    "fashion_mnist_flow_map": (
        "the guided flow map of these pictures, from a run of them",
        Experiment(
            "fashion_mnist_flow_map",
            Path("runs/fashion_mnist_flow_map"),
            _FASHION,
            objective="flow_map",
            batch_size=64,
            num_microbatches=4,
            num_steps=2_000,
            save_every=500,
            network=DiTNetwork(width=128, depth=5, num_heads=2, patch=4),
            optimizer=Optimizer(warmup_steps=100, ema_decay=0.99),
            distillation=Distillation(
                scales=(1.0, 2.0), equal_rate=0.1, teacher_steps=1, trajectories=8_192, num_times=8, whole_rate=0.5
            ),
            sampling=Sampling((1.0, 1.5, 2.0), num_steps=4, num_per_class=100),
        ),
    ),
    "fashion_latents": (
        "7 x 7 x 4 latents of these pictures, the same transformer",
        Experiment(
            "fashion_latents",
            Path("runs/fashion_latents"),
            LatentData(Path("fashion_latents"), (7, 7, 4), num_classes=10, factor=None, shift=None),
            batch_size=64,
            num_microbatches=4,
            num_steps=3_800,
            save_every=500,
            network=DiTNetwork(width=128, depth=5, num_heads=2, patch=1),
            optimizer=Optimizer(learning_rate=2e-3, warmup_steps=200, ema_decay=0.998),
            sampling=Sampling((1.0, 2.0, 3.0), num_steps=24, num_per_class=10),
        ),
    ),
    "fashion_mnist_classifier": (
        "the noisy classifier of the same pictures, half a U-Net",
        Experiment(
            "fashion_mnist_classifier",
            Path("runs/fashion_mnist_classifier"),
            _FASHION,
            objective="classifier",
            batch_size=128,
            num_steps=4_000,
            save_every=500,
            network=UNetNetwork(32, (1, 2), blocks_per_level=1, attention=(7,), patch=2, dropout=0.1),
            optimizer=Optimizer(learning_rate=1e-3, warmup_steps=200, ema_decay=0.998),
        ),
    ),
    "fashion_mnist_autoencoder": (
        "7 x 7 x 4 latents of the same pictures, and the way back",
        Experiment(
            "fashion_mnist_autoencoder",
            Path("runs/fashion_mnist_autoencoder"),
            replace(_FASHION, dequantise=False),
            objective="autoencoder",
            batch_size=64,
            num_microbatches=4,
            num_steps=1_000,
            save_every=250,
            network=AutoencoderNetwork(),
            optimizer=Optimizer(learning_rate=2e-3, warmup_steps=50, ema_decay=0.99),
        ),
    ),
    "fashion_mnist_gpu": (
        "28 x 28 pictures of clothes, a U-Net",
        Experiment(
            "fashion_mnist_gpu",
            Path("runs/fashion_mnist_gpu"),
            _FASHION,
            batch_size=512,
            num_steps=12_000,
            save_every=2_000,
            network=UNetNetwork(96, (1, 2, 2), attention=(7,), dropout=0.1, dtype="bfloat16"),
            optimizer=Optimizer(learning_rate=1e-3),
            sampling=_GPU_SAMPLING,
        ),
    ),
    "cifar10": (
        "32 x 32 colour pictures, 10 labels, a U-Net",
        Experiment(
            "cifar10",
            Path("runs/cifar10"),
            _CIFAR,
            batch_size=512,
            num_steps=200_000,
            save_every=10_000,
            network=UNetNetwork(**UNET_SIZES["DDPM"], dropout=0.1, dtype="bfloat16"),
            optimizer=Optimizer(learning_rate=5e-4, warmup_steps=5_000, ema_decay=0.9999),
            sampling=_GPU_SAMPLING,
        ),
    ),
    "cifar10_classifier": (
        "the noisy classifier of the same pictures, half a U-Net",
        Experiment(
            "cifar10_classifier",
            Path("runs/cifar10_classifier"),
            _CIFAR,
            objective="classifier",
            batch_size=512,
            num_steps=60_000,
            save_every=10_000,
            network=UNetNetwork(64, (1, 2, 2, 2), attention=(8, 16), dropout=0.1, dtype="bfloat16"),
            optimizer=Optimizer(learning_rate=5e-4, warmup_steps=1_000, weight_decay=0.05),
        ),
    ),
    "imagenet64": (
        "64 x 64 colour pictures, 1,000 labels, a U-Net",
        Experiment(
            "imagenet64",
            Path("runs/imagenet64"),
            _IMAGENET64,
            batch_size=1024,
            num_microbatches=4,
            num_steps=500_000,
            save_every=10_000,
            network=UNetNetwork(**UNET_SIZES["ADM-64"], dropout=0.1, dtype="bfloat16", rematerialise=True),
            optimizer=Optimizer(learning_rate=1e-4, warmup_steps=10_000, ema_decay=0.9999),
            sampling=_LARGE_SAMPLING,
        ),
    ),
    "imagenet64_classifier": (
        "the noisy classifier of the same pictures, half a U-Net",
        Experiment(
            "imagenet64_classifier",
            Path("runs/imagenet64_classifier"),
            _IMAGENET64,
            objective="classifier",
            batch_size=1024,
            num_microbatches=4,
            num_steps=300_000,
            save_every=10_000,
            network=UNetNetwork(128, (1, 2, 3, 4), 4, attention=(8, 16, 32), dtype="bfloat16", rematerialise=True),
            optimizer=Optimizer(learning_rate=3e-4, warmup_steps=5_000, weight_decay=0.05),
        ),
    ),
    "imagenet256_latent": (
        "32 x 32 x 4 latents of 256 x 256 pictures, 1,000 labels, DiT-XL/2",
        Experiment(
            "imagenet256_latent",
            Path("runs/imagenet256_latent"),
            LatentData(Path("imagenet256_latents")),
            batch_size=256,
            num_steps=400_000,
            save_every=10_000,
            network=dit("XL", 2, dtype="bfloat16"),
            optimizer=Optimizer(learning_rate=1e-4, warmup_steps=1_000, ema_decay=0.9999),
            sampling=_LARGE_SAMPLING,
        ),
    ),
}


def summary(name: str) -> str:
    """What a preset is, and the device and the time that it needs, in one line."""
    needs = requirements.REQUIREMENTS[name]
    return f"{PRESETS[name][0]} ({needs.device}{'' if needs.time == requirements.NOT_MEASURED else f', {needs.time}'})"
