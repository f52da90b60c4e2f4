-- What the control room asks again and again. Times are microseconds since 1970, UTC, as in the events.

-- How far each run has come: what differs from the last look has stirred.
-- name: pulse
SELECT run_id, toUnixTimestamp64Micro(max(last_at)) AS last_at, max(greatest_step) AS last_step
FROM run_summary
GROUP BY run_id
ORDER BY last_at DESC
LIMIT {limit:UInt64};

-- The policies that were activated for a run, the latest first: the first that can be used governs it.
-- name: policies_of_run
SELECT JSONExtractString(body, 'name') AS name, JSONExtractString(body, 'policy_hash') AS policy_hash,
    JSONExtractString(body, 'who') AS who, toUnixTimestamp64Micro(at) AS at, JSONExtractString(body, 'text') AS text
FROM events
WHERE run_id = {run:String} AND kind = 'policy_activated'
ORDER BY log_epoch DESC, log_offset DESC
LIMIT 20;

-- On which machines runs are: as their samples said within `minutes`, else as rank 0 said when its attempt began.
-- name: run_hosts
SELECT run_id, host
FROM
(
    SELECT b.run_id AS run_id, arrayJoin(if(empty(s.hosts), [b.host], s.hosts)) AS host
    FROM
    (
        SELECT run_id, argMax(JSONExtractString(body, 'environment', 'host'), (log_epoch, log_offset)) AS host
        FROM event_log
        WHERE kind = 'run_started'
        GROUP BY run_id
    ) AS b
    LEFT JOIN
    (
        SELECT run_id, groupUniqArray(JSONExtractString(body, 'host')) AS hosts
        FROM event_log
        WHERE kind = 'resources_sampled' AND at > now64(6) - toIntervalMinute({minutes:UInt32}) AND JSONHas(body, 'host')
        GROUP BY run_id
    ) AS s ON s.run_id = b.run_id
)
WHERE host != ''
ORDER BY run_id, host;

-- Incidents that are open in runs that go on, with what the rules that answered them said of their gravity.
-- name: open_incidents
SELECT i.run_id AS run_id, i.condition AS condition, i.reason AS reason, toUnixTimestamp64Micro(assumeNotNull(i.opened_at)) AS opened_at,
    arrayFilter(severity -> severity != '', groupUniqArray(v.severity)) AS severities
FROM incidents AS i
LEFT JOIN interventions AS v ON v.run_id = i.run_id AND v.incident_id = i.incident_id
WHERE i.outcome = '' AND i.opened_at IS NOT NULL
GROUP BY i.run_id, i.incident_id, i.condition, i.reason, i.opened_at;

-- Every policy that ever governed a run, with how many runs it governs now, the latest first.
-- name: policies
SELECT policy_hash, name, text, who, first_at, last_at, runs, governs
FROM
(
    SELECT JSONExtractString(body, 'policy_hash') AS policy_hash, argMax(JSONExtractString(body, 'name'), at) AS name,
        any(JSONExtractString(body, 'text')) AS text, argMax(JSONExtractString(body, 'who'), at) AS who,
        toUnixTimestamp64Micro(min(at)) AS first_at, toUnixTimestamp64Micro(max(at)) AS last_at, uniqExact(run_id) AS runs
    FROM events
    WHERE kind = 'policy_activated'
    GROUP BY policy_hash
) AS known
LEFT JOIN
(
    SELECT policy_hash, groupArray(run_id) AS governs
    FROM
    (
        SELECT run_id, argMax(JSONExtractString(body, 'policy_hash'), (log_epoch, log_offset)) AS policy_hash
        FROM events
        WHERE kind = 'policy_activated'
        GROUP BY run_id
    )
    GROUP BY policy_hash
) AS now USING (policy_hash)
ORDER BY last_at DESC
LIMIT {limit:UInt64};

