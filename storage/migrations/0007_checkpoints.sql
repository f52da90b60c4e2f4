-- What rotation removed, what failed its verification and what no disk took is no checkpoint to go back to: the view says so.

CREATE OR REPLACE VIEW checkpoints
(
    run_id          String COMMENT 'the run',
    attempt_id      LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt         Int64 COMMENT 'its ordinal, from 1',
    rank            Nullable(Int32) COMMENT 'who told it',
    step            Nullable(Int64) COMMENT 'the step it was told at',
    at              DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    checkpoint_id   String COMMENT 'its name',
    path            String COMMENT 'where it is',
    manifest_sha256 String COMMENT 'of its manifest',
    size_bytes      Int64 COMMENT 'on disk',
    took_s          Float64 COMMENT 'seconds it took',
    rejected        Bool COMMENT 'no candidate for recovery any more',
    rejected_reason String COMMENT 'why',
    times_restored  UInt64 COMMENT 'by how many ranks',
    lost            String COMMENT 'how it was lost: rotated (removed in its time), unusable or not_saved; empty while it is there',
    lost_reason     String COMMENT 'why'
)
AS
WITH became AS
(
    SELECT
        run_id,
        if(kind = 'checkpoint_rejected', JSONExtractString(body, 'checkpoint', 'checkpoint_id'), JSONExtractString(body, 'checkpoint_id'))
            AS checkpoint_id,
        countIf(kind = 'checkpoint_rejected') > 0 AS rejected,
        anyIf(c.reason, kind = 'checkpoint_rejected') AS rejected_reason,
        uniqExactIf((rank, c.attempt_id), kind = 'checkpoint_restored') AS times_restored,
        argMaxIf(JSONExtractString(c.body, 'how'), (c.log_epoch, c.log_offset), kind = 'checkpoint_unavailable') AS lost,
        argMaxIf(JSONExtractString(c.body, 'reason'), (c.log_epoch, c.log_offset), kind = 'checkpoint_unavailable') AS lost_reason
    FROM event_log AS c FINAL
    WHERE kind IN ('checkpoint_rejected', 'checkpoint_restored', 'checkpoint_unavailable')
    GROUP BY run_id, checkpoint_id
)
SELECT
    c.run_id AS run_id, c.attempt_id AS attempt_id, c.attempt AS attempt, c.rank AS rank, c.step AS step, c.at AS at,
    JSONExtractString(c.body, 'checkpoint_id') AS checkpoint_id,
    JSONExtractString(c.body, 'path') AS path,
    JSONExtractString(c.body, 'manifest_sha256') AS manifest_sha256,
    JSONExtractInt(c.body, 'size_bytes') AS size_bytes,
    JSONExtractFloat(c.body, 'took_s') AS took_s,
    toBool(b.rejected) AS rejected, b.rejected_reason AS rejected_reason, b.times_restored AS times_restored,
    b.lost AS lost, b.lost_reason AS lost_reason
FROM event_log AS c FINAL
LEFT JOIN became AS b ON b.run_id = c.run_id AND b.checkpoint_id = JSONExtractString(c.body, 'checkpoint_id')
WHERE c.kind = 'checkpoint_saved';
