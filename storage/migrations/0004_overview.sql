-- What a run overview needs beside its steps: the machine, the inputs, the job's log, facts from the pipeline around it.

CREATE OR REPLACE VIEW resources AS
SELECT run_id, attempt_id, attempt, rank, at, pair.1 AS name, pair.2 AS value, log_epoch, log_offset
FROM events
ARRAY JOIN JSONExtractKeysAndValues(body, 'values', 'Float64') AS pair
WHERE kind = 'resources_sampled';

-- `counts` has one more than `edges`: at most the first edge, between each and the next, above the last.
CREATE OR REPLACE VIEW data_profiles AS
SELECT
    run_id, attempt_id, attempt, rank, step, at,
    JSONExtractString(body, 'feature') AS feature,
    JSONExtractString(body, 'data_schema') AS data_schema,
    JSONExtract(body, 'edges', 'Array(Float64)') AS edges,
    JSONExtract(body, 'counts', 'Array(UInt64)') AS counts,
    JSONExtractUInt(body, 'batches') AS batches,
    JSONExtractUInt(body, 'values_seen') AS values_seen,
    JSONExtractUInt(body, 'values_sampled') AS values_sampled,
    JSONExtractUInt(body, 'non_finite') AS non_finite,
    JSONExtract(body, 'numbers', 'Map(String, Float64)') AS numbers,
    log_epoch, log_offset
FROM events
WHERE kind = 'data_profiled';

-- `severity` orders levels as Python's logging does.
CREATE OR REPLACE VIEW log_lines AS
SELECT
    run_id, attempt_id, attempt, rank,
    JSONExtractInt(line, 'step') AS step,
    fromUnixTimestamp64Micro(JSONExtractInt(line, 'at'), 'UTC') AS at,
    JSONExtractString(line, 'level') AS level,
    transform(level, ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'], [10, 20, 30, 40, 50], 0) AS severity,
    JSONExtractString(line, 'logger') AS logger,
    JSONExtractString(line, 'text') AS text,
    line_number, log_epoch, log_offset
FROM events
ARRAY JOIN JSONExtractArrayRaw(body, 'lines') AS line, arrayEnumerate(JSONExtractArrayRaw(body, 'lines')) AS line_number
WHERE kind = 'log_lines';

-- Lines that were over their bounds, by reason; they stand between those of `log_lines`.
CREATE OR REPLACE VIEW log_lines_dropped AS
SELECT run_id, attempt_id, attempt, rank, at, pair.1 AS reason, pair.2 AS lines, log_epoch, log_offset
FROM events
ARRAY JOIN JSONExtractKeysAndValues(body, 'dropped', 'UInt64') AS pair
WHERE kind = 'log_lines';

CREATE OR REPLACE VIEW pipeline_facts AS
SELECT
    run_id, nullIf(attempt_id, '') AS attempt_id, rank, at,
    JSONExtractString(body, 'fact') AS fact,
    JSONExtractString(body, 'subject') AS subject,
    JSONExtract(body, 'numbers', 'Map(String, Float64)') AS numbers,
    JSONExtractString(body, 'who') AS who,
    JSONExtractString(body, 'note') AS note,
    log_epoch, log_offset
FROM events
WHERE kind = 'pipeline_reported';
