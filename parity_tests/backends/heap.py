"""Memory for full-size nets: what is freed stays with the process.

glibc maps every array above 32 MB anew and returns it when it is freed, and the kernel fills each
page with zeros on first use. VGG16 at 224×224 makes thousands of such arrays, and half of the time
went into that.
"""

from __future__ import annotations

import ctypes

# https://man7.org/linux/man-pages/man3/mallopt.3.html
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let no array be mapped by itself, nor the heap shrink; whether the C library could."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
