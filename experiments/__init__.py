"""Commands to run from a clone: prepare, train, sample, evaluate, dryrun, gallery, benchmark, and the laboratory's."""

from experiments import allocator, compilations

allocator.tune()
compilations.keep()
