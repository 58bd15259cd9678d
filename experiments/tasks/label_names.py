"""What labels are called: by the names that their data set tells, or by their numbers."""

from collections.abc import Sequence

from experiments.config.schema import LONGEST_NAME, MOST_NAMES


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


def labels_by_word(names: tuple[str, ...]) -> dict[str, int]:
    """The labels by what they may be called: name, number, and null; numbers that are names are no other's numbers.

    >>> labels_by_word(("cat", "dog"))
    {'null': 2, '0': 0, '1': 1, '2': 2, 'cat': 0, 'dog': 1}
    >>> labels_by_word(("1", "10", "2"))
    {'null': 3, '1': 0, '10': 1, '2': 2}
    """
    null = len(names)
    are_other = names != numbers_of(null) and any(name.isdecimal() for name in names)
    numbers = {} if are_other else {str(y): y for y in range(null + 1)}
    return {"null": null} | numbers | dict(zip(names, range(null), strict=True))


def allowed(names: tuple[str, ...], known: dict[str, int]) -> str:
    """What a label may be called, for a message."""
    null, some = len(names), ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    if names == numbers_of(null):
        return f"in 0..{null} ({null} is null)"
    has_numbers = known.get(str(null)) == null
    return f"one of {some}, or in 0..{null} ({null} is null)" if has_numbers else f"one of {some}, or null"
