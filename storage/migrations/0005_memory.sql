-- The memory of a team: what each run was like as a whole, what went wrong, what was done about it, and whether it helped.

-- Where one regime ends and the next begins, so that runs are compared by the same bounds for ever. A band is from its `lower` bound
-- up to the next one's. A team that wants other bands inserts its own bounds under a dimension's name.
CREATE TABLE IF NOT EXISTS regime_bands
(
    dimension LowCardinality(String),
    lower     Float64,
    label     String
)
ENGINE = ReplacingMergeTree
ORDER BY (dimension, lower);

-- Learning rates by 1, 3 and 6 of each decade, batch sizes by powers of two.
INSERT INTO regime_bands (dimension, lower, label)
SELECT 'lr', 0, 'under 1e-7'
UNION ALL
SELECT 'lr', lower, concat('from ', toString(lower))
FROM (SELECT toFloat64(concat(toString(digit), 'e-', toString(decade))) AS lower
      FROM (SELECT arrayJoin(range(1, 8)) AS decade, arrayJoin([1, 3, 6]) AS digit))
UNION ALL
SELECT 'lr', 1, 'from 1'
UNION ALL
SELECT 'batch_size', exp2(number),
    if(number = 0, '1', concat(toString(toUInt64(exp2(number))), ' to ', toString(toUInt64(exp2(number + 1)) - 1)))
FROM numbers(25);

-- How an incident is known again: the condition that was lost, and why. Detection is from the onset, which is the first evidence, to
-- the judgement; recovery from there until the run is well again. The moment of the onset is that of the last assessment up to its
-- step, so it is known to about a second.
CREATE OR REPLACE VIEW incidents
(
    run_id          String COMMENT 'the run',
    incident_id     String COMMENT 'the incident',
    attempt_id      String COMMENT 'the attempt: one process life of the run',
    condition       String COMMENT 'which condition was lost',
    reason          String COMMENT 'why, in CamelCase',
    signature       String COMMENT 'condition/reason of the incident: how it is known again',
    onset_step      Int64 COMMENT 'first evidence',
    onset_at        Nullable(DateTime64(6, 'UTC')) COMMENT 'when the onset step was seen, to about a second',
    opened_step     Nullable(Int64) COMMENT 'step at which it was judged',
    opened_at       Nullable(DateTime64(6, 'UTC')) COMMENT 'when it was judged',
    resolved_step   Nullable(Int64) COMMENT 'step at which it was over',
    resolved_at     Nullable(DateTime64(6, 'UTC')) COMMENT 'when it was over; NULL while open',
    outcome         String COMMENT 'recovered or ended; empty while open',
    steps_lost      Nullable(Int64) COMMENT 'steps that were undone: wasted',
    detection_steps Nullable(Int64) COMMENT 'steps from onset to judgement',
    detection_s     Nullable(Float64) COMMENT 'seconds from onset to judgement; its mean is the MTTD',
    recovery_s      Nullable(Float64) COMMENT 'seconds from judgement to well again; its mean is the MTTR',
    evidence        Map(String, Float64) COMMENT 'the figures it was judged by'
)
AS
WITH lives AS
(
    SELECT
        run_id, incident_id,
        anyIf(l.attempt_id, kind = 'incident_opened') AS attempt_id,
        anyIf(l.condition, kind = 'incident_opened') AS condition,
        anyIf(l.reason, kind = 'incident_opened') AS reason,
        min(l.onset_step) AS onset_step,
        minIf(step, kind = 'incident_opened') AS opened_step,
        minIf(toNullable(at), kind = 'incident_opened') AS opened_at,
        maxIf(step, kind = 'incident_resolved') AS resolved_step,
        maxIf(toNullable(at), kind = 'incident_resolved') AS resolved_at,
        anyIf(l.outcome, kind = 'incident_resolved') AS outcome,
        maxIf(l.steps_lost, kind = 'incident_resolved') AS steps_lost,
        anyIf(l.numbers, kind = 'incident_opened') AS evidence
    FROM event_log AS l FINAL
    WHERE kind IN ('incident_opened', 'incident_resolved')
    GROUP BY run_id, incident_id
)
SELECT
    l.run_id AS run_id, l.incident_id AS incident_id, l.attempt_id AS attempt_id,
    l.condition AS condition, l.reason AS reason, concat(l.condition, '/', l.reason) AS signature,
    l.onset_step AS onset_step,
    arrayLastOrNull((at, step) -> step <= l.onset_step, s.moments.2, s.moments.1) AS seen_at,
    if(l.onset_step >= l.opened_step, l.opened_at, ifNull(least(seen_at, l.opened_at), l.opened_at)) AS onset_at,
    l.opened_step AS opened_step, l.opened_at AS opened_at,
    l.resolved_step AS resolved_step, l.resolved_at AS resolved_at,
    l.outcome AS outcome, l.steps_lost AS steps_lost,
    greatest(l.opened_step - l.onset_step, 0) AS detection_steps,
    dateDiff('microsecond', onset_at, l.opened_at) / 1e6 AS detection_s,
    if(l.outcome = 'recovered', dateDiff('microsecond', l.opened_at, l.resolved_at) / 1e6, NULL) AS recovery_s,
    l.evidence AS evidence
