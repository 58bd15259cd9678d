"""Where the processes of a bench of hosts are forked from: what they import is imported once, before they are."""

import multiprocessing
from multiprocessing.context import ForkServerContext

COMMAND = "experiments.train"
"""The command that hosts run."""


def context() -> ForkServerContext:
    """The context of all processes; it must be asked for the first of them, with which the server starts."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["experiments.fault_injection.cluster", COMMAND])
    return made
