"""The pure fold over the log, and the Faust workers that run it: governor and archiver."""
