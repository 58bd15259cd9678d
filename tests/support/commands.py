"""Running the commands: inside this process, or in one of their own."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from typing import NamedTuple

SHORT = [
    "--num-steps=40", "--batch-size=32", "--num-microbatches=1", "--save-every=10", "--log-every=5",
    "--sampling.num-steps=4", "--sampling.num-per-class=3", "--sampling.scales", "0", "2",
]  # fmt: skip
SMALL = ["--network.width=16", "--network.depth=1", "--network.embedding-width=8", *SHORT]
"""A preset of the MLP, shrunk to seconds."""

SMALL_DIT = ["--network.width=16", "--network.depth=1", "--network.num-heads=2", *SHORT]
SMALL_UNET = ["--network.width=8", "--network.multipliers", "1", "1", "--network.blocks-per-level=1", *SHORT]
SMALLER = {
    "digits": SMALL, "mixture": SMALL, "fashion_mnist": SMALL_DIT, "fashion_mnist_classifier": SMALL_UNET,
    "fashion_mnist_gpu": [*SMALL_UNET, "--network.attention", "14", "--network.dtype=float32"],
}  # fmt: skip
"""The presets that the tests run, each shrunk to seconds."""


class Finished(NamedTuple):
    """What a command left: its exit code and its two streams."""

    returncode: int
    stdout: str
    stderr: str


def command(module, *arguments):
    """The command run inside this process, on the tests' eight devices."""
    out, err, hook = io.StringIO(), io.StringIO(), sys.unraisablehook
    found = importlib.import_module(f"experiments.{module}")
    main = importlib.import_module(f"{found.__name__}.__main__").main if hasattr(found, "__path__") else found.main
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.unraisablehook = hook
    return Finished(code, out.getvalue(), err.getvalue())


def start(module, *arguments, num_devices=1):
    """The command started in a process of its own, on its own number of devices."""
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(num_devices), "PJRT_NPROC": "16", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    """What a started command left."""
    out, err = process.communicate(timeout=900)
    return Finished(process.returncode, out, err)


def assert_one_line(done, expected):
    """The command ended with exit code 2 and one line that says ``expected``."""
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
