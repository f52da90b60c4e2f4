"""`python -m pilothouse.benchmarks.pipeline.floor ADDRESS FOLDER`: a bare Faust agent between two topics.

The floor of `latency`: whatever comes on `floor.in` goes to `floor.out`, with Faust as it is and nothing of ours but
this file.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import faust

IN, OUT = "floor.in", "floor.out"


async def serve(address: str, folder: Path) -> None:
    """Until it is killed."""
    app = faust.App(
        "floor",
        broker=f"kafka://{address}",
        datadir=folder,
        store="memory://",
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
        topic_disable_leader=True,
        topic_partitions=1,
    )
    source, target = (app.topic(name, key_type=bytes, value_type=bytes) for name in (IN, OUT))

    async def forward(stream: Any) -> None:
        async for value in stream:
            await target.send(value=value)

    app.agent(source, name="floor.agent")(forward)
    await app.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
