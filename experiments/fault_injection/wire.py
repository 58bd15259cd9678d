"""The wire between hosts: delay, loss, and ports that are cut off, by the kernel's netem or by a relay of frames."""

import contextlib
import heapq
import itertools
import random
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from experiments.cli.main import UserError
from experiments.fault_injection import forkserver, namespaces

_PACKET, _IGNORE_OUTGOING, _VNET_HDR = 263, 23, 15
_RECEIVE_BUFFER, _ALL_PROTOCOLS = 33, 3
_HEADER, _MOST_BYTES = 10, 2**17
"""Of virtio's header before each frame, which carries its offloads, and of both together."""
_BUFFER = 2**23
_SECONDS = 30.0
LINK = "eth0"
"""A host's own end of its link to the hub."""


@dataclass(frozen=True)
class Weather:
    """What happens to a frame on its way.

    Attributes:
        delay: seconds on its way.
        loss: the probability that it is lost.
        cut: the hosts to and from which nothing comes.
    """

    delay: float = 0.0
    loss: float = 0.0
    cut: tuple[int, ...] = ()


FAIR = Weather()


class Wire(NamedTuple):
    """The wire, by what it is made, and how its weather is set: once that returns, it is so."""

    kind: str
    set: Callable[[Weather], None]

    @contextlib.contextmanager
    def under(self, weather: Weather) -> Iterator[None]:
        """Inside, the weather is this; afterwards fair."""
        self.set(weather)
        try:
            yield
        finally:
            self.set(FAIR)


def hardware_address(index: int) -> str:
    """That of a host's own end of its link."""
    return f"02:00:00:00:00:{index:02x}"


def port_of(index: int) -> str:
    """The hub's end of a host's link."""
    return f"port{index}"


def targets_of(frame: bytes, source: int, num: int) -> list[int]:
    """The hosts for which a frame, without virtio's header, is.

    >>> targets_of(bytes.fromhex("020000000002") + bytes(8), 0, 4), targets_of(bytes([255] * 6), 1, 3)
    ([2], [0, 2])
    """
    if frame[:5] == b"\x02\x00\x00\x00\x00":
        return [frame[5]] if frame[5] < num and frame[5] != source else []
    return [index for index in range(num) if index != source]


class Relay:
    """Frames on their way, in the order in which they are due."""

    def __init__(self, num: int, rng: random.Random) -> None:
        self.weather, self._num, self._rng = FAIR, num, rng
        self._order, self._underway = itertools.count(), list[tuple[float, int, int, int, bytes]]()

    def take(self, frame: bytes, source: int, now: float) -> None:
        """Takes a frame, with virtio's header, from a host."""
        for target in targets_of(frame[_HEADER:], source, self._num):
            if self._rng.random() >= self.weather.loss:
                due = now + self.weather.delay
                heapq.heappush(self._underway, (due, next(self._order), source, target, frame))

    def due(self, now: float) -> list[tuple[int, bytes]]:
        """The frames that arrive now, with the host at which each does."""
        arrived = []
        while self._underway and self._underway[0][0] <= now:
            _, _, source, target, frame = heapq.heappop(self._underway)
            if not {source, target} & set(self.weather.cut):
                arrived.append((target, frame))
        return arrived

    def wait(self, now: float) -> float | None:
        """Seconds until the next frame is due; None where there is none."""
        return max(0.0, self._underway[0][0] - now) if self._underway else None


