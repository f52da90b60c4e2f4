-- Steps in summary (`storage.stretches`). `size` is the number of steps in a stretch.

-- Up to which stretch each attempt of these runs is summed up, and whether another one came after it.
-- name: summed_up
SELECT p.run_id AS run_id, p.attempt_id AS attempt_id, p.last_step AS last_step, s.until AS until,
    p.attempt < max(p.attempt) OVER (PARTITION BY p.run_id) AND p.last_step >= s.until * {size:Int64} AS left_behind
FROM
(
    SELECT run_id, attempt_id, max(q.attempt) AS attempt, max(q.last_step) AS last_step
    FROM run_progress AS q
    WHERE run_id IN {runs:Array(String)} AND attempt_id != ''
    GROUP BY run_id, attempt_id
) AS p
LEFT JOIN
(
    SELECT run_id, attempt_id, max(stretch) + 1 AS until
    FROM step_stretches
    WHERE run_id IN {runs:Array(String)}
    GROUP BY run_id, attempt_id
) AS s ON s.run_id = p.run_id AND s.attempt_id = p.attempt_id;

-- A row lies in one stretch, as nearly all do, or is taken once for each of those it reaches into, with what it has there. `told` is in
-- the order of the log, and of the rows within a record.
-- name: sum_up
INSERT INTO step_stretches
    (run_id, metric, rank, attempt_id, stretch, attempt, last_step, first_at, values, finite, total, least, greatest, last, told)
SELECT run_id, metric, rank, attempt_id, stretch, any(s.attempt), max(arrayMax(own_steps)), min(arrayMin(own_times)), sum(length(own)),
    sum(length(fine)), sum(arraySum(fine)), minIf(arrayMin(fine), notEmpty(fine)), maxIf(arrayMax(fine), notEmpty(fine)),
    argMax(own[-1], told), max(told)
FROM
(
    SELECT run_id, metric, rank, attempt_id, attempt, stretch, l.whole AS whole,
        if(whole, steps, arrayFilter(step -> intDiv(step, {size:Int64}) = stretch, steps)) AS own_steps,
        if(whole, times, arrayFilter((at, step) -> intDiv(step, {size:Int64}) = stretch, times, steps)) AS own_times,
        arrayMap(bit -> reinterpretAsFloat64(bit),
            if(whole, bits, arrayFilter((bit, step) -> intDiv(step, {size:Int64}) = stretch, bits, steps))) AS own,
        arrayFilter(value -> isFinite(value), own) AS fine,
        bitShiftLeft(toUInt64(log_epoch), 54) + bitShiftLeft(log_offset, 14)
            + if(whole, length(bits), arrayLastIndex(step -> intDiv(step, {size:Int64}) = stretch, steps)) AS told
    FROM
    (
        SELECT *, intDiv(first_step, {size:Int64}) = intDiv(last_step, {size:Int64}) AS whole,
            if(whole, [intDiv(first_step, {size:Int64})], arrayDistinct(arrayMap(step -> intDiv(step, {size:Int64}), steps))) AS stretches
        FROM step_log FINAL
        WHERE run_id IN {runs:Array(String)} AND attempt_id IN {attempts:Array(String)} AND metric != '' AND notEmpty(bits)
            AND last_step >= {first:Int64} * {size:Int64} AND first_step < {last:Int64} * {size:Int64}
    ) AS l
    ARRAY JOIN stretches AS stretch
    WHERE stretch >= {first:Int64} AND stretch < {last:Int64}
) AS s
GROUP BY run_id, metric, rank, attempt_id, stretch;

-- What a plot must know first: from which stretch to which attempts are summed up, the last step, and which go on behind that.
-- name: curve_plan
SELECT minIf(s.first, s.until > 0) AS first, max(s.until) AS until, max(p.last_step) AS last_step,
    groupArrayIf(p.attempt_id, p.last_step >= s.until * {size:Int64}) AS attempts,
    groupArrayIf(s.until * {size:Int64}, p.last_step >= s.until * {size:Int64}) AS open_from
FROM
(
    SELECT attempt_id, max(q.last_step) AS last_step
    FROM run_progress AS q
    WHERE run_id = {run:String}
    GROUP BY attempt_id
) AS p
LEFT JOIN
(
    SELECT attempt_id, min(stretch) AS first, max(stretch) + 1 AS until
    FROM step_stretches
    WHERE run_id = {run:String}
    GROUP BY attempt_id
) AS s ON s.attempt_id = p.attempt_id;

