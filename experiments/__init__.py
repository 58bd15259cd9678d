"""Commands to run from a clone: python -m experiments lists them."""

import os

from experiments import allocator, compilations

os.environ["JAX_DEFAULT_PRNG_IMPL"] = "threefry2x32"  # of others, samples of a batch would share their draws
allocator.tune()
compilations.keep()
