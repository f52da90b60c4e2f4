-- How far each rank of each attempt has come, so that a list of runs need not read their steps.
-- An insert may be repeated, so only aggregates that do not mind: least and greatest, never a count.

CREATE TABLE IF NOT EXISTS run_progress
(
    run_id     String,
    attempt_id String,
    attempt    Int64,
    rank       Int32,
    first_at   SimpleAggregateFunction(min, DateTime64(6, 'UTC')),
    last_at    SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    last_step  SimpleAggregateFunction(max, Int64)
)
ENGINE = AggregatingMergeTree
ORDER BY (run_id, attempt_id, attempt, rank)
SETTINGS index_granularity = 256;

CREATE MATERIALIZED VIEW IF NOT EXISTS run_progress_of_steps TO run_progress AS
SELECT run_id, attempt_id, attempt, rank, min(arrayMin(times)) AS first_at, max(arrayMax(times)) AS last_at,
    max(arrayMax(steps)) AS last_step
FROM step_log
WHERE notEmpty(steps)
GROUP BY run_id, attempt_id, attempt, rank;

-- A step counts as reached when its telemetry says so; what an event says about steps is not progress (-1 is none).
CREATE MATERIALIZED VIEW IF NOT EXISTS run_progress_of_events TO run_progress AS
SELECT run_id, attempt_id, attempt, ifNull(e.rank, -1) AS rank, min(e.at) AS first_at, max(e.at) AS last_at,
    toInt64(-1) AS last_step
FROM event_log AS e
GROUP BY run_id, attempt_id, attempt, rank;

-- How far the archive itself has come in each partition of each topic.
CREATE TABLE IF NOT EXISTS log_progress
(
    topic         LowCardinality(String),
    log_partition UInt32,
    place         SimpleAggregateFunction(max, Tuple(UInt32, UInt64)),
    last_at       SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    archived_at   SimpleAggregateFunction(max, DateTime64(3, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY (topic, log_partition);

CREATE MATERIALIZED VIEW IF NOT EXISTS log_progress_of_events TO log_progress AS
SELECT topic, log_partition, max((e.log_epoch, e.log_offset)) AS place, max(e.at) AS last_at, max(e.archived_at) AS archived_at
FROM event_log AS e
GROUP BY topic, log_partition;

CREATE MATERIALIZED VIEW IF NOT EXISTS log_progress_of_steps TO log_progress AS
SELECT 'pilothouse.telemetry' AS topic, log_partition, max((s.log_epoch, s.log_offset)) AS place, max(s.batch_at) AS last_at,
    max(s.archived_at) AS archived_at
FROM step_log AS s
GROUP BY topic, log_partition;

CREATE MATERIALIZED VIEW IF NOT EXISTS log_progress_of_ticks TO log_progress AS
SELECT 'pilothouse.telemetry' AS topic, log_partition, max((t.log_epoch, t.log_offset)) AS place, max(t.at) AS last_at,
    max(t.archived_at) AS archived_at
FROM tick_log AS t
GROUP BY topic, log_partition;

-- How each run stands by the last word on it, and what can be counted without minding repeats.
CREATE TABLE IF NOT EXISTS run_summary
(
    run_id        String,
    standing      AggregateFunction(argMax, Tuple(phase String, margin Nullable(Float64), step Nullable(Int64)), Tuple(UInt32, UInt64)),
    score         AggregateFunction(argMax, Tuple(stability_score Nullable(Float64)), Tuple(UInt32, UInt64)),
    interventions AggregateFunction(uniqExact, String),
    opened        AggregateFunction(uniqExact, String),
    resolved      AggregateFunction(uniqExact, String)
)
ENGINE = AggregatingMergeTree
ORDER BY run_id
SETTINGS index_granularity = 256;

CREATE MATERIALIZED VIEW IF NOT EXISTS run_summary_of_events TO run_summary AS
SELECT run_id,
    argMaxStateIf(
        CAST((JSONExtractString(body, 'phase'), JSONExtract(body, 'margin', 'Nullable(Float64)'), step),
            'Tuple(phase String, margin Nullable(Float64), step Nullable(Int64))'),
        (log_epoch, log_offset), kind IN ('phase_changed', 'run_assessed')) AS standing,
    argMaxStateIf(
        CAST(tuple(JSONExtract(body, 'stability_score', 'Nullable(Float64)')), 'Tuple(stability_score Nullable(Float64))'),
        (log_epoch, log_offset), kind = 'run_assessed') AS score,
    uniqExactStateIf(event_id, kind = 'intervention_issued') AS interventions,
    uniqExactStateIf(event_id, kind = 'incident_opened') AS opened,
    uniqExactStateIf(event_id, kind = 'incident_resolved') AS resolved
FROM event_log
WHERE kind IN ('phase_changed', 'run_assessed', 'intervention_issued', 'incident_opened', 'incident_resolved')
GROUP BY run_id;
