"""Compiled kernels on disk: none may outlive a change of the sources.

Numba keeps a kernel under the file that it is written in and looks at that file only. It goes on
running code that it has put in from another file as that was before an update, or fails on a class
that has moved since.
"""

from pathlib import Path
from zlib import crc32

from numba.core import config
from numba.core.caching import _CacheLocator


def drop_older_kernels(folder: Path) -> int:
    """Delete the kernels kept for the sources in a folder if any of these has changed.

    Parameters
    ----------
    folder : Path
        With Python files; numba keeps their kernels in its ``__pycache__``, or in a folder of its
        own in ``NUMBA_CACHE_DIR``. Where that can't be written numba keeps them elsewhere, and
        nothing is done.

    Returns
    -------
    int
        Checksum of the sources.
    """
    checksum = crc32(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))))
    cache = folder / "__pycache__"
    if config.CACHE_DIR:
        name = _CacheLocator.get_suitable_cache_subpath(str(folder / "any.py"))
        cache = Path(config.CACHE_DIR, name)
    mark = cache / "kernels.crc"
    try:
        if not mark.exists() or mark.read_text() != str(checksum):
            cache.mkdir(parents=True, exist_ok=True)
            for kernel in cache.glob("*.nb[ic]"):
                kernel.unlink(missing_ok=True)
            mark.write_text(str(checksum))
    except OSError:  # a read-only installation
        pass
    return checksum
