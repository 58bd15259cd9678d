"""Classifier-free guidance for flow and diffusion models, as functions of one example.

Everything is written for one example; ``jax.vmap`` makes the batch, ``jax.pmap`` the devices, ``jax.lax.scan`` time.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from cfgjax.xla_flags import avoid_wrong_reductions

avoid_wrong_reductions()

try:
    __version__ = version("cfgjax")
except PackageNotFoundError:
    __version__ = "0+unknown"
