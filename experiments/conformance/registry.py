"""The libraries that are asked, with what their folders hold: data alone, which imports none of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Base:
    """An environment that several libraries share: what they and cfgjax are run by."""

    least_python: tuple[int, int]
    requirements: tuple[str, ...]


BASES = {
    "torch": Base(
        (3, 11),
        (
            *("torch==2.13.0", "jax==0.10.2", "flax==0.12.8", "chex==0.1.92", "numpy==2.4.6", "scipy==1.17.1"),
            *("einops==0.8.2", "filelock", "huggingface-hub", "importlib-metadata", "pillow", "regex", "requests"),
            *("safetensors", "scikit-learn", "tqdm"),
        ),
    ),
    "jax": Base(
        (3, 12),
        (
            *("jax==0.12.0.1", "flax==0.12.12", "chex==0.1.92", "numpy==2.4.6", "scipy==1.17.1", "einops==0.8.2"),
            *("diffrax==0.7.2", "equinox", "filelock", "grain==0.2.18", "immutabledict", "jaxtyping", "keras==3.15.1"),
            *("lark", "matplotlib", "networkx", "numpyro", "pandas", "safetensors", "seaborn", "tqdm", "typeguard"),
        ),
    ),
}


@dataclass(frozen=True)
class Library:
    """A released library: its distribution, the version that the expectations were written for, and its conventions."""

    package: str
    version: str
    base: str
    conventions: str
    beside: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        """What its own folder holds, without dependencies: a version of the index, or a file or folder."""
        is_place = "/" in self.version or self.version.endswith(".whl")
        return self.version if is_place else f"{self.package}=={self.version}", *self.beside


LIBRARIES = {
    "diffusers": Library(
        "diffusers",
        "0.42.1",
        "torch",
        "Time 1 is noise; flow models predict noise - data; w = `guidance_scale`, and w = 1 + `guidance_scale` with "
        '`use_original_formulation=True`. FLOW is `prediction_type="flow_prediction", use_flow_sigmas=True`.',
        ("kornia==0.9.0", "kornia-rs==0.2.0"),
    ),
    "flow_matching": Library(
        "flow_matching",
        "1.0.10",
        "torch",
        "Time 0 is noise and the model is the field, as in cfgjax; it has no guidance.",
        ("torchdiffeq==0.2.5",),
    ),
    "torchcfm": Library(
        "torchcfm",
        "1.0.7",
        "torch",
        "Time 0 is noise and the target is data - noise, as in cfgjax; plans are drawn by NumPy's global generator.",
        ("POT==0.9.6",),
    ),
    "azula": Library(
        "azula",
        "0.11.1",
        "torch",
        "Time 1 is noise; denoisers; w = 1 + `guidance`, so that the default 1 is w = 2; the usual schedule ends at "
        "0.001 on both sides.",
    ),
    "torchebm": Library(
        "torchebm",
        "0.8.9",
        "torch",
        "Time 0 is noise and the model is the field, as in cfgjax; w = `guidance_scale`; its D is sigma^2 / 2.",
    ),
    "sbi": Library(
        "sbi",
        "0.27.0",
        "torch",
        "Time 1 is noise; scores; w = `likelihood_scale`, and the null score is the prior's own.",
    ),
    "rectified_flow_pytorch": Library(
        "rectified-flow-pytorch",
        "0.14.0",
        "torch",
        "Time 1 is noise in MeanFlow, 0 in SplitMeanFlow; the network's third argument is the length of the interval.",
    ),
    "flaxdiff": Library(
        "flaxdiff",
        "0.2.11",
        "torch",
        "Time runs in steps, of which the last is noise; noise predictions; w = `guidance_scale`, but 0 is off.",
    ),
    "hackable_diffusion": Library(
        "hackable_diffusion",
        "1.0.1",
        "jax",
        "Time 1 is noise; any prediction by its name; w = 1 + `guidance`.",
        ("kauldron==1.4.4",),
    ),
    "gensbi": Library(
        "gensbi",
        "0.5.1",
        "jax",
        "Time 0 is noise and the model is the field, as in cfgjax; it has no guidance.",
    ),
    "diffuse_jax": Library(
        "diffuse-jax",
        "0.1.1",
        "jax",
        "Time 1 is noise; scores; integrators run from `tf` to 0.001.",
    ),
    "bayesflow": Library(
        "bayesflow",
        "2.0.12",
        "jax",
        "Time 0 is noise in FlowMatching; consistency models run in [0, pi/2] with pi/2 noise.",
    ),
}
