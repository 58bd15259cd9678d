"""A program for tests: experiments.train as one of several processes, whose data can be slow.

python -m tests.support.slow_host CORE FLAG ARGUMENTS: on one core only, or on all for -1; each batch takes as many
seconds more as the file FLAG says, for as long as there is one.
"""

import contextlib
import dataclasses
import os
import sys
import time
from pathlib import Path


def _slow(batches, flag):
    def slow_batches(steps):
        for batch in batches(steps):
            with contextlib.suppress(OSError, ValueError):
                time.sleep(float(flag.read_text()))
            yield batch

    return slow_batches


def main(core, flag, arguments):
    """Trains in this process."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    from experiments import train
    from experiments.run import fit

    advance = fit.advance

    def slow(trainer, *rest):
        task = dataclasses.replace(trainer.task, batches=_slow(trainer.task.batches, flag))
        return advance(trainer._replace(task=task), *rest)

    fit.advance = slow
    train.main(arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
