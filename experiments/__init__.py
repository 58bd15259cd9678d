"""Commands to run from a clone: python -m experiments lists them."""

from experiments import allocator, compilations

allocator.tune()
compilations.keep()
