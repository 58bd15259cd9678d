"""What the processes of a command say of themselves every second, and what is made of their silence.

All times are seconds for which the judge itself was awake: a process that was stopped for an hour and goes on does not
take the others for dead, and clocks of two hosts are never compared.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

INTERVAL = 1.0
"""Seconds between two beats."""
SUSPECTED = 5.0
"""Seconds of silence of which a process is held to be dead once a collective of another one broke: five beats."""
GRACE = 5.0
"""Seconds that processes have to end by themselves, where all of them met the same."""
PASSED_ON = 2, 3, 75
"""Exit codes of one process that become those of all: a mistake, a run that diverged, one that was asked to stop."""
FAILED = 76
"""EX_PROTOCOL of sysexits.h: another process failed."""


@dataclass
class Beat:
    """What a process says of itself.

    Attributes:
        host: its name.
        count: how many beats it has sent.
        doing: what it does.
        saved: the step of the newest checkpoint that it knows to be published.
        broken: what its collective ended with, where that is the doing of another process.
        broken_for: seconds since then.
        code: its exit code, once it ends.
        message: what it ends with; with FAILED the whole line.
        figures: of its own, see ``peers.report``.
    """

    host: str
    count: int = 0
    doing: str = "starting"
    saved: int | None = None
    broken: str = ""
    broken_for: float = 0.0
    code: int | None = None
    message: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The beat as it travels."""
        return json.dumps(asdict(self))


def beat_of(text: str) -> Beat:
    """The beat that was sent."""
    return Beat(**json.loads(text))


class Heard(NamedTuple):
    """What is heard of a process.

    Attributes:
        beat: its newest one.
        silence: seconds for which that has been the newest.
        same_for: seconds for which the process has been doing the same.
    """

    beat: Beat
    silence: float
    same_for: float = 0.0

    def followed_by(self, beat: Beat) -> "Heard":
        """What is heard once a beat came, which may be the same one again."""
        if beat.count == self.beat.count:
            return self
        return Heard(beat, 0.0, self.same_for if beat.doing == self.beat.doing else 0.0)

    def later(self, seconds: float) -> "Heard":
        """What is heard after so many seconds more without a beat."""
        return Heard(self.beat, self.silence + seconds, self.same_for + seconds)


class Verdict(NamedTuple):
    """How all processes end.

    Attributes:
        code: exit code.
        line: which process is the cause, what it last did, and what to start again.
        is_met_by_all: whether each process may have met the same, and ends by itself then.
    """

    code: int
    line: str
    is_met_by_all: bool = False


def name(index: int, host: str) -> str:
    """A process as messages name it.

    >>> name(2, "host-c")
    'process 2 on host-c'
    """
    return f"process {index} on {host}" if host else f"process {index}"


def advice(beats: Sequence[Beat]) -> str:
    """What to start again, and from where it goes on."""
    steps = [beat.saved for beat in beats if beat.saved is not None]
    where = f"step {max(steps)} or later" if steps else "if there is one"
    return f"start the same command on all processes again: a training goes on from its newest checkpoint, {where}"


def failure(index: int, beats: Sequence[Beat], what: str) -> Verdict:
    """The verdict that a process is the cause."""
    beat = beats[index]
    line = f"{name(index, beat.host)} {what}; it last did: {beat.doing}; {advice(beats)}"
    return Verdict(FAILED, line)


def _ended(index: int, beats: Sequence[Beat]) -> Verdict:
    beat = beats[index]
    if beat.code == FAILED:
        return Verdict(FAILED, beat.message, is_met_by_all=True)
    if beat.code in PASSED_ON:
        return Verdict(beat.code or FAILED, f"{name(index, beat.host)}: {beat.message}", is_met_by_all=True)
    return failure(index, beats, f"failed: {beat.message}")._replace(is_met_by_all=True)


def silent_for(seconds: float) -> str:
    """How a silent process is told of."""
    return f"has not been heard for {seconds:.0f} s"


def _stuck(heard: Sequence[Heard], stuck: float) -> int | None:
    """The process that has been doing the same for longest, beyond so many seconds, while others do something else."""
    index = max(range(len(heard)), key=lambda each: heard[each].same_for)
    is_alone = any(each.beat.doing != heard[index].beat.doing for each in heard)
    return index if is_alone and heard[index].same_for > stuck and heard[index].beat.code is None else None


def judge(heard: Sequence[Heard], limit: float, stuck: float = math.inf) -> Verdict | None:
    """How all processes end, None while all is well.

    Args:
        heard: of every process.
        limit: seconds of silence after which one is held to be dead, or cut off.
        stuck: seconds for which one may do the same while others do something else.
    """
    beats = [each.beat for each in heard]
    for index, beat in enumerate(beats):
        if beat.code:
            return _ended(index, beats)
    broken = [index for index, beat in enumerate(beats) if beat.broken]
    longest = max(range(len(heard)), key=lambda index: heard[index].silence * (beats[index].code is None))
    is_open = beats[longest].code is None
    if is_open and heard[longest].silence > (min(limit, SUSPECTED) if broken else limit):
        return failure(longest, beats, silent_for(heard[longest].silence))
    for index in broken:
        if beats[index].broken_for > limit:
            return failure(index, beats, f"lost the others, who are heard: {beats[index].broken}")
    index = _stuck(heard, stuck)
    return None if index is None else failure(index, beats, f"has been at it for {heard[index].same_for:.0f} s")


def are_all_done(heard: Sequence[Heard]) -> bool:
    """Whether every process has done its work."""
    return all(each.beat.code == 0 for each in heard)