FROM lives AS l
LEFT JOIN
(
    SELECT run_id, attempt_id, arraySort(groupArray((toInt64(ifNull(step, -1)), at))) AS moments
    FROM event_log
    WHERE kind = 'run_assessed' AND run_id IN (SELECT run_id FROM event_log WHERE kind = 'incident_opened')
    GROUP BY run_id, attempt_id
) AS s ON s.run_id = l.run_id AND s.attempt_id = l.attempt_id;

-- The phases as time. The phase in force lasts until the run was last heard of. Steps are numbers of steps from the first judged in a
-- phase to the first of the next: what a rollback repeats is not counted twice.
CREATE OR REPLACE VIEW time_in_phase
(
    run_id        String COMMENT 'the run',
    phase         LowCardinality(String) COMMENT 'Unknown, Warmup, Normal, Stressed, Unstable, Diverged, Stalled, Recovering or Ended',
    times_entered UInt64 COMMENT 'how often',
    seconds       Float64 COMMENT 'how long',
    steps         Int64 COMMENT 'numbers of steps passed',
    share         Float64 COMMENT 'of all the time of the run'
)
AS
WITH stays AS
(
    SELECT run_id, phase, from_step, until_step, from_at, until_at
    FROM phases
),
heard AS
(
    SELECT run_id, max(p.last_at) AS last_at
    FROM run_progress AS p
    GROUP BY run_id
)
SELECT
    s.run_id AS run_id, s.phase AS phase,
    count() AS times_entered,
    sum(greatest(dateDiff('microsecond', s.from_at, ifNull(s.until_at, h.last_at)) / 1e6, 0)) AS seconds,
    sum(greatest(ifNull(s.until_step - s.from_step, 0), 0)) AS steps,
    seconds / sum(seconds) OVER (PARTITION BY run_id) AS share
FROM stays AS s
LEFT JOIN heard AS h ON h.run_id = s.run_id
WHERE s.phase != 'Ended'
GROUP BY run_id, phase;

