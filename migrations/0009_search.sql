-- Search. The words of a request as a vector, for whole words and their beginnings. A vector rather than trigrams:
-- its statistics know which words are common, so that the planner can tell when to walk the newest requests and
-- when to look a rare word up. Punctuation separates words, as in src/requests/query.rs; the parser alone would
-- take "Ленина,5" or "kv.12" for something else.
ALTER TABLE requests ADD COLUMN search tsvector GENERATED ALWAYS AS (
    to_tsvector('simple', regexp_replace(
        coalesce(client_name, '') || ' ' || coalesce(address, '') || ' ' || coalesce(description, ''),
        '[][!-/:-@\\^_`{|}~«»„“”‘’…–—№]+', ' ', 'g'))) STORED;
ALTER TABLE requests ALTER COLUMN search SET STATISTICS 1000;
-- Without fastupdate: a search should not pay for the inserts before it.
CREATE INDEX requests_search ON requests USING gin (search) WITH (fastupdate = off);

-- Found by its last digits, as people read a number out.
CREATE INDEX clients_phone_end ON clients (reverse(phone_e164) text_pattern_ops);

CREATE INDEX requests_status_newest ON requests (status, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX requests_campaign_newest ON requests (campaign_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL AND campaign_id IS NOT NULL;
