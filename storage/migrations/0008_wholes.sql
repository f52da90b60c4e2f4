-- What is asked of runs as wholes, out of one table and one reading of the log: ClickHouse takes longer to plan a join of stacked views
-- than to read what they name. With FINAL it reads every column of what the key may hold before it looks for the run, unless it is told
-- not to; only conditions on the key are looked at first then, of which every copy of an event has the same.

-- When a run was heard of and how far it came, of all its ranks together. Defaults say nothing: they are beyond every time and step.
ALTER TABLE run_summary ADD COLUMN IF NOT EXISTS first_at SimpleAggregateFunction(min, DateTime64(6, 'UTC'))
    DEFAULT toDateTime64('2299-12-31 23:59:59', 6, 'UTC');
ALTER TABLE run_summary ADD COLUMN IF NOT EXISTS last_at SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
    DEFAULT toDateTime64('1900-01-01 00:00:00', 6, 'UTC');
ALTER TABLE run_summary ADD COLUMN IF NOT EXISTS greatest_attempt SimpleAggregateFunction(max, Int64) DEFAULT -1;
ALTER TABLE run_summary ADD COLUMN IF NOT EXISTS greatest_step SimpleAggregateFunction(max, Int64) DEFAULT -1;
-- By attempt; times in microseconds.
ALTER TABLE run_summary ADD COLUMN IF NOT EXISTS began SimpleAggregateFunction(minMap, Map(String, Int64));
ALTER TABLE run_summary ADD COLUMN IF NOT EXISTS ended SimpleAggregateFunction(maxMap, Map(String, Int64));
ALTER TABLE run_summary ADD COLUMN IF NOT EXISTS last_steps SimpleAggregateFunction(maxMap, Map(String, Int64));

CREATE MATERIALIZED VIEW IF NOT EXISTS run_summary_of_progress TO run_summary AS
SELECT run_id, min(p.first_at) AS first_at, max(p.last_at) AS last_at, max(p.attempt) AS greatest_attempt, max(p.last_step) AS greatest_step,
    minMap(map(p.attempt_id, toUnixTimestamp64Micro(p.first_at))) AS began,
    maxMap(map(p.attempt_id, toUnixTimestamp64Micro(p.last_at))) AS ended,
    maxMap(map(p.attempt_id, p.last_step)) AS last_steps
FROM run_progress AS p
GROUP BY run_id;

INSERT INTO run_summary (run_id, first_at, last_at, greatest_attempt, greatest_step, began, ended, last_steps)
SELECT run_id, min(p.first_at), max(p.last_at), max(p.attempt), max(p.last_step),
    minMap(map(p.attempt_id, toUnixTimestamp64Micro(p.first_at))), maxMap(map(p.attempt_id, toUnixTimestamp64Micro(p.last_at))),
    maxMap(map(p.attempt_id, p.last_step))