-- How a run stood, assessment by assessment (one a second at most, and only while steps are judged).
CREATE OR REPLACE VIEW stability_timeline
(
    run_id          String COMMENT 'the run',
    attempt_id      LowCardinality(String) COMMENT 'the attempt: one process life of the run',
    attempt         Int64 COMMENT 'its ordinal, from 1',
    step            Nullable(Int64) COMMENT 'last step judged',
    at              DateTime64(6, 'UTC') COMMENT 'when, by the clock of whoever told it',
    elapsed_s       Float64 COMMENT 'since the first assessment of the run',
    phase           LowCardinality(String) COMMENT 'Unknown, Warmup, Normal, Stressed, Unstable, Diverged, Stalled, Recovering or Ended',
    margin          Nullable(Float64) COMMENT 'stability margin: 1 at the own baseline, 0 at the threshold',
    stability_score Nullable(Float64) COMMENT 'of the whole run so far, 0 to 100',
    loss            Nullable(Float64) COMMENT 'the loss judged',
    val_loss        Nullable(Float64) COMMENT 'last validation loss',
    grad_norm       Nullable(Float64) COMMENT 'gradient norm',
    lr              Nullable(Float64) COMMENT 'learning rate',
    features        Map(String, Float64) COMMENT 'what the detectors said, by name',
    log_epoch       UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset      UInt64 COMMENT 'place in the log: offset'
)
AS
SELECT
    run_id, attempt_id, attempt, step, at,
    dateDiff('microsecond', min(at) OVER (PARTITION BY run_id), at) / 1e6 AS elapsed_s,
    phase, margin, stability_score,
    if(mapContains(features, 'loss'), features['loss'], NULL) AS loss,
    if(mapContains(features, 'val_loss'), features['val_loss'], NULL) AS val_loss,
    if(mapContains(features, 'grad_norm'), features['grad_norm'], NULL) AS grad_norm,
    if(mapContains(features, 'lr'), features['lr'], NULL) AS lr,
    features, log_epoch, log_offset
FROM assessments;

-- "What did we do the last times this happened, and did it help?" One row per signature of an incident and action. A verdict is what
-- the policy's verification concluded; `success_rate` is of those with a verdict. What was proposed and never issued has none.
CREATE OR REPLACE VIEW intervention_efficacy
(
    signature       String COMMENT 'of the incident; empty where there was none',
    action          String COMMENT 'what was done: rollback, scale_lr, ...',
    proposed        UInt64 COMMENT 'how often it was proposed',
    issued          UInt64 COMMENT 'of these, sent to the trainer',
    applied         UInt64 COMMENT 'of these, applied by a rank',
    recovered       UInt64 COMMENT 'of these, verified to have helped',
    ineffective     UInt64 COMMENT 'verified not to have helped',
    inconclusive    UInt64 COMMENT 'verified, without a clear answer',
    reverted        UInt64 COMMENT 'undone again',
    success_rate    Nullable(Float64) COMMENT 'recovered / those with a verdict',
    mean_recovery_s Nullable(Float64) COMMENT 'from issue to recovery',
    mean_steps_lost Nullable(Float64) COMMENT 'by the incidents that recovered',
    runs            UInt64 COMMENT 'how many runs',
    last_at         Nullable(DateTime64(6, 'UTC')) COMMENT 'last proposed'
)
AS
WITH lives AS
(
    SELECT
        run_id, intervention_id,
        anyIf(l.incident_id, kind = 'intervention_proposed') AS incident_id,
        argMaxIf(l.action, kind = 'intervention_issued', kind IN ('intervention_proposed', 'intervention_issued')) AS action,
        minIf(toNullable(at), kind = 'intervention_proposed') AS proposed_at,
        minIf(toNullable(at), kind = 'intervention_issued') AS issued_at,
        countIf(kind = 'intervention_receipt' AND l.outcome = 'applied') > 0 AS applied,
        anyIf(l.outcome, kind = 'intervention_verified') AS verdict,
        maxIf(toNullable(at), kind = 'intervention_verified') AS verified_at
    FROM event_log AS l FINAL
    WHERE kind IN ('intervention_proposed', 'intervention_issued', 'intervention_receipt', 'intervention_verified')
    GROUP BY run_id, intervention_id
),
causes AS
(
    SELECT
        run_id, incident_id,
        anyIf(concat(c.condition, '/', c.reason), kind = 'incident_opened') AS signature,
        maxIf(c.steps_lost, kind = 'incident_resolved') AS steps_lost
    FROM event_log AS c FINAL
    WHERE kind IN ('incident_opened', 'incident_resolved')
    GROUP BY run_id, incident_id
)
SELECT
    c.signature AS signature,
    l.action AS action,
    count() AS proposed,
    countIf(l.issued_at IS NOT NULL) AS issued,
    countIf(l.applied) AS applied,
    countIf(l.verdict = 'recovered') AS recovered,
    countIf(l.verdict = 'ineffective') AS ineffective,
    countIf(l.verdict = 'inconclusive') AS inconclusive,
    countIf(l.verdict = 'reverted') AS reverted,
    if(countIf(l.verdict != '') = 0, NULL, recovered / countIf(l.verdict != '')) AS success_rate,
    avgIf(toNullable(dateDiff('microsecond', l.issued_at, l.verified_at) / 1e6), l.verdict = 'recovered') AS mean_recovery_s,
    avgIf(c.steps_lost, l.verdict = 'recovered') AS mean_steps_lost,
    uniqExact(l.run_id) AS runs,
    max(l.proposed_at) AS last_at
