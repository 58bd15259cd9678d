"""Memory that a thread took and freed stays with the process until it is trimmed."""

import os
import subprocess
import sys

import pytest

from experiments.cli import malloc
from tests.support.commands import SMALL, command

TAKEN = 128
PROGRAM = f"""
import threading
import psutil
from experiments.cli import malloc

def resident():
    return psutil.Process().memory_info().rss / 2**20

def take():
    blocks = [bytearray(b"1" * 2**20) for _ in range({TAKEN})]
    kept.extend(bytearray(100) for _ in range(100))  # above the blocks, so that they are not the end of the heap
    del blocks

kept = []
assert malloc.tune()
before = resident()
thread = threading.Thread(target=take)
thread.start()
thread.join()
held = resident()
assert malloc.trim()
print(held - before, resident() - before)
"""


ARENAS = """
import ctypes
import threading
from experiments.cli import malloc

assert malloc.tune()
libc = ctypes.CDLL("libc.so.6")
libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
libc.fclose.argtypes = (ctypes.c_void_p,)
barrier = threading.Barrier({num_threads})

def take():
    block = bytearray(10_000)
    barrier.wait()

threads = [threading.Thread(target=take) for _ in range({num_threads})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
stream = libc.fopen(b"{file}", b"w")
libc.malloc_info(0, stream)
libc.fclose(stream)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize("asked", [None, 1])
def test_there_are_as_many_arenas_as_processors_or_as_asked_for(asked, tmp_path, monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    if asked is not None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", str(asked))
    program = ARENAS.format(file=tmp_path / "arenas.xml", num_threads=3 * os.cpu_count())
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "arenas.xml").read_text().count("<heap nr=") == (asked or os.cpu_count())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_until_it_is_trimmed():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    held, left = map(float, done.stdout.split())
    assert held > 0.9 * TAKEN
    assert left < 0.1 * TAKEN


def test_an_allocator_that_is_to_be_left_alone_is(monkeypatch):
    monkeypatch.setenv("CFGJAX_TUNE_ALLOCATOR", "0")
    assert not malloc.tune()
    assert not malloc.trim()


@pytest.mark.slow
def test_the_copies_of_each_checkpoint_are_given_back(tmp_path, monkeypatch):
    trimmed = []
    monkeypatch.setattr(malloc, "trim", lambda: trimmed.append(True))
    done = command("train", "mixture", "--run-dir", tmp_path / "run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert len(trimmed) == 4  # the saves at steps 10, 20, 30 and 40