FROM run_progress AS p
GROUP BY run_id;

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
    started_at      DateTime64(6, 'UTC') COMMENT 'first heard of',
    last_at         DateTime64(6, 'UTC') COMMENT 'last heard of'
)
AS
WITH told AS
(
    SELECT
        run_id,
        uniqExactIf(a.attempt_id, a.kind = 'run_started') AS attempts,
        argMaxIf(
            (a.attempt_id, a.attempt, a.world_size, a.model, a.model_family, JSONExtractString(a.body, 'code_version'), a.dataset,
                JSONExtractString(a.body, 'dataset_version'), a.cluster, a.team, JSONExtractRaw(a.body, 'tags'),
                JSONExtractRaw(a.body, 'environment')),
            (a.log_epoch, a.log_offset), a.kind = 'run_started') AS head,
        argMaxIf((a.outcome, a.attempt_id), (a.attempt, -ifNull(a.rank, 0)), a.kind = 'run_ended') AS ended
    FROM event_log AS a FINAL
    WHERE a.kind IN ('run_started', 'run_ended')
    GROUP BY run_id
    SETTINGS optimize_move_to_prewhere_if_final = 1
),
summary AS
(
    SELECT run_id, min(r.first_at) AS started_at, max(r.last_at) AS last_at, max(r.greatest_attempt) AS greatest_attempt,
        max(r.greatest_step) AS greatest_step, maxMap(r.last_steps) AS last_steps,
        argMaxMerge(standing) AS last, argMaxMerge(score).1 AS stability_score,
        uniqExactMerge(r.interventions) AS interventions, uniqExactMerge(opened) AS incidents, uniqExactMerge(resolved) AS resolved
    FROM run_summary AS r
    GROUP BY run_id
)
SELECT
    s.run_id AS run_id,
    t.head.1 AS attempt_id,
    if(t.attempts > 0, t.head.2, s.greatest_attempt) AS attempt,
    t.attempts AS attempts,
    t.head.3 AS world_size,
    t.head.4 AS model,
    t.head.6 AS code_version,
    t.head.11 AS tags,
    t.head.5 AS model_family,
    t.head.7 AS dataset,
    t.head.8 AS dataset_version,
    t.head.9 AS cluster,
    t.head.10 AS team,
    t.head.12 AS environment,
    if(s.last.phase = '', 'Unknown', s.last.phase) AS phase,
    s.last.margin AS margin,
    s.stability_score AS stability_score,
    s.last.step AS judged_step,
    nullIf(if(t.attempts > 0, if(mapContains(s.last_steps, t.head.1), s.last_steps[t.head.1], -1), s.greatest_step), -1)
        AS last_step,
    multiIf(
        t.ended.1 != '' AND (t.ended.2 = t.head.1 OR t.attempts = 0), t.ended.1,
        s.last.phase = 'Ended', 'lost',
        '') AS outcome,
    s.interventions AS interventions,
    s.incidents AS incidents,
    toInt64(s.incidents) - toInt64(s.resolved) AS open_incidents,
    s.started_at AS started_at,
    s.last_at AS last_at
