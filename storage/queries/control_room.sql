-- What the control room asks again and again. Times are microseconds since 1970, UTC, as in the events.

-- How far each run has come: what differs from the last look has stirred.
-- name: pulse
SELECT run_id, toUnixTimestamp64Micro(max(last_at)) AS last_at, max(greatest_step) AS last_step
FROM run_summary
GROUP BY run_id
ORDER BY last_at DESC
LIMIT {limit:UInt64};

-- The policy that governs a run, and its text.
-- name: policy_in_force
SELECT JSONExtractString(body, 'name') AS name, JSONExtractString(body, 'policy_hash') AS policy_hash,
    JSONExtractString(body, 'who') AS who, toUnixTimestamp64Micro(at) AS at, JSONExtractString(body, 'text') AS text
FROM events
WHERE run_id = {run:String} AND kind = 'policy_activated'
ORDER BY log_epoch DESC, log_offset DESC
LIMIT 1;

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

-- Times that ranks tell of their steps, the latest: a straggler shows.
-- name: rank_times
SELECT rank, metric, argMax(steps[-1], (log_epoch, log_offset)) AS step, argMax(values[-1], (log_epoch, log_offset)) AS value
FROM step_log FINAL
WHERE run_id = {run:String} AND metric IN ('step_s', 'compute_s', 'data_wait_s', 'comm_s') AND notEmpty(values)
GROUP BY rank, metric
ORDER BY rank, metric;
