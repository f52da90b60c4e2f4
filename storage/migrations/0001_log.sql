-- The log as it stood, one table per shape. Inserted at least once and in any order; the views below are what to read.
--
-- `precedence` is the version of ReplacingMergeTree, which keeps the greatest. It falls with the place in the log (epoch 14 bits,
-- offset 40, partition 10), so that of an event which stands at two places the first survives: the one at which it was judged.

CREATE TABLE IF NOT EXISTS event_log
(
    run_id        String CODEC(ZSTD(1)),
    kind          LowCardinality(String),
    event_id      String CODEC(ZSTD(1)),
    attempt_id    LowCardinality(String),
    attempt       Int64 CODEC(ZSTD(1)),
    rank          Nullable(Int32) CODEC(ZSTD(1)),
    at            DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    step          Nullable(Int64) CODEC(ZSTD(1)),
    topic         LowCardinality(String),
    log_epoch     UInt32 CODEC(ZSTD(1)),
    log_partition UInt32 CODEC(ZSTD(1)),
    log_offset    UInt64 CODEC(Delta, ZSTD(1)),
    writer_id     LowCardinality(String),
    seq           UInt64 CODEC(Delta, ZSTD(1)),
    body          String CODEC(ZSTD(3)),
    archived_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    precedence    UInt64 MATERIALIZED 18446744073709551615
        - (bitShiftLeft(toUInt64(log_epoch), 50) + bitShiftLeft(log_offset, 10) + log_partition) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(precedence)
ORDER BY (run_id, kind, event_id);

-- One row per value logged. A batch is rebuilt from its rows: `row_index` is the row within it, `column_index` the metric's.
-- Where a step has no value at all, or a metric no step, a row with `logged` false keeps the batch's shape.
CREATE TABLE IF NOT EXISTS step_log
(
    run_id        String CODEC(ZSTD(1)),
    metric        LowCardinality(String),
    step          Int64 CODEC(Delta, ZSTD(1)),
    writer_id     LowCardinality(String),
    seq           UInt64 CODEC(Delta, ZSTD(1)),
    row_index     UInt16 CODEC(ZSTD(1)),
    column_index  UInt16 CODEC(ZSTD(1)),
    attempt_id    LowCardinality(String),
    attempt       Int64 CODEC(ZSTD(1)),
    rank          Int32 CODEC(ZSTD(1)),
    at            DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    value         Float64 CODEC(ZSTD(1)),
    logged        Bool CODEC(ZSTD(1)),
    batch_at      DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    log_epoch     UInt32 CODEC(ZSTD(1)),
    log_partition UInt32 CODEC(ZSTD(1)),
    log_offset    UInt64 CODEC(Delta, ZSTD(1)),
    archived_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    precedence    UInt64 MATERIALIZED 18446744073709551615
        - (bitShiftLeft(toUInt64(log_epoch), 50) + bitShiftLeft(log_offset, 10) + log_partition) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(precedence)
PRIMARY KEY (run_id, metric, step)
ORDER BY (run_id, metric, step, writer_id, seq, row_index, column_index);

-- Time is a record of the log like any other, but there is one a second and partition: kept bare, and for half a year after it
-- was archived. (Counted from `archived_at`: an event's own `at` is data, never a clock.)
CREATE TABLE IF NOT EXISTS tick_log
(
    partition     UInt32 CODEC(ZSTD(1)),
    writer_id     LowCardinality(String),
    seq           UInt64 CODEC(Delta, ZSTD(1)),
    at            DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    log_epoch     UInt32 CODEC(ZSTD(1)),
    log_partition UInt32 CODEC(ZSTD(1)),
    log_offset    UInt64 CODEC(DoubleDelta, ZSTD(1)),
    archived_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1)),
    precedence    UInt64 MATERIALIZED 18446744073709551615
        - (bitShiftLeft(toUInt64(log_epoch), 50) + bitShiftLeft(log_offset, 10) + log_partition) CODEC(ZSTD(1)),
    INDEX by_offset log_offset TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(precedence)
ORDER BY (partition, writer_id, seq)
TTL toDateTime(archived_at) + INTERVAL 180 DAY;

CREATE OR REPLACE VIEW events AS
SELECT run_id, attempt_id, attempt, rank, kind, event_id, at, step, topic, log_epoch, log_partition, log_offset, writer_id, seq, body
FROM event_log FINAL;

CREATE OR REPLACE VIEW steps AS
SELECT run_id, attempt_id, attempt, rank, metric, step, at, value, writer_id, seq, row_index, log_epoch, log_partition, log_offset
FROM step_log FINAL
WHERE logged;

CREATE OR REPLACE VIEW ticks AS
SELECT partition, at, writer_id, seq, log_epoch, log_partition, log_offset
FROM tick_log FINAL;
