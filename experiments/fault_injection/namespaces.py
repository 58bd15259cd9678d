"""Entering Linux namespaces from a process that has just been forked: what os.setns is from Python 3.12 on."""

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NEWTIME, _NEWNS, _NEWUTS, _NEWNET = 0x80, 0x20000, 0x4000000, 0x40000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG = 1
RUN_NETNS = Path("/run/netns")
"""Where iproute2 keeps the network namespaces that have names."""


@dataclass(frozen=True)
class Place:
    """Where a process runs, as on a machine of its own.

    Attributes:
        hostname: of its UTS namespace.
        network: the name of its network namespace.
        bound: (file or folder, the one over which it lies) in its mount namespace.
        read_only: folders that it cannot write to.
        monotonic_shift: seconds by which its monotonic clock is ahead.
    """

    hostname: str
    network: str
    bound: tuple[tuple[Path, Path], ...] = ()
    read_only: tuple[Path, ...] = ()
    monotonic_shift: int = 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _enter(file: Path, kind: int) -> None:
    with file.open() as stream:
        _check(_libc().setns(stream.fileno(), kind), str(file))


def _mount(source: Path | str, target: Path, flags: int) -> None:
    _check(_libc().mount(os.fsencode(source), os.fsencode(target), None, flags, None), f"mount on {target}")


def enter_network(name: str) -> None:
    """Moves this thread into a network namespace that has a name."""
    _enter(RUN_NETNS / name, _NEWNET)


def _mount_own(bound: Sequence[tuple[Path, Path]], read_only: Sequence[Path]) -> None:
    _check(_libc().unshare(_NEWNS), "unshare")
    _mount("none", Path("/"), _MS_REC | _MS_PRIVATE)
    for source, target in bound:
        _mount(source, target, _MS_BIND)
    for folder in read_only:
        _mount(folder, folder, _MS_BIND)
        _mount("none", folder, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def _shift_clock(seconds: int) -> None:
    """Sets the monotonic clock ahead, for this process, which must have one thread."""
    _check(_libc().unshare(_NEWTIME), "unshare")
    Path("/proc/self/timens_offsets").write_text(f"monotonic {seconds} 0\nboottime {seconds} 0\n")
    _enter(Path("/proc/self/ns/time_for_children"), _NEWTIME)


def enter(place: Place) -> None:
    """Moves this process, which must have one thread, to a place; what is mounted there goes with it.

    Raises:
        OSError: there is no right to it.
    """
    enter_network(place.network)
    _check(_libc().unshare(_NEWUTS), "unshare")
    name = os.fsencode(place.hostname)
    _check(_libc().sethostname(name, len(name)), "sethostname")
    _mount_own(place.bound, place.read_only)
    if place.monotonic_shift:
        _shift_clock(place.monotonic_shift)


def end_with_parent() -> None:
    """Lets this process be killed when the one that forked it ends, however that ends."""
    _check(_libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")


def shift_wall_clock(seconds: float) -> None:
    """Sets what Python takes for the time of day ahead, for this process."""
    real = time.time
    time.time = lambda: real() + seconds
