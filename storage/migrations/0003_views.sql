-- What people ask for, by the words they use. All stand on `events` and `steps`, so each event counts once.
-- Steps and times are those of the event; what is not known is NULL.

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

CREATE OR REPLACE VIEW phases AS
SELECT
    run_id, attempt_id, attempt,
    JSONExtractString(body, 'phase') AS phase,
    JSONExtractString(body, 'was') AS was,
    JSONExtractString(body, 'reason') AS reason,
    JSONExtract(body, 'margin', 'Nullable(Float64)') AS margin,
    step AS from_step,
    leadInFrame(step) OVER following AS until_step,
    at AS from_at,
    leadInFrame(toNullable(at)) OVER following AS until_at,
    JSONExtract(body, 'evidence', 'Map(String, Float64)') AS evidence,
    log_epoch, log_offset
FROM events
WHERE kind = 'phase_changed'
WINDOW following AS
    (PARTITION BY run_id ORDER BY log_epoch, log_offset ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING);

CREATE OR REPLACE VIEW conditions AS
SELECT
    run_id, attempt_id, attempt,
    JSONExtractString(body, 'condition') AS condition,
    JSONExtractString(body, 'status') AS status,
    JSONExtractString(body, 'was') AS was,
    JSONExtractString(body, 'reason') AS reason,
    JSONExtractString(body, 'message') AS message,
    JSONExtractInt(body, 'since_step') AS since_step,
    step, at,
    JSONExtract(body, 'evidence', 'Map(String, Float64)') AS evidence,
    toBool(row_number() OVER (PARTITION BY run_id, JSONExtractString(body, 'condition') ORDER BY log_epoch DESC, log_offset DESC) = 1)
        AS in_force,
    log_epoch, log_offset
FROM events
WHERE kind = 'condition_changed';

CREATE OR REPLACE VIEW assessments AS
SELECT
    run_id, attempt_id, attempt, step, at,
    JSONExtractString(body, 'phase') AS phase,
    JSONExtract(body, 'margin', 'Nullable(Float64)') AS margin,
    JSONExtract(body, 'features', 'Map(String, Float64)') AS features,
    log_epoch, log_offset
FROM events
WHERE kind = 'run_assessed';

CREATE OR REPLACE VIEW incidents AS
SELECT
    run_id,
    JSONExtractString(body, 'incident_id') AS incident_id,
    anyIf(attempt_id, kind = 'incident_opened') AS attempt_id,
    anyIf(JSONExtractString(body, 'condition'), kind = 'incident_opened') AS condition,
    anyIf(JSONExtractString(body, 'reason'), kind = 'incident_opened') AS reason,
    min(JSONExtractInt(body, 'onset_step')) AS onset_step,
    minIf(step, kind = 'incident_opened') AS opened_step,
    minIf(toNullable(at), kind = 'incident_opened') AS opened_at,
    maxIf(step, kind = 'incident_resolved') AS resolved_step,
    maxIf(toNullable(at), kind = 'incident_resolved') AS resolved_at,
    anyIf(JSONExtractString(body, 'outcome'), kind = 'incident_resolved') AS outcome,
    maxIf(JSONExtract(body, 'steps_lost', 'Nullable(Int64)'), kind = 'incident_resolved') AS steps_lost
FROM events
WHERE kind IN ('incident_opened', 'incident_resolved')
GROUP BY run_id, incident_id;

CREATE OR REPLACE VIEW receipts AS
SELECT
    run_id, attempt_id, attempt, rank,
    JSONExtractString(body, 'intervention_id') AS intervention_id,
    JSONExtractString(body, 'outcome') AS outcome,
    step, at,
    JSONExtractString(body, 'reason') AS reason,
    JSONExtract(body, 'before', 'Map(String, Float64)') AS before,
    JSONExtract(body, 'after', 'Map(String, Float64)') AS after
FROM events
WHERE kind = 'intervention_receipt';

