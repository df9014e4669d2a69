"""Data flows down the house and never back up; what is heavy or unsafe stays where it belongs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bayesphase"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# What each part of the house may import of the others. Parts that pass data on as xarray objects
# need not know each other: `model` takes features from anywhere, `analysis` a fit from a file; it
# asks `model` only for densities that are not in the fit.
MAY_USE = {
    "_checks": set(),
    "_compat": set(),
    "_storage": set(),
    "contract": set(),
    "dataset": {"_storage", "contract"},
    "combine": {"contract", "dataset"},
    "findings": {"contract", "recording", "views"},
    "inspection": {"_storage", "dataset", "findings"},
    "results": {"_storage"},
    "recording": {"_storage", "combine", "contract", "dataset"},
    "views": {"_checks", "dataset"},
    "model": {"_checks", "_compat"},
    "analysis": {"_checks", "model"},
    "plots": {"analysis"},
    "reporting": {"views", "analysis", "plots"},
    "tasks": {"recording", "combine", "dataset"},
    "tables": set(),
    "demo": {"bayesphase"},
    "cli": {"_storage", "bayesphase", "recording", "reporting", "demo", "tables", "tasks"},
}
# Where a library that is heavy, or that does one job, may be imported.
ONLY_IN = {
    "torch": {"recording", "tasks"},
    "transformers": {"recording", "tasks"},
    "lightning": {"recording"},
    "tensorboard": {"recording"},
    "pyarrow": {"recording"},
    "safetensors": {"recording"},
    "pymc": {"model"},
    "pytensor": {"model"},
    "nutpie": {"model"},
    "numba": {"model"},
    "llvmlite": {"model"},
    # for its pool of processes, and to count cores; its pickles are not for files
    "joblib": {"_checks", "recording", "model"},
    "sklearn": {"tasks", "views"},
    "arviz_stats": {"analysis"},
    "matplotlib": {"demo", "plots"},
    "bokeh": {"reporting"},
    "jinja2": {"reporting"},
    "markupsafe": {"reporting"},
    "typer": {"cli"},
    "rich": {"cli", "recording", "demo", "model", "tables"},
}
# A network is a class and needs torch to be defined; nothing imports these modules but to train.
TORCH_AT_THE_TOP = {
    f"tasks/{name}.py"
    for name in (
        *("training", "networks", "modular_addition", "sparse_parity"),
        *("image_classification", "language_model"),
    )
}
# A callback is a class of a trainer's; nothing imports these but to train with that.
WITH_A_TRAINER = {"recording/callbacks/huggingface.py", "recording/callbacks/lightning.py"}
UNSAFE = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"), filename=module)


def part(module: str) -> str:
    """Name the part of the house that a file belongs to: "model" for "model/fit.py"."""
    return module.split("/")[0].removesuffix(".py")


def imported(nodes: ast.AST) -> Iterator[str]:
    """Yield the dotted names that are imported, anywhere below a node."""
    for node in ast.walk(nodes):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write relative imports out"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_the_top(module: str) -> set[str]:
    """Libraries that importing the module imports: not in functions, nor for type checkers."""
    found = set()
    waiting: list[ast.AST] = list(tree(module).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {name.split(".")[0] for name in imported(node)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def parts_used(module: str) -> set[str]:
    """Parts of the house that a file imports; "bayesphase" for public names at the root."""
    used = set()
    for name in imported(tree(module)):
        if name == "bayesphase" or name.startswith("bayesphase."):
            below = f"{name}.".split(".")[1]
            used.add(below if below in MAY_USE else "bayesphase")
    if root_names(module) <= {"__version__"}:
        used.discard("bayesphase")
    return used - {part(module)}


def root_names(module: str) -> set[str]:
    """Names that a file takes from the root of the package: `bp.fit`, or `__version__`."""
    aliases, names = set(), set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            aliases |= {a.asname or a.name for a in node.names if a.name == "bayesphase"}
        elif isinstance(node, ast.ImportFrom) and node.module == "bayesphase":
            names |= {a.name for a in node.names if a.name not in MAY_USE}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
            names.add(node.attr)
    return names


def test_every_part_of_the_house_has_its_rule() -> None:
    assert {part(module) for module in MODULES} - {"__init__"} == set(MAY_USE), (
        "say in MAY_USE what a new part may import of the others"
    )


def test_the_rules_let_nothing_flow_back_up() -> None:
    rules = {name: used - {"bayesphase"} for name, used in MAY_USE.items()}
    while rules:
        lowest = {name for name, used in rules.items() if not used}
        assert lowest, f"parts that lead back to themselves are among {sorted(rules)}"
        rules = {name: used - lowest for name, used in rules.items() if name not in lowest}


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__init__.py"])
def test_data_flows_down(module: str) -> None:
    above = parts_used(module) - MAY_USE[part(module)]
    assert not above, f"{module} must not import {sorted(above)}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_stay_where_they_belong(library: str) -> None:
    users = {m for m in MODULES if library in {name.split(".")[0] for name in imported(tree(m))}}
    assert users, f"nothing imports {library} any more: drop its rule"
    strays = {m for m in users if part(m) not in ONLY_IN[library]}
    assert not strays, f"{library} belongs to {sorted(ONLY_IN[library])}, not to {sorted(strays)}"


def test_torch_is_imported_when_it_is_needed() -> None:
    at_the_top = {module for module in MODULES if "torch" in imported_at_the_top(module)}
    assert at_the_top == TORCH_AT_THE_TOP


def test_libraries_that_need_not_be_there_are_imported_when_they_are_needed() -> None:
    optional = {"accelerate", "bokeh", "jinja2", "lightning", "markupsafe", "pyarrow"}
    optional |= {"pytorch_lightning", "tensorboard", "transformers"}
    at_the_top = {module for module in MODULES if optional & imported_at_the_top(module)}
    assert at_the_top == WITH_A_TRAINER


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_pickled(module: str) -> None:
    assert not {name.split(".")[0] for name in imported(tree(module))} & UNSAFE


@pytest.mark.parametrize("module", MODULES)
def test_no_figure_is_shown(module: str) -> None:
    calls = [node for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
    shown = [c.lineno for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "show"]
    assert not shown, f"{module} shows a figure in lines {shown}: return it"


def test_only_the_root_imports_by_name() -> None:
    users = {m for m in MODULES if any("import_module" in name for name in imported(tree(m)))}
    assert users == {"__init__.py"}


def in_a_new_process(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_quick() -> None:
    heavy = {"torch", "pymc", "pytensor", "nutpie", "numba", "matplotlib", "sklearn", "xarray"}
    code = f"import sys, bayesphase; print(sorted({heavy} & set(sys.modules)))"
    assert in_a_new_process(code).strip() == "[]"


def test_a_worker_that_measures_starts_without_tables() -> None:
    code = "import sys, bayesphase.recording.measure; print('xarray' in sys.modules)"
    assert in_a_new_process(code).strip() == "False"


def test_tables_and_figures_of_a_saved_fit_need_no_sampler() -> None:
    code = (
        "import sys, bayesphase.results, bayesphase.views, bayesphase.plots\n"
        "import bayesphase.analysis.diagnostics, bayesphase.analysis.compare\n"
        "import bayesphase.analysis.kfold, bayesphase.analysis.lfo, bayesphase.analysis.modes\n"
        "import bayesphase.analysis.pseudo_residuals, bayesphase.analysis.checks\n"
        "import bayesphase.analysis.forecast_scores\n"
        "print(sorted({'torch', 'pymc', 'pytensor', 'nutpie', 'numba'} & set(sys.modules)))"
    )
    assert in_a_new_process(code).strip() == "[]"


def test_all_but_training_works_without_torch() -> None:
    names = [
        ".".join(["bayesphase", *Path(module).with_suffix("").parts]).removesuffix(".__init__")
        for module in MODULES
        if module not in TORCH_AT_THE_TOP | WITH_A_TRAINER
    ]
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from importlib import import_module\n"
        f"for name in {names}: import_module(name)\n"
        "import bayesphase\n"
        "for name in bayesphase.__all__: getattr(bayesphase, name)"
    )
    in_a_new_process(code)
