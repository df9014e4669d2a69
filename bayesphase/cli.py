"""The `bayesphase` command. It parses arguments and calls the library; nothing is computed here."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields
from functools import partial
from inspect import signature as signature_of
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from bayesphase import __version__
from bayesphase.tasks.settings import TASKS, Settings

app = typer.Typer(
    help="Which phases did a training run go through, where are the boundaries, and how sure?",
    no_args_is_help=True,
    rich_markup_mode=None,
)
train_app = typer.Typer(help="Train a small network and record its metrics.", no_args_is_help=True)
app.add_typer(train_app, name="train")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bayesphase {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Metrics file, .nc or .zarr [default: the runs in the repository]."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for fits and figures.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same draws.")] = 1,
) -> None:
    """Find the phases of the shipped runs: tables here, fits and figures in a folder."""
    from rich.console import Console

    from bayesphase.demo import SHIPPED
    from bayesphase.demo import demo as run_demo

    try:
        run_demo(Console(), data=data or SHIPPED, output=output, random_seed=seed)
    except (OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A log, or a folder of logs.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Metrics file to write, .nc or .zarr.")
    ],
    format: Annotated[  # the option is called so
        str | None,
        typer.Option(
            help="table, lightning, wandb, trainer_state, tensorboard, mlflow or published "
            "[default: what the names of the files say]."
        ),
    ] = None,
    step: Annotated[str | None, typer.Option(help="Column of steps in a table.")] = None,
    run: Annotated[str | None, typer.Option(help="Column of runs in a table.")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="LOGGED=VARIABLE, such as ce=train_loss; may be given several times."),
    ] = None,
) -> None:
    """Make a metrics file of what other tools logged."""
    from bayesphase import read_log, save_metrics
    from bayesphase._storage import require_writable

    names = dict(pair.rpartition("=")[::2] for pair in name or ())
    try:
        require_writable(output)
        if "" in names:
            raise ValueError(f"--name is {' '.join(name or ())}, expected LOGGED=VARIABLE")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ds = read_log(path, format=format, step=step, run=run, names=names)
        save_metrics(ds, output)
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    for warning in said:
        typer.echo(f"Warning: {warning.message}", err=True)
    sizes = f"{ds.sizes['run']} runs, {ds.sizes['step']} steps, {len(ds.data_vars)} metrics"
    typer.echo(f"{ds.attrs['log_format']}: {sizes} in {output}")
    for skipped in json.loads(ds.attrs["skipped"]):
        more = ", ..." if skipped["count"] > 1 else ""
        typer.echo(f"left out {skipped['count']}: {skipped['what']} ({skipped['where'][0]}{more})")
    for variable, repeated in json.loads(ds.attrs["duplicates"]).items():
        typer.echo(f"{variable}: {repeated['count']} values were replaced by a later one")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Metrics file, .nc or .zarr.")],
    parameters: Annotated[
        bool, typer.Option("--parameters", help="Also list the weight matrices.")
    ] = False,
) -> None:
    """Say what is in a metrics file, what may be wrong with it, and what to do next."""
    from rich.console import Console

    from bayesphase import inspect as inspect_metrics
    from bayesphase.tables import show_inspection

    try:
        found = inspect_metrics(path)
    except (OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    show_inspection(Console(), found, name=str(path), parameters=parameters)


@app.command()
def collect(
    folder: Annotated[Path, typer.Argument(help="Folder that holds the checkpoints.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Metrics file to write, .nc or .zarr.")
    ],
    pattern: Annotated[
        str | None, typer.Option(help="How paths are made, such as '{run}/step{step}.pt'.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow a training, until interrupted.")
    ] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks, with --watch.")] = 30.0,
    patience: Annotated[
        float | None, typer.Option(help="Stop watching after so many seconds without news.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Checkpoints to measure at a time.")] = 1,
    include: Annotated[list[str] | None, typer.Option(help="Parameters to take in.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Parameters to leave out.")] = None,
    n_heads: Annotated[int | None, typer.Option(min=1, help="Number of attention heads.")] = None,
    n_kv_heads: Annotated[
        int | None, typer.Option(min=1, help="Heads for keys and values, if fewer.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Where in each file the weights are, 'a/b' for b in a.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="What to measure; may be given several times [default: the paper's]."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute, such as cuda.")] = "cpu",
) -> None:
    """Measure every checkpoint in a folder; run again, it goes on where it was."""
    from bayesphase.recording.runs import collect as collect_metrics

    try:
        ds = collect_metrics(
            folder,
            output=output,
            pattern=pattern,
            watch=every if watch else None,
            patience=patience,
            workers=workers,
            include=include or (),
            exclude=exclude or (),
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            key=key,
            metrics=metric,
            device=device,
        )
    except ModuleNotFoundError as error:
        raise typer.BadParameter(
            f"{error}: reading checkpoints needs PyTorch and safetensors, install bayesphase[torch]"
        ) from error
    except (OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    for missing in json.loads(ds.attrs["missing_checkpoints"]):
        typer.echo(f"missing: {missing['path']}: {missing['reason']}", err=True)
    typer.echo(f"{ds.sizes['run']} runs, {ds.sizes['step']} steps in {output}")


@app.command()
def report(
    fits: Annotated[list[Path], typer.Argument(help="Files of fits, .nc or .zarr.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    metrics: Annotated[
        Path | None, typer.Option(help="Metrics file, for its losses and accuracies.")
    ] = None,
    forecast: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="A run of the metrics that still goes on: when will it converge, and enter the "
            "next phases? May be given several times; 'unconverged' stands for all that have not "
            "converged. The first of the fits forecasts: seconds for a run that it does not know. "
            "For one that it does, its model is fitted anew to its other runs, which takes as long "
            "as that fit did: minutes.",
        ),
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(
            metavar="STEP", help="Forecast as if nothing later were known [default: its last step]."
        ),
    ] = None,
    converged: Annotated[
        str, typer.Option(help="What convergence is: a metric, > or <, and a number.")
    ] = "eval_accuracy > 0.9",
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Phases of training",
    ci_prob: Annotated[float, typer.Option(help="Probability of all intervals.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same numbers.")] = 1,
) -> None:
    """Write a page of a whole analysis: one HTML file that needs no network."""
    import bayesphase as bp
    from bayesphase.reporting.ahead import runs_ahead
    from bayesphase.reporting.page import checked

    try:
        opened = [bp.open_fit(path) for path in fits]
        sizes = [fit["posterior"].sizes["state"] for fit in opened]
        # as fit_range names them; several of one size are told apart by their files
        names = [
            f"{path.stem} {size}" if sizes.count(size) > 1 else str(size)
            for path, size in zip(fits, sizes, strict=True)
        ]
        if len(set(names)) < len(names):
            raise ValueError(f"two of the files have the same name: {', '.join(map(str, fits))}")
        recorded = None if metrics is None else bp.open_metrics(metrics)
        ahead = None
        if forecast:
            if recorded is None:
                raise ValueError("--forecast needs --metrics, which say when runs converge")
            checked(output)  # before what may take minutes
            ahead = runs_ahead(
                opened[0],
                recorded,
                forecast,
                converged=converged,
                now=at,
                random_seed=seed,
                tell=partial(typer.echo, err=True),
            )
        elif at is not None:
            raise ValueError("--at is of use with --forecast only")
        written = bp.report(
            dict(zip(names, opened, strict=True)),
            output,
            metrics=recorded,
            forecasts=ahead,
            title=title,
            ci_prob=ci_prob,
            random_seed=seed,
        )
    except (ModuleNotFoundError, OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"{written}")


def _train(
    settings: Settings,
    *,
    output: Path,
    seeds: range,
    workers: int,
    examples: int,
    example_runs: int,
    device: str,
) -> None:
    """Train a task from several seeds, showing how far each is."""
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    from bayesphase.tasks.seeds import train_seeds
    from bayesphase.tasks.training import train

    columns = ("seed {task.description}", BarColumn(), "epoch {task.completed:.0f}")
    accuracy = "validation accuracy {task.fields[accuracy]:.3f}"
    with Progress(*columns, accuracy, TimeRemainingColumn()) as progress:
        bars = {
            seed: progress.add_task(str(seed), total=settings.epochs, accuracy=0.0, start=False)
            for seed in seeds
        }

        def show(seed: int, epoch: float, accuracy: float) -> None:
            progress.start_task(bars[seed])
            progress.update(bars[seed], completed=epoch, accuracy=accuracy)

        ds = train_seeds(
            partial(train, device=device),
            path=output,
            seeds=seeds,
            settings=settings,
            workers=workers,
            n_examples=examples,
            example_runs=example_runs,
            on_checkpoint=show,
        )
    typer.echo(f"{ds.sizes['run']} runs, {ds.sizes['step']} steps in {output}")


def _add_train_command(name: str, kind: type[Settings]) -> None:
    """Make the command that trains a task: each of its settings is an option."""

    def command(
        output: Annotated[
            Path, typer.Option("--output", "-o", help="Metrics file to write, .nc or .zarr.")
        ],
        seeds: Annotated[int, typer.Option(min=1, help="How many seeds to train.")] = 8,
        first_seed: Annotated[int, typer.Option(min=0, help="They count up from this one.")] = 0,
        workers: Annotated[int, typer.Option(min=1, help="Seeds to train at a time.")] = 2,
        examples: Annotated[int, typer.Option(min=0, help="Validation examples to follow.")] = 512,
        example_runs: Annotated[
            int, typer.Option(min=0, help="Follow them in so many of the first seeds.")
        ] = 0,
        device: Annotated[str, typer.Option(help="Where to train, such as cuda.")] = "cpu",
        **options: Any,
    ) -> None:
        from bayesphase._storage import require_writable

        try:
            require_writable(output)
            _train(
                kind(**options),
                output=output,
                seeds=range(first_seed, first_seed + seeds),
                workers=workers,
                examples=examples,
                example_runs=example_runs,
                device=device,
            )
        except ModuleNotFoundError as error:
            raise typer.BadParameter(
                f"{error}: training needs PyTorch, install bayesphase[torch]; language models need "
                "Transformers, too, install bayesphase[trainers]"
            ) from error
        except (FileExistsError, FileNotFoundError, ValueError) as error:
            raise typer.BadParameter(str(error)) from error

    signature = signature_of(command, eval_str=True)
    common = [p for p in signature.parameters.values() if p.name != "options"]
    hints = get_type_hints(kind, include_extras=True)
    own = []
    for field in fields(kind):
        type_, text = get_args(hints[field.name])
        option = Annotated[type_, typer.Option(help=text)]  # type: ignore[valid-type]
        own.append(common[0].replace(name=field.name, default=field.default, annotation=option))
    keyword_only = [p.replace(kind=p.KEYWORD_ONLY) for p in [common[0], *own, *common[1:]]]
    command.__signature__ = signature.replace(parameters=keyword_only)  # type: ignore[attr-defined]
    train_app.command(name, help=kind.__doc__)(command)


for _name, _kind in TASKS.items():
    _add_train_command(_name, _kind)
