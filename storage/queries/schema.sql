-- What `migrate` needs before there is a schema.

-- name: create_database
CREATE DATABASE IF NOT EXISTS {database:Identifier};

-- name: create_migrations_record
CREATE TABLE IF NOT EXISTS schema_migrations
(
    number     UInt32,
    name       String,
    checksum   String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
ORDER BY number;

-- name: applied_migrations
SELECT number, name, checksum
FROM schema_migrations FINAL
ORDER BY number;
