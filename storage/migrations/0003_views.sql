-- What people ask for, by the words they use: each event counts once. Steps and times are those of the event; what is not known is
-- NULL.

CREATE OR REPLACE VIEW events
(
    run_id        String COMMENT 'the run',
    attempt_id    LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt       Int64 COMMENT 'its ordinal, from 1',
    rank          Nullable(Int32) COMMENT 'who told it; NULL for decisions and people',
    kind          LowCardinality(String) COMMENT 'what happened',
    event_id      String COMMENT 'unique for ever',
    at            DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    step          Nullable(Int64) COMMENT 'the step it is about, if any',
    topic         LowCardinality(String) COMMENT 'of the log',
    log_epoch     UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_partition UInt32 COMMENT 'place in the log: partition',
    log_offset    UInt64 COMMENT 'place in the log: offset',
    writer_id     LowCardinality(String) COMMENT 'the process that told it',
    seq           UInt64 COMMENT 'its number among what the writer told',
    body          String COMMENT 'the whole event as JSON'
)
AS
SELECT run_id, attempt_id, attempt, rank, kind, event_id, at, step, topic, log_epoch, log_partition, log_offset, writer_id, seq, body
FROM event_log FINAL;

CREATE OR REPLACE VIEW steps
(
    run_id        String COMMENT 'the run',
    attempt_id    LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt       Int64 COMMENT 'its ordinal, from 1',
    rank          Int32 COMMENT 'who told it',
    metric        LowCardinality(String) COMMENT 'its name',
    step          Int64 COMMENT 'the step; may come again after a rollback',
    at            DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    value         Float64 COMMENT 'NaN and the infinities are themselves',
    writer_id     LowCardinality(String) COMMENT 'the process that told it',
    seq           UInt64 COMMENT 'its number among what the writer told',
    row_index     UInt16 COMMENT 'row within the batch in which it was sent',
    log_epoch     UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_partition UInt32 COMMENT 'place in the log: partition',
    log_offset    UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT
    run_id, attempt_id, attempt, rank, metric, step, at, value, writer_id, seq, row_index, log_epoch, log_partition, log_offset
FROM step_log FINAL
ARRAY JOIN
    steps AS step, times AS at, values AS value, if(empty(rows), range(toUInt16(length(values))), rows) AS row_index
WHERE metric != '';

CREATE OR REPLACE VIEW ticks
(
    partition     UInt32 COMMENT 'whose second passed',
    at            DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    writer_id     LowCardinality(String) COMMENT 'the process that told it',
    seq           UInt64 COMMENT 'its number among what the writer told',
    log_epoch     UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_partition UInt32 COMMENT 'place in the log: partition',
    log_offset    UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT partition, at, writer_id, seq, log_epoch, log_partition, log_offset
FROM tick_log FINAL;

-- An attempt is announced again when more is known of it (what a pilot can steer, what was found late): the last word counts,
-- and it began with the first.
CREATE OR REPLACE VIEW attempts
(
    run_id            String COMMENT 'the run',
    attempt_id        LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt           Int64 COMMENT 'its ordinal, from 1',
    reason            String COMMENT 'start, restart or rollback',
    parent_attempt_id Nullable(String) COMMENT 'what it goes on from',
    first_step        Int64 COMMENT 'where it began',
    world_size        Int64 COMMENT 'ranks of the attempt',
    model             String COMMENT 'as the run names it',
    model_family      String COMMENT 'as the run names it',
    code_version      String COMMENT 'commit',
    code_dirty        Nullable(Bool) COMMENT 'whether the code differed from the commit',
    dataset           String COMMENT 'as the run names it',
    dataset_version   String COMMENT 'as the run names it',
    cluster           String COMMENT 'as the run names it',
    team              String COMMENT 'as the run names it',
    cost_per_hour     Nullable(Float64) COMMENT 'of the whole run, in your currency',
    config            String COMMENT 'JSON object: configuration and hyperparameters',
    tags              String COMMENT 'JSON object of texts',
    links             String COMMENT 'JSON object: other trackers',
    environment       String COMMENT 'JSON object: what the run found by itself',
    started_at        DateTime64(6, 'UTC') COMMENT 'first heard of',
    log_epoch         UInt32 COMMENT 'place of its first announcement',
    log_offset        UInt64 COMMENT 'place of its first announcement'
)
AS
SELECT
    run_id, attempt_id,
    argMax(a.attempt, (a.log_epoch, a.log_offset)) AS attempt,
    argMax(a.reason, (a.log_epoch, a.log_offset)) AS reason,
    argMax(tuple(JSONExtract(a.body, 'parent_attempt_id', 'Nullable(String)')), (a.log_epoch, a.log_offset)).1 AS parent_attempt_id,
    argMax(a.first_step, (a.log_epoch, a.log_offset)) AS first_step,
    argMax(a.world_size, (a.log_epoch, a.log_offset)) AS world_size,
    argMax(a.model, (a.log_epoch, a.log_offset)) AS model,
    argMax(a.model_family, (a.log_epoch, a.log_offset)) AS model_family,
    argMax(JSONExtractString(a.body, 'code_version'), (a.log_epoch, a.log_offset)) AS code_version,
    argMax(tuple(JSONExtract(a.body, 'environment', 'git', 'dirty', 'Nullable(Bool)')), (a.log_epoch, a.log_offset)).1 AS code_dirty,
    argMax(a.dataset, (a.log_epoch, a.log_offset)) AS dataset,
    argMax(JSONExtractString(a.body, 'dataset_version'), (a.log_epoch, a.log_offset)) AS dataset_version,
    argMax(a.cluster, (a.log_epoch, a.log_offset)) AS cluster,
    argMax(a.team, (a.log_epoch, a.log_offset)) AS team,
    argMax(tuple(a.cost_per_hour), (a.log_epoch, a.log_offset)).1 AS cost_per_hour,
    argMax(JSONExtractRaw(a.body, 'config'), (a.log_epoch, a.log_offset)) AS config,
    argMax(JSONExtractRaw(a.body, 'tags'), (a.log_epoch, a.log_offset)) AS tags,
    argMax(JSONExtractRaw(a.body, 'links'), (a.log_epoch, a.log_offset)) AS links,
    argMax(JSONExtractRaw(a.body, 'environment'), (a.log_epoch, a.log_offset)) AS environment,
    min(a.at) AS started_at,
    min((a.log_epoch, a.log_offset)).1 AS log_epoch,
    min((a.log_epoch, a.log_offset)).2 AS log_offset
FROM event_log AS a FINAL
WHERE a.kind = 'run_started'
GROUP BY run_id, attempt_id;

CREATE OR REPLACE VIEW phases
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt    Int64 COMMENT 'its ordinal, from 1',
    phase      LowCardinality(String) COMMENT 'Unknown, Warmup, Normal, Stressed, Unstable, Diverged, Stalled, Recovering or Ended',
    was        String COMMENT 'what it was before',
    reason     String COMMENT 'why, in CamelCase',
    margin     Nullable(Float64) COMMENT 'stability margin: 1 at the own baseline, 0 at the threshold',
    from_step  Nullable(Int64) COMMENT 'first step judged in it',
    until_step Nullable(Int64) COMMENT 'first step of the next; NULL while in force',
    from_at    DateTime64(6, 'UTC') COMMENT 'since when',
    until_at   Nullable(DateTime64(6, 'UTC')) COMMENT 'until when; NULL while in force',
    evidence   Map(String, Float64) COMMENT 'the figures it was judged by',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT
    run_id, attempt_id, attempt, phase, JSONExtractString(body, 'was') AS was, reason, margin,
    step AS from_step,
    leadInFrame(step) OVER following AS until_step,
    at AS from_at,
    leadInFrame(toNullable(at)) OVER following AS until_at,
    numbers AS evidence, log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'phase_changed'
WINDOW following AS
    (PARTITION BY run_id ORDER BY log_epoch, log_offset ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING);

CREATE OR REPLACE VIEW conditions
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt    Int64 COMMENT 'its ordinal, from 1',
    condition  LowCardinality(String) COMMENT 'Finite, Stable, Progressing, ...',
    status     String COMMENT 'True, False or Unknown',
    was        String COMMENT 'what it was before',
    reason     String COMMENT 'why, in CamelCase',
    message    String COMMENT 'why, in words',
    since_step Int64 COMMENT 'since which step',
    step       Nullable(Int64) COMMENT 'the step it was told at',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    evidence   Map(String, Float64) COMMENT 'the figures it was judged by',
    in_force   Bool COMMENT 'whether nothing was said of it since',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT
    run_id, attempt_id, attempt, condition,
    JSONExtractString(body, 'status') AS status,
    JSONExtractString(body, 'was') AS was,
    reason,
    JSONExtractString(body, 'message') AS message, JSONExtractInt(body, 'since_step') AS since_step,
    step, at, numbers AS evidence,
    toBool(row_number() OVER (PARTITION BY run_id, condition ORDER BY log_epoch DESC, log_offset DESC) = 1) AS in_force,
    log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'condition_changed';

CREATE OR REPLACE VIEW assessments
(
    run_id          String COMMENT 'the run',
    attempt_id      LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt         Int64 COMMENT 'its ordinal, from 1',
    step            Nullable(Int64) COMMENT 'last step judged',
    at              DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    phase           LowCardinality(String) COMMENT 'Unknown, Warmup, Normal, Stressed, Unstable, Diverged, Stalled, Recovering or Ended',
    margin          Nullable(Float64) COMMENT 'stability margin: 1 at the own baseline, 0 at the threshold',
    stability_score Nullable(Float64) COMMENT 'of the whole run so far, 0 to 100',
    features        Map(String, Float64) COMMENT 'what the detectors said, by name',
    log_epoch       UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset      UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, attempt_id, attempt, step, at, phase, margin, stability_score, numbers AS features, log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'run_assessed';

CREATE OR REPLACE VIEW receipts
(
    run_id          String COMMENT 'the run',
    attempt_id      LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt         Int64 COMMENT 'its ordinal, from 1',
    rank            Nullable(Int32) COMMENT 'who told it',
    intervention_id String COMMENT 'the intervention',
    outcome         LowCardinality(String) COMMENT 'applied, rejected, expired or failed',
    step            Nullable(Int64) COMMENT 'the step it was told at',
    at              DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    reason          String COMMENT 'why, in words',
    before          Map(String, Float64) COMMENT 'values before',
    after           Map(String, Float64) COMMENT 'values after'
)
AS
SELECT run_id, attempt_id, attempt, rank, intervention_id, outcome, step, at, reason,
    JSONExtract(body, 'before', 'Map(String, Float64)') AS before,
    JSONExtract(body, 'after', 'Map(String, Float64)') AS after
FROM event_log FINAL
WHERE kind = 'intervention_receipt';

-- One row per intervention, from its proposal to its verification. `ranks_applied` counts ranks, whatever they sent twice;
-- `same_step` says whether every rank of the attempt applied it, and all at one step.
CREATE OR REPLACE VIEW interventions
(
    run_id              String COMMENT 'the run',
    intervention_id     String COMMENT 'the intervention',
    attempt_id          String COMMENT 'the attempt: one process life of the run',
    incident_id         String COMMENT 'the incident',
    rule                String COMMENT 'of the policy; operator for a person',
    severity            String COMMENT 'page, ticket or info',
    mode                String COMMENT 'of the policy: observe, propose or enforce',
    reason              String COMMENT 'why, in words',
    evidence            Map(String, Float64) COMMENT 'the figures it was judged by',
    action              String COMMENT 'what was done: rollback, scale_lr, ...',
    action_body         String COMMENT 'the action with its parameters, JSON',
    proposed_step       Nullable(Int64) COMMENT 'when it was proposed',
    proposed_at         Nullable(DateTime64(6, 'UTC')) COMMENT 'when it was proposed',
    approved_by         String COMMENT 'who agreed',
    declined_by         String COMMENT 'who said no',
    issued_step         Nullable(Int64) COMMENT 'when it was sent',
    issued_at           Nullable(DateTime64(6, 'UTC')) COMMENT 'when it was sent',
    expires_step        Nullable(Int64) COMMENT 'not applied later than this',
    expired_at          Nullable(DateTime64(6, 'UTC')) COMMENT 'when it expired without an answer',
    ranks_answered      UInt64 COMMENT 'ranks that sent a receipt',
    ranks_applied       UInt64 COMMENT 'ranks that applied it',
    applied_steps       Array(Int64) COMMENT 'steps at which it was applied',
    outcomes            Array(String) COMMENT 'what receipts said',
    verification        String COMMENT 'recovered, ineffective, inconclusive, reverted or empty',
    verification_reason String COMMENT 'why, in words',
    verified_step       Nullable(Int64) COMMENT 'when that was judged',
    verified_at         Nullable(DateTime64(6, 'UTC')) COMMENT 'when that was judged',
    first_place         Tuple(UInt32, UInt64) COMMENT 'place of its first decision',
    world_size          Int64 COMMENT 'ranks of the attempt',
    state               String COMMENT 'proposed, approved, declined, issued, refused, expired, applied or verified',
    same_step           Bool COMMENT 'whether every rank applied it, and at one step'
)
AS
WITH lives AS
(
    SELECT
        run_id, intervention_id,
        anyIf(l.attempt_id, kind IN ('intervention_proposed', 'intervention_issued')) AS attempt_id,
        anyIf(l.incident_id, kind = 'intervention_proposed') AS incident_id,
        anyIf(JSONExtractString(body, 'rule'), kind IN ('intervention_proposed', 'intervention_issued')) AS rule,
        anyIf(JSONExtractString(body, 'severity'), kind = 'intervention_proposed') AS severity,
        anyIf(JSONExtractString(body, 'mode'), kind = 'intervention_proposed') AS mode,
        anyIf(l.reason, kind = 'intervention_proposed') AS reason,
        anyIf(l.numbers, kind = 'intervention_proposed') AS evidence,
        argMaxIf(l.action, kind = 'intervention_issued', kind IN ('intervention_proposed', 'intervention_issued')) AS action,
        argMaxIf(JSONExtractRaw(body, 'action'), kind = 'intervention_issued', kind IN ('intervention_proposed', 'intervention_issued'))
            AS action_body,
        minIf(step, kind = 'intervention_proposed') AS proposed_step,
        minIf(toNullable(at), kind = 'intervention_proposed') AS proposed_at,
        anyIf(JSONExtractString(body, 'who'), kind = 'intervention_approved') AS approved_by,
        anyIf(JSONExtractString(body, 'who'), kind = 'intervention_declined') AS declined_by,
        minIf(step, kind = 'intervention_issued') AS issued_step,
        minIf(toNullable(at), kind = 'intervention_issued') AS issued_at,
        minIf(JSONExtract(body, 'expires_step', 'Nullable(Int64)'), kind = 'intervention_issued') AS expires_step,
        minIf(toNullable(at), kind = 'intervention_expired') AS expired_at,
        uniqExactIf(rank, kind = 'intervention_receipt') AS ranks_answered,
        uniqExactIf(rank, kind = 'intervention_receipt' AND outcome = 'applied') AS ranks_applied,
        arraySort(groupUniqArrayIf(step, kind = 'intervention_receipt' AND outcome = 'applied')) AS applied_steps,
        arraySort(groupUniqArrayIf(outcome, kind = 'intervention_receipt')) AS outcomes,
        anyIf(outcome, kind = 'intervention_verified') AS verification,
        anyIf(l.reason, kind = 'intervention_verified') AS verification_reason,
        maxIf(step, kind = 'intervention_verified') AS verified_step,
        maxIf(toNullable(at), kind = 'intervention_verified') AS verified_at,
        minIf((log_epoch, log_offset), kind != 'intervention_receipt') AS first_place
    FROM event_log AS l FINAL
    WHERE kind IN ('intervention_proposed', 'intervention_approved', 'intervention_declined', 'intervention_issued',
        'intervention_expired', 'intervention_verified', 'intervention_receipt')
    GROUP BY run_id, intervention_id
),
sizes AS
(
    SELECT run_id, attempt_id, max(a.world_size) AS world_size
    FROM event_log AS a
    WHERE kind = 'run_started'
    GROUP BY run_id, attempt_id
)
SELECT
    l.*,
    s.world_size AS world_size,
    multiIf(
        l.verification != '', 'verified',
        l.ranks_applied > 0, 'applied',
        l.ranks_answered > 0, 'refused',
        l.expired_at IS NOT NULL, 'expired',
        l.issued_at IS NOT NULL, 'issued',
        l.declined_by != '', 'declined',
        l.approved_by != '', 'approved',
        'proposed') AS state,
    toBool(length(l.applied_steps) = 1 AND s.world_size > 0 AND l.ranks_applied = s.world_size) AS same_step
FROM lives AS l
LEFT JOIN sizes AS s ON s.run_id = l.run_id AND s.attempt_id = l.attempt_id;

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
    times_restored  UInt64 COMMENT 'by how many ranks'
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
        uniqExactIf((rank, c.attempt_id), kind = 'checkpoint_restored') AS times_restored
    FROM event_log AS c FINAL
    WHERE kind IN ('checkpoint_rejected', 'checkpoint_restored')
    GROUP BY run_id, checkpoint_id
)
SELECT
    c.run_id AS run_id, c.attempt_id AS attempt_id, c.attempt AS attempt, c.rank AS rank, c.step AS step, c.at AS at,
    JSONExtractString(c.body, 'checkpoint_id') AS checkpoint_id,
    JSONExtractString(c.body, 'path') AS path,
    JSONExtractString(c.body, 'manifest_sha256') AS manifest_sha256,
    JSONExtractInt(c.body, 'size_bytes') AS size_bytes,
    JSONExtractFloat(c.body, 'took_s') AS took_s,
    toBool(b.rejected) AS rejected, b.rejected_reason AS rejected_reason, b.times_restored AS times_restored
FROM event_log AS c FINAL
LEFT JOIN became AS b ON b.run_id = c.run_id AND b.checkpoint_id = JSONExtractString(c.body, 'checkpoint_id')
WHERE c.kind = 'checkpoint_saved';

CREATE OR REPLACE VIEW evals
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt    Int64 COMMENT 'its ordinal, from 1',
    rank       Nullable(Int32) COMMENT 'who told it',
    step       Nullable(Int64) COMMENT 'the step it was told at',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    split      String COMMENT 'of the data',
    metric     String COMMENT 'its name',
    value      Float64 COMMENT 'NaN and the infinities are themselves',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, attempt_id, attempt, rank, step, at, JSONExtractString(body, 'split') AS split, metric, value, log_epoch, log_offset
FROM event_log FINAL
ARRAY JOIN mapKeys(numbers) AS metric, mapValues(numbers) AS value
WHERE kind = 'eval_completed';

CREATE OR REPLACE VIEW policies
(
    run_id      String COMMENT 'the run',
    at          DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    name        String COMMENT 'of the policy',
    policy_hash String COMMENT 'of its text',
    who         String COMMENT 'who said so',
    text        String COMMENT 'the whole policy',
    log_epoch   UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset  UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, at,
    JSONExtractString(body, 'name') AS name,
    JSONExtractString(body, 'policy_hash') AS policy_hash,
    JSONExtractString(body, 'who') AS who,
    JSONExtractString(body, 'text') AS text,
    log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'policy_activated';

-- One row per run that was ever heard of, as it stands now. `last_step` is that of its latest attempt, which after a rollback is
-- lower than what was reached before; `outcome` is what the run said at its end, or `lost` where the governor had to say it.
CREATE OR REPLACE VIEW runs
(
    run_id          String COMMENT 'the run',
    attempt_id      String COMMENT 'the latest attempt',
    attempt         Int64 COMMENT 'its ordinal',
    attempts        UInt64 COMMENT 'attempts so far',
    world_size      Int64 COMMENT 'ranks of the latest attempt',
    model           String COMMENT 'as the run names it',
    code_version    String COMMENT 'commit',
    tags            String COMMENT 'JSON object of texts',
    model_family    String COMMENT 'as the run names it',
    dataset         String COMMENT 'as the run names it',
    dataset_version String COMMENT 'as the run names it',
    cluster         String COMMENT 'as the run names it',
    team            String COMMENT 'as the run names it',
    environment     String COMMENT 'JSON object: what the run found by itself',
    phase           String COMMENT 'Unknown, Warmup, Normal, Stressed, Unstable, Diverged, Stalled, Recovering or Ended',
    margin          Nullable(Float64) COMMENT 'stability margin: 1 at the own baseline, 0 at the threshold',
    stability_score Nullable(Float64) COMMENT 'of the whole run so far, 0 to 100',
    judged_step     Nullable(Int64) COMMENT 'last step judged',
    last_step       Nullable(Int64) COMMENT 'last step of the latest attempt',
    outcome         String COMMENT 'completed, stopped, crashed, out_of_memory, preempted, diverged, lost; empty while it runs',
    interventions   UInt64 COMMENT 'interventions issued',
    incidents       UInt64 COMMENT 'incidents opened',
    open_incidents  Int64 COMMENT 'of these, still open',
    started_at      SimpleAggregateFunction(min, DateTime64(6, 'UTC')) COMMENT 'first heard of',
    last_at         SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'last heard of'
)
AS
WITH heads AS
(
    SELECT
        run_id,
        argMax(a.attempt_id, (a.log_epoch, a.log_offset)) AS attempt_id,
        argMax(a.attempt, (a.log_epoch, a.log_offset)) AS attempt,
        uniqExact(a.attempt_id) AS attempts,
        argMax(a.world_size, (a.log_epoch, a.log_offset)) AS world_size,
        argMax(a.model, (a.log_epoch, a.log_offset)) AS model,
        argMax(a.model_family, (a.log_epoch, a.log_offset)) AS model_family,
        argMax(JSONExtractString(a.body, 'code_version'), (a.log_epoch, a.log_offset)) AS code_version,
        argMax(a.dataset, (a.log_epoch, a.log_offset)) AS dataset,
        argMax(JSONExtractString(a.body, 'dataset_version'), (a.log_epoch, a.log_offset)) AS dataset_version,
        argMax(a.cluster, (a.log_epoch, a.log_offset)) AS cluster,
        argMax(a.team, (a.log_epoch, a.log_offset)) AS team,
        argMax(JSONExtractRaw(a.body, 'tags'), (a.log_epoch, a.log_offset)) AS tags,
        argMax(JSONExtractRaw(a.body, 'environment'), (a.log_epoch, a.log_offset)) AS environment
    FROM event_log AS a FINAL
    WHERE a.kind = 'run_started'
    GROUP BY run_id
),
ends AS
(
    SELECT run_id, argMax((e.outcome, e.attempt_id), (e.attempt, -ifNull(e.rank, 0))) AS told
    FROM event_log AS e FINAL
    WHERE e.kind = 'run_ended'
    GROUP BY run_id
),
progress AS
(
    SELECT run_id, min(p.first_at) AS started_at, max(p.last_at) AS last_at, max(p.attempt) AS greatest_attempt,
        max(p.last_step) AS greatest_step, maxMap(map(p.attempt_id, p.last_step)) AS last_steps
    FROM run_progress AS p
    GROUP BY run_id
),
summary AS
(
    SELECT run_id, argMaxMerge(standing) AS last, argMaxMerge(score).1 AS stability_score,
        uniqExactMerge(s.interventions) AS interventions, uniqExactMerge(opened) AS incidents, uniqExactMerge(resolved) AS resolved
    FROM run_summary AS s
    GROUP BY run_id
)
SELECT
    p.run_id AS run_id,
    h.attempt_id AS attempt_id,
    if(h.attempts > 0, h.attempt, p.greatest_attempt) AS attempt,
    h.attempts AS attempts,
    h.world_size AS world_size,
    h.model AS model,
    h.code_version AS code_version,
    h.tags AS tags,
    h.model_family AS model_family,
    h.dataset AS dataset,
    h.dataset_version AS dataset_version,
    h.cluster AS cluster,
    h.team AS team,
    h.environment AS environment,
    if(s.last.phase = '', 'Unknown', s.last.phase) AS phase,
    s.last.margin AS margin,
    s.stability_score AS stability_score,
    s.last.step AS judged_step,
    nullIf(if(h.attempts > 0, if(mapContains(p.last_steps, h.attempt_id), p.last_steps[h.attempt_id], -1), p.greatest_step), -1)
        AS last_step,
    multiIf(
        e.told.1 != '' AND (e.told.2 = h.attempt_id OR h.attempts = 0), e.told.1,
        s.last.phase = 'Ended', 'lost',
        '') AS outcome,
    s.interventions AS interventions,
    s.incidents AS incidents,
    toInt64(s.incidents) - toInt64(s.resolved) AS open_incidents,
    p.started_at AS started_at,
    p.last_at AS last_at
FROM progress AS p
LEFT JOIN heads AS h ON h.run_id = p.run_id
LEFT JOIN ends AS e ON e.run_id = p.run_id
LEFT JOIN summary AS s ON s.run_id = p.run_id;

-- ------------------------------------------------------------------------------- the machine, the inputs, the job's log, the pipeline

CREATE OR REPLACE VIEW resources
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt    Int64 COMMENT 'its ordinal, from 1',
    rank       Nullable(Int32) COMMENT 'who told it',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    writer_id  LowCardinality(String) COMMENT 'the process that told it',
    name       String COMMENT 'gpu_util, energy_kwh, host_cpu_util, ...',
    value      Float64 COMMENT 'NaN and the infinities are themselves',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, attempt_id, attempt, rank, at, writer_id, name, value, log_epoch, log_offset
FROM event_log FINAL
ARRAY JOIN mapKeys(numbers) AS name, mapValues(numbers) AS value
WHERE kind = 'resources_sampled';

-- `counts` has one more than `edges`: at most the first edge, between each and the next, above the last.
CREATE OR REPLACE VIEW data_profiles
(
    run_id         String COMMENT 'the run',
    attempt_id     LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt        Int64 COMMENT 'its ordinal, from 1',
    rank           Nullable(Int32) COMMENT 'who told it',
    step           Nullable(Int64) COMMENT 'the step it was told at',
    at             DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    feature        String COMMENT 'which input',
    data_schema    String COMMENT 'version of the data',
    edges          Array(Float64) COMMENT 'upper edges of the bins',
    counts         Array(UInt64) COMMENT 'values in each bin; one more than edges',
    batches        UInt64 COMMENT 'batches looked at',
    values_seen    UInt64 COMMENT 'values there were',
    values_sampled UInt64 COMMENT 'values looked at',
    non_finite     UInt64 COMMENT 'values in no bin',
    numbers        Map(String, Float64) COMMENT 'mean, std, least, greatest',
    log_epoch      UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset     UInt64 COMMENT 'place in the log: offset'
)
AS
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
    numbers,
    log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'data_profiled';

-- `severity` orders levels as Python's logging does.
CREATE OR REPLACE VIEW log_lines
(
    run_id      String COMMENT 'the run',
    attempt_id  LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt     Int64 COMMENT 'its ordinal, from 1',
    rank        Nullable(Int32) COMMENT 'who told it',
    step        Int64 COMMENT 'the step then',
    at          DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    level       String COMMENT 'DEBUG to CRITICAL',
    severity    UInt8 COMMENT 'the same as a number, 10 to 50',
    logger      String COMMENT 'which logger',
    text        String COMMENT 'the line',
    line_number UInt32 COMMENT 'within its batch',
    log_epoch   UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset  UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT
    run_id, attempt_id, attempt, rank,
    JSONExtractInt(line, 'step') AS step,
    fromUnixTimestamp64Micro(JSONExtractInt(line, 'at'), 'UTC') AS at,
    JSONExtractString(line, 'level') AS level,
    transform(level, ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'], [10, 20, 30, 40, 50], 0) AS severity,
    JSONExtractString(line, 'logger') AS logger,
    JSONExtractString(line, 'text') AS text,
    line_number, log_epoch, log_offset
FROM event_log FINAL
ARRAY JOIN JSONExtractArrayRaw(body, 'lines') AS line, arrayEnumerate(JSONExtractArrayRaw(body, 'lines')) AS line_number
WHERE kind = 'log_lines';

-- Lines that were over their bounds, by reason; they stand between those of `log_lines`.
CREATE OR REPLACE VIEW log_lines_dropped
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt    Int64 COMMENT 'its ordinal, from 1',
    rank       Nullable(Int32) COMMENT 'who told it',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    reason     String COMMENT 'which bound',
    lines      UInt64 COMMENT 'how many',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, attempt_id, attempt, rank, at, pair.1 AS reason, pair.2 AS lines, log_epoch, log_offset
FROM event_log FINAL
ARRAY JOIN JSONExtractKeysAndValues(body, 'dropped', 'UInt64') AS pair
WHERE kind = 'log_lines';

CREATE OR REPLACE VIEW pipeline_facts
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(Nullable(String)) COMMENT 'where the training itself reports',
    rank       Nullable(Int32) COMMENT 'who told it',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    fact       String COMMENT 'what is reported',
    subject    String COMMENT 'what it is about',
    numbers    Map(String, Float64) COMMENT 'figures by name',
    who        String COMMENT 'who said so',
    note       String COMMENT 'free text',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT
    run_id, nullIf(attempt_id, '') AS attempt_id, rank, at,
    JSONExtractString(body, 'fact') AS fact,
    JSONExtractString(body, 'subject') AS subject,
    numbers,
    JSONExtractString(body, 'who') AS who,
    JSONExtractString(body, 'note') AS note,
    log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'pipeline_reported';

CREATE OR REPLACE VIEW samples
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt    Int64 COMMENT 'its ordinal, from 1',
    rank       Nullable(Int32) COMMENT 'who told it',
    step       Nullable(Int64) COMMENT 'the step it was told at',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    event_id   String COMMENT 'unique for ever',
    name       String COMMENT 'its name',
    prompt     String COMMENT 'what went in',
    output     String COMMENT 'what came out',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, attempt_id, attempt, rank, step, at, event_id,
    JSONExtractString(body, 'name') AS name,
    JSONExtractString(body, 'prompt') AS prompt,
    JSONExtractString(body, 'output') AS output,
    log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'sample_recorded';

-- What people noted: `about` names an event (a sample, an incident) by its id, or nothing: then it is about the run.
CREATE OR REPLACE VIEW annotations
(
    run_id     String COMMENT 'the run',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    who        String COMMENT 'who said so',
    text       String COMMENT 'what was said',
    about      String COMMENT 'id of the event it is about; empty: the run',
    rating     Nullable(Float64) COMMENT '0 to 1',
    numbers    Map(String, Float64) COMMENT 'figures by name',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, at,
    JSONExtractString(body, 'who') AS who,
    JSONExtractString(body, 'text') AS text,
    JSONExtractString(body, 'about') AS about,
    JSONExtract(body, 'rating', 'Nullable(Float64)') AS rating,
    numbers,
    log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'annotated';

-- What the trainer changed in how it trains, as it says itself.
CREATE OR REPLACE VIEW recipe_changes
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt    Int64 COMMENT 'its ordinal, from 1',
    rank       Nullable(Int32) COMMENT 'who told it',
    step       Nullable(Int64) COMMENT 'the step it was told at',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    what       String COMMENT 'what was changed',
    numbers    Map(String, Float64) COMMENT 'figures by name',
    note       String COMMENT 'free text',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, attempt_id, attempt, rank, step, at,
    JSONExtractString(body, 'what') AS what,
    numbers,
    JSONExtractString(body, 'note') AS note,
    log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'recipe_changed';

CREATE OR REPLACE VIEW stages
(
    run_id     String COMMENT 'the run',
    attempt_id LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt    Int64 COMMENT 'its ordinal, from 1',
    rank       Nullable(Int32) COMMENT 'who told it',
    step       Nullable(Int64) COMMENT 'the step it was told at',
    at         DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    stage      String COMMENT 'prepare, compile, warmup, train, evaluate, checkpoint, paused or stop',
    log_epoch  UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT run_id, attempt_id, attempt, rank, step, at, JSONExtractString(body, 'stage') AS stage, log_epoch, log_offset
FROM event_log FINAL
WHERE kind = 'stage_changed';
