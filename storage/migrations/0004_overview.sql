-- What a run overview needs: where a run ran and whose it is, the machine, the inputs, the job's log, facts from the pipeline
-- around it.

-- An attempt is announced again when more is known of it (what a pilot can steer, what was found late): the last word counts,
-- and it began with the first.
CREATE OR REPLACE VIEW attempts AS
SELECT
    run_id, attempt_id,
    e.1 AS attempt,
    JSONExtractString(body, 'reason') AS reason,
    JSONExtract(body, 'parent_attempt_id', 'Nullable(String)') AS parent_attempt_id,
    JSONExtractInt(body, 'first_step') AS first_step,
    JSONExtractInt(body, 'world_size') AS world_size,
    JSONExtractString(body, 'model') AS model,
    JSONExtractString(body, 'model_family') AS model_family,
    JSONExtractString(body, 'code_version') AS code_version,
    JSONExtract(body, 'environment', 'git', 'dirty', 'Nullable(Bool)') AS code_dirty,
    JSONExtractString(body, 'dataset') AS dataset,
    JSONExtractString(body, 'dataset_version') AS dataset_version,
    JSONExtractString(body, 'cluster') AS cluster,
    JSONExtractString(body, 'team') AS team,
    JSONExtractRaw(body, 'config') AS config,
    JSONExtractRaw(body, 'tags') AS tags,
    JSONExtractRaw(body, 'environment') AS environment,
    started_at,
    place.1 AS log_epoch, place.2 AS log_offset
FROM
(
    SELECT run_id, attempt_id, argMax((s.attempt, s.body), (s.log_epoch, s.log_offset)) AS e, e.2 AS body, min(s.at) AS started_at,
        min((s.log_epoch, s.log_offset)) AS place
    FROM events AS s
    WHERE s.kind = 'run_started'
    GROUP BY run_id, attempt_id
);

