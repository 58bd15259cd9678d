"""The C allocator's thresholds: on a CPU, large blocks are kept instead of given back to the kernel at every call.

glibc returns a large block as soon as it is freed, and the next step pays for its pages again. The environment
variable CFGJAX_TUNE_ALLOCATOR=0 leaves the allocator as it is.

Blocks are kept by an arena for each group of threads. There are as many as processors instead of glibc's eight times as
many: what each has held at some time it may hold again, and over hours the process grows towards the sum.
MALLOC_ARENA_MAX asks for another number. What is rare and large, a copy of the state on its way to a checkpoint, would
stay in each arena that once held one; ``trim`` gives it back.
"""

import ctypes
import os
from collections.abc import Callable

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_MOST = 2**31 - 1


def _of_glibc(name: str) -> Callable[..., int] | None:
    """The C library's function, where the library is glibc and may be tuned."""
    if os.environ.get("CFGJAX_TUNE_ALLOCATOR", "1") == "0":
        return None
    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None


def tune() -> bool:
    """Sets the thresholds of this process, where its C library is glibc; whether it did."""
    mallopt = _of_glibc("mallopt")
    settings = [(_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, 64 * 2**20)]
    if "MALLOC_ARENA_MAX" not in os.environ:
        settings.append((_ARENA_MAX, os.cpu_count() or 1))
    return mallopt is not None and all(mallopt(*pair) for pair in settings)


def trim() -> bool:
    """Gives the pages of all free blocks back to the kernel, where the C library is glibc; whether there were any."""
    malloc_trim = _of_glibc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))
