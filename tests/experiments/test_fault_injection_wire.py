"""The wire between hosts: frames by hand through the relay, and TCP between two namespaces."""

import multiprocessing
import random
import socket
import threading
import time

import pytest

from experiments.fault_injection import hosts, namespaces, wire
from experiments.fault_injection.wire import FAIR, Weather

_SECONDS = 60
_MEGABYTE = random.Random(0).randbytes(2**20)


def _frame(source, target):
    to = b"\xff" * 6 if target is None else bytes.fromhex(wire.hardware_address(target).replace(":", ""))
    return bytes(10) + to + bytes.fromhex(wire.hardware_address(source).replace(":", "")) + b"payload"


def _arrived(relay, now):
    return [target for target, _ in relay.due(now)]


def test_a_frame_arrives_where_it_is_sent_once_it_is_due():
    relay = wire.Relay(3, random.Random(0))
    relay.weather = Weather(delay=0.2)
    relay.take(_frame(0, 2), 0, 1.0)
    assert relay.wait(1.05) == pytest.approx(0.15)
    assert _arrived(relay, 1.19) == []
    assert relay.due(1.21) == [(2, _frame(0, 2))]
    assert relay.wait(1.21) is None


def test_a_frame_for_all_arrives_at_all_others():
    relay = wire.Relay(4, random.Random(0))
    relay.take(_frame(1, None), 1, 0.0)
    assert sorted(_arrived(relay, 0.0)) == [0, 2, 3]


def test_nothing_comes_to_or_from_a_host_that_is_cut_off_and_frames_underway_are_lost():
    relay = wire.Relay(3, random.Random(0))
    relay.weather = Weather(delay=0.2)
    relay.take(_frame(0, 1), 0, 0.0)
    relay.weather = Weather(cut=(1,))
    for source, target in ((0, 1), (1, 2), (0, 2)):
        relay.take(_frame(source, target), source, 0.1)
    assert _arrived(relay, 1.0) == [2]
    relay.weather = FAIR
    relay.take(_frame(0, 1), 0, 2.0)
    assert _arrived(relay, 2.0) == [1]


def test_the_share_of_lost_frames_is_as_given():
    relay, num = wire.Relay(2, random.Random(0)), 4_000
    relay.weather = Weather(loss=0.05)
    for _ in range(num):
        relay.take(_frame(0, 1), 0, 0.0)
    lost = num - len(relay.due(0.0))
    assert abs(lost - 0.05 * num) < 4 * (0.05 * 0.95 * num) ** 0.5


def _serve(network, content, ready):
    """Echoes a byte, then sends what there is, then says how much of one byte a message comes back."""
    namespaces.enter_network(network)
    with socket.create_server(("0.0.0.0", 7001)) as server:
        server.settimeout(_SECONDS)
        ready.send(None)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(_SECONDS)
            connection.sendall(connection.recv(1))
            connection.recv(1)
            connection.sendall(content)
            while byte := connection.recv(1):
                connection.sendall(byte)


@pytest.fixture
def two(tmp_path):
    """The wire between two hosts, and a connection from the first to a server on the second."""
    why = hosts.why_not()
    if why:
        pytest.skip(why)
    with hosts.namespaces(2, tmp_path, 0) as made:
        ours, its = multiprocessing.Pipe()
        first, second = made.each
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=_serve, args=(second.place.network, _MEGABYTE, its), daemon=True)
        process.start()
        assert ours.poll(_SECONDS)
        connected = []
        thread = threading.Thread(target=lambda: connected.append(_connect(first.place.network, second.address)))
        thread.start()
        thread.join(_SECONDS)
        with connected[0] as connection:
            yield made.wire, connection
        process.kill()
        process.join(_SECONDS)


def _connect(network, address):
    """A connection from inside a namespace; its thread stays there."""
    namespaces.enter_network(network)
    connection = socket.create_connection((address, 7001), timeout=_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def test_what_the_wire_does_to_tcp(two):
    """A round trip under a delay, a megabyte under loss, nothing from a host cut off, all of it once it is back."""
    between, connection = two
    with between.under(Weather(delay=0.2)):
        start = time.monotonic()
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        assert time.monotonic() - start >= 0.4
    with between.under(Weather(loss=0.05)):
        connection.sendall(b"b")
        received = b""
        while len(received) < len(_MEGABYTE):
            part = connection.recv(2**16)
            assert part
            received += part
        assert received == _MEGABYTE
    with between.under(Weather(cut=(1,))):
        connection.sendall(b"c")
        connection.settimeout(1.0)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    connection.settimeout(_SECONDS)
    assert connection.recv(1) == b"c"
