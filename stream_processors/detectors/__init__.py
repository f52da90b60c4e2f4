"""Detectors: what each of them watches of a run, remembers of its past, and says of one more step.

Every detector is a state (a msgspec struct, bounded) and functions that change it in place and do no I/O, most of them
`observe(state, ...) -> features`, `rewind(state, step)` for a run that went back, `restart(state)` for one whose recipe
changed. Same state and sample, same features, bit for bit. `stream_processors.features` holds one of each
and composes what they say; `stream_processors.verdicts` makes conditions of it. Bounds and sources: docs/detection.md.
"""
