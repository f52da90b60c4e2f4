-- What reports ask of one run beside `runs.sql`. Times are microseconds since 1970, UTC.

-- From when to when each attempt was heard of, by its own telemetry.
-- name: attempt_spans
SELECT attempt_id, attempt, toUnixTimestamp64Micro(min(p.first_at)) AS first_at, toUnixTimestamp64Micro(max(p.last_at)) AS last_at,
    nullIf(max(p.last_step), -1) AS last_step, uniqExactIf(p.rank, p.last_step >= 0) AS ranks
FROM run_progress AS p
WHERE run_id = {run:String} AND rank >= 0 AND attempt_id != ''
GROUP BY attempt_id, attempt
ORDER BY first_at, attempt;

-- What an attempt did beyond the step at which the next one went on: since when, and how many steps.
-- name: undone_steps
SELECT c.attempt_id AS attempt_id, c.parent_attempt_id AS undone_attempt_id, c.first_step AS first_step,
    toUnixTimestamp64Micro(min(s.at)) AS began_at, toUnixTimestamp64Micro(max(s.at)) AS ended_at, uniqExact(s.step) AS steps
FROM (SELECT attempt_id, ifNull(parent_attempt_id, '') AS parent_attempt_id, first_step FROM attempts WHERE run_id = {run:String}) AS c
INNER JOIN (SELECT attempt_id, step, at FROM steps WHERE run_id = {run:String} AND metric = {metric:String}) AS s
    ON s.attempt_id = c.parent_attempt_id
WHERE s.step >= c.first_step
GROUP BY attempt_id, undone_attempt_id, first_step
ORDER BY began_at;

-- How the run stood over time: the least margin of each of about `points` intervals, and the last score.
-- name: margin_course
WITH
    (SELECT (min(at), max(at)) FROM assessments WHERE run_id = {run:String}) AS span,
    greatest(1, intDiv(toUnixTimestamp64Micro(span.2) - toUnixTimestamp64Micro(span.1), {points:Int64}) + 1) AS width
SELECT intDiv(toUnixTimestamp64Micro(a.at) - toUnixTimestamp64Micro(span.1), width) AS place, toUnixTimestamp64Micro(max(a.at)) AS last_at,
    max(a.step) AS step, min(a.margin) AS margin, argMax(a.phase, (a.log_epoch, a.log_offset)) AS phase,
    argMax(a.stability_score, (a.log_epoch, a.log_offset)) AS stability_score
FROM assessments AS a
WHERE run_id = {run:String}
GROUP BY place
ORDER BY place;

-- What was sampled of the machines. A counter that only grows (`energy_kwh`) is each process's own: their last words add up.
-- name: resource_summary
SELECT name, count() AS samples, avg(value) AS mean, min(value) AS least, max(value) AS greatest
FROM resources
WHERE run_id = {run:String} AND isFinite(value)
GROUP BY name
ORDER BY name;

-- name: resource_totals
SELECT name, sum(most) AS total, count() AS processes
FROM
(
    SELECT writer_id, name, max(r.value) AS most
    FROM resources AS r
    WHERE run_id = {run:String} AND name IN ('energy_kwh', 'gpu_count') AND isFinite(value)
    GROUP BY writer_id, name
)
GROUP BY name;

-- name: resource_course
WITH
    (SELECT (min(at), max(at)) FROM resources WHERE run_id = {run:String}) AS span,
    greatest(1, intDiv(toUnixTimestamp64Micro(span.2) - toUnixTimestamp64Micro(span.1), {points:Int64}) + 1) AS width
SELECT r.name AS name, intDiv(toUnixTimestamp64Micro(r.at) - toUnixTimestamp64Micro(span.1), width) AS place,
    toUnixTimestamp64Micro(max(r.at)) AS last_at, avg(r.value) AS mean
FROM resources AS r
WHERE run_id = {run:String} AND name IN {names:Array(String)} AND isFinite(value)
GROUP BY name, place
ORDER BY name, place;

-- Where the time of a step goes, mean over ranks and steps, and what was logged as counts.
-- name: metric_means
SELECT metric, avg(value) AS mean, sum(value) AS total, count() AS values
FROM steps
WHERE run_id = {run:String} AND metric IN {metrics:Array(String)} AND isFinite(value)
GROUP BY metric;

-- The last profile of each input, and the first.
-- name: profile_ends
SELECT feature, data_schema, argMin(numbers, (p.log_epoch, p.log_offset)) AS first_numbers, argMax(numbers, (p.log_epoch, p.log_offset)) AS last_numbers,
    argMax(edges, (p.log_epoch, p.log_offset)) AS last_edges, argMax(counts, (p.log_epoch, p.log_offset)) AS last_counts,
    sum(p.values_seen) AS values_seen, sum(p.values_sampled) AS values_sampled, sum(p.non_finite) AS non_finite, count() AS profiles,
    min(p.step) AS first_step, max(p.step) AS last_step
