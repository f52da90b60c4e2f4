-- What the command line and the control room ask of a run. Times are microseconds since 1970, UTC, as in the events.

-- name: list_runs
SELECT run_id, attempt_id, attempt, attempts, world_size, model, phase, margin, stability_score, judged_step, last_step, outcome,
    interventions, incidents, open_incidents, toUnixTimestamp64Micro(started_at) AS started_at, toUnixTimestamp64Micro(last_at) AS last_at
FROM runs
WHERE {least_stable_first:Bool} OR run_id IN
    (SELECT s.run_id FROM run_summary AS s GROUP BY s.run_id ORDER BY max(s.last_at) DESC, s.run_id LIMIT {limit:UInt64})
ORDER BY if({least_stable_first:Bool}, ifNull(stability_score, 101), 0), last_at DESC, run_id
LIMIT {limit:UInt64};

-- name: one_run
SELECT run_id, attempt_id, attempt, attempts, world_size, model, model_family, code_version, dataset, dataset_version, cluster, team, tags,
    environment, phase, margin, stability_score, judged_step, last_step, outcome, interventions, incidents, open_incidents,
    toUnixTimestamp64Micro(started_at) AS started_at, toUnixTimestamp64Micro(last_at) AS last_at
FROM runs
WHERE run_id = {run:String};

-- name: is_known
SELECT count() > 0 AS known
FROM run_summary
WHERE run_id = {run:String};

-- name: run_ids
SELECT run_id
FROM run_summary
GROUP BY run_id
ORDER BY max(last_at) DESC
LIMIT {limit:UInt64};

-- name: runs_by_prefix
SELECT run_id
FROM run_summary
WHERE startsWith(run_id, {prefix:String})
GROUP BY run_id
ORDER BY max(last_at) DESC
LIMIT {limit:UInt64};

-- name: attempts
SELECT attempt_id, attempt, reason, parent_attempt_id, first_step, world_size, model, code_version, code_dirty, dataset_version, config, tags,
    environment, toUnixTimestamp64Micro(started_at) AS started_at
FROM attempts
WHERE run_id = {run:String}
ORDER BY log_epoch, log_offset;

-- name: ranks
SELECT rank, attempt_id, attempt, nullIf(max(last_step), -1) AS last_step, toUnixTimestamp64Micro(max(last_at)) AS last_at
FROM run_progress
WHERE run_id = {run:String} AND rank >= 0
GROUP BY rank, attempt_id, attempt
ORDER BY attempt, rank;

-- name: last_metrics
SELECT metric, rank, argMax(steps[-1], (log_epoch, log_offset)) AS step, argMax(values[-1], (log_epoch, log_offset)) AS value
FROM step_log FINAL
WHERE run_id = {run:String} AND rank = {rank:Int64} AND metric != '' AND notEmpty(values)
GROUP BY metric, rank
ORDER BY metric;

-- name: conditions_in_force
SELECT condition, status, reason, message, since_step, step, toUnixTimestamp64Micro(at) AS at, evidence
FROM conditions
WHERE run_id = {run:String} AND in_force
ORDER BY condition;

-- name: assessments
SELECT attempt_id, attempt, step, toUnixTimestamp64Micro(at) AS at, phase, margin, stability_score, features
FROM
(
    SELECT *
    FROM assessments
    WHERE run_id = {run:String}
    ORDER BY log_epoch DESC, log_offset DESC
    LIMIT {limit:UInt64}
)
ORDER BY log_epoch, log_offset;

-- name: incidents
SELECT incident_id, condition, reason, onset_step, opened_step, toUnixTimestamp64Micro(opened_at) AS opened_at, resolved_step,
    toUnixTimestamp64Micro(resolved_at) AS resolved_at, outcome, steps_lost
FROM incidents
WHERE run_id = {run:String}
ORDER BY opened_at, incident_id;

-- The latest `limit` events, or, with a place for each topic, the first `limit` behind those places.
-- name: events
SELECT *
FROM
(
    SELECT kind, event_id, attempt_id, attempt, rank, step, toUnixTimestamp64Micro(at) AS at, topic, log_epoch, log_partition,
        log_offset, body
    FROM events
    WHERE run_id = {run:String}
        AND (empty({kinds:Array(String)}) OR kind IN {kinds:Array(String)})
    ORDER BY at DESC, log_epoch DESC, log_offset DESC, topic DESC
    LIMIT {limit:UInt64}
)
ORDER BY at, log_epoch, log_offset, topic;

-- name: events_after
SELECT kind, event_id, attempt_id, attempt, rank, step, toUnixTimestamp64Micro(at) AS at, topic, log_epoch, log_partition, log_offset,
    body
FROM events
WHERE run_id = {run:String}
    AND (empty({kinds:Array(String)}) OR kind IN {kinds:Array(String)})
    AND (log_epoch, toInt64(log_offset)) > if(topic = {control_topic:String},
        ({control_epoch:UInt32}, {control_offset:Int64}), ({facts_epoch:UInt32}, {facts_offset:Int64}))
