-- What the archive knows of an incident like this one: for the advisors.

-- Interventions whose effect was verified, in incidents of one signature, the latest first; not those of the incident in question.
-- name: tried_before
SELECT i.run_id AS run_id, i.action_body AS action_body, i.verification AS outcome, i.applied_steps AS applied_steps,
    n.resolved_step AS resolved_step, n.outcome AS incident_outcome
FROM interventions AS i
INNER JOIN incidents AS n ON n.run_id = i.run_id AND n.incident_id = i.incident_id
WHERE n.condition = {condition:String} AND n.reason = {reason:String} AND i.verification IN ('recovered', 'ineffective', 'reverted')
    AND NOT (i.run_id = {run:String} AND i.incident_id = {incident:String})
ORDER BY i.verified_at DESC, i.intervention_id
LIMIT {limit:UInt64};

-- What was done in this incident already.
-- name: tried_in_incident
SELECT rule, action_body, state, verification
FROM interventions
WHERE run_id = {run:String} AND incident_id = {incident:String} AND incident_id != ''
ORDER BY first_place, intervention_id
LIMIT {limit:UInt64};