-- One row per intervention, from its proposal to its verification. `ranks_applied` counts ranks, whatever they sent twice;
-- `same_step` says whether every rank of the attempt applied it, and all at one step.
CREATE OR REPLACE VIEW interventions AS
WITH lives AS
(
    SELECT
        run_id,
        JSONExtractString(body, 'intervention_id') AS intervention_id,
        anyIf(attempt_id, kind IN ('intervention_proposed', 'intervention_issued')) AS attempt_id,
        anyIf(JSONExtractString(body, 'incident_id'), kind = 'intervention_proposed') AS incident_id,
        anyIf(JSONExtractString(body, 'rule'), kind IN ('intervention_proposed', 'intervention_issued')) AS rule,
        anyIf(JSONExtractString(body, 'severity'), kind = 'intervention_proposed') AS severity,
        anyIf(JSONExtractString(body, 'mode'), kind = 'intervention_proposed') AS mode,
        anyIf(JSONExtractString(body, 'reason'), kind = 'intervention_proposed') AS reason,
        anyIf(JSONExtract(body, 'evidence', 'Map(String, Float64)'), kind = 'intervention_proposed') AS evidence,
        argMaxIf(JSONExtractString(body, 'action', 'action'), kind = 'intervention_issued',
            kind IN ('intervention_proposed', 'intervention_issued')) AS action,
        argMaxIf(JSONExtractRaw(body, 'action'), kind = 'intervention_issued',
            kind IN ('intervention_proposed', 'intervention_issued')) AS action_body,
        minIf(step, kind = 'intervention_proposed') AS proposed_step,
        minIf(toNullable(at), kind = 'intervention_proposed') AS proposed_at,
        anyIf(JSONExtractString(body, 'who'), kind = 'intervention_approved') AS approved_by,
        anyIf(JSONExtractString(body, 'who'), kind = 'intervention_declined') AS declined_by,
        minIf(step, kind = 'intervention_issued') AS issued_step,
        minIf(toNullable(at), kind = 'intervention_issued') AS issued_at,
        minIf(JSONExtract(body, 'expires_step', 'Nullable(Int64)'), kind = 'intervention_issued') AS expires_step,
        minIf(toNullable(at), kind = 'intervention_expired') AS expired_at,
        uniqExactIf(rank, kind = 'intervention_receipt') AS ranks_answered,
        uniqExactIf(rank, kind = 'intervention_receipt' AND JSONExtractString(body, 'outcome') = 'applied') AS ranks_applied,
        arraySort(groupUniqArrayIf(step, kind = 'intervention_receipt' AND JSONExtractString(body, 'outcome') = 'applied'))
            AS applied_steps,
        arraySort(groupUniqArrayIf(JSONExtractString(body, 'outcome'), kind = 'intervention_receipt')) AS outcomes,
        anyIf(JSONExtractString(body, 'outcome'), kind = 'intervention_verified') AS verification,
        anyIf(JSONExtractString(body, 'reason'), kind = 'intervention_verified') AS verification_reason,
        maxIf(step, kind = 'intervention_verified') AS verified_step,
        maxIf(toNullable(at), kind = 'intervention_verified') AS verified_at,
        minIf((log_epoch, log_offset), kind != 'intervention_receipt') AS first_place
    FROM events
    WHERE kind IN ('intervention_proposed', 'intervention_approved', 'intervention_declined', 'intervention_issued',
        'intervention_expired', 'intervention_verified', 'intervention_receipt')
    GROUP BY run_id, intervention_id
),
sizes AS
(
    SELECT run_id, attempt_id, max(world_size) AS world_size
    FROM attempts
    GROUP BY run_id, attempt_id
)
SELECT
    l.*,
    s.world_size AS world_size,
    multiIf(
        l.verification != '', 'verified',
        l.ranks_applied > 0, 'applied',
        l.ranks_answered > 0, 'refused',
        l.expired_at IS NOT NULL, 'expired',
        l.issued_at IS NOT NULL, 'issued',
        l.declined_by != '', 'declined',
        l.approved_by != '', 'approved',
        'proposed') AS state,
    toBool(length(l.applied_steps) = 1 AND s.world_size > 0 AND l.ranks_applied = s.world_size) AS same_step
FROM lives AS l
LEFT JOIN sizes AS s ON s.run_id = l.run_id AND s.attempt_id = l.attempt_id;

CREATE OR REPLACE VIEW checkpoints AS
WITH rejected AS
(
    SELECT run_id, JSONExtractString(body, 'checkpoint', 'checkpoint_id') AS checkpoint_id,
        any(JSONExtractString(body, 'reason')) AS rejected_reason, min(at) AS rejected_at
    FROM events
    WHERE kind = 'checkpoint_rejected'
    GROUP BY run_id, checkpoint_id
),
restored AS
(
    SELECT run_id, JSONExtractString(body, 'checkpoint_id') AS checkpoint_id, uniqExact(rank, attempt_id) AS times_restored
    FROM events
    WHERE kind = 'checkpoint_restored'
    GROUP BY run_id, checkpoint_id
)
SELECT
    e.run_id AS run_id, e.attempt_id AS attempt_id, e.attempt AS attempt, e.rank AS rank, e.step AS step, e.at AS at,
    JSONExtractString(e.body, 'checkpoint_id') AS checkpoint_id,
    JSONExtractString(e.body, 'path') AS path,
    JSONExtractString(e.body, 'manifest_sha256') AS manifest_sha256,
    JSONExtractInt(e.body, 'size_bytes') AS size_bytes,
    JSONExtractFloat(e.body, 'took_s') AS took_s,
    toBool(notEmpty(j.checkpoint_id)) AS rejected,
    j.rejected_reason AS rejected_reason,
    r.times_restored AS times_restored
FROM events AS e
LEFT JOIN rejected AS j ON j.run_id = e.run_id AND j.checkpoint_id = JSONExtractString(e.body, 'checkpoint_id')
LEFT JOIN restored AS r ON r.run_id = e.run_id AND r.checkpoint_id = JSONExtractString(e.body, 'checkpoint_id')
WHERE e.kind = 'checkpoint_saved';

CREATE OR REPLACE VIEW evals AS
SELECT
    run_id, attempt_id, attempt, rank, step, at,
    JSONExtractString(body, 'split') AS split,
    pair.1 AS metric,
    pair.2 AS value,
    log_epoch, log_offset
FROM events
ARRAY JOIN JSONExtractKeysAndValues(body, 'metrics', 'Float64') AS pair
WHERE kind = 'eval_completed';

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
