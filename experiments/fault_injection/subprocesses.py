"""Lives of a short run, each in a process of its own, to be disturbed."""

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
from experiments.config.schema import Experiment, MLPNetwork
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


def _live(experiment: Experiment, log: Path) -> None:
    """One life of a run, in a process of its own."""
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
    """A life of the experiment's run, which appends what it says to the log."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    life = context.Process(target=_live, args=(experiment, log))
    life.start()
    return life


def send(life: BaseProcess, number: signal.Signals) -> None:
    """Sends a signal to a life that has not ended."""
    if life.is_alive() and life.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(life.pid, number)


def await_owner(run_dir: Path, life: BaseProcess) -> None:
    """Waits until the life owns its folder."""
    lock = run_dir / run_lock.NAME
    while life.is_alive():
        with contextlib.suppress(OSError):
            if f"pid={life.pid}\n" in lock.read_text():
                return
        time.sleep(0.005)
