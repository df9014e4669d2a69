"""Text that is there wherever Python is: the docstrings of its standard library."""

from __future__ import annotations

import ast
import hashlib
import platform
import sys
import sysconfig
from pathlib import Path

import numpy as np


def docstrings(folder: Path | None = None) -> bytes:
    """Read the docstrings of the modules of the standard library, in the order of their names.

    Only modules that are one file and have a public name count; those of a package do not. Sources
    are parsed, never imported or run. Another version of Python has other docstrings: what depends
    on the text should say which it was, as `describe` does.

    Parameters
    ----------
    folder : Path, optional
        Where the modules are; by default where this Python has them.

    Returns
    -------
    bytes
        UTF-8, a blank line between two docstrings.

    Raises
    ------
    FileNotFoundError
        If there are no sources, as in a Python that has only compiled files.
    """
    folder = folder or Path(sysconfig.get_path("stdlib"))
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
    paths = [folder / f"{name}.py" for name in names]
    found = [
        text
        for path in paths
        if path.exists()
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (text := ast.get_docstring(node))
    ]
    if not found:
        raise FileNotFoundError(
            f"there are no docstrings in {str(folder)!r}: this Python comes without the sources of "
            "its standard library, use another to train language models"
        )
    return "\n\n".join(found).encode()


def describe(text: bytes) -> str:
    """Say of which Python a text is, and give the hash that tells it from others."""
    digest = hashlib.sha256(text).hexdigest()
    return f"docstrings of Python {platform.python_version()}, SHA-256 {digest}"


def cut(text: bytes, *, length: int, n: int, split_seed: int) -> np.ndarray:
    """Cut a text into pieces that do not overlap, and choose some in random order.

    Parameters
    ----------
    text : bytes
    length : int
        Bytes of a piece.
    n : int
        Pieces to choose.
    split_seed : int
        Chooses them.

    Returns
    -------
    ndarray of int64
        Shape (piece, byte).

    Raises
    ------
    ValueError
        If the text has fewer pieces.
    """
    n_pieces = len(text) // length
    if n > n_pieces:
        raise ValueError(
            f"n_examples is {n}, expected at most {n_pieces}, the examples of {length} bytes that "
            f"the {len(text)} bytes of text make"
        )
    pieces = np.frombuffer(text, np.uint8)[: n_pieces * length].reshape(n_pieces, length)
    order = np.random.default_rng(split_seed).permutation(n_pieces)[:n]
    return pieces[order].astype(np.int64)
