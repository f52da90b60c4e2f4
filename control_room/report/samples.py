"""What the model said, and what people said of that: samples with their ratings. Pure.

A rating is a note (`RunAnnotated`) about the sample's event. Each person's last word on a sample counts. Called by
`overview` and by `pilothouse rate`.
"""

from collections.abc import Sequence

from .material import Row, Told


def samples_among(events: Sequence[Told]) -> list[Row]:
    """The samples in the order in which they were recorded, each with its `ratings` and their mean."""
    ratings: dict[str, dict[str, Told]] = {}
    for told in (event for event in events if event.kind == "annotated"):
        about, who = str(told.body.get("about") or ""), str(told.body.get("who"))
        if about and told.body.get("rating") is not None:
            ratings.setdefault(about, {})[who] = told
    return [_sample(told, ratings.get(told.event_id, {})) for told in events if told.kind == "sample_recorded"]


def _sample(told: Told, by: dict[str, Told]) -> Row:
    ratings = [
        {"who": who, "rating": one.body["rating"], "text": one.body.get("text") or "", "at": one.at}
        for who, one in by.items()
    ]
    return {
        "sample_id": told.event_id,
        "step": told.body.get("step"),
        "attempt": told.attempt,
        "rank": told.rank,
        "at": told.at,
        "name": told.body.get("name"),
        "prompt": told.body.get("prompt") or "",
        "output": told.body.get("output") or "",
        "ratings": ratings,
        "mean_rating": sum(one["rating"] for one in ratings) / len(ratings) if ratings else None,
    }