ORDER BY log_epoch, log_offset, at, topic
LIMIT {limit:UInt64};

-- name: last_places
SELECT topic, max((e.log_epoch, e.log_offset)).1 AS log_epoch, argMax(e.log_partition, (e.log_epoch, e.log_offset)) AS log_partition,
    max((e.log_epoch, e.log_offset)).2 AS log_offset
FROM events AS e
WHERE run_id = {run:String}
GROUP BY topic;

-- name: interventions
SELECT intervention_id, attempt_id, incident_id, rule, severity, mode, action, action_body, reason, evidence, state,
    proposed_step, toUnixTimestamp64Micro(proposed_at) AS proposed_at, approved_by, declined_by,
    issued_step, toUnixTimestamp64Micro(issued_at) AS issued_at, expires_step, toUnixTimestamp64Micro(expired_at) AS expired_at,
    world_size, ranks_answered, ranks_applied, applied_steps, same_step, outcomes,
    verification, verification_reason, verified_step, toUnixTimestamp64Micro(verified_at) AS verified_at
FROM interventions
WHERE run_id = {run:String}
ORDER BY first_place, intervention_id;

-- name: receipts
SELECT intervention_id, attempt_id, attempt, rank, outcome, step, toUnixTimestamp64Micro(at) AS at, reason, before, after
FROM receipts
WHERE run_id = {run:String}
ORDER BY intervention_id, rank, at;

-- The proof that ranks moved together: for each intervention, which ranks applied it at which step.
-- name: applied_steps
SELECT intervention_id, step, arraySort(groupUniqArray(assumeNotNull(rank))) AS ranks
FROM receipts
WHERE run_id = {run:String} AND outcome = 'applied'
GROUP BY intervention_id, step
ORDER BY intervention_id, step;

-- name: phases
SELECT attempt_id, attempt, phase, was, reason, margin, from_step, until_step, toUnixTimestamp64Micro(from_at) AS from_at,
    toUnixTimestamp64Micro(until_at) AS until_at, evidence
FROM phases
WHERE run_id = {run:String}
ORDER BY log_epoch, log_offset;

-- name: checkpoints
SELECT checkpoint_id, attempt_id, attempt, rank, step, toUnixTimestamp64Micro(at) AS at, path, manifest_sha256, size_bytes, took_s,
    rejected, rejected_reason, times_restored, lost, lost_reason
FROM checkpoints
WHERE run_id = {run:String}
ORDER BY at, checkpoint_id;

-- name: evals
SELECT attempt_id, attempt, rank, step, toUnixTimestamp64Micro(at) AS at, split, metric, value
FROM evals
WHERE run_id = {run:String}
ORDER BY log_epoch, log_offset, metric;

-- name: metric_names
SELECT metric, min(arrayMin(steps)) AS first_step, max(arrayMax(steps)) AS last_step, sum(length(s.values)) AS values
FROM step_log AS s FINAL
WHERE run_id = {run:String} AND metric != '' AND notEmpty(s.values)
GROUP BY metric
ORDER BY metric;

-- How far the archive has come: the greatest place it holds of each topic and partition, the newest event time among those, and
-- when it last took anything in.
-- name: archive_progress
SELECT topic, log_partition, max(place).1 AS log_epoch, max(place).2 AS log_offset,
    toUnixTimestamp64Micro(max(last_at)) AS last_at, toUnixTimestamp64Milli(max(archived_at)) * 1000 AS archived_at
FROM log_progress
GROUP BY topic, log_partition
ORDER BY topic, log_partition;

-- name: ingest_lag
SELECT topic, log_partition, log_epoch, log_offset, toUnixTimestamp64Micro(last_at) AS last_at,
    toUnixTimestamp64Milli(archived_at) * 1000 AS archived_at, behind_s, took_s
FROM ingest
ORDER BY topic, log_partition;

-- The latest lines of the job's log, oldest first.
-- name: log_lines
SELECT attempt_id, attempt, rank, step, toUnixTimestamp64Micro(at) AS at, level, logger, text
FROM
(
    SELECT *
    FROM log_lines
    WHERE run_id = {run:String} AND severity >= {severity:Int64} AND ({rank:Int64} < 0 OR rank = {rank:Int64})
    ORDER BY at DESC, log_epoch DESC, log_offset DESC, line_number DESC
    LIMIT {limit:UInt64}
)
ORDER BY at, log_epoch, log_offset, line_number;

-- name: log_lines_dropped
SELECT reason, sum(lines) AS lines
FROM log_lines_dropped
WHERE run_id = {run:String} AND ({rank:Int64} < 0 OR rank = {rank:Int64})
GROUP BY reason
ORDER BY reason;
