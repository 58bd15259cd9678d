"""A run that goes on with other numbers of hosts and devices again and again, beside one that never moves."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optax

from cfgjax import checkpoints
from cfgjax.checkpoints.trees import flatten_with_names, places, stored
from cfgjax.types import TrainState
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.fault_injection import differences, loopback, phases
from experiments.fault_injection.loopback import Hosts
from experiments.run import checkpointing, nonfinite, train_setup
from experiments.run import folder as run_folder
from experiments.runtime.distributed import LAG
from experiments.runtime.signals import StoppedError

HOSTS = Hosts(2, 2), Hosts(1, 4), Hosts(4, 1), Hosts(1, 1)
PLACEMENTS = "replicated", "sharded"
MOST = 1e-5
"""Relative difference that rounding may make."""
STEPS = LAG + 1
"""From one move to the next: so many are done once a signal came with the first."""
SMALL = (
    *("--network.width=128", "--network.depth=1", "--network.embedding-width=8", "--batch-size=32"),
    *("--num-microbatches=1", f"--save-every={STEPS}", "--log-every=1", "--optimizer.warmup-steps=1"),
    *("--optimizer.average-widths", "0.05", "0.1", "--sampling.num-steps=4", "--sampling.num-per-class=4"),
    *("--sampling.scales", "2"),
)
"""A run of seconds, with further EMAs, and arrays large enough to be sharded."""
_UNMOVED = Hosts(1, 1)


class Place(NamedTuple):
    """Where a run lies: on which hosts, and how its state lies on them."""

    hosts: Hosts
    placement: str

    def __str__(self) -> str:
        return f"{self.hosts} {self.placement}"


class Move(NamedTuple):
    """A move of a run, and how far it is from one that never moved, when it has gone on: relative differences.

    Attributes:
        start: where it was, None at its first start.
        end: where it went on.
        step: the step at which they are compared.
        losses: of losses, gradient norms and held-out losses, line by line.
        state: of what is saved: parameters, optimizer, EMA; each array by its largest number.
        shards: of what the devices of all processes hold from what is saved, likewise.
        averages: of the snapshots of further EMAs.
    """

    start: Place | None
    end: Place
    step: int
    losses: float
    state: float
    shards: float
    averages: float

    @property
    def largest(self) -> float:
        """The largest difference."""
        return max(self.losses, self.state, self.shards, self.averages)


class _Prepared(NamedTuple):
    """What is changed in a process of a run before its command begins."""

    run_dir: Path
    uses_sgd: bool
    stop: phases.Signal | None = None

    def __call__(self, index: int) -> None:
        """Takes SGD for AdamW if asked to, and compares what the devices hold with what is saved when it ends."""
        if self.uses_sgd:
            train_setup.optimizer_of = sgd
        saver: Any = checkpointing.Saver
        finish, run_dir = saver.finish, self.run_dir

        def compared(self: Any, state: TrainState, *args: Any) -> None:
            finish(self, state, *args)
            _shards_file(run_dir, index).write_text(json.dumps(_shards_apart(run_dir, state)))

        saver.finish = compared
        if self.stop is not None:
            self.stop(index)


def sgd(experiment: Experiment, frozen: Any = None) -> optax.GradientTransformation:
    """SGD with momentum by the run's schedule: AdamW makes as much of a gradient that is rounding as of any other."""
    return nonfinite.skipping(optax.sgd(train_setup.schedule_of(experiment), momentum=0.9))


def _shards_file(run_dir: Path, index: int) -> Path:
    return run_dir.with_name(f"{run_dir.name}.shards.{index}")


def _shards_apart(run_dir: Path, state: TrainState) -> float:
    """The largest difference of what a device of this process holds of a state from what is saved of it."""
    tree = stored(state)
    read, leaves, where = differences.state_at(run_dir, int(state.step)), flatten_with_names(tree), places(tree)
    pairs = ((shard, read[where[name]]) for name, leaf in leaves.items() for shard in leaf.addressable_shards)
    return max(differences.apart(shard.data, array[shard.index]) for shard, array in pairs)


