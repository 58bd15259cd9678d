"""What labels are called: by the names that their data set tells, or by their numbers."""

from collections.abc import Sequence

from experiments.cli.main import UserError
from experiments.config.values import LONGEST_NAME, MOST_NAMES


def numbers_of(num_classes: int) -> tuple[str, ...]:
    """The labels' numbers as text.

    >>> numbers_of(3)
    ('0', '1', '2')
    """
    return tuple(map(str, range(num_classes)))


def ranges(labels: Sequence[int], most: int = 8) -> str:
    """Labels in order as text, neighbours together.

    >>> ranges((0, 27, 28, 29, 36))
    '0, 27..29, 36'
    """
    runs: list[list[int]] = []
    for label in labels:
        if runs and label == runs[-1][1] + 1:
            runs[-1][1] = label
        else:
            runs.append([label, label])
    texts = [str(first) if first == last else f"{first}..{last}" for first, last in runs]
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")


def said_of_absent(absent: Sequence[int], num_classes: int) -> str:
    """The message where some labels have no training example."""
    return (
        f"warning: {len(absent)} of {num_classes} labels have no training example: {ranges(absent)}; they are not "
        "learned, and are left out of samples and measures"
    )


def names_to_tell(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The labels' names, where they say more than their numbers, print, and fit a config in number and length."""
    if names is None or len(names) > MOST_NAMES or names == numbers_of(len(names)):
        return None
    return names if all(name.isprintable() and len(name) <= LONGEST_NAME for name in names) else None


def _by_word(names: tuple[str, ...]) -> dict[str, int]:
    """The labels by what they may be called: name, number, and null; numbers that are names are no other's numbers.

    >>> _by_word(("cat", "dog"))
    {'null': 2, '0': 0, '1': 1, '2': 2, 'cat': 0, 'dog': 1}
    >>> _by_word(("1", "10", "2"))
    {'null': 3, '1': 0, '10': 1, '2': 2}
    """
    null = len(names)
    are_other = names != numbers_of(null) and any(name.isdecimal() for name in names)
    numbers = {} if are_other else {str(y): y for y in range(null + 1)}
    return {"null": null} | numbers | dict(zip(names, range(null), strict=True))


def _allowed(names: tuple[str, ...], known: dict[str, int]) -> str:
    """What a label may be called, for a message."""
    null, some = len(names), ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    if names == numbers_of(null):
        return f"in 0..{null} ({null} is null)"
    has_numbers = known.get(str(null)) == null
    return f"one of {some}, or in 0..{null} ({null} is null)" if has_numbers else f"one of {some}, or null"


def labels_called(option: str, words: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
    """The labels that an option calls by number or by name, of labels of these names.

    Raises:
        UserError: a word that calls none, with those that do.
    """
    known = _by_word(names) if words else {}
    for word in words:
        if word not in known:
            raise UserError(f"{option} must be {_allowed(names, known)}, got {word}")
    return [known[word] for word in words]
