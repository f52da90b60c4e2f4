"""From the training thread to the log, nothing lost uncounted: outbox, batches, Kafka, the spool on disk."""
