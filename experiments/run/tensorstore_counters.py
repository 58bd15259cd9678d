"""tensorstore's counters, taken from Orbax: a patch of tensorstore for the whole process.

Orbax asks for them at every save, for a line of its log, and tensorstore never frees the values in what it gives: some
15 kB a save (tensorstore 0.1.86, Orbax 0.12.8).
"""

import tensorstore

COUNTERS = "experimental_collect_matching_metrics"
"""The function that gives them."""


def leave_out() -> None:
    """Puts a function that gives none in its place."""
    setattr(tensorstore, COUNTERS, lambda *_, **__: [])
