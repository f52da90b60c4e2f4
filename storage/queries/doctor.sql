-- What `pilothouse doctor` asks of the archive. Times are seconds.

-- name: archive_clock
SELECT toUnixTimestamp64Milli(now64(3)) / 1000 AS now;

-- How much later than it says of itself the quickest record of each rank was archived, in the last hour: less than nothing is a
-- clock that is ahead of the archive's.
-- name: trainer_clocks
SELECT run_id, rank, min(dateDiff('millisecond', at, toDateTime64(archived_at, 6, 'UTC'))) / 1000 AS quickest, count() AS records
FROM event_log
WHERE archived_at > now64(3) - INTERVAL 1 HOUR AND rank IS NOT NULL
GROUP BY run_id, rank
HAVING quickest < -{ahead:Float64} OR quickest > {behind:Float64}
ORDER BY quickest
LIMIT 20;

-- name: refusals
SELECT run_id, outcome, reason, count() AS times
FROM receipts
WHERE outcome IN ('rejected', 'failed') AND at > now64(6) - INTERVAL 1 DAY
GROUP BY run_id, outcome, reason
ORDER BY times DESC
LIMIT 20;

-- The policy that governs each run that goes on.
-- name: policies_in_force
SELECT run_id, argMax(JSONExtractString(body, 'name'), (log_epoch, log_offset)) AS name,
    argMax(JSONExtractString(body, 'policy_hash'), (log_epoch, log_offset)) AS policy_hash
FROM event_log FINAL
WHERE kind = 'policy_activated' AND run_id IN (SELECT run_id FROM runs WHERE phase != 'Ended')
GROUP BY run_id;

-- name: archive_disks
SELECT name, free_space AS free, total_space AS total
FROM system.disks
WHERE total_space > 0;