FROM lives AS l
LEFT JOIN causes AS c ON c.run_id = l.run_id AND c.incident_id = l.incident_id
GROUP BY signature, action;

-- By condition and reason: how often, how soon seen (MTTD), how soon over (MTTR), and what it cost.
CREATE OR REPLACE VIEW incident_summary
(
    signature            String COMMENT 'condition/reason of the incident: how it is known again',
    incidents            UInt64 COMMENT 'how many',
    runs                 UInt64 COMMENT 'how many runs',
    recovered            UInt64 COMMENT 'of these, over',
    open                 UInt64 COMMENT 'of these, still open',
    mean_detection_steps Nullable(Float64) COMMENT 'from onset to judgement',
    mttd_s               Nullable(Float64) COMMENT 'mean time to detect',
    mttr_s               Nullable(Float64) COMMENT 'mean time to recover',
    steps_lost           Nullable(Int64) COMMENT 'steps that were undone: wasted',
    last_at              Nullable(DateTime64(6, 'UTC')) COMMENT 'last opened'
)
AS
SELECT
    signature,
    count() AS incidents,
    uniqExact(run_id) AS runs,
    countIf(outcome = 'recovered') AS recovered,
    countIf(resolved_at IS NULL) AS open,
    avg(detection_steps) AS mean_detection_steps,
    avg(detection_s) AS mttd_s,
    avg(recovery_s) AS mttr_s,
    sum(i.steps_lost) AS steps_lost,
    max(opened_at) AS last_at
FROM incidents AS i
GROUP BY signature;

-- How long each run was in which phase under which conditions of training: learning rate and batch size by the bounds of
-- `regime_bands`, the data, the number of ranks. Time goes from assessment to assessment within an attempt.
CREATE OR REPLACE VIEW stress_regimes
(
    run_id       String COMMENT 'the run',
    phase        LowCardinality(String) COMMENT 'Unknown, Warmup, Normal, Stressed, Unstable, Diverged, Stalled, Recovering or Ended',
    lr_band      String COMMENT 'learning rate, by regime_bands',
    lr_from      Nullable(Float64) COMMENT 'lower bound of the band',
    batch        Nullable(Float64) COMMENT 'batch size',
    batch_band   String COMMENT 'batch size, by regime_bands',
    data_mix     String COMMENT 'last announced mix, else the data set',
    world_size   Int64 COMMENT 'ranks',
    seconds      Float64 COMMENT 'how long',
    steps        Int64 COMMENT 'numbers of steps passed',
    assessments  UInt64 COMMENT 'how many',
    mean_margin  Nullable(Float64) COMMENT 'mean stability margin',
    least_margin Nullable(Float64) COMMENT 'least stability margin'
)
AS
WITH
    (SELECT arraySort(groupArray((lower, label))) FROM regime_bands FINAL WHERE dimension = 'lr') AS lr_bands,
    (SELECT arraySort(groupArray((lower, label))) FROM regime_bands FINAL WHERE dimension = 'batch_size') AS batch_bands,
