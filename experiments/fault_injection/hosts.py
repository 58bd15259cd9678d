"""Hosts on one machine: network namespaces whose links meet in a hub, taken down however the work in them ends."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.cli.main import UserError
from experiments.fault_injection import wire
from experiments.fault_injection.namespaces import Place
from experiments.fault_injection.wire import Wire

_SECONDS = 30.0
"""Within which a command of iproute2 has ended."""


@dataclass(frozen=True)
class Host:
    """One host: its number, its name, the address at which others find it, and where its processes run."""

    index: int
    name: str
    address: str
    place: Place | None


@dataclass(frozen=True)
class Hosts:
    """All hosts, and the wire between them; without namespaces there is none."""

    each: tuple[Host, ...]
    wire: Wire | None
    why_loopback: str = ""


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")


def _delete(network: str) -> None:
    """Takes a network namespace away; a busy kernel may take longer than is waited for, and does it all the same."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        _run("ip", "netns", "delete", network)


def why_not() -> str:
    """Why no namespaces can be made here, in one line; empty where they can."""
    missing = [name for name in ("ip", "nsenter", "mount") if shutil.which(name) is None]
    if missing:
        return f"there is no {missing[0]} on this machine (iproute2 and util-linux have them)"
    probe = f"faults{os.getpid()}-probe"
    try:
        _run("ip", "netns", "add", probe)
    except (UserError, subprocess.TimeoutExpired) as error:
        return f"there is no right to make network namespaces ({error})"
    _delete(probe)
    return ""


def _name(index: int) -> str:
    return f"host-{'abcd'[index]}"


def _link(hub: str, host: Host) -> None:
    """Joins a host to the hub; its hardware address ends in its number."""
    assert host.place is not None
    own, port = host.place.network, wire.port_of(host.index)
    _run("ip", "-n", hub, "link", "add", port, "type", "veth", "peer", "name", wire.LINK, "netns", own)
    _run("ip", "-n", own, "link", "set", wire.LINK, "address", wire.hardware_address(host.index), "addrgenmode", "none")
    _run("ip", "-n", hub, "link", "set", port, "addrgenmode", "none")
    _run("ip", "-n", own, "address", "add", f"{host.address}/24", "dev", wire.LINK)
    for network, device in ((own, "lo"), (own, wire.LINK), (hub, port)):
        _run("ip", "-n", network, "link", "set", device, "up")


def _etc_hosts(each: tuple[Host, ...], file: Path) -> None:
    lines = [f"{host.address} {host.name}" for host in each]
    file.write_text("\n".join(["127.0.0.1 localhost", *lines]) + "\n")


@contextlib.contextmanager
def loopback(num: int, why: str) -> Iterator[Hosts]:
    """Processes of this host in place of hosts."""
    yield Hosts(tuple(Host(index, _name(index), "127.0.0.1", None) for index in range(num)), None, why)


@contextlib.contextmanager
def namespaces(num: int, folder: Path, seed: int) -> Iterator[Hosts]:
    """Hosts in namespaces of their own.

    Args:
        num: how many, 1 to 4.
        folder: for their table of names; must exist.
        seed: of which frames are lost.
    """
    prefix, names = f"faults{os.getpid()}", folder.absolute() / "hosts"
    hub, bound = f"{prefix}-hub", ((names, Path("/etc/hosts")),)
    each = tuple(
        Host(index, _name(index), f"10.213.77.{index + 1}", Place(_name(index), f"{prefix}-{index}", bound))
        for index in range(num)
    )
    _etc_hosts(each, names)
    with contextlib.ExitStack() as stack:
        for network in (hub, *(host.place.network for host in each if host.place is not None)):
            _run("ip", "netns", "add", network)
            stack.callback(_delete, network)
        for host in each:
            _link(hub, host)
        networks = tuple(host.place.network for host in each if host.place is not None)
        yield Hosts(each, stack.enter_context(wire.between(hub, networks, seed)))


@contextlib.contextmanager
def hosts(num: int, folder: Path, seed: int) -> Iterator[Hosts]:
    """So many hosts, in namespaces where these can be made, else as processes of this host."""
    why = why_not()
    with loopback(num, why) if why else namespaces(num, folder, seed) as made:
        yield made
