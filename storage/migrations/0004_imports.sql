-- Runs that came from other trackers' logs or from an export. Their records stand in epoch 0 at partition 1023, which no broker
-- has, at offsets of their own from 0; so what would be the log of a stack is each run's own here, ticks included.

CREATE TABLE IF NOT EXISTS import_log
(
    run_id      String,
    format      LowCardinality(String),
    digest      String,
    recipe      String,
    path        String,
    began_at    DateTime64(6, 'UTC'),
    finished    UInt8,
    imported_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(finished)
ORDER BY run_id;

CREATE TABLE IF NOT EXISTS imported_tick_log
(
    run_id     String CODEC(ZSTD(1)),
    log_offset UInt64 CODEC(DoubleDelta, ZSTD(1)),
    partition  UInt32 CODEC(ZSTD(1)),
    writer_id  LowCardinality(String),
    seq        UInt64 CODEC(DoubleDelta, ZSTD(1)),
    at         DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (run_id, log_offset);

-- `digest` is of what the log said, `recipe` of how it was taken over, `began_at` the run's first moment. What is not finished was
-- cut off, and goes on when the same command is given again.
CREATE OR REPLACE VIEW imports
(
    run_id      String COMMENT 'the run',
    format      LowCardinality(String) COMMENT 'what wrote the log',
    digest      String COMMENT 'of what the log said',
    recipe      String COMMENT 'how it was taken over',
    path        String COMMENT 'where the log was',
    began_at    DateTime64(6, 'UTC') COMMENT 'the first moment of the run',
    finished    Bool COMMENT 'whether all of it is here',
    imported_at DateTime64(3, 'UTC') COMMENT 'when it was brought in'
)
AS
SELECT run_id, format, digest, recipe, path, began_at, toBool(finished) AS finished, imported_at
FROM import_log FINAL;
