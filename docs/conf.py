"""Settings of the documentation, which `make docs` builds with warnings as errors."""

import ast
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

import bayesphase

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

project = "bayesphase"
author = "the bayesphase authors"
version = release = bayesphase.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
]
html_theme = "pydata_sphinx_theme"
html_title = "bayesphase"
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "footer_start": [], "footer_end": []}
PAGES = ("choosing", "figures", "coming_from", "statistics", "glossary", "architecture")
html_sidebars = {page: [] for page in PAGES}
html_math_renderer = "mathml"
# names in single backticks are code, as in the docstrings of NumPy
default_role = "code"
exclude_patterns = ["_build", "generated/modules.md"]
myst_enable_extensions = ["dollarmath"]
# `make notebooks` has run them; pages are made of its copies, with their outputs
nb_execution_mode = "off"
nb_merge_streams = True
numpydoc_show_class_members = False
autodoc_typehints = "none"
# callbacks are made from classes of trainers, which need not be there
autodoc_mock_imports = ["lightning", "transformers"]


def executed_notebooks() -> None:
    """Copy the executed notebooks to where pages are looked for."""
    executed = sorted((ROOT / "build" / "notebooks").glob("*.ipynb"))
    if not executed:
        raise FileNotFoundError(
            "there is no executed notebook in build/notebooks: `make docs` runs them before"
        )
    for source in executed:
        shutil.copyfile(source, DOCS / "notebooks" / source.name)


def list_of_modules() -> None:
    """Write what each file of the package is, in the words of the file itself."""
    lines = []
    package = ROOT / "bayesphase"
    folders = sorted({path.parent for path in package.rglob("*.py")})
    for folder in folders:
        lines += ["", f"### {folder.relative_to(ROOT).as_posix()}/", "", "| | |", "|---|---|"]
        for path in sorted(folder.glob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            first = docstring.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            lines.append(f"| `{path.name}` | {first} |")
    (DOCS / "generated").mkdir(exist_ok=True)
    (DOCS / "generated" / "modules.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def formula(translator: Any, node: nodes.Element, display: str) -> None:
    """Write a formula as MathML, which browsers show by themselves, also without a network."""
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Make what pages are made of."""
    executed_notebooks()
    list_of_modules()
    app.add_html_math_renderer(
        "mathml",
        (partial(formula, display="inline"), None),
        (partial(formula, display="block"), None),
    )
