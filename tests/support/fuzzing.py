"""Mutations of files: removed, cut, or with bytes changed; how many are tried, FUZZ_EXAMPLES multiplies."""

import os

import hypothesis
from hypothesis import strategies

TIMES = int(os.environ.get("FUZZ_EXAMPLES", "1"))


def tries(count):
    """So many mutations, the same ones every time."""
    quiet = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
    return hypothesis.settings(
        max_examples=count * TIMES, derandomize=True, deadline=None, database=None, suppress_health_check=quiet
    )


@strategies.composite
def mutations(draw, content):
    """The content cut off, lengthened, or with one to four bytes changed, put in, or taken out."""
    kind = draw(strategies.sampled_from(["change", "cut", "insert", "remove", "append"]))
    if kind == "cut":
        return content[: draw(strategies.integers(0, len(content) - 1))]
    if kind == "append":
        return content + draw(strategies.binary(min_size=1, max_size=40))
    changed = bytearray(content)
    for _ in range(draw(strategies.integers(1, 4))):
        place = draw(strategies.integers(0, max(0, len(changed) - 1)))
        if kind == "remove":
            del changed[place]
        elif kind == "insert":
            changed.insert(place, draw(strategies.integers(0, 255)))
        else:
            changed[place] ^= draw(strategies.integers(1, 255))
    return bytes(changed)
