"""The vocabulary: every fact, decision and command; one codec; the topics and their keys. Pure.

Everybody imports from here, nothing here imports from anybody. Start reading at `envelope`, then `telemetry`,
`commands` and `decisions`, which `union` closes; `codec` puts them on the wire.
"""
