-- The views of the service levels, over `slo_objectives` and `slo_samples`, which `slo` makes of an slo.yaml.

-- name: slo_view
CREATE OR REPLACE VIEW slo
(
    id          String COMMENT 'M1 to M15, or as the file names it',
    name        String COMMENT 'what it is',
    target      String COMMENT 'in words',
    formula     String COMMENT 'in words; what is counted is in slo_samples',
    window_days Nullable(Float64) COMMENT 'looked back so far',
    samples     UInt64 COMMENT 'in the window',
    runs        UInt64 COMMENT 'runs among them',
    value       Nullable(Float64) COMMENT 'the figure; NULL: not computed',
    status      String COMMENT 'met, missed or not computed',
    budget      Nullable(Float64) COMMENT 'share that may be bad; NULL for counts',
    bad_share   Nullable(Float64) COMMENT 'share that was bad',
    budget_left Nullable(Float64) COMMENT '1: all of it, below 0: overspent',
    needs       String COMMENT 'what it takes to compute it, where it is not'
)
AS
SELECT
    o.id AS id, any(o.name) AS name, any(o.target) AS target, any(o.formula) AS formula, any(o.window_days) AS window_days,
    countIf(recent) AS samples,
    uniqExactIf(s.run_id, recent) AS runs,
    multiIf(
        count(s.at) = 0, NULL,
        any(o.aggregate) = 'count', toNullable(toFloat64(samples)),
        samples = 0, NULL,
        any(o.aggregate) = 'ratio', sumIf(s.good, recent) / sumIf(s.total, recent),
        any(o.aggregate) = 'mean', avgIf(s.value, recent),
        any(o.aggregate) = 'median', quantileExactIf(0.5)(s.value, recent),
        quantileExactIf(0.95)(s.value, recent)) AS value,
    multiIf(
        value IS NULL, 'not computed',
        isNaN(value) OR value < any(o.low) OR value > any(o.high), 'missed',
        'met') AS status,
    any(o.budget) AS budget,
    if(samples = 0 OR budget IS NULL, NULL, 1 - sumIf(s.good, recent) / sumIf(s.total, recent)) AS bad_share,
    if(budget > 0, 1 - bad_share / budget, NULL) AS budget_left,
    if(value IS NULL, any(o.needs), '') AS needs
FROM slo_objectives AS o
LEFT JOIN
(
    SELECT b.id AS id, b.run_id AS run_id, b.at AS at, b.value AS value, b.good AS good, b.total AS total,
        b.at > now64(6) - toIntervalSecond(toInt64(w.window_days * 86400)) AS recent
    FROM slo_samples AS b
    INNER JOIN slo_objectives AS w ON w.id = b.id
) AS s ON s.id = o.id
GROUP BY id
ORDER BY length(id), id;

-- name: slo_burn_view
CREATE OR REPLACE VIEW slo_burn
(
    id        String COMMENT 'of the objective',
    name      String COMMENT 'what it is',
    hours     UInt16 COMMENT 'looked back so far',
    samples   UInt64 COMMENT 'in these hours',
    bad       Float64 COMMENT 'how much of their total was bad',
    allowed   Nullable(Float64) COMMENT 'how much may be bad in these hours',
    burn_rate Nullable(Float64) COMMENT 'times as fast as the budget allows; 1 spends it exactly in its window'
)
AS
SELECT
    id, name, hours,
    countIf(inside) AS samples,
    ifNull(sumIf(total - good, inside), 0) AS bad,
    multiIf(
        aggregate = 'count', high * hours / (24 * window_days),
        budget * sumIf(total, inside)) AS allowed,
    multiIf(allowed IS NULL, NULL, bad = 0, 0, bad / allowed) AS burn_rate
FROM
(
    SELECT o.id AS id, o.name AS name, o.aggregate AS aggregate, o.high AS high, o.budget AS budget, o.window_days AS window_days,
        hours, s.good AS good, s.total AS total,
        s.at > now64(6) - toIntervalHour(hours) AS inside
    FROM
    (
        SELECT *, arrayJoin([BURN_HOURS]) AS hours FROM slo_objectives
    ) AS o
    INNER JOIN slo_samples AS s ON s.id = o.id
)
GROUP BY id, name, hours, aggregate, high, budget, window_days
ORDER BY length(id), id, hours;
