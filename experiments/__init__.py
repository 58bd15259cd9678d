"""Commands to run from a clone: prepare, train, sample, evaluate, dryrun, gallery."""

from experiments import allocator

allocator.tune()
