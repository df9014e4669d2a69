"""Kernels of an older version are never run."""

import subprocess
import sys
import textwrap

import pytest

from bayesphase.model.kept import drop_older_kernels


@pytest.fixture(autouse=True)
def _beside_the_sources(monkeypatch):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")


@pytest.fixture
def package(tmp_path):
    (tmp_path / "inner.py").write_text("inner")
    (tmp_path / "outer.py").write_text("outer")
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    for name in ("outer.f-1.py311.nbi", "outer.f-1.py311.1.nbc", "outer.cpython-311.pyc"):
        (cache / name).write_text(name)
    return tmp_path


def kept(package):
    return sorted(path.name for path in (package / "__pycache__").glob("outer*"))


def test_kernels_go_when_any_source_has_changed(package):
    first = drop_older_kernels(package)  # nobody knows what these were made of
    assert kept(package) == ["outer.cpython-311.pyc"]
    (package / "__pycache__" / "outer.f-1.py311.nbi").write_text("made of these sources")
    assert drop_older_kernels(package) == first
    assert len(kept(package)) == 2
    (package / "inner.py").write_text("another")
    assert drop_older_kernels(package) != first
    assert kept(package) == ["outer.cpython-311.pyc"]


def test_kernels_may_be_kept_elsewhere(package, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("kernels")
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(elsewhere))
    drop_older_kernels(package)
    (own,) = elsewhere.iterdir()
    others = elsewhere / "others" / "f.nbi"
    others.parent.mkdir()
    for path in (own / "f.nbi", others):
        path.write_text("made of these sources")
    drop_older_kernels(package)
    assert (own / "f.nbi").exists()
    (package / "inner.py").write_text("another")
    drop_older_kernels(package)
    assert not (own / "f.nbi").exists()
    assert others.exists()
    assert len(kept(package)) == 3


def test_there_may_be_no_cache_yet(tmp_path):
    (tmp_path / "one.py").write_text("one")
    assert drop_older_kernels(tmp_path) == drop_older_kernels(tmp_path)


def test_a_folder_that_can_not_be_written_is_left_alone(package, monkeypatch):
    def refuse(self, text):
        raise PermissionError(self)

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    assert isinstance(drop_older_kernels(package), int)


def test_numba_alone_would_go_on_with_the_older_kernel(tmp_path):
    """The reason for it all: a kernel holds the code of another file as that once was."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("import numba\n\n@numba.njit\ndef f():\n    return 1\n")
    outer = """
        import numba
        from package.inner import f

        @numba.njit(cache=True)
        def g():
            return f()
    """
    (package / "outer.py").write_text(textwrap.dedent(outer))
    ask = "import sys; from package.outer import g; print(g())"

    def answer():
        command = [sys.executable, "-c", ask]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout.strip()

    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    assert answer() == "1"
    (package / "inner.py").write_text("import numba\n\n@numba.njit\ndef f():\n    return 2\n")
    assert answer() == "1"  # if this fails numba has learned it, and `kept` can go
    drop_older_kernels(package)
    assert answer() == "2"
