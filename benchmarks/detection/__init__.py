"""How well training failures are seen: our detectors and the peers' published rules, over the same series."""
