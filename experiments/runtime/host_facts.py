"""What of this process and its host a run's programs and numbers come from, as texts to be compared with others'."""

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path

import jax

import cfgjax
import experiments
from experiments.runtime.versions import with_python

_FURTHER = "tensorstore", "grain", "array_record", "ml_dtypes", "pillow", "scipy", "libtpu"
_OF_ACCELERATORS = "jax-cuda", "jax-rocm", "nvidia-"
_ENVIRONMENT = "NVIDIA_TF32_OVERRIDE", "NCCL_ALGO", "NCCL_PROTO"
_FLAGS = "XLA_FLAGS", "LIBTPU_INIT_ARGS"
_OWN_TO_A_HOST = (
    *("cache", "dump", "_log_", "logging", "traceback", "visible_devices", "address", "timeout", "pprint"),
    *("debug_info", "num_cpu_devices", "backend_target", "platform", "force_host_platform_device_count"),
)
"""What stands in names of settings and flags that change neither a program nor where it waits for others."""
_DIGITS = 12


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The machine, the versions of Python, of the packages and of what else computes, reads or writes, if installed."""
    names = sorted(each.name for each in distributions())
    found = with_python([*packages, *_FURTHER, *(name for name in names if name.startswith(_OF_ACCELERATORS))])
    return {"the machine": f"{platform.system()} {platform.machine()}", **found}


def _is_shared(name: str) -> bool:
    return not any(part in name for part in _OWN_TO_A_HOST)


def _flags(variable: str, text: str) -> dict[str, str]:
    """The flags of a variable of the environment, by name; of a repeated one the last counts."""
    pairs = (word.removeprefix("--").partition("=") for word in text.split())
    return {f"{variable} --{name}": value or "set" for name, _, value in pairs if _is_shared(name)}


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """JAX's own settings, and the environment's for compilers and collectives, that change programs or numbers."""
    of_jax = {name: str(value) for name, value in jax.config.values.items() if _is_shared(name)}
    flags = [_flags(name, environment.get(name, "")) for name in _FLAGS]
    others = {name: environment[name] for name in _ENVIRONMENT if name in environment}
    return of_jax | others | {name: value for each in flags for name, value in each.items()}


def commit_of(checkout: Path) -> str | None:
    """The commit that a checkout is at, as its files tell; None where they do not."""
    git = checkout / ".git"
    try:
        if git.is_file():
            git = checkout / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        return _commit_of_branch(git, head.removeprefix("ref: "))
    except OSError:
        return None


def _commit_of_branch(git: Path, branch: str) -> str | None:
    common = git / "commondir"
    shared = git / common.read_text().strip() if common.exists() else git
    if (shared / branch).exists():
        return (shared / branch).read_text().strip()
    lines = (shared / "packed-refs").read_text().splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f" {branch}")), None)


def digests_of(package: Path) -> dict[str, str]:
    """A digest of the sources in each folder of a package, those deeper counted to the folder at its top."""
    sums = {}
    for file in sorted(package.rglob("*.py")):
        inner = file.relative_to(package)
        folder = "/".join((package.name, *inner.parts[:-1][:1]))
        total = sums.setdefault(f"the source of {folder}", hashlib.sha256())
        total.update(f"{inner.as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return {name: total.hexdigest()[:_DIGITS] for name, total in sums.items()}


def code() -> dict[str, str | None]:
    """The commit of the checkout, where there is one, and digests of what stands in it."""
    folders = [Path(os.path.dirname(str(package.__file__))) for package in (cfgjax, experiments)]  # noqa: PTH120
    commit = commit_of(folders[1].parent)
    digests = {name: text for folder in folders for name, text in digests_of(folder).items()}
    return {"the code's commit": None if commit is None else commit[:_DIGITS], **digests}


def devices() -> dict[str, str]:
    """Kind and number of this process's devices; the first question for them starts the devices."""
    own = jax.local_devices()
    kinds = sorted({each.device_kind for each in own})
    return {
        "the kind of device": ", ".join(kinds),
        "the number of devices": str(len(own)),
        "the devices' software": " ".join(own[0].client.platform_version.split()),
    }
