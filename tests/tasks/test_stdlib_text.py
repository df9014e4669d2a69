"""Text from the sources of Python: which docstrings, in which order, cut into which pieces."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from bayesphase.tasks.stdlib_text import cut, describe, docstrings

MODULE = '''"""Module."""
raise SystemExit("it is never run")
class A:
    """A class:

    indented.
    """
    x = "no docstring"
    def f(self):
        """Method é."""
async def g(): "Coroutine."
def h(): return "no docstring"
'''


def test_docstrings_of_public_modules_in_order(tmp_path: Path) -> None:
    (tmp_path / "string.py").write_text('"""Later."""')
    (tmp_path / "abc.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "_weakrefset.py").write_text('"""Private."""')
    (tmp_path / "not_of_python.py").write_text('"""Other."""')
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "__init__.py").write_text('"""A package."""')
    text = docstrings(tmp_path).decode()
    parts = text.split("\n\n")
    assert parts[0] == "Module."
    assert parts[-1] == "Later."
    assert "A class:\n\nindented." in text
    assert {"Method é.", "Coroutine."} < set(parts)
    for left_out in ("no docstring", "Private", "Other", "package"):
        assert left_out not in text


def test_this_python_has_much_text() -> None:
    text = docstrings()
    assert len(text) > 400_000
    assert b"fnmatch" in text
    about = describe(text)
    assert about.startswith(f"docstrings of Python {sys.version_info.major}.")
    assert about.endswith(hashlib.sha256(text).hexdigest())


def test_no_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no docstrings in .* without the sources"):
        docstrings(tmp_path)


def test_pieces_do_not_overlap() -> None:
    text = bytes(range(100))
    pieces = cut(text, length=7, n=14, split_seed=0)
    assert pieces.shape == (14, 7)
    assert pieces.dtype == np.int64
    assert (pieces[:, 0] % 7 == 0).all()
    assert (np.diff(pieces, axis=1) == 1).all()
    assert sorted(pieces.ravel()) == list(range(98))
    np.testing.assert_array_equal(cut(text, length=7, n=5, split_seed=0), pieces[:5])
    assert not np.array_equal(cut(text, length=7, n=14, split_seed=1), pieces)


def test_more_pieces_than_there_are() -> None:
    with pytest.raises(ValueError, match="n_examples is 15, expected at most 14"):
        cut(bytes(100), length=7, n=15, split_seed=0)
