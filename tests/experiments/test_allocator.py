"""Memory that a thread took and freed stays with the process until it is trimmed."""

import subprocess
import sys

import pytest

from experiments import allocator
from tests.experiments.running import SMALL, command

TAKEN = 128
PROGRAM = f"""
import threading
import psutil
from experiments import allocator

def resident():
    return psutil.Process().memory_info().rss / 2**20

def take():
    blocks = [bytearray(b"1" * 2**20) for _ in range({TAKEN})]
    kept.extend(bytearray(100) for _ in range(100))  # above the blocks, so that they are not the end of the heap
    del blocks

kept = []
assert allocator.tune()
before = resident()
thread = threading.Thread(target=take)
thread.start()
thread.join()
held = resident()
assert allocator.trim()
print(held - before, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_until_it_is_trimmed():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    held, left = map(float, done.stdout.split())
    assert held > 0.9 * TAKEN
    assert left < 0.1 * TAKEN


def test_an_allocator_that_is_to_be_left_alone_is(monkeypatch):
    monkeypatch.setenv("CFGJAX_TUNE_ALLOCATOR", "0")
    assert not allocator.tune()
    assert not allocator.trim()


@pytest.mark.slow
def test_the_copies_of_each_checkpoint_are_given_back(tmp_path, monkeypatch):
    trimmed = []
    monkeypatch.setattr(allocator, "trim", lambda: trimmed.append(True))
    done = command("train", "mixture", "--run-dir", tmp_path / "run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(trimmed) == 4  # the saves at steps 10, 20, 30 and 40
