"""Runs that go on with other numbers of hosts and devices, and how far their ends are from one that never moved."""

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optax

from cfgjax.checkpoints.save import read_each
from cfgjax.checkpoints.trees import flatten_with_names, places, stored
from cfgjax.types import TrainState
from experiments.config.schema import Experiment
from experiments.fault_injection import loopback, phases
from experiments.fault_injection.differences import apart, differences
from experiments.fault_injection.loopback import Hosts
from experiments.run import fit, nonfinite, train_setup
from experiments.run import folder as run_folder
from experiments.runtime.signals import StoppedError

HOSTS = Hosts(2, 2), Hosts(1, 4), Hosts(4, 1), Hosts(1, 1)
PLACEMENTS = "replicated", "sharded"
MOST = 1e-5
"""Relative difference that rounding may make."""
NUM_STEPS, STOPPED_AFTER = 40, 17
SMALL = (
    *("--network.width=128", "--network.depth=1", "--network.embedding-width=8", f"--num-steps={NUM_STEPS}"),
    *("--batch-size=32", "--num-microbatches=1", "--save-every=10", "--log-every=1", "--optimizer.warmup-steps=5"),
    *("--optimizer.average-widths", "0.05", "0.1", "--sampling.num-steps=4", "--sampling.num-per-class=4"),
    *("--sampling.scales", "0", "2"),
)
"""A run of seconds, with further EMAs."""


class Place(NamedTuple):
    """Where a run lies: on which hosts, and how its state lies on them."""

    hosts: Hosts
    placement: str

    def __str__(self) -> str:
        return f"{self.hosts} {self.placement}"


class Difference(NamedTuple):
    """How far a moved run's end is from that of one that never moved: the largest relative differences.

    Attributes:
        start: where it was stopped.
        end: where it went on.
        losses: of losses, gradient norms and held-out losses, line by line.
        state: of the arrays of the last state, each by its largest number.
        shards: of what the devices of all processes hold of it, likewise.
        averages: of the snapshots of further EMAs.
        report: of the numbers of metrics.json.
    """

    start: Place
    end: Place
    losses: float
    state: float
    shards: float
    averages: float
    report: float

    @property
    def largest(self) -> float:
        """The largest of them."""
        return max(value for value in self if isinstance(value, float))


class _Prepared(NamedTuple):
    """What is changed in a process of a run before its command begins."""

    folder: Path
    uses_sgd: bool
    stop: phases.Signal | None = None

    def __call__(self, index: int) -> None:
        """Takes SGD for AdamW if asked to, and compares at the end what the devices hold with what was saved."""
        if self.uses_sgd:
            train_setup.optimizer_of = sgd
        training: Any = fit
        advance = training.advance

        def compared(trainer: Any, *args: Any) -> Any:
            state = advance(trainer, *args)
            found = _shards_against(run_folder.checkpoints_of(trainer.experiment.run_dir), state)
            (self.folder / f"shards.{index}").write_text(json.dumps(found))
            return state

        training.advance = compared
        if self.stop is not None:
            self.stop(index)


def sgd(experiment: Experiment, frozen: Any = None) -> optax.GradientTransformation:
    """SGD with momentum by the run's schedule: AdamW makes as much of a gradient that is rounding as of any other."""
    rate = train_setup.schedule_of(experiment)
    return nonfinite.skipping(optax.sgd(rate, momentum=0.9))


def _shards_against(folder: Path, state: TrainState) -> float:
    """The largest difference of what a device of this process holds of a state from what is saved of it."""
    read = dict(read_each(folder.absolute() / str(int(state.step)) / "state"))
    tree = stored(state)
    leaves, where = flatten_with_names(tree), places(tree)
    return max(
        apart(shard.data, read[where[name]][shard.index])
        for name, leaf in leaves.items()
        for shard in leaf.addressable_shards
    )


class Elastic:
    """Runs of one command in a folder of their own, on hosts that are processes of this machine.

    Args:
        out: the folder, new or empty.
        preset: a preset of ``experiments.train`` and settings that are not those of SMALL.
        uses_sgd: in the place of AdamW.
    """

    def __init__(self, out: Path, preset: Sequence[str] = ("mixture",), uses_sgd: bool = True) -> None:
        self._out, self._arguments, self._uses_sgd = out, (*preset[:1], *SMALL, *preset[1:]), uses_sgd
        run_folder.make_folder("out", out)
        self._unmoved = out / "unmoved"
        self._run(Place(Hosts(1, 1), "replicated"), self._unmoved)

    def _run(self, place: Place, run_dir: Path, stop: phases.Signal | None = None) -> None:
        arguments = (*self._arguments, "--run-dir", str(run_dir), "--placement", place.placement)
        expected = 0 if stop is None else StoppedError.exit_code
        prepared = _Prepared(self._out, self._uses_sgd, stop)
        loopback.run(place.hosts, arguments, self._out / f"{run_dir.name}.log", expected, prepared)

    def stopped(self, start: Place) -> Path:
        """The folder of a run that one of its processes, the last, was asked to stop on its way; made once."""
        run_dir = self._out / str(start).replace(" ", "-")
        if not run_dir.exists():
            last = start.hosts.num_processes - 1
            self._run(start, run_dir, phases.Signal("step", STOPPED_AFTER, (last,)))
        return run_dir

    def moved(self, start: Place, end: Place) -> Difference:
        """How far the end of a run that was moved from one place to another is from that of one that was not.

        Raises:
            UserError: one of its processes does not end as it should.
        """
        run_dir = self._out / f"{start}-to-{end}".replace(" ", "-")
        shutil.copytree(self.stopped(start), run_dir)
        self._run(end, run_dir)
        shards = [self._out / f"shards.{index}" for index in range(end.hosts.num_processes)]
        found = differences(run_dir, self._unmoved)
        shutil.rmtree(run_dir)
        return Difference(start, end, shards=max(json.loads(file.read_text()) for file in shards), **found)


def pairs() -> Iterator[tuple[Place, Place]]:
    """Every pair of hosts in both directions, with every pair of placements, but for those that move nothing."""
    places = [Place(hosts, placement) for hosts in HOSTS for placement in PLACEMENTS]
    return itertools.permutations(places, 2)


def all_moves(out: Path, preset: Sequence[str] = ("mixture",), uses_sgd: bool = True) -> Iterator[Difference]:
    """The differences of all pairs, one after another."""
    runs = Elastic(out, preset, uses_sgd)
    return (runs.moved(start, end) for start, end in pairs())
