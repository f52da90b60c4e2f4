-- What people are asked, and what they have asked for. Times are microseconds since 1970, UTC, as in the events.

-- Proposals that nobody has answered yet, of runs that go on.
-- name: waiting
SELECT run_id, body
FROM events
WHERE kind = 'intervention_proposed'
    AND ({run:String} = '' OR run_id = {run:String})
    AND run_id IN (SELECT run_id FROM runs WHERE phase != 'Ended')
    AND JSONExtractBool(body, 'needs_approval') AND JSONExtractString(body, 'mode') != 'observe'
    AND JSONExtractString(body, 'intervention_id') NOT IN
    (
        SELECT JSONExtractString(a.body, 'intervention_id')
        FROM events AS a
        WHERE a.kind IN ('intervention_approved', 'intervention_declined', 'intervention_expired')
            AND ({run:String} = '' OR a.run_id = {run:String})
    )
ORDER BY at, log_epoch, log_offset;

-- Silences that were accepted, the latest first; a later one about the same rules takes the place of an earlier one.
-- name: silences
SELECT o.run_id AS run_id, o.body AS body, a.step AS from_step, a.body AS answer
FROM events AS o
INNER JOIN events AS a ON a.run_id = o.run_id AND JSONExtractString(a.body, 'order_id') = o.event_id
WHERE o.kind = 'operator_command' AND a.kind = 'order_answered'
    AND JSONExtractString(o.body, 'verb') = 'silence' AND JSONExtractBool(a.body, 'accepted')
    AND ({run:String} = '' OR o.run_id = {run:String})
    AND o.run_id IN (SELECT run_id FROM runs WHERE phase != 'Ended')
ORDER BY o.at DESC, o.log_epoch DESC, o.log_offset DESC;

-- The runs that know an intervention whose id begins so.
-- name: runs_of_intervention
SELECT run_id, JSONExtractString(body, 'intervention_id') AS intervention_id
FROM events
WHERE kind = 'intervention_proposed' AND startsWith(JSONExtractString(body, 'intervention_id'), {prefix:String})
GROUP BY run_id, intervention_id
ORDER BY run_id, intervention_id
LIMIT 20;
