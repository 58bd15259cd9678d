"""The C allocator's thresholds: on a CPU, large blocks are kept instead of given back to the kernel at every call.

glibc returns a large block as soon as it is freed, and the next step pays for its pages again. The environment
variable CFGJAX_TUNE_ALLOCATOR=0 leaves the allocator as it is.
"""

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_MOST = 2**31 - 1


def tune() -> bool:
    """Sets the thresholds of this process, where its C library is glibc; whether it did."""
    if os.environ.get("CFGJAX_TUNE_ALLOCATOR", "1") == "0":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(*pair) for pair in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, 64 * 2**20)))
