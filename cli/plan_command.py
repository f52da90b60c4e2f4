"""`pilothouse plan RUN`: what was done to a run, as the file that `start_run(follow=...)` reads.

A trainer has no way to the archive, and needs none: this is asked where the archive is, and the file goes with the job.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..producers.steering.plan import Plan


def plan(
    run: Annotated[str, typer.Argument(help="The run's id, or its beginning", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write it here, - for standard output [default: where follow=RUN looks]"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Of the stack to ask [default: ~/.pilothouse]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object about it instead of words")] = False,
) -> None:
    """Write down what was applied to a run, so that `start_run(follow=RUN)` does the same to another."""
    from ..events.errors import UserMistake
    from ..producers.steering.plan import plan_file
    from ..storage.history import read_decisions, stream_log
    from .planning import plan_of
    from .progress_bar import progress_bar
    from .reading import full_name, open_archive
    from .rendering import json_line, print_line
    from .replay_command import watched

    archive = open_archive(data_dir)
    run_id = full_name(archive.client, run)
    with progress_bar() as seen:
        records = watched(archive.client, run_id, stream_log(archive.client, run_id), seen)
        found = plan_of(run_id, records, read_decisions(archive.client, run_id))
    if not found.stretches:
        raise UserMistake(f"run {run_id} was never started, as far as the archive knows: there is nothing to follow")
    if str(out) == "-":
        print_line(found.model_dump_json())
        return
    file = (out or plan_file(run_id, archive.settings)).expanduser().absolute()
    _write(found, file)
    follow = run_id if out is None else str(file)
    print_line(json_line(told_of(found, file)) if as_json else account(found, file, follow))


def _write(plan: "Plan", file: Path) -> None:
    """Whole or not at all: a trainer may be reading.

    Raises:
        UserMistake: it cannot be written there.
    """
    from ..events.errors import UserMistake

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.tmp")
        beside.write_text(plan.model_dump_json(indent=1))
        beside.replace(file)
    except OSError as error:
        raise UserMistake(f"the plan cannot be written to {file}: {error.strerror or error}") from error


def told_of(plan: "Plan", file: Path) -> dict[str, Any]:
    """The plan for a program, in short."""
    return {
        "run_id": plan.run_id,
        "file": str(file),
        "complete": plan.complete,
        "interventions": [planned.model_dump(mode="json") for planned in plan.interventions],
        "stretches": len(plan.stretches),
        "steps": sum(len(stretch.steps) for stretch in plan.stretches),
    }


def account(plan: "Plan", file: Path, follow: str) -> str:
    """The plan for a person, and the line that follows it."""
    from ..events.event_words import action
    from .planning import rollbacks

    lines = [
        f"step {planned.step}{f' (stretch {planned.stretch})' if planned.stretch else ''}: "
        f"{action(planned.action.model_dump(mode='json'))}"
        for planned in plan.interventions
    ]
    if steps := rollbacks(plan):
        at = ", ".join(map(str, steps))
        lines.append(f"it goes back to checkpoints of step {at}: the following run must save at the same steps")
    if not plan.complete:
        lines.append("the run has not ended: what is done to it from here on is not in the plan")
    head = f"{len(plan.interventions)} interventions of run {plan.run_id} are written to {file}"
    return "\n".join([head, *(f"  {line}" for line in lines), f'follow it with: start_run(..., follow="{follow}")'])
