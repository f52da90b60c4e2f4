"""Logs that other trackers wrote, and runs that were exported, on their way into the archive.

`finding` looks for runs in what a person names; one reader for each format (`tables`, `huggingface`, `tensorboard`,
`wandb_offline`, `mlflow_store`) parses them into `source.Item`s; `survey` reads a log once, before anything is written;
`arranging` puts its values into steps and evaluations; `telling` says them as the events a live run would have sent.
They are judged by `stream_processors.importing`, and `keeping` puts facts and decisions into the archive.
"""