assessed AS
(
    SELECT
        run_id, attempt_id, toInt64(ifNull(step, 0)) AS step, at, phase, margin,
        if(mapContains(features, 'lr'), toNullable(features['lr']), NULL) AS lr,
        greatest(dateDiff('microsecond', at, ifNull(leadInFrame(toNullable(at)) OVER following, at)) / 1e6, 0) AS seconds,
        greatest(ifNull(leadInFrame(step) OVER following, step) - step, 0) AS steps
    FROM assessments
    WINDOW following AS
        (PARTITION BY run_id, attempt_id ORDER BY log_epoch, log_offset ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)
),
begun AS
(
    SELECT
        run_id, attempt_id, world_size,
        toNullable(coalesce(
            JSONExtract(config, 'batch_size', 'Nullable(Float64)'), JSONExtract(config, 'global_batch_size', 'Nullable(Float64)'),
            JSONExtract(config, 'train_batch_size', 'Nullable(Float64)'),
            JSONExtract(config, 'per_device_train_batch_size', 'Nullable(Float64)'))) AS batch_size,
        trim(concat(dataset, ' ', dataset_version)) AS data_mix
    FROM attempts
),
batches AS
(
    SELECT run_id, toInt64(ifNull(step, 0)) AS step, toNullable(max(numbers['batch_size'])) AS batch_size
    FROM recipe_changes
    WHERE mapContains(numbers, 'batch_size')
    GROUP BY run_id, step
),
mixes AS
(
    SELECT run_id, toInt64(ifNull(step, 0)) AS step, max(note) AS data_mix
    FROM recipe_changes
    WHERE what = 'data_mix'
    GROUP BY run_id, step
)
SELECT
    a.run_id AS run_id, a.phase AS phase,
    if(a.lr IS NULL, '', arrayLast(band -> band.1 <= a.lr, lr_bands).2) AS lr_band,
    if(a.lr IS NULL, NULL, arrayLast(band -> band.1 <= a.lr, lr_bands).1) AS lr_from,
    coalesce(c.batch_size, b.batch_size) AS batch,
    if(batch IS NULL, '', arrayLast(band -> band.1 <= batch, batch_bands).2) AS batch_band,
    if(m.data_mix != '', m.data_mix, b.data_mix) AS data_mix,
    b.world_size AS world_size,
    sum(a.seconds) AS seconds,
    sum(a.steps) AS steps,
    count() AS assessments,
    avg(a.margin) AS mean_margin,
    min(a.margin) AS least_margin
FROM assessed AS a
LEFT JOIN begun AS b ON b.run_id = a.run_id AND b.attempt_id = a.attempt_id
ASOF LEFT JOIN batches AS c ON c.run_id = a.run_id AND a.step >= c.step
ASOF LEFT JOIN mixes AS m ON m.run_id = a.run_id AND a.step >= m.step
GROUP BY run_id, phase, lr_band, lr_from, batch, batch_band, data_mix, world_size;

