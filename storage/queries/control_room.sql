-- What the control room asks again and again. Times are microseconds since 1970, UTC, as in the events.

-- How far each run has come: what differs from the last look has stirred.
-- name: pulse
SELECT run_id, toUnixTimestamp64Micro(max(last_at)) AS last_at, max(last_step) AS last_step
FROM run_progress
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

-- Times that ranks tell of their steps, the latest: a straggler shows.
-- name: rank_times
SELECT rank, metric, argMax(steps[-1], (log_epoch, log_offset)) AS step, argMax(values[-1], (log_epoch, log_offset)) AS value
FROM step_log FINAL
WHERE run_id = {run:String} AND metric IN ('step_s', 'compute_s', 'data_wait_s', 'comm_s') AND notEmpty(values)
GROUP BY rank, metric
ORDER BY rank, metric;
