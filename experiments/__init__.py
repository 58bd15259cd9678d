"""Commands to run from a clone: python -m experiments lists them."""

import os

from experiments.cli import compilation_cache, malloc

os.environ["JAX_DEFAULT_PRNG_IMPL"] = "threefry2x32"  # of others, samples of a batch would share their draws
malloc.tune()
compilation_cache.enable()