-- Each run as a whole. What is counted by steps lost is an estimate, by the run's own mean pace. A figure that nothing was told for
-- is NULL: devices without NVML have no GPU-hours, runs without `cost_per_hour` no cost.
CREATE OR REPLACE VIEW run_overview
(
    run_id                  String COMMENT 'the run',
    model                   String COMMENT 'as the run names it',
    model_family            String COMMENT 'as the run names it',
    dataset                 String COMMENT 'as the run names it',
    team                    String COMMENT 'as the run names it',
    cluster                 String COMMENT 'as the run names it',
    outcome                 String COMMENT 'empty while it runs',
    phase                   String COMMENT 'Unknown, Warmup, Normal, Stressed, Unstable, Diverged, Stalled, Recovering or Ended',
    margin                  Nullable(Float64) COMMENT 'stability margin: 1 at the own baseline, 0 at the threshold',
    stability_score         Nullable(Float64) COMMENT 'of the whole run so far, 0 to 100',
    attempts                UInt64 COMMENT 'attempts so far',
    world_size              Int64 COMMENT 'ranks of the latest attempt',
    last_step               Nullable(Int64) COMMENT 'last step of the latest attempt',
    started_at              SimpleAggregateFunction(min, DateTime64(6, 'UTC')) COMMENT 'first heard of',
    last_at                 SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'last heard of',
    duration_s              Float64 COMMENT 'from first to last heard of',
    seconds_in_phase        Map(String, Float64) COMMENT 'by phase',
    share_well              Nullable(Float64) COMMENT 'share of the time in Warmup and Normal',
    incidents               UInt64 COMMENT 'incidents opened',
    open_incidents          Int64 COMMENT 'of these, still open',
    mean_detection_steps    Nullable(Float64) COMMENT 'from onset to judgement',
    mttd_s                  Nullable(Float64) COMMENT 'mean seconds from onset to judgement',
    mttr_s                  Nullable(Float64) COMMENT 'mean seconds from judgement to recovery',
    steps_lost              Int64 COMMENT 'steps that were undone: wasted',
    interventions_proposed  UInt64 COMMENT 'how many',
    interventions_issued    UInt64 COMMENT 'of these, sent',
    interventions_recovered UInt64 COMMENT 'of these, verified to have helped',
    interventions_in_vain   UInt64 COMMENT 'ineffective or reverted',
    checkpoints             UInt64 COMMENT 'saved',
    checkpoints_rejected    UInt64 COMMENT 'of these, rejected',
    checkpoints_restored    UInt64 COMMENT 'times a rank restored one',
    evaluations             Map(String, Float64) COMMENT 'last value of each, by split/metric',
    energy_kwh              Nullable(Float64) COMMENT 'of the devices; NULL: not sampled',
    gpus                    Nullable(Float64) COMMENT 'devices; NULL: not sampled',
    gpu_util                Nullable(Float64) COMMENT 'mean, 0 to 1; NULL: not sampled',
    rank_hours              Float64 COMMENT 'ranks x hours',
    gpu_hours               Nullable(Float64) COMMENT 'devices x hours',
    cost                    Nullable(Float64) COMMENT 'by cost_per_hour; NULL: not told',
    wasted_share            Float64 COMMENT 'of the time: steps undone, by the mean pace, and stalls',
    wasted_rank_hours       Float64 COMMENT 'rank_hours x wasted_share',
    wasted_gpu_hours        Nullable(Float64) COMMENT 'gpu_hours x wasted_share',
    wasted_cost             Nullable(Float64) COMMENT 'cost x wasted_share'
)
AS
WITH told AS
(
    SELECT
        run_id,
        argMaxIf((e.attempt_id, e.model, e.model_family, e.dataset, e.team, e.cluster, e.world_size), (log_epoch, log_offset),
            kind = 'run_started') AS head,
        argMaxIf((e.outcome, e.attempt_id), (e.attempt, -ifNull(e.rank, 0)), kind = 'run_ended') AS ended,
        arraySort(groupArrayIf((log_epoch, log_offset, e.phase, at), kind = 'phase_changed')) AS turns,
        minMapIf(map(e.incident_id, at), kind = 'incident_opened') AS opened,
        maxMapIf(map(e.incident_id, at), kind = 'incident_resolved' AND e.outcome = 'recovered') AS recovered,
        minMapIf(map(e.incident_id, toInt64(ifNull(e.step, 0)) - e.onset_step), kind = 'incident_opened') AS detected,
        sumIf(ifNull(e.steps_lost, 0), kind = 'incident_resolved') AS steps_lost,
        uniqExactIf(e.intervention_id, kind = 'intervention_proposed') AS proposed,
        uniqExactIf(e.intervention_id, kind = 'intervention_verified' AND e.outcome = 'recovered') AS helped,
        uniqExactIf(e.intervention_id, kind = 'intervention_verified' AND e.outcome IN ('ineffective', 'reverted')) AS in_vain,
        countIf(kind = 'checkpoint_saved') AS checkpoints,
        countIf(kind = 'checkpoint_rejected') AS checkpoints_rejected,
        countIf(kind = 'checkpoint_restored') AS checkpoints_restored,
        arraySort(groupArrayIf((log_epoch, log_offset, JSONExtractString(body, 'split'), numbers), kind = 'eval_completed')) AS evals,
        maxMapIf(map(writer_id, numbers['energy_kwh']), kind = 'resources_sampled' AND isFinite(numbers['energy_kwh'])
            AND mapContains(numbers, 'energy_kwh')) AS energy,
        maxMapIf(map(writer_id, numbers['gpu_count']), kind = 'resources_sampled' AND mapContains(numbers, 'gpu_count')) AS devices,
        avgIf(toNullable(numbers['gpu_util']), kind = 'resources_sampled' AND isFinite(numbers['gpu_util'])
            AND mapContains(numbers, 'gpu_util')) AS gpu_util,
        maxMapIf(map(e.attempt_id, e.world_size), kind = 'run_started') AS sizes,
        maxMapIf(map(e.attempt_id, ifNull(e.cost_per_hour, 0)), kind = 'run_started' AND e.cost_per_hour IS NOT NULL) AS rates,
        minIf(e.first_step, kind = 'run_started') AS first_step
    FROM event_log AS e FINAL
    WHERE kind IN ('run_started', 'run_ended', 'phase_changed', 'incident_opened', 'incident_resolved', 'intervention_proposed',
        'intervention_verified', 'checkpoint_saved', 'checkpoint_rejected', 'checkpoint_restored', 'eval_completed', 'resources_sampled')
    GROUP BY run_id
),
spans AS
(
    SELECT run_id, min(p.first_at) AS started_at, max(p.last_at) AS last_at, max(p.last_step) AS greatest_step,
        minMap(map(p.attempt_id, toUnixTimestamp64Micro(p.first_at))) AS began,
        maxMap(map(p.attempt_id, toUnixTimestamp64Micro(p.last_at))) AS ended,
        maxMap(map(p.attempt_id, p.last_step)) AS last_steps
    FROM run_progress AS p
    GROUP BY run_id
),
standings AS
(
    SELECT run_id, argMaxMerge(standing) AS last, argMaxMerge(score).1 AS stability_score,
        uniqExactMerge(s.interventions) AS interventions, uniqExactMerge(opened) AS incidents, uniqExactMerge(resolved) AS resolved
    FROM run_summary AS s
    GROUP BY run_id
),
seen AS
(
    SELECT run_id, avg(detection_s) AS mttd_s
    FROM incidents
    GROUP BY run_id
)
SELECT
    run_id, model, model_family, dataset, team, cluster, outcome, phase, margin, stability_score, attempts, world_size, last_step,
    started_at, last_at, duration_s, seconds_in_phase, share_well, incidents, open_incidents, mean_detection_steps, mttd_s, mttr_s,
    steps_lost, interventions_proposed, interventions_issued, interventions_recovered, interventions_in_vain, checkpoints,
    checkpoints_rejected, checkpoints_restored, evaluations, energy_kwh, gpus, gpu_util, rank_hours, gpus * duration_s / 3600 AS gpu_hours,
    cost, wasted_share, rank_hours * wasted_share AS wasted_rank_hours, gpu_hours * wasted_share AS wasted_gpu_hours,
    cost * wasted_share AS wasted_cost
