-- What the demo asks the archive at its end, by `pilothouse sql`. {demo} and {governed} stand for the runs of this demo.

-- name: the_runs
SELECT run_id, outcome, attempts, incidents, interventions FROM runs WHERE startsWith(run_id, '{demo}') ORDER BY started_at;

-- name: their_validation_loss
SELECT run_id, argMax(step, (log_epoch, log_offset)) AS at_step, argMax(value, (log_epoch, log_offset)) AS validation_loss FROM evals
WHERE startsWith(run_id, '{demo}') AND metric = 'loss' GROUP BY run_id ORDER BY min(at);

-- name: the_interventions
SELECT rule, action, proposed_step, applied_steps, ranks_applied, world_size, same_step, verification FROM interventions
WHERE run_id = '{governed}' ORDER BY first_place;

-- name: the_receipts
SELECT substring(intervention_id, 1, 8) AS intervention, rank, outcome, step, before, after FROM receipts
WHERE run_id = '{governed}' ORDER BY at, intervention_id, rank;

-- name: the_incidents
SELECT condition, reason, onset_step, opened_step, resolved_step, outcome, steps_lost FROM incidents
WHERE run_id = '{governed}' ORDER BY opened_at;