-- The times that ranks tell of the last steps of the latest attempt, as the mean of each of equal parts of them (`column` counts from the
-- oldest, `width` steps are one): a straggler shows. NaN and the infinities are no times.
-- name: rank_times
SELECT rank, metric, column, avg(value) AS value
FROM
(
    WITH
    (
        SELECT argMax((attempt_id, greatest_step), greatest_attempt)
        FROM
        (
            SELECT attempt_id, max(p.attempt) AS greatest_attempt, max(p.last_step) AS greatest_step
            FROM run_progress AS p
            WHERE p.run_id = {run:String}
            GROUP BY attempt_id
            HAVING greatest_step >= 0
        )
    ) AS latest
    SELECT rank, metric, intDiv(step - latest.2 + {steps:Int64} - 1, {width:Int64}) AS column, value
    FROM step_log FINAL
    ARRAY JOIN steps AS step, values AS value
    WHERE run_id = {run:String} AND metric IN ('step_s', 'compute_s', 'data_wait_s', 'comm_s') AND attempt_id = latest.1
        AND last_step > latest.2 - {steps:Int64} AND step > latest.2 - {steps:Int64} AND isFinite(value)
)
GROUP BY rank, metric, column
ORDER BY metric, rank, column;

-- What the latest runs have cost so far (by `cost_per_hour`; NULL: not told), and how many steps a second their latest attempt has
-- made on average since it began.
-- name: fleet_effort
SELECT p.run_id AS run_id, sum(s.rate * p.seconds) / 3600 AS cost,
    argMax(tuple(if(p.seconds > 0 AND p.last_step > s.first_step, (p.last_step - s.first_step) / p.seconds, NULL)), p.attempt).1
        AS steps_per_second
FROM
(
    SELECT q.run_id AS run_id, q.attempt_id AS attempt_id, max(q.attempt) AS attempt, max(q.last_step) AS last_step,
        dateDiff('microsecond', min(q.first_at), max(q.last_at)) / 1e6 AS seconds
    FROM run_progress AS q
    WHERE q.attempt_id != '' AND q.run_id IN
        (SELECT r.run_id FROM run_progress AS r GROUP BY r.run_id ORDER BY max(r.last_at) DESC, r.run_id LIMIT {limit:UInt64})
    GROUP BY run_id, attempt_id
) AS p
INNER JOIN
(
    SELECT e.run_id AS run_id, e.attempt_id AS attempt_id, max(e.cost_per_hour) AS rate, min(e.first_step) AS first_step
    FROM event_log AS e
    WHERE e.kind = 'run_started'
    GROUP BY run_id, attempt_id
) AS s ON s.run_id = p.run_id AND s.attempt_id = p.attempt_id
GROUP BY run_id;

-- The conditions that do not hold, by the last word on each, of runs that have not ended.
-- name: failing_conditions
SELECT run_id, condition, said.2 AS reason
FROM
(
    SELECT run_id, condition, argMax((JSONExtractString(body, 'status'), reason), (log_epoch, log_offset)) AS said
    FROM event_log
    WHERE kind = 'condition_changed'
    GROUP BY run_id, condition
)
WHERE said.1 = 'False'
ORDER BY run_id, condition;

-- What runs may cost by their own tags `budget_cost` and `budget_rank_hours`; NULL is no number.
-- name: run_budgets
SELECT run_id, nullIf(toFloat64OrZero(last.1), 0) AS cost, nullIf(toFloat64OrZero(last.2), 0) AS rank_hours
FROM
(
    SELECT run_id, argMax((JSONExtractString(body, 'tags', 'budget_cost'), JSONExtractString(body, 'tags', 'budget_rank_hours')),
        (log_epoch, log_offset)) AS last
    FROM event_log
    WHERE kind = 'run_started' AND position(body, '"budget_') > 0
    GROUP BY run_id
)
WHERE (cost > 0 AND isFinite(cost)) OR (rank_hours > 0 AND isFinite(rank_hours));