FROM
(
    SELECT
        *,
        if(empty(seconds_in_phase), NULL,
            (seconds_in_phase['Normal'] + seconds_in_phase['Warmup']) / arraySum(mapValues(seconds_in_phase))) AS share_well,
        least(1, steps_lost / greatest(ifNull(last_step, 0) + 1 - first_step + steps_lost, 1)
            + if(duration_s > 0, seconds_in_phase['Stalled'] / duration_s, 0)) AS wasted_share
    FROM
    (
        SELECT
            s.run_id AS run_id,
            t.head.2 AS model, t.head.3 AS model_family, t.head.4 AS dataset, t.head.5 AS team, t.head.6 AS cluster,
            multiIf(t.ended.1 != '' AND (t.ended.2 = t.head.1 OR empty(t.sizes)), t.ended.1, r.last.phase = 'Ended', 'lost', '') AS outcome,
            if(r.last.phase = '', 'Unknown', r.last.phase) AS phase, r.last.margin AS margin, r.stability_score AS stability_score,
            length(t.sizes) AS attempts, t.head.7 AS world_size, t.first_step AS first_step,
            nullIf(multiIf(empty(t.sizes), s.greatest_step, mapContains(s.last_steps, t.head.1), s.last_steps[t.head.1], -1), -1)
                AS last_step,
            s.started_at AS started_at, s.last_at AS last_at,
            dateDiff('microsecond', s.started_at, s.last_at) / 1e6 AS duration_s,
            mapFilter((name, seconds) -> name != 'Ended', arrayReduce('sumMap',
                arrayMap((turn, until) -> map(turn.3, greatest(dateDiff('microsecond', turn.4, until) / 1e6, 0)),
                    t.turns, arraySlice(arrayPushBack(arrayPopFront(t.turns.4), s.last_at), 1, length(t.turns))))) AS seconds_in_phase,
            r.incidents AS incidents, toInt64(r.incidents) - toInt64(r.resolved) AS open_incidents,
            if(empty(t.detected), NULL, arrayAvg(mapValues(t.detected))) AS mean_detection_steps,
            n.mttd_s AS mttd_s,
            if(empty(t.recovered), NULL,
                arrayAvg(arrayMap(id -> dateDiff('microsecond', t.opened[id], t.recovered[id]) / 1e6, mapKeys(t.recovered)))) AS mttr_s,
            t.steps_lost AS steps_lost,
            t.proposed AS interventions_proposed, r.interventions AS interventions_issued,
            t.helped AS interventions_recovered, t.in_vain AS interventions_in_vain,
            t.checkpoints AS checkpoints, t.checkpoints_rejected AS checkpoints_rejected, t.checkpoints_restored AS checkpoints_restored,
            arrayFold((last, told) -> mapUpdate(last, mapApply((name, value) -> (concat(told.3, '/', name), value), told.4)), t.evals,
                CAST(map(), 'Map(String, Float64)')) AS evaluations,
            if(empty(t.energy), NULL, arraySum(mapValues(t.energy))) AS energy_kwh,
            if(empty(t.devices), NULL, arraySum(mapValues(t.devices))) AS gpus,
            t.gpu_util AS gpu_util,
            arraySum(arrayMap(id -> t.sizes[id] * (s.ended[id] - s.began[id]), mapKeys(t.sizes))) / 3.6e9 AS rank_hours,
            if(empty(t.rates), NULL, arraySum(arrayMap(id -> t.rates[id] * (s.ended[id] - s.began[id]), mapKeys(t.rates))) / 3.6e9)
                AS cost
        FROM spans AS s
        LEFT JOIN told AS t ON t.run_id = s.run_id
        LEFT JOIN standings AS r ON r.run_id = s.run_id
        LEFT JOIN seen AS n ON n.run_id = s.run_id
    )
);

-- How far the archive has come in each partition of the log. The governor writes a tick a second into every partition of telemetry, so
-- there `behind_s` is the lag, whatever the runs do; on the control topic it is only how long nothing was decided.
CREATE OR REPLACE VIEW ingest
(
    topic         LowCardinality(String) COMMENT 'of the log',
    log_partition UInt32 COMMENT 'place in the log: partition',
    log_epoch     UInt32 COMMENT 'place in the log: how often the log had been lost',
    log_offset    UInt64 COMMENT 'place in the log: offset',
    last_at       SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'newest event here',
    archived_at   SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'when it was taken in',
    behind_s      Float64 COMMENT 'seconds since the newest event',
    took_s        Float64 COMMENT 'seconds from that event to the archive'
)
AS
SELECT
    topic, log_partition, max(place).1 AS log_epoch, max(place).2 AS log_offset,
    max(p.last_at) AS last_at, max(p.archived_at) AS archived_at,
    dateDiff('millisecond', last_at, now64(3)) / 1e3 AS behind_s,
    dateDiff('millisecond', last_at, archived_at) / 1e3 AS took_s
FROM log_progress AS p
GROUP BY topic, log_partition;
