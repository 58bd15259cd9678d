"""Words of the command line that give numbers by their names: weight=1.5,slant=0.2."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from cfgjax.conditions import Known
from cfgjax.data.latents import Spread
from experiments.cli.main import UserError
from experiments.tasks.conditions import Words, all_known


def parsed(option: str, word: str, names: Sequence[str], most: float) -> dict[str, float]:
    """The numbers that a word gives, by their names.

    Args:
        option: for a message.
        word: NAME=VALUE,...
        names: those that are known.
        most: the largest absolute value of a number.

    Raises:
        UserError: a name that is not known or given twice, or no number in range.
    """
    found: dict[str, float] = {}
    for one in word.split(","):
        name, _, value = (part.strip() for part in one.partition("="))
        if name not in names:
            raise UserError(f"{option} must be NAME=VALUE,... of {', '.join(names)}, got {one[:40]!r}")
        if name in found:
            raise UserError(f"{option} gives {name} twice: {word[:80]!r}")
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"{option} must give a number for {name}, got {value[:40]!r}") from None
        if not math.isfinite(found[name]) or abs(found[name]) > most:
            raise UserError(f"{option} must give a number in -{most:g}..{most:g} for {name}, got {value[:40]}")
    return found


def standardised(numbers: np.ndarray, spread: Spread) -> Known:
    """Numbers [n, k] in their own units as conditions."""
    return all_known(((numbers - spread.mean) / spread.deviation).astype(np.float32))


def reader_of(spread: Spread, names: Sequence[str], most: float) -> Callable[[str, Words], Known]:
    """What reads an option's words as conditions; a number that a word does not name is as on average."""

    def read(option: str, words: Words) -> Known:
        values = np.tile(spread.mean, (len(words), 1))
        for row, word in zip(values, words, strict=True):
            for name, value in parsed(option, word, names, most).items():
                row[names.index(name)] = value
        return standardised(values, spread)

    return read
