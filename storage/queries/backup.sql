-- What a backup of the archive asks of the engine.

-- name: backup_status
SELECT toString(status) AS status, error
FROM system.backups
WHERE id = {id:String};

-- name: rows_of_tables
SELECT table AS name, toUInt64(sum(rows)) AS rows
FROM system.parts
WHERE database = currentDatabase() AND active
GROUP BY table;
