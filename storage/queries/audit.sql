-- What can be held against a signature: decisions, and the facts that only those may tell who steer. Times are microseconds.

-- name: audited_runs
SELECT DISTINCT run_id FROM event_log ORDER BY run_id;

-- name: audited
SELECT run_id, kind, event_id, attempt_id, attempt, rank, toUnixTimestamp64Micro(at) AS at, step, topic, log_epoch, log_partition,
    log_offset, writer_id, seq, body, hex(seal) AS seal
FROM event_log FINAL
WHERE run_id = {run:String}
    AND (topic = 'pilothouse.control' OR seal != '' OR kind IN ('operator_command', 'policy_activated', 'advice_given'))
ORDER BY log_partition != 1023, log_epoch, log_offset, log_partition;

-- What people and the service did to runs, and what became of it.
-- name: audit_trail
SELECT toString(at) AS time, run_id, kind,
    multiIf(kind = 'operator_command', JSONExtractString(body, 'verb'), kind = 'policy_activated', 'activate policy',
        kind = 'advice_given', 'advise', kind = 'order_answered',
        if(JSONExtractBool(body, 'accepted'), 'accepted', 'refused'), kind = 'intervention_receipt', outcome,
        kind = 'annotated', 'annotate', kind = 'pipeline_reported', 'report', replaceOne(kind, 'intervention_', '')) AS what,
    if(kind = 'advice_given', JSONExtractString(body, 'advisor'), JSONExtractString(body, 'who')) AS who,
    JSONExtractString(body, 'origin') AS origin,
    multiIf(kind = 'policy_activated', JSONExtractString(body, 'name'), JSONHas(body, 'why'), JSONExtractString(body, 'why'),
        JSONHas(body, 'text'), JSONExtractString(body, 'text'), reason) AS why,
    if(JSONHas(body, 'action'), JSONExtractRaw(body, 'action'), '') AS action,
    if(kind = 'order_answered' OR startsWith(kind, 'intervention_'), JSONExtractString(body, 'intervention_id'), '') AS intervention_id,
    step, hex(seal) AS seal
FROM event_log FINAL
WHERE ({run:String} = '' OR run_id = {run:String})
    AND kind IN ('operator_command', 'policy_activated', 'advice_given', 'annotated', 'pipeline_reported', 'order_answered',
        'intervention_proposed', 'intervention_approved', 'intervention_declined', 'intervention_issued', 'intervention_expired',
        'intervention_verified', 'intervention_receipt')
ORDER BY at DESC, log_epoch DESC, log_offset DESC
LIMIT {limit:UInt32};
