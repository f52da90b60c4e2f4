"""What the archive costs and how fast it answers, beside MLflow's SQLite store and DuckDB."""
