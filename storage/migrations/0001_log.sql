-- The log as it stood, one table per shape. Inserted at least once and in any order; the views below are what to read.
--
-- `precedence` is the version of ReplacingMergeTree, which keeps the greatest. It falls with the place in the log (epoch 14 bits,
-- offset 40, partition 10), so that of an event which stands at two places the first survives: the one at which it was judged.
--
-- Partitions are months of the event's own time, which is the same for every copy of an event; what says an impossible time stands
-- in partition 0. How long each class of data is kept is a setting (`storage.retention`), counted from `archived_at`: an event's own
-- time is data, never a clock.

-- Facts and decisions. `body` is the event; the columns below it are taken out of it when it arrives, for the kinds that are asked about
-- across runs. Kinds come first in the key, so each is a table of its own within this one (evaluations, resources, checkpoints, phases,
-- conditions, interventions, incidents, policies), and an empty column costs nothing.
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
        - (bitShiftLeft(toUInt64(log_epoch), 50) + bitShiftLeft(log_offset, 10) + log_partition) CODEC(Delta, ZSTD(1)),

    phase           LowCardinality(String) MATERIALIZED if(kind IN ('phase_changed', 'run_assessed'), JSONExtractString(body, 'phase'), ''),
    margin          Nullable(Float64)
        MATERIALIZED if(kind IN ('phase_changed', 'run_assessed'), JSONExtract(body, 'margin', 'Nullable(Float64)'), NULL) CODEC(ZSTD(1)),
    stability_score Nullable(Float64)
        MATERIALIZED if(kind = 'run_assessed', JSONExtract(body, 'stability_score', 'Nullable(Float64)'), NULL) CODEC(ZSTD(1)),
    condition       LowCardinality(String)
        MATERIALIZED if(kind IN ('condition_changed', 'incident_opened'), JSONExtractString(body, 'condition'), ''),
    incident_id     String
        MATERIALIZED if(kind IN ('incident_opened', 'incident_resolved', 'intervention_proposed'), JSONExtractString(body,
            'incident_id'), '') CODEC(ZSTD(1)),
    onset_step      Int64
        MATERIALIZED if(kind IN ('incident_opened', 'incident_resolved'), JSONExtractInt(body, 'onset_step'), 0) CODEC(ZSTD(1)),
    steps_lost      Nullable(Int64)
        MATERIALIZED if(kind = 'incident_resolved', JSONExtract(body, 'steps_lost', 'Nullable(Int64)'), NULL) CODEC(ZSTD(1)),
    intervention_id String
        MATERIALIZED if(startsWith(kind, 'intervention_'), JSONExtractString(body, 'intervention_id'), '') CODEC(ZSTD(1)),
    action          LowCardinality(String)
        MATERIALIZED if(kind IN ('intervention_proposed', 'intervention_issued'), JSONExtractString(body, 'action', 'action'), ''),
    outcome         LowCardinality(String)
        MATERIALIZED if(kind IN ('run_ended', 'incident_resolved', 'intervention_verified', 'intervention_receipt'),
            JSONExtractString(body, 'outcome'), ''),
    reason          String MATERIALIZED JSONExtractString(body, 'reason') CODEC(ZSTD(1)),
    world_size      Int64 MATERIALIZED if(kind = 'run_started', JSONExtractInt(body, 'world_size'), 0) CODEC(ZSTD(1)),
    model           LowCardinality(String) MATERIALIZED if(kind = 'run_started', JSONExtractString(body, 'model'), ''),
    model_family    LowCardinality(String) MATERIALIZED if(kind = 'run_started', JSONExtractString(body, 'model_family'), ''),
    dataset         LowCardinality(String) MATERIALIZED if(kind = 'run_started', JSONExtractString(body, 'dataset'), ''),
    team            LowCardinality(String) MATERIALIZED if(kind = 'run_started', JSONExtractString(body, 'team'), ''),
    cluster         LowCardinality(String) MATERIALIZED if(kind = 'run_started', JSONExtractString(body, 'cluster'), ''),
    first_step      Int64 MATERIALIZED if(kind = 'run_started', JSONExtractInt(body, 'first_step'), 0) CODEC(ZSTD(1)),
    cost_per_hour   Nullable(Float64)
        MATERIALIZED if(kind = 'run_started', JSONExtract(body, 'cost_per_hour', 'Nullable(Float64)'), NULL) CODEC(ZSTD(1)),
    numbers         Map(String, Float64)
        MATERIALIZED JSONExtract(body, multiIf(kind = 'run_assessed', 'features', kind = 'eval_completed', 'metrics',
            kind = 'resources_sampled', 'values',
        kind IN ('annotated', 'data_profiled', 'pipeline_reported', 'recipe_changed'), 'numbers', 'evidence'),
        'Map(String, Float64)') CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(precedence)
