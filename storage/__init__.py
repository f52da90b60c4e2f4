"""The team's memory: ClickHouse migrations, idempotent ingest, named queries, the embedded engine."""
