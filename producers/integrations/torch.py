"""Plain PyTorch: a loop that logs and is steered without a line in its body.

    with pilothouse.start_run("gpt-small") as run, watch(run, model, optimizer, steer=True) as watched:
        for batch in watched.batches(loader):
            loss = model(batch).mean()
            loss.backward()
            optimizer.step()

Also for models under DistributedDataParallel and `fully_shard`, for several optimizers, gradient accumulation, gradient
scalers and closures.
"""

from collections.abc import Sequence
from typing import Any, Unpack

from ...events.actions import ActionKind
from .watching import Steered, Watch, Watched


def watch(
    run: Watched,
    model: Any,
    optimizer: Any,
    *,
    steer: bool | Sequence[ActionKind] = False,
    norms: bool = True,
    **steered: Unpack[Steered],
) -> Watch:
    """Watch the steps of `optimizer` (one, or a list of them) until the end of the `with`.

    `steer`: observe only, let everything be steered that can be, or these actions; `scheduler`, `scaler`, `knobs` and
    `checkpoints` as `run.pilot` takes them. `norms`: measure the gradient's norm in a pass of its own where the script
    does not clip.
    """
    optimizers = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    watched = Watch(run, norms)
    watched.time.communicates(model)
    if steer:
        watched.steer(model, optimizers, None if steer is True else tuple(steer), **steered)
    watched.hang_on(optimizers)
    return watched
