"""Inside the trainer: publish telemetry, obey control. Never blocks, slows or kills a step."""