-- Metrics over steps, in at most about `points` intervals for each attempt and rank (or, not `by_rank`, all ranks together). Means,
-- least and greatest are of the finite values; how many were not is said beside them.
-- name: curves
WITH
    (
        SELECT (min(first_step), max(last_step)) FROM step_log
        WHERE run_id = {run:String} AND metric IN {metrics:Array(String)} AND notEmpty(bits)
    ) AS span,
    greatest(1, intDiv(span.2 - span.1, {points:Int64}) + 1) AS width
SELECT metric, any(s.attempt_id) AS attempt_id, any(s.attempt) AS attempt, teller AS rank, span.1 + place * width AS from_step,
    max(step) AS to_step, toUnixTimestamp64Micro(min(s.at)) AS first_at,
    if(countIf(fine) = 0, NULL, sumIf(value, fine) / countIf(fine)) AS mean,
    if(countIf(fine) = 0, NULL, minIf(value, fine)) AS least,
    if(countIf(fine) = 0, NULL, maxIf(value, fine)) AS greatest,
    argMax(value, told) AS last, count() - countIf(fine) AS non_finite, count() AS values
FROM
(
    SELECT metric, attempt_id, attempt, if({by_rank:Bool}, rank, -1) AS teller, step, at, intDiv(step - span.1, width) AS place,
        cityHash64(attempt_id) AS identity, reinterpretAsFloat64(bit) AS value, isFinite(value) AS fine,
        -- In the order of the log, and of the rows within a record.
        bitShiftLeft(toUInt64(log_epoch), 54) + bitShiftLeft(log_offset, 14) + number AS told
    FROM step_log FINAL
    ARRAY JOIN steps AS step, times AS at, bits AS bit, arrayEnumerate(bits) AS number
    WHERE run_id = {run:String} AND metric IN {metrics:Array(String)} AND ({rank:Int64} < 0 OR rank = {rank:Int64})
) AS s
GROUP BY metric, identity, teller, place
ORDER BY metric, attempt, attempt_id, rank, from_step;

-- The same from the summaries, and from the steps behind them. `width` is a number of whole stretches, which begin at `origin`.
-- name: curves_of_stretches
SELECT metric, attempt_id, any(s.attempt) AS attempt, teller AS rank, {origin:Int64} + place * {width:Int64} AS from_step,
    max(s.last_step) AS to_step, toUnixTimestamp64Micro(min(s.first_at)) AS first_at,
    if(sum(s.finite) = 0, NULL, sum(s.total) / sum(s.finite)) AS mean,
    if(sum(s.finite) = 0, NULL, minIf(s.least, s.finite > 0)) AS least,
    if(sum(s.finite) = 0, NULL, maxIf(s.greatest, s.finite > 0)) AS greatest,
    argMax(s.last, s.told) AS last, sum(s.values) - sum(s.finite) AS non_finite, sum(s.values) AS values
FROM
(
    SELECT metric, attempt_id, attempt, if({by_rank:Bool}, rank, -1) AS teller,
        intDiv(stretch * {size:Int64} - {origin:Int64}, {width:Int64}) AS place, last_step, first_at, values, finite, total, least, greatest, last,
        told
    FROM step_stretches FINAL
    WHERE run_id = {run:String} AND metric IN {metrics:Array(String)} AND ({rank:Int64} < 0 OR rank = {rank:Int64})
    UNION ALL
    SELECT metric, attempt_id, attempt, if({by_rank:Bool}, rank, -1) AS teller, intDiv(step - {origin:Int64}, {width:Int64}) AS place,
        step AS last_step, at AS first_at, 1 AS values, isFinite(last) AS finite, if(finite, last, 0) AS total, total AS least,
        total AS greatest, reinterpretAsFloat64(bit) AS last,
        bitShiftLeft(toUInt64(log_epoch), 54) + bitShiftLeft(log_offset, 14) + number AS told
    FROM step_log AS l FINAL
    ARRAY JOIN steps AS step, times AS at, bits AS bit, arrayEnumerate(bits) AS number
    WHERE run_id = {run:String} AND metric IN {metrics:Array(String)} AND ({rank:Int64} < 0 OR rank = {rank:Int64})
        AND attempt_id IN {attempts:Array(String)} AND l.last_step >= {least_open:Int64}
        AND step >= transform(attempt_id, {attempts:Array(String)}, {open_from:Array(Int64)}, toInt64(0))
) AS s
GROUP BY metric, s.attempt_id, teller, place
ORDER BY metric, attempt, attempt_id, rank, from_step;