-- One row per run that was ever heard of, as it stands now. `last_step` is that of its latest attempt, which after a rollback is
-- lower than what was reached before; `outcome` is what the run said at its end, or `lost` where the governor had to say it.
CREATE OR REPLACE VIEW runs AS
WITH facts AS
(
    SELECT
        run_id,
        argMaxIf(e.attempt_id, (e.log_epoch, e.log_offset), e.kind = 'run_started') AS attempt_id,
        argMaxIf(e.attempt, (e.log_epoch, e.log_offset), e.kind = 'run_started') AS attempt,
        uniqExactIf(e.attempt_id, e.kind = 'run_started') AS attempts,
        argMaxIf(JSONExtractInt(e.body, 'world_size'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS world_size,
        argMaxIf(JSONExtractString(e.body, 'model'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS model,
        argMaxIf(JSONExtractString(e.body, 'code_version'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS code_version,
        argMaxIf(JSONExtractRaw(e.body, 'tags'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS tags,
        argMaxIf(JSONExtractString(e.body, 'model_family'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS model_family,
        argMaxIf(JSONExtractString(e.body, 'dataset'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS dataset,
        argMaxIf(JSONExtractString(e.body, 'dataset_version'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS dataset_version,
        argMaxIf(JSONExtractString(e.body, 'cluster'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS cluster,
        argMaxIf(JSONExtractString(e.body, 'team'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS team,
        argMaxIf(JSONExtractRaw(e.body, 'environment'), (e.log_epoch, e.log_offset), e.kind = 'run_started') AS environment,
        argMaxIf(JSONExtractString(e.body, 'outcome'), (e.attempt, -ifNull(e.rank, 0)), e.kind = 'run_ended') AS told_outcome,
        argMaxIf(e.attempt_id, (e.attempt, -ifNull(e.rank, 0)), e.kind = 'run_ended') AS told_attempt_id,
        uniqExactIf(e.event_id, e.kind = 'intervention_issued') AS interventions,
        uniqExactIf(e.event_id, e.kind = 'incident_opened') AS incidents,
        uniqExactIf(e.event_id, e.kind = 'incident_opened') - uniqExactIf(e.event_id, e.kind = 'incident_resolved') AS open_incidents
    FROM events AS e
    WHERE e.kind IN ('run_started', 'run_ended', 'intervention_issued', 'incident_opened', 'incident_resolved')
    GROUP BY run_id
),
progress AS
(
    SELECT p.run_id AS run_id, min(p.first_at) AS started_at, max(p.last_at) AS last_at,
        max(p.attempt) AS greatest_attempt,
        nullIf(maxIf(p.last_step, f.attempt_id = '' OR p.attempt_id = f.attempt_id), -1) AS last_step
    FROM run_progress AS p
    LEFT JOIN facts AS f ON f.run_id = p.run_id
    GROUP BY p.run_id
),
standing AS
(
    SELECT run_id, argMaxMerge(standing) AS last
    FROM run_standing
    GROUP BY run_id
)
SELECT
    p.run_id AS run_id,
    f.attempt_id AS attempt_id,
    if(f.attempts > 0, f.attempt, p.greatest_attempt) AS attempt,
    f.attempts AS attempts,
    f.world_size AS world_size,
    f.model AS model,
    f.code_version AS code_version,
    f.tags AS tags,
    f.model_family AS model_family,
    f.dataset AS dataset,
    f.dataset_version AS dataset_version,
    f.cluster AS cluster,
    f.team AS team,
    f.environment AS environment,
    if(s.last.phase = '', 'Unknown', s.last.phase) AS phase,
    s.last.margin AS margin,
    s.last.step AS judged_step,
    p.last_step AS last_step,
    multiIf(
        f.told_outcome != '' AND (f.told_attempt_id = f.attempt_id OR f.attempts = 0), f.told_outcome,
        s.last.phase = 'Ended', 'lost',
        '') AS outcome,
    f.interventions AS interventions,
    f.incidents AS incidents,
    f.open_incidents AS open_incidents,
    p.started_at AS started_at,
    p.last_at AS last_at
FROM progress AS p
LEFT JOIN facts AS f ON f.run_id = p.run_id
LEFT JOIN standing AS s ON s.run_id = p.run_id;

CREATE OR REPLACE VIEW resources AS
SELECT run_id, attempt_id, attempt, rank, at, pair.1 AS name, pair.2 AS value, log_epoch, log_offset
FROM events
ARRAY JOIN JSONExtractKeysAndValues(body, 'values', 'Float64') AS pair
WHERE kind = 'resources_sampled';

-- `counts` has one more than `edges`: at most the first edge, between each and the next, above the last.
CREATE OR REPLACE VIEW data_profiles AS
SELECT
    run_id, attempt_id, attempt, rank, step, at,
    JSONExtractString(body, 'feature') AS feature,
    JSONExtractString(body, 'data_schema') AS data_schema,
    JSONExtract(body, 'edges', 'Array(Float64)') AS edges,
    JSONExtract(body, 'counts', 'Array(UInt64)') AS counts,
    JSONExtractUInt(body, 'batches') AS batches,
    JSONExtractUInt(body, 'values_seen') AS values_seen,
    JSONExtractUInt(body, 'values_sampled') AS values_sampled,
    JSONExtractUInt(body, 'non_finite') AS non_finite,
    JSONExtract(body, 'numbers', 'Map(String, Float64)') AS numbers,
    log_epoch, log_offset
FROM events
WHERE kind = 'data_profiled';

-- `severity` orders levels as Python's logging does.
CREATE OR REPLACE VIEW log_lines AS
SELECT
    run_id, attempt_id, attempt, rank,
    JSONExtractInt(line, 'step') AS step,
    fromUnixTimestamp64Micro(JSONExtractInt(line, 'at'), 'UTC') AS at,
    JSONExtractString(line, 'level') AS level,
    transform(level, ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'], [10, 20, 30, 40, 50], 0) AS severity,
    JSONExtractString(line, 'logger') AS logger,
    JSONExtractString(line, 'text') AS text,
    line_number, log_epoch, log_offset
FROM events
ARRAY JOIN JSONExtractArrayRaw(body, 'lines') AS line, arrayEnumerate(JSONExtractArrayRaw(body, 'lines')) AS line_number
WHERE kind = 'log_lines';

-- Lines that were over their bounds, by reason; they stand between those of `log_lines`.
CREATE OR REPLACE VIEW log_lines_dropped AS
SELECT run_id, attempt_id, attempt, rank, at, pair.1 AS reason, pair.2 AS lines, log_epoch, log_offset
FROM events
ARRAY JOIN JSONExtractKeysAndValues(body, 'dropped', 'UInt64') AS pair
WHERE kind = 'log_lines';

CREATE OR REPLACE VIEW pipeline_facts AS
SELECT
    run_id, nullIf(attempt_id, '') AS attempt_id, rank, at,
    JSONExtractString(body, 'fact') AS fact,
    JSONExtractString(body, 'subject') AS subject,
    JSONExtract(body, 'numbers', 'Map(String, Float64)') AS numbers,
    JSONExtractString(body, 'who') AS who,
    JSONExtractString(body, 'note') AS note,
    log_epoch, log_offset
FROM events
WHERE kind = 'pipeline_reported';
