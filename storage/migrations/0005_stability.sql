-- How stable each run has been, by the last word on it: `stability_score`, from 0 to 100.

CREATE TABLE IF NOT EXISTS run_scores
(
    run_id String,
    score  AggregateFunction(argMax, Tuple(stability_score Nullable(Float64)), Tuple(UInt32, UInt64))
)
ENGINE = AggregatingMergeTree
ORDER BY run_id;

CREATE MATERIALIZED VIEW IF NOT EXISTS run_scores_of_events TO run_scores AS
SELECT run_id,
    argMaxState(
        CAST(tuple(JSONExtract(body, 'stability_score', 'Nullable(Float64)')), 'Tuple(stability_score Nullable(Float64))'),
        (log_epoch, log_offset)) AS score
FROM event_log
WHERE kind = 'run_assessed'
GROUP BY run_id;

CREATE OR REPLACE VIEW assessments AS
SELECT
    run_id, attempt_id, attempt, step, at,
    JSONExtractString(body, 'phase') AS phase,
    JSONExtract(body, 'margin', 'Nullable(Float64)') AS margin,
    JSONExtract(body, 'stability_score', 'Nullable(Float64)') AS stability_score,
    JSONExtract(body, 'features', 'Map(String, Float64)') AS features,
    log_epoch, log_offset
FROM events
WHERE kind = 'run_assessed';

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
),
scores AS
(
    SELECT run_id, argMaxMerge(score).1 AS stability_score
    FROM run_scores
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
    c.stability_score AS stability_score,
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
LEFT JOIN standing AS s ON s.run_id = p.run_id
LEFT JOIN scores AS c ON c.run_id = p.run_id;
