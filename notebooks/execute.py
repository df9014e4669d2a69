"""Run every notebook from start to end, as `make notebooks` does; anything wrong ends it.

Copies with their outputs are in build/notebooks then, which the documentation shows.

A notebook is stored without outputs and beside a script of the same name and the same cells, which
is what people read and compare (jupytext keeps the two in step).
"""

import shutil
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

FOLDER = Path(__file__).parent
EXECUTED = FOLDER.parent / "build" / "notebooks"
TIMEOUT = 600  # seconds, for one cell


def check_stored(path: Path) -> nbformat.NotebookNode:
    """Read a notebook that has no outputs and whose cells are those of its script.

    Raises
    ------
    ValueError
        If it is stored otherwise.
    """
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.get("outputs") or cell.get("execution_count"):
            raise ValueError(
                f"{path.name}: cell {number} is stored with outputs; make it anew with "
                f"`jupytext --to ipynb {path.with_suffix('.py').name}`"
            )
    script = path.with_suffix(".py")
    if not script.exists():
        raise ValueError(
            f"{path.name} has no script: `jupytext --set-formats ipynb,py:percent {path.name}`"
        )
    if cells(notebook) != cells(jupytext.read(script, fmt="py:percent")):
        raise ValueError(
            f"{path.name} and {script.name} differ: `jupytext --sync {path.name}` takes over the "
            f"cells of the one that was changed last"
        )
    return notebook


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Return what makes a notebook: the type and the text of its cells."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells, in this folder and with this Python; the outputs are in the notebook then."""
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources).execute()


def main() -> str | None:
    """Check and run them all; return what is wrong."""
    notebooks = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {Path(__file__).stem}
    if lonely := sorted(scripts - set(notebooks)):
        return f"scripts without a notebook: {lonely}; make them with `jupytext --to ipynb`"
    if not notebooks:
        return f"there is no notebook in {FOLDER}"
    shutil.rmtree(EXECUTED, ignore_errors=True)
    EXECUTED.mkdir(parents=True)
    for path in notebooks.values():
        start = time.perf_counter()
        try:
            notebook = check_stored(path)
            execute(notebook)
            nbformat.write(notebook, EXECUTED / path.name)
        except (ValueError, CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            return f"{path.name} failed:\n{error}"
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return None


if __name__ == "__main__":
    sys.exit(main())