FROM data_profiles AS p
WHERE run_id = {run:String}
GROUP BY feature, data_schema
ORDER BY feature, max(log_offset) DESC;

-- ------------------------------------------------------------------------------------------------- several runs, and all of them

-- The last announcement of each of the latest runs (or of one run): what a run is compared with others by.
-- name: run_descriptions
SELECT r.run_id AS run_id, r.model AS model, r.model_family AS model_family, r.dataset AS dataset, r.dataset_version AS dataset_version,
    r.code_version AS code_version, r.cluster AS cluster, r.team AS team, r.world_size AS world_size, r.phase AS phase, r.outcome AS outcome,
    r.stability_score AS stability_score, r.last_step AS last_step, r.incidents AS incidents, r.interventions AS interventions,
    toUnixTimestamp64Micro(r.started_at) AS started_at, toUnixTimestamp64Micro(r.last_at) AS last_at, a.config AS config
FROM (SELECT * FROM runs WHERE {run:String} = '' OR run_id = {run:String} ORDER BY last_at DESC, run_id LIMIT {limit:UInt64}) AS r
LEFT JOIN (SELECT run_id, attempt_id, config FROM attempts) AS a ON a.run_id = r.run_id AND a.attempt_id = r.attempt_id
ORDER BY last_at DESC, run_id;

-- Every incident of these runs (of all, where none are named), with what was done in each, in order.
-- name: incidents_of_runs
SELECT i.run_id AS run_id, i.incident_id AS incident_id, i.attempt_id AS attempt_id, i.condition AS condition, i.reason AS reason,
    i.signature AS signature, i.onset_step AS onset_step, toUnixTimestamp64Micro(i.onset_at) AS onset_at, i.opened_step AS opened_step,
    toUnixTimestamp64Micro(i.opened_at) AS opened_at, i.resolved_step AS resolved_step,
    toUnixTimestamp64Micro(i.resolved_at) AS resolved_at, i.outcome AS outcome, i.steps_lost AS steps_lost,
    i.detection_steps AS detection_steps, i.detection_s AS detection_s, i.recovery_s AS recovery_s, i.evidence AS evidence, v.tried AS tried
FROM (SELECT * FROM incidents WHERE empty({runs:Array(String)}) OR run_id IN {runs:Array(String)}) AS i
LEFT JOIN
(
    SELECT run_id, incident_id, arraySort(t -> t.1, groupArray((first_place, rule, action, state, verification))) AS tried
    FROM interventions
    WHERE incident_id != '' AND (empty({runs:Array(String)}) OR run_id IN {runs:Array(String)})
    GROUP BY run_id, incident_id
) AS v ON v.run_id = i.run_id AND v.incident_id = i.incident_id
WHERE i.opened_at IS NULL OR toUnixTimestamp64Micro(i.opened_at) >= {since:Int64}
ORDER BY opened_at DESC, incident_id
LIMIT {limit:UInt64};

-- name: phase_shares
SELECT phase, times_entered, seconds, steps, share
FROM time_in_phase
WHERE run_id = {run:String} AND phase != 'Ended'
ORDER BY seconds DESC, phase;

-- name: regimes
SELECT phase, lr_band, lr_from, batch_band, data_mix, world_size, seconds, steps, mean_margin, least_margin
FROM stress_regimes
WHERE run_id = {run:String} AND phase != 'Ended'
ORDER BY lr_from, batch_band, data_mix, world_size, phase;

-- name: fleet_runs
SELECT run_id, model, model_family, dataset, team, cluster, outcome, phase, margin, stability_score, attempts, world_size, last_step,
    toUnixTimestamp64Micro(o.started_at) AS started_at, toUnixTimestamp64Micro(o.last_at) AS last_at, duration_s, share_well, incidents,
    open_incidents, mttd_s, mttr_s, steps_lost, interventions_proposed, interventions_issued, interventions_recovered, interventions_in_vain,
    checkpoints, energy_kwh, gpu_util, rank_hours, gpu_hours, cost, wasted_share, wasted_rank_hours, wasted_gpu_hours, wasted_cost
FROM run_overview AS o
WHERE toUnixTimestamp64Micro(o.last_at) >= {since:Int64} AND toUnixTimestamp64Micro(o.last_at) < {until:Int64}
ORDER BY last_at DESC, run_id
LIMIT {limit:UInt64};

-- How the service levels stand now, and how fast their budgets are being spent: times as fast as they allow.
-- name: service_levels
SELECT s.id AS id, s.name AS name, s.target AS target, s.samples AS samples, s.value AS value, s.status AS status,
    s.budget_left AS budget_left, s.needs AS needs, b.day AS burn_day, b.week AS burn_week
FROM slo AS s
LEFT JOIN
(
    SELECT id, maxIf(burn_rate, hours = 24) AS day, maxIf(burn_rate, hours = 168) AS week
    FROM slo_burn
    GROUP BY id
) AS b ON b.id = s.id
ORDER BY length(id), id;
