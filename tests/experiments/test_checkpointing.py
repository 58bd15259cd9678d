"""What a save leaves behind in the process."""

import dataclasses
import gc
import subprocess
import sys

import pytest
import tensorstore

from experiments.presets.registry import PRESETS
from experiments.run.checkpointing import Saver
from experiments.run.fit import prepare
from experiments.run.tensorstore_counters import COUNTERS

LEAK = f"""
import gc
import tensorstore

place = {{"driver": "zarr", "kvstore": "memory://", "metadata": {{"shape": [1], "dtype": "<f4"}}}}
tensorstore.open(place, create=True).result()[...] = 1.0

def collected():
    tensorstore.{COUNTERS}("/tensorstore/")
    gc.collect()
    return len(gc.get_objects())

before = collected()
print([collected() for _ in range(20)][-1] - before)
"""


def test_tensorstore_s_counters_are_still_never_freed():
    """Once they are, saving need not take them from Orbax any more."""
    done = subprocess.run([sys.executable, "-c", LEAK], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 20


@pytest.mark.slow
def test_saves_leave_next_to_nothing(tmp_path, monkeypatch):
    """Lists above all: 26 a save with the counters, two without."""
    monkeypatch.setattr(tensorstore, COUNTERS, getattr(tensorstore, COUNTERS))
    experiment = dataclasses.replace(PRESETS["mixture"][1], run_dir=tmp_path)
    trainer, lists = prepare(experiment), []
    with Saver(experiment, None, None) as saver:
        for step in range(6):
            saver.save(trainer.state._replace(step=trainer.state.step + step))
            saver.wait()
            gc.collect()
            lists.append(sum(type(each) is list for each in gc.get_objects()))
    assert lists[-1] - lists[2] <= 3 * 4
