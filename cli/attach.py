"""`pilothouse run -- python train.py`: watch an unchanged PyTorch script.

Becomes the script's command (no process stays in between), so its exit status, output and signals are its own. What it
leaves behind is one folder before the Python path and one variable; `producers.attach` does the rest.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

CLOSE_SECONDS = "3"
"""A script that is done must not wait long for a broker that is away; what it could not send is on disk."""


def run(
    command: Annotated[list[str], typer.Argument(help="The command, after `--`", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Of the run [default: the script's]", show_default=False)] = "",
    run_id: Annotated[
        str, typer.Option("--run-id", help="The same on every machine of a launch", show_default=False)
    ] = "",
    steer: Annotated[
        str, typer.Option("--steer", help="What may be steered: lr, clip, weight_decay, pause", show_default=False)
    ] = "",
    norms: Annotated[
        bool, typer.Option("--norms/--no-norms", help="Measure the gradient's norm where the script does not clip")
    ] = True,
) -> None:
    """Watch an unchanged PyTorch script: pilothouse run -- torchrun --nproc-per-node 4 train.py."""
    from ..events.errors import UserMistake
    from ..producers.attach.options import KEY, Options, steered

    options = Options(name, run_id, steered(steer), norms, os.getpid(), uuid4().hex[:8])
    if shutil.which(command[0]) is None:
        raise UserMistake(f"there is no command {command[0]!r} here: pilothouse run -- python train.py")
    sys.stdout.flush()
    os.execvpe(command[0], command, environ_with(os.environ) | {KEY: options.text()})


def environ_with(environ: "os._Environ[str]") -> dict[str, str]:
    """The environment in which every Python finds our `sitecustomize` first."""
    bootstrap = str(Path(__file__).parents[1] / "producers" / "attach" / "bootstrap")
    before = environ.get("PYTHONPATH")
    path = f"{bootstrap}{os.pathsep}{before}" if before else bootstrap
    return {"PILOTHOUSE_CLOSE_SECONDS": CLOSE_SECONDS} | dict(environ) | {"PYTHONPATH": path}
