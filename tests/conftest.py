"""Kernels compiled for these tests are kept by the checksum of all their sources.

Numba keeps compiled code on disk and looks at the file of a function only: it goes on running a
kernel into which an older version of another file's has been put.
"""

import os
from pathlib import Path
from zlib import crc32

_ROOT = Path(__file__).parents[1]
_SOURCES = sorted((_ROOT / "bayesphase" / "model").glob("*.py"))
_KERNELS = b"".join(text for text in (p.read_bytes() for p in _SOURCES) if b"simd" in text)
os.environ.setdefault("NUMBA_CACHE_DIR", str(_ROOT / "build" / f"numba-{crc32(_KERNELS):08x}"))
