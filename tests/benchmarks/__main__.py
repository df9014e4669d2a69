"""The command line: which sections, which sizes, how long."""

from enum import StrEnum
from importlib import import_module
from platform import machine, python_version
from typing import Annotated

import typer

from tests.benchmarks.alone import TooLong
from tests.benchmarks.data import SIZES
from tests.benchmarks.peers import NEEDS, installed
from tests.benchmarks.report import Settings, complain, console

_MODULES = {
    "gradient": "gradient",
    "posterior": "posterior",
    "first-draw": "first_draw",
    "range": "selection",
    "after": "after",
    "scale": "scale",
    "collect": "collecting",
}
Section = StrEnum("Section", list(_MODULES))  # type: ignore[misc]


def main(
    sections: Annotated[list[Section] | None, typer.Argument(help="All by default.")] = None,
    sizes: Annotated[
        str | None, typer.Option(help=f"Some of {','.join(SIZES)}; each section has its own.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Kept draws a chain.")] = None,
    tune: Annotated[int | None, typer.Option(help="Tuning steps a chain.")] = None,
    chains: Annotated[int, typer.Option(help="Chains of a posterior.")] = 4,
    max_states: Annotated[int, typer.Option(help="The largest K of `range`.")] = 8,
    minutes: Annotated[float, typer.Option(help="Time limit for one posterior.")] = 10.0,
    seconds: Annotated[float, typer.Option(help="Timing of one gradient, about.")] = 2.0,
    compiled: Annotated[
        bool, typer.Option(help="Also bayesphase's models compiled by PyMC: slow to build.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the samplers.")] = 1,
) -> None:
    """Measure bayesphase against every installed peer, on this machine, now."""
    chosen = tuple(sizes.split(",")) if sizes else None
    unknown = sorted(set(chosen or ()) - set(SIZES))
    if unknown:
        raise typer.BadParameter(f"{unknown} are none of {list(SIZES)}", param_hint="--sizes")
    settings = Settings(chosen, draws, tune, chains, max_states, minutes, seconds, compiled, seed)
    console.print(_machine())
    failures = []
    for section in sections or Section:
        console.rule(section.value)
        module = import_module(f"tests.benchmarks.{_MODULES[section.value]}")
        try:
            failures += module.run(settings)
        except (RuntimeError, TooLong) as error:  # the other sections are still worth having
            failures.append(complain(f"{section.value}: {error}"))
    for failure in failures:
        complain(failure)
    raise typer.Exit(bool(failures))


def _machine() -> str:
    from os import cpu_count

    peers = ", ".join(f"{name} {installed(key) or 'not installed'}" for key, name in NEEDS.items())
    peers = f"bayesphase {installed('ours')}, {peers}"
    return f"Python {python_version()} on {machine()}, {cpu_count()} cores; {peers}\n"


if __name__ == "__main__":
    typer.run(main)
