"""Whether networks take the fastest kernels, or those that have every derivative.

cuDNN's flash attention has derivatives of reverse mode and first order (``jax.grad``, ``jax.vjp``). JAX 0.10.2 refuses
those of forward mode (``jax.jvp``, ``jax.jacfwd``), and those of reverse mode along several directions at once
(``jax.jacrev``), each with a TypeError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

_ARE_PLAIN = jax.make_user_context(default_value=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Inside, networks are traced with kernels that have derivatives of every mode and order, without flash attention.

    What is traced inside is compiled apart from what is traced outside. ``likelihood.exact_divergence`` is within it
    by itself.

    >>> from cfgjax.models.attention import attention
    >>> tokens = jax.numpy.ones((4, 2, 8))
    >>> with plain():
    ...     value, slope = jax.jvp(lambda x: attention(x, x, x), (tokens,), (tokens,))
    """
    with _ARE_PLAIN(True):
        yield


def are_plain() -> bool:
    """Whether what is traced now is within ``plain``."""
    return bool(_ARE_PLAIN.value)
