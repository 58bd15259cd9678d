"""Subprocesses of a short run, to be disturbed."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from cfgjax.checkpoints import CheckpointError
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.networks import MLPNetwork
from experiments.config.schema import Experiment
from experiments.presets.registry import PRESETS
from experiments.run import lock as run_lock
from experiments.run.fit import fit
from experiments.runtime.signals import StoppedError

NUM_STEPS, SAVE_EVERY = 400, 20


def experiment_of(run_dir: Path) -> Experiment:
    """The mixture, shrunk to seconds, with a save every SAVE_EVERY steps."""
    network = MLPNetwork(width=32, depth=2, embedding_width=16)
    return replace(
        PRESETS["mixture"][1],
        run_dir=run_dir, network=network, num_steps=NUM_STEPS, batch_size=32, save_every=SAVE_EVERY, log_every=10,
    )  # fmt: skip


def _train(experiment: Experiment, log: Path) -> None:
    """Trains the run, in a subprocess."""
    sys.stdout = sys.stderr = log.open("a", buffering=1)
    os.dup2(sys.stderr.fileno(), 2)
    try:
        cli.quiet_background()
        fit(experiment)
    except StoppedError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None
    except (UserError, CheckpointError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


def start(experiment: Experiment, log: Path) -> BaseProcess:
    """A subprocess of the experiment's run, which appends its messages to the log."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_train, args=(experiment, log))
    process.start()
    return process


def send(process: BaseProcess, number: signal.Signals) -> None:
    """Sends a signal to a process that has not ended."""
    if process.is_alive() and process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def await_owner(run_dir: Path, process: BaseProcess) -> None:
    """Waits until the process owns its folder."""
    lock = run_dir / run_lock.NAME
    while process.is_alive():
        with contextlib.suppress(OSError):
            if f"pid={process.pid}\n" in lock.read_text():
                return
        time.sleep(0.005)
