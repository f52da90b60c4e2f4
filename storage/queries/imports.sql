-- What an import asks of the archive before and while it writes. Times are microseconds.

-- name: import_of
SELECT format, digest, recipe, path, toUnixTimestamp64Micro(began_at) AS began_at, finished
FROM imports
WHERE run_id = {run:String};

-- The place up to which an import has come: nothing before it is missing but what was on its way beside it.
-- name: import_reached
SELECT max(reached) AS reached
FROM
(
    SELECT max(toInt64(e.log_offset)) AS reached FROM event_log AS e
    WHERE run_id = {run:String} AND log_partition = {partition:UInt32} AND topic = {topic:String}
    UNION ALL
    SELECT max(toInt64(s.log_offset)) AS reached FROM step_log AS s WHERE run_id = {run:String} AND log_partition = {partition:UInt32}
    UNION ALL
    SELECT max(toInt64(t.log_offset)) AS reached FROM imported_tick_log AS t WHERE run_id = {run:String}
);

-- name: imported_ticks
SELECT log_offset, partition, writer_id, seq, toUnixTimestamp64Micro(at) AS at
FROM imported_tick_log FINAL
WHERE run_id = {run:String}
ORDER BY log_offset;