FROM summary AS s
LEFT JOIN told AS t ON t.run_id = s.run_id;

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
    SELECT run_id, max(r.last_at) AS last_at
    FROM run_summary AS r
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
    started_at              DateTime64(6, 'UTC') COMMENT 'first heard of',
    last_at                 DateTime64(6, 'UTC') COMMENT 'last heard of',
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
        minIf(e.first_step, kind = 'run_started') AS first_step,
        groupArrayIf((cityHash64(e.attempt_id), e.onset_step, e.step, at), kind = 'incident_opened') AS onsets,
        arraySort(groupArrayIf((cityHash64(e.attempt_id), toInt64(ifNull(e.step, -1)), at), kind = 'run_assessed')) AS moments
    FROM event_log AS e FINAL
    WHERE kind IN ('run_started', 'run_ended', 'phase_changed', 'incident_opened', 'incident_resolved', 'intervention_proposed',
        'intervention_verified', 'checkpoint_saved', 'checkpoint_rejected', 'checkpoint_restored', 'eval_completed', 'resources_sampled')
        OR (kind = 'run_assessed' AND run_id IN (SELECT run_id FROM event_log WHERE kind = 'incident_opened'))
    GROUP BY run_id
    SETTINGS optimize_move_to_prewhere_if_final = 1
),
summary AS
(
    SELECT run_id, min(r.first_at) AS started_at, max(r.last_at) AS last_at, max(r.greatest_step) AS greatest_step,
        minMap(r.began) AS began, maxMap(r.ended) AS ended, maxMap(r.last_steps) AS last_steps,
        argMaxMerge(standing) AS last, argMaxMerge(score).1 AS stability_score,
        uniqExactMerge(r.interventions) AS interventions, uniqExactMerge(opened) AS incidents, uniqExactMerge(resolved) AS resolved
    FROM run_summary AS r
    GROUP BY run_id
)
SELECT
    s.run_id AS run_id,
    t.head.2 AS model, t.head.3 AS model_family, t.head.4 AS dataset, t.head.5 AS team, t.head.6 AS cluster,
    multiIf(t.ended.1 != '' AND (t.ended.2 = t.head.1 OR empty(t.sizes)), t.ended.1, s.last.phase = 'Ended', 'lost', '') AS outcome,
    if(s.last.phase = '', 'Unknown', s.last.phase) AS phase, s.last.margin AS margin, s.stability_score AS stability_score,
    length(t.sizes) AS attempts, t.head.7 AS world_size,
    nullIf(multiIf(empty(t.sizes), s.greatest_step, mapContains(s.last_steps, t.head.1), s.last_steps[t.head.1], -1), -1)
        AS last_step,
    s.started_at AS started_at, s.last_at AS last_at,
    dateDiff('microsecond', s.started_at, s.last_at) / 1e6 AS duration_s,
    mapFilter((name, seconds) -> name != 'Ended', arrayReduce('sumMap',
        arrayMap((turn, until) -> map(turn.3, greatest(dateDiff('microsecond', turn.4, until) / 1e6, 0)),
            t.turns, arraySlice(arrayPushBack(arrayPopFront(t.turns.4), s.last_at), 1, length(t.turns))))) AS seconds_in_phase,
    if(empty(seconds_in_phase), NULL,
        (seconds_in_phase['Normal'] + seconds_in_phase['Warmup']) / arraySum(mapValues(seconds_in_phase))) AS share_well,
    s.incidents AS incidents, toInt64(s.incidents) - toInt64(s.resolved) AS open_incidents,
    if(empty(t.detected), NULL, arrayAvg(mapValues(t.detected))) AS mean_detection_steps,
    if(empty(t.onsets), NULL, arrayAvg(arrayMap(
        onset -> if(onset.2 >= onset.3, 0, dateDiff('microsecond', least(onset.4, ifNull(
            arrayLastOrNull((seen_at, whose, step) -> whose = onset.1 AND step <= onset.2, t.moments.3, t.moments.1, t.moments.2),
            onset.4)), onset.4) / 1e6), t.onsets))) AS mttd_s,
    if(empty(t.recovered), NULL,
        arrayAvg(arrayMap(id -> dateDiff('microsecond', t.opened[id], t.recovered[id]) / 1e6, mapKeys(t.recovered)))) AS mttr_s,
    t.steps_lost AS steps_lost,
    t.proposed AS interventions_proposed, s.interventions AS interventions_issued,
    t.helped AS interventions_recovered, t.in_vain AS interventions_in_vain,
    t.checkpoints AS checkpoints, t.checkpoints_rejected AS checkpoints_rejected, t.checkpoints_restored AS checkpoints_restored,
    arrayFold((last, told) -> mapUpdate(last, mapApply((name, value) -> (concat(told.3, '/', name), value), told.4)), t.evals,
        CAST(map(), 'Map(String, Float64)')) AS evaluations,
    if(empty(t.energy), NULL, arraySum(mapValues(t.energy))) AS energy_kwh,
    if(empty(t.devices), NULL, arraySum(mapValues(t.devices))) AS gpus,
    t.gpu_util AS gpu_util,
    arraySum(arrayMap(id -> t.sizes[id] * (s.ended[id] - s.began[id]), mapKeys(t.sizes))) / 3.6e9 AS rank_hours,
    gpus * duration_s / 3600 AS gpu_hours,
    if(empty(t.rates), NULL, arraySum(arrayMap(id -> t.rates[id] * (s.ended[id] - s.began[id]), mapKeys(t.rates))) / 3.6e9)
        AS cost,
    least(1, t.steps_lost / greatest(ifNull(last_step, 0) + 1 - t.first_step + t.steps_lost, 1)
        + if(duration_s > 0, seconds_in_phase['Stalled'] / duration_s, 0)) AS wasted_share,
    rank_hours * wasted_share AS wasted_rank_hours,
    gpu_hours * wasted_share AS wasted_gpu_hours,
    cost * wasted_share AS wasted_cost
FROM summary AS s
LEFT JOIN told AS t ON t.run_id = s.run_id;