def every_move(among: Sequence[Place]) -> list[Place]:
    """A walk that goes once from each place to each other one, and ends where it began.

    >>> every_move("abc")
    ['a', 'b', 'a', 'c', 'b', 'c', 'a']
    """
    left, way, walk = {place: [each for each in among if each != place] for place in among}, [among[0]], []
    while way:  # Hierholzer's: the complete graph in both directions has such a walk
        onward = left[way[-1]]
        if onward:
            way.append(onward.pop(0))
        else:
            walk.append(way.pop())
    return walk[::-1]


ALL_PLACES = [Place(hosts, placement) for hosts in HOSTS for placement in PLACEMENTS]


class Elastic:
    """One run that moves and one that does not, of the same command, on hosts that are processes of this machine.

    Args:
        out: the folder, new or empty.
        walk: the places at which the moving run is started, one after another.
        preset: a preset of ``experiments.train`` and settings beside SMALL.
        uses_sgd: in the place of AdamW.

    Raises:
        UserError: a run whose processes do not all end as they should, in ``moves``, too.
    """

    def __init__(
        self, out: Path, walk: Sequence[Place], preset: Sequence[str] = ("mixture",), uses_sgd: bool = True
    ) -> None:
        self._out, self._walk, self._uses_sgd = out, walk, uses_sgd
        self._arguments = *preset[:1], *SMALL, f"--num-steps={STEPS * len(walk)}", *preset[1:]
        self._unmoved, self._moved = out / "unmoved", out / "moved"
        run_folder.make_folder("out", out)
        arguments = (*self._arguments, "--run-dir", str(self._unmoved), f"--keep.last={len(walk)}")
        loopback.run(_UNMOVED, arguments, out / "unmoved.log", 0, _Prepared(self._unmoved, uses_sgd))

    def moves(self) -> Iterator[Move]:
        """The moves, one after another; the last start lets the run end, with its report."""
        for index, end in enumerate(self._walk):
            is_last = index == len(self._walk) - 1
            self._go_on(end, is_last)
            step = checkpoints.latest_step(run_folder.checkpoints_of(self._moved)) or 0
            if step != STEPS * (index + 1):
                raise UserError(f"{end}: saved step {step}, expected {STEPS * (index + 1)}; see {self._out}")
            yield self._compared(self._walk[index - 1] if index else None, end, step)

    def _go_on(self, place: Place, is_last: bool) -> None:
        """Starts the run at a place, and asks its last process to stop with the first step that is not too early."""
        hosts, first = place.hosts, 1 if place.hosts.num_processes > 1 else STEPS
        stop = None if is_last else phases.Signal("step", first, (hosts.num_processes - 1,))
        arguments = (*self._arguments, "--run-dir", str(self._moved), "--placement", place.placement)
        expected = 0 if is_last else StoppedError.exit_code
        loopback.run(hosts, arguments, self._out / "moved.log", expected, _Prepared(self._moved, self._uses_sgd, stop))

    def _compared(self, start: Place | None, end: Place, step: int) -> Move:
        shards = [_shards_file(self._moved, index) for index in range(end.hosts.num_processes)]
        return Move(
            start,
            end,
            step,
            losses=differences.losses(self._moved, self._unmoved, step),
            state=differences.states(self._moved, self._unmoved, step),
            shards=max(json.loads(file.read_text()) for file in shards),
            averages=differences.averages(self._moved, self._unmoved, step),
        )

    def reports_apart(self) -> float:
        """The largest relative difference of the two runs' reports, once both have ended."""
        return differences.reports(self._moved, self._unmoved)


def all_moves(out: Path, preset: Sequence[str] = ("mixture",), uses_sgd: bool = True) -> Iterator[Move]:
    """Every pair of ALL_PLACES in both directions, one move after another of one run.

    Raises:
        UserError: processes that do not end as they should, or, at the end, a report that is another.
    """
    runs = Elastic(out, every_move(ALL_PLACES), preset, uses_sgd)
    yield from runs.moves()
    apart = runs.reports_apart()
    if apart > MOST:
        raise UserError(f"the report of a run that was moved differs by {apart:.1e}; see {out}")
