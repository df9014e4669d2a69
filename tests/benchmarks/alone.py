"""Every measurement is made in a process of its own: nothing is warm that is not said to be.

``python -m tests.benchmarks.alone module:function '{"argument": 1}' result.json`` is what such a
process runs; arguments and result are JSON.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

# one thread for everything that can be told so; JAX's executor may still use a second one
ONE_THREAD = {
    **dict.fromkeys(_THREADS, "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


class TooLong(Exception):
    """A process was ended because it had passed its time limit."""


def alone(
    function: str,
    *,
    limit: float | None = None,
    environment: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Any:
    """Call ``module:function`` (module within tests.benchmarks) in a fresh process.

    Parameters
    ----------
    limit : float, optional
        Seconds after which the process and its children are ended and `TooLong` is raised.
    environment : mapping, optional
        Environment variables set beside the present ones.
    **arguments
        Passed on to the function; JSON, as is what it returns.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log.txt")
        command = [sys.executable, "-m", "tests.benchmarks.alone", function]
        command += [json.dumps(arguments), str(result)]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env={**os.environ, "JAX_PLATFORMS": "cpu", **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                raise TooLong(function) from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise RuntimeError(f"{function} ended with status {status}:\n{tail}")
        return json.loads(result.read_text())


def _main(function: str, arguments: str, result: str) -> None:
    module, name = function.split(":")
    measure = getattr(import_module(f"tests.benchmarks.{module}"), name)
    Path(result).write_text(json.dumps(measure(**json.loads(arguments))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