PARTITION BY if(at >= '2000-01-01' AND at < '2100-01-01', toYYYYMM(at), 0)
ORDER BY (kind, run_id, event_id)
SETTINGS index_granularity_bytes = 131072;

-- One row per metric of a batch, with arrays of what was logged: a run of a million steps is some thousands of rows. `rows` says
-- which rows of the batch have a value, and is empty where all have (and where none has: `values` is empty as well, and the row
-- keeps the metric's name). The metric '' keeps the steps of which nothing was logged.
--
-- `bits` are the doubles' own bits, kept plane by plane: what float32 has no bits for, and what neighbours share, costs nothing. Read
-- `values`. Stretches of steps come before metrics in the key, so that the times of a step, which every metric repeats, stand close to each
-- other: they cost their bytes once. Large blocks for them, small granules for the values, of which one metric is read at a time.
CREATE TABLE IF NOT EXISTS step_log
(
    run_id        String CODEC(ZSTD(1)),
    metric        LowCardinality(String),
    first_step    Int64 CODEC(Delta, ZSTD(1)),
    writer_id     LowCardinality(String),
    seq           UInt64 CODEC(Delta, ZSTD(1)),
    column_index  UInt16 CODEC(ZSTD(1)),
    attempt_id    LowCardinality(String),
    attempt       Int64 CODEC(ZSTD(1)),
    rank          Int32 CODEC(ZSTD(1)),
    rows          Array(UInt16) CODEC(Delta, ZSTD(1)),
    steps         Array(Int64) CODEC(DoubleDelta, ZSTD(1)),
    times         Array(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(3))
        SETTINGS (min_compress_block_size = 1048576, max_compress_block_size = 1048576),
    bits          Array(UInt64) CODEC(T64('bit'), ZSTD(1)),
    last_step     Int64 MATERIALIZED if(empty(steps), first_step, arrayMax(steps)) CODEC(Delta, ZSTD(1)),
    values        Array(Float64) ALIAS arrayMap(each -> reinterpretAsFloat64(each), bits),
    batch_at      DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    log_epoch     UInt32 CODEC(ZSTD(1)),
    log_partition UInt32 CODEC(ZSTD(1)),
    log_offset    UInt64 CODEC(Delta, ZSTD(1)),
    archived_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)),
    precedence    UInt64 MATERIALIZED 18446744073709551615
        - (bitShiftLeft(toUInt64(log_epoch), 50) + bitShiftLeft(log_offset, 10) + log_partition) CODEC(Delta, ZSTD(1)),
    INDEX by_last_step last_step TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(precedence)
PARTITION BY if(batch_at >= '2000-01-01' AND batch_at < '2100-01-01', toYYYYMM(batch_at), 0)
PRIMARY KEY (run_id, intDiv(first_step, 8192), metric)
ORDER BY (run_id, intDiv(first_step, 8192), metric, first_step, writer_id, seq, column_index)
SETTINGS index_granularity_bytes = 262144;

-- Each metric over every 512 steps of an attempt and rank, for plots: a million steps are 2,000 rows. Made from `step_log` by
-- `storage.stretches`, never added to: of two summaries of one stretch that of more values is the later one. `total`, `least` and
-- `greatest` are of the finite values; `last` is the last in the order of the log (`told`), whatever it is.
CREATE TABLE IF NOT EXISTS step_stretches
(
    run_id     String CODEC(ZSTD(1)),
    metric     LowCardinality(String),
    rank       Int32 CODEC(ZSTD(1)),
    attempt_id LowCardinality(String),
    stretch    Int64 CODEC(Delta, ZSTD(1)),
    attempt    Int64 CODEC(ZSTD(1)),
    last_step  Int64 CODEC(Delta, ZSTD(1)),
    first_at   DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    values     UInt64 CODEC(ZSTD(1)),
    finite     UInt64 CODEC(ZSTD(1)),
    total      Float64 CODEC(ZSTD(1)),
    least      Float64 CODEC(ZSTD(1)),
    greatest   Float64 CODEC(ZSTD(1)),
    last       Float64 CODEC(ZSTD(1)),
    told       UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(values)
ORDER BY (run_id, metric, rank, attempt_id, stretch)
SETTINGS index_granularity = 1024;

-- Time is a record of the log like any other, but there is one a second and partition: kept bare.
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
PARTITION BY if(at >= '2000-01-01' AND at < '2100-01-01', toYYYYMM(at), 0)
ORDER BY (partition, writer_id, seq);
