-- What `pilothouse audit verify` holds the rest against: a decision or an order as it travelled, with its signatures and, of a decision,
-- the link to the one before it in its run (msgpack of headers and body). Empty where nothing was signed and nothing is chained.
ALTER TABLE event_log ADD COLUMN IF NOT EXISTS seal String CODEC(ZSTD(3));