def _socket_on(port: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(_PACKET, _VNET_HDR, 1)
    opened.setsockopt(_PACKET, _IGNORE_OUTGOING, 1)
    for option in (_RECEIVE_BUFFER, socket.SO_SNDBUF):
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    opened.bind((port, _ALL_PROTOCOLS))
    opened.setblocking(False)
    return opened


def _forward(relay: Relay, ports: Sequence[socket.socket]) -> None:
    for target, frame in relay.due(time.monotonic()):
        with contextlib.suppress(OSError):  # a full queue, or a link that is down: lost, as on a wire
            ports[target].send(frame)


def _take(relay: Relay, port: socket.socket, source: int) -> None:
    for _ in range(64):
        try:
            frame = port.recv(_MOST_BYTES)
        except OSError:
            return
        relay.take(frame, source, time.monotonic())


def _relay(hub: str, num: int, seed: int, orders: Connection) -> None:
    """Carries frames between the hub's ports, until the pipe of orders is closed."""
    namespaces.end_with_parent()
    namespaces.enter_network(hub)
    ports = [_socket_on(port_of(index)) for index in range(num)]
    numbers: dict[Any, int] = {port: index for index, port in enumerate(ports)}
    relay = Relay(num, random.Random(seed))
    orders.send(None)
    while True:
        ready, _, _ = select.select([*ports, orders], [], [], relay.wait(time.monotonic()))
        if orders in ready:
            try:
                relay.weather = orders.recv()
            except (EOFError, OSError):
                return
            orders.send(None)
        for port in ready:
            if port in numbers:
                _take(relay, port, numbers[port])
        _forward(relay, ports)


@contextlib.contextmanager
def _relayed(hub: str, num: int, seed: int) -> Iterator[Wire]:
    context = forkserver.context()
    ours, its = context.Pipe()
    process = context.Process(target=_relay, args=(hub, num, seed, its), daemon=True)
    process.start()
    its.close()

    def answered() -> None:
        if not ours.poll(_SECONDS):
            raise UserError(f"the relay between the hosts does not answer (exit code {process.exitcode})")
        try:
            ours.recv()
        except EOFError:
            raise UserError(f"the relay between the hosts ended (exit code {process.exitcode})") from None

    def order(weather: Weather) -> None:
        ours.send(weather)
        answered()

    try:
        answered()
        yield Wire("relay", order)
    finally:
        ours.close()
        process.join(_SECONDS)
        process.kill()


def netem_words(weather: Weather, index: int) -> list[str]:
    """What tc is told of a host's port, or of its own end of the link.

    >>> netem_words(Weather(delay=0.2, loss=0.05), 0)
    ['netem', 'delay', '200ms', 'loss', '5%']
    >>> netem_words(Weather(cut=(1,)), 1)
    ['netem', 'delay', '0ms', 'loss', '100%']
    """
    loss = 1.0 if index in weather.cut else weather.loss
    return ["netem", "delay", f"{1000 * weather.delay:.0f}ms", "loss", f"{100 * loss:g}%"]


def _tc(network: str, *words: str) -> int:
    done = subprocess.run(["ip", "netns", "exec", network, "tc", *words], capture_output=True, timeout=_SECONDS)
    return done.returncode


def has_netem(network: str) -> bool:
    """Whether the kernel can delay and lose frames itself, tried on a namespace's loopback."""
    try:
        return _tc(network, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms") == 0
    except OSError:
        return False


@contextlib.contextmanager
def _bridged(hub: str, networks: Sequence[str]) -> Iterator[Wire]:
    """The hub's ports joined by a bridge, with netem on each; a host that is cut off sends nothing, either."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", "-n", hub, "link", *words], check=True, timeout=_SECONDS)

    ip("add", "bridge", "type", "bridge")
    ip("set", "bridge", "up")
    for index in range(len(networks)):
        ip("set", port_of(index), "master", "bridge")

    def order(weather: Weather) -> None:
        for index, network in enumerate(networks):
            _tc(hub, "qdisc", "replace", "dev", port_of(index), "root", *netem_words(weather, index))
            own = Weather(cut=weather.cut)
            _tc(network, "qdisc", "replace", "dev", LINK, "root", *netem_words(own, index))

    yield Wire("netem", order)


@contextlib.contextmanager
def between(hub: str, networks: Sequence[str], seed: int) -> Iterator[Wire]:
    """The wire between hosts whose links end in the hub's namespace."""
    with _bridged(hub, networks) if has_netem(hub) else _relayed(hub, len(networks), seed) as made:
        yield made
