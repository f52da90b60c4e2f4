-- One run's log, as it was judged. Places are (epoch, offset) within the run's partition; times are microseconds.

-- name: facts
SELECT log_epoch, log_partition, log_offset, body
FROM events
WHERE run_id = {run:String} AND kind NOT IN {decisions:Array(String)} AND log_epoch < {before_epoch:UInt64}
ORDER BY log_partition != {imported:UInt32}, log_epoch, log_offset, log_partition;

-- name: decisions
SELECT body
FROM events
WHERE run_id = {run:String} AND kind IN {decisions:Array(String)}
ORDER BY log_partition != {imported:UInt32}, log_epoch, log_offset, log_partition;

-- Columns of a StepBatch, batch after batch. Where two records claim one identity, only the earlier was judged.
-- name: batch_columns
SELECT log_epoch, log_partition, log_offset, attempt_id, attempt, rank, writer_id, seq, toUnixTimestamp64Micro(batch_at) AS batch_at,
    column_index, metric, rows, steps, arrayMap(at -> toUnixTimestamp64Micro(at), times) AS times, values
FROM step_log FINAL
WHERE run_id = {run:String} AND log_epoch < {before_epoch:UInt64}
ORDER BY log_partition != {imported:UInt32}, log_epoch, log_offset, log_partition, column_index;

-- name: span
SELECT log_epoch, log_partition, min(log_offset) AS first_offset, max(log_offset) AS last_offset
FROM
(
    SELECT log_epoch, log_partition, log_offset FROM events WHERE run_id = {run:String} AND kind NOT IN {decisions:Array(String)}
    UNION ALL
    SELECT log_epoch, log_partition, log_offset FROM step_log FINAL WHERE run_id = {run:String}
)
WHERE log_epoch < {before_epoch:UInt64}
GROUP BY log_epoch, log_partition
ORDER BY log_epoch, first_offset;

-- The record on which the run was judged to have ended, where nothing was judged after it.
-- name: ended_on
SELECT JSONExtract(body, 'basis', 'Tuple(UInt32, UInt32, UInt64)') AS basis
FROM
(
    SELECT body
    FROM events
    WHERE run_id = {run:String} AND kind = 'phase_changed' AND log_epoch < {before_epoch:UInt64}
    ORDER BY log_partition != {imported:UInt32} DESC, log_epoch DESC, log_offset DESC
    LIMIT 1
)
WHERE JSONExtractString(body, 'phase') = 'Ended';

-- Ticks behind one place, up to and with another.
-- name: ticks_between
SELECT log_epoch, log_partition, log_offset, partition, writer_id, seq, toUnixTimestamp64Micro(at) AS at
FROM ticks
WHERE log_partition IN {partitions:Array(UInt32)}
    AND (log_epoch, log_offset) > ({after_epoch:UInt32}, {after_offset:UInt64})
    AND (log_epoch, log_offset) <= ({until_epoch:UInt32}, {until_offset:UInt64})
ORDER BY log_epoch, log_offset, log_partition
LIMIT {limit:UInt64};

-- An import that was cut off is no run that goes on.
-- name: open_runs
SELECT run_id
FROM runs
WHERE phase != 'Ended' AND run_id NOT IN (SELECT run_id FROM imports WHERE NOT finished)
ORDER BY started_at, run_id;
