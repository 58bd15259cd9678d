"""The sharded step over two processes of two devices each: the numbers of one process, and no process holds all."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from cfgjax import training
from cfgjax.training import fsdp
from tests.training.test_training import _batch, _loss, _state

NUM_STEPS = 3


def _start():
    return _state(optax.sgd(0.1, momentum=0.5))


STARTS = {
    "fresh": _start,
    "replicated": lambda: fsdp.shard_state(_start(), least=10**6),
    "created": lambda: fsdp.init_state(_start, least=16),
}


def local_rows(batch, index):
    """The two rows of devices of a process, of the batch for four devices."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[2 * index : 2 * index + 2], training.shard(batch, 4))


def run(port, index, folder):
    """What one process does: three steps from the state given in one of three ways; its shards are written down."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(index))
    step = training.make_step(_loss, optax.sgd(0.1, momentum=0.5), 0.9, num_microbatches=2)
    advance = fsdp.fsdp(step, least=16)
    for start, make in STARTS.items():
        state = make()
        for number in range(NUM_STEPS):
            state, metrics = advance(state, local_rows(_batch(number), int(index)))
        assert not state.params["inner"].is_fully_addressable
        shards = {
            f"{name}-{number}": (np.asarray(shard.data), [[part.start or 0, part.stop or -1] for part in shard.index])
            for name, leaf in state.params.items()
            for number, shard in enumerate(leaf.addressable_shards)
        }
        values = {name: value for name, (value, _) in shards.items()}
        places = {f"{name}-place": np.asarray(place) for name, (_, place) in shards.items()}
        np.savez(f"{folder}/{start}-{index}.npz", loss=np.asarray(metrics["loss"]), **values, **places)


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """(F2) from a state on each process, replicated over both, or made on its shards."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    port = _free_port()
    code = "import sys; from tests.training.test_fsdp_processes import run; run(*sys.argv[1:])"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(port), str(index), str(tmp_path)], env=environment,
                         stderr=subprocess.PIPE, text=True)
        for index in range(2)
    ]  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    step, state = training.make_step(_loss, optax.sgd(0.1, momentum=0.5), 0.9), _start()
    for number in range(NUM_STEPS):
        state, metrics = jax.jit(step)(state, _batch(number))
    for name in STARTS:
        for index in range(2):
            _assert_parts(np.load(tmp_path / f"{name}-{index}.npz"), state.params, metrics)


def _assert_parts(found, params, metrics):
    np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=1e-5)
    for name, leaf in params.items():
        for number in range(2):
            value, place = found[f"{name}-{number}"], found[f"{name}-{number}-place"]
            part = tuple(slice(start, None if stop < 0 else stop) for start, stop in place)
            assert value.size == leaf.size // 4
            np.testing.assert_allclose(value, np.asarray(leaf)[part], atol=1e-5)
