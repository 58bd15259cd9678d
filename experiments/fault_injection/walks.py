"""Runs that are stopped at every phase, and runs that move between numbers of hosts and devices, as tables."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

from experiments.cli import main as cli
from experiments.fault_injection import elastic
from experiments.fault_injection.loopback import Hosts
from experiments.fault_injection.signals_of_hosts import Stops, in_turn
from experiments.run import folder as run_folder

_SIGNAL_HEADS = "phase", "signal", "to", "exit codes", "saved step"
_MOVE_HEADS = "from", "to", "step", "losses", "state", "shards", "snapshots"


def _row(words: tuple[object, ...]) -> None:
    cli.print_result(f"| {' | '.join(map(str, words))} |")


def _head(words: tuple[str, ...]) -> None:
    _row(words)
    cli.print_result(f"|{'---|' * len(words)}")


def signals(out: Path, hosts: Hosts, times: int, on_fault: Callable[[], object]) -> None:
    """Signals at every phase of a run in turn, by turns to each of the processes and to all; prints what came of them.

    Raises:
        UserError: processes that do not all stop, a saved step that is lost, or an end that is another.
    """
    stops, to = Stops(out / "signals", hosts), [*((index,) for index in range(hosts.num_processes)), None]
    rounds = (in_turn(each) for each in itertools.cycle(to))
    left = times
    _head(_SIGNAL_HEADS)
    for number, sent in enumerate(rounds):
        if left <= 0:
            break
        for stop in stops.all(sent[:left], f"stopped-{number}"):
            whom = "all" if stop.sent.to is None else ", ".join(map(str, stop.sent.to))
            _row((stop.sent.phase, stop.sent.sent.name, whom, stop.codes, stop.saved))
            on_fault()
        left -= len(sent)


def moves(out: Path, on_move: Callable[[], object]) -> None:
    """A run that goes on at every place from every other one; prints how far it is from one that never moved.

    Raises:
        UserError: processes that do not end as they should, or a result that is another.
    """
    found = []
    _head(_MOVE_HEADS)
    for move in elastic.all_moves(out / "moves"):
        start = "(its first start)" if move.start is None else move.start
        apart = move.losses, move.state, move.shards, move.averages
        _row((start, move.end, move.step, *(f"{each:.1e}" for each in apart)))
        found.append(move)
        on_move()
    rows = [{**move._asdict(), "start": str(move.start), "end": str(move.end)} for move in found]
    run_folder.write_atomically(out / "moves.json", json.dumps(rows, indent=2) + "\n")
    worst = max(found, key=lambda move: move.largest)
    if not worst.largest <= elastic.MOST:
        raise cli.UserError(f"{worst.start} to {worst.end} differs by {worst.largest:.1e}; see {out / 'moves.json'}")
