"""What pictures say for labels: their names as a font can draw them, and the room that these take."""

from collections.abc import Sequence
from functools import cache

_LONGEST = 30
"""Letters of a label on an axis."""


@cache
def _letters() -> frozenset[int]:
    """The letters of the font that pictures are drawn with."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    return frozenset(font.get_charmap())


def as_drawn(y: int, label: str) -> str:
    """What an axis says for a label: its name, cut and no mathematics; its number where the font cannot draw it.

    >>> as_drawn(0, "banknotes of five and of ten dollars"), as_drawn(1, "\u732b")
    ('banknotes of five and of te...', '1')
    """
    if not label.isprintable() or not _letters().issuperset(map(ord, label)):
        return str(y)
    short = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 3]}..."
    return short.replace("$", r"\$")


def all_drawn(labels: Sequence[str]) -> list[str]:
    """What an axis says for each label, from 0."""
    return [as_drawn(y, label) for y, label in enumerate(labels)]


def room_for(labels: Sequence[str]) -> float:
    """The inches that the labels take beyond those of one letter."""
    return 0.08 * (max(map(len, all_drawn(labels))) - 1)


def in_legend(y: int, label: str) -> str:
    """The label's number, and its name if it has one: a legend leaves out what begins with an underscore."""
    drawn = as_drawn(y, label)
    return drawn if drawn == str(y) else f"{y} {drawn}"
