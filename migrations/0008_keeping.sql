-- What came from the old system, what has been kept long enough, and when a backup last succeeded.

-- Imports. A run is one pass over one file. Its cursor moves in the transaction that stores the rows,
-- so an import that was killed goes on where it was.
CREATE TABLE import_runs (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('requests', 'masters', 'campaigns', 'transactions')),
    file_sha256 text NOT NULL CHECK (file_sha256 ~ '^[0-9a-f]{64}$'),
    rows_total  bigint NOT NULL CHECK (rows_total >= 0),
    rows_done   bigint NOT NULL DEFAULT 0,
    accepted    bigint NOT NULL DEFAULT 0 CHECK (accepted >= 0),
    -- Rows that an earlier run had stored.
    present     bigint NOT NULL DEFAULT 0 CHECK (present >= 0),
    rejected    bigint NOT NULL DEFAULT 0 CHECK (rejected >= 0),
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT import_runs_adds_up CHECK (rows_done = accepted + present + rejected AND rows_done <= rows_total),
    CONSTRAINT import_runs_finished_is_complete CHECK (finished_at IS NULL OR rows_done = rows_total)
);
CREATE UNIQUE INDEX import_runs_unfinished ON import_runs (kind, file_sha256) WHERE finished_at IS NULL;

-- Which rows a run could not take, and why. The rows themselves stay in the file: they are personal data.
CREATE TABLE import_rejects (
    run_id bigint NOT NULL REFERENCES import_runs,
    line   bigint NOT NULL CHECK (line > 0),
    reason text NOT NULL,
    PRIMARY KEY (run_id, line)
);

-- The old system's number of everything that was imported: what is here is not imported again.
CREATE TABLE imported_keys (
    kind        text NOT NULL CHECK (kind IN ('requests', 'masters', 'campaigns', 'transactions')),
    external_id text NOT NULL CHECK (char_length(external_id) BETWEEN 1 AND 64),
    -- Of the row in the table of that kind.
    id          bigint NOT NULL,
    PRIMARY KEY (kind, external_id)
);

-- Personal data goes, figures stay.
ALTER TABLE requests ADD COLUMN anonymised_at timestamptz;
ALTER TABLE requests DROP CONSTRAINT requests_visit_has_place_and_time;
ALTER TABLE requests ADD CONSTRAINT requests_visit_has_place_and_time CHECK (
    status NOT IN ('waiting', 'offered', 'accepted', 'en_route', 'in_progress', 'deferred', 'done')
    OR ((address IS NOT NULL OR anonymised_at IS NOT NULL) AND meeting_at IS NOT NULL));
ALTER TABLE requests ADD CONSTRAINT requests_anonymised_is_nameless CHECK (
    anonymised_at IS NULL OR (client_name IS NULL AND address IS NULL AND description IS NULL));
-- One that was opened again would collect personal data that nothing removes any more.
ALTER TABLE requests ADD CONSTRAINT requests_anonymised_stays_closed CHECK (
    anonymised_at IS NULL OR closed_at IS NOT NULL OR deleted_at IS NOT NULL);
CREATE INDEX requests_to_anonymise ON requests (COALESCE(closed_at, deleted_at), id)
    WHERE anonymised_at IS NULL AND COALESCE(closed_at, deleted_at) IS NOT NULL;

-- The number is replaced by one that is made of the row's id alone: nothing leads back from it.
ALTER TABLE clients ADD COLUMN anonymised_at timestamptz;
ALTER TABLE clients DROP CONSTRAINT clients_phone_e164_check;
ALTER TABLE clients ADD CONSTRAINT clients_phone_e164_check CHECK (
    CASE WHEN anonymised_at IS NULL THEN phone_e164 ~ '^\+[1-9][0-9]{6,14}$' ELSE phone_e164 = 'anonymised-' || id END);

ALTER TABLE calls ADD COLUMN anonymised_at timestamptz;
ALTER TABLE calls ADD CONSTRAINT calls_anonymised_is_nameless CHECK (
    anonymised_at IS NULL OR (from_raw IS NULL AND from_e164 IS NULL AND to_raw IS NULL));
CREATE INDEX calls_to_anonymise ON calls (received_at, id) WHERE anonymised_at IS NULL;

-- Their objects go with them, found by their age.
CREATE INDEX files_by_age ON files (at, id) WHERE request_id IS NOT NULL;
CREATE INDEX recordings_by_age ON recordings (at, id) WHERE object IS NOT NULL;

CREATE INDEX webhook_events_received ON webhook_events (received_at) WHERE status <> 'pending';
CREATE INDEX sessions_expired ON sessions (expires_at);

-- What of a history entry's diff says nothing about the client. A field that is not named here goes:
-- forgetting to list one loses a detail of an old history, not somebody's address.
CREATE FUNCTION request_diff_without_person(diff jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT COALESCE(jsonb_object_agg(key, value), '{}') FROM jsonb_each(CASE jsonb_typeof(diff) WHEN 'object' THEN diff ELSE '{}' END)
     WHERE key IN ('status', 'type', 'direction', 'city', 'city_id', 'campaign', 'source', 'master_id', 'callback_at',
                   'meeting_at', 'resume_at', 'first_response_at', 'assigned_at', 'escalated_at', 'closed_at', 'result',
                   'expenses', 'net', 'handover', 'call_key', 'call_id', 'file_id', 'policy', 'imported')
$$;

-- The history stays append-only but for one thing: in a transaction that says so, the entries of a
-- request that has been anonymised lose what they say about the client, and nothing else changes.
CREATE FUNCTION request_events_forbid_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('switchboard.anonymising', true) = 'on'
       AND to_jsonb(NEW) - ARRAY['diff', 'reason'] = to_jsonb(OLD) - ARRAY['diff', 'reason']
       AND NEW.diff = request_diff_without_person(OLD.diff)
       AND (OLD.reason IS NULL AND NEW.reason IS NULL OR OLD.reason IS NOT NULL AND NEW.reason = '[removed]')
       AND EXISTS (SELECT FROM requests WHERE id = OLD.request_id AND anonymised_at IS NOT NULL)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
DROP TRIGGER request_events_append_only ON request_events;
CREATE TRIGGER request_events_append_only BEFORE UPDATE OR DELETE ON request_events
    FOR EACH ROW EXECUTE FUNCTION request_events_forbid_change();

-- Nobody would remove it again. To whoever writes it is as if the request were not there: a conflict.
CREATE FUNCTION request_comments_forbid_on_anonymised() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM requests WHERE id = NEW.request_id AND anonymised_at IS NOT NULL) THEN
        RAISE EXCEPTION 'the personal data of this request has been removed' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER request_comments_not_on_anonymised BEFORE INSERT ON request_comments
    FOR EACH ROW EXECUTE FUNCTION request_comments_forbid_on_anonymised();

-- Work on the installation itself that was finished.
CREATE TABLE maintenance_runs (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('backup')),
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL CHECK (finished_at >= started_at),
    -- Of what was written.
    bytes       bigint NOT NULL CHECK (bytes >= 0)
);
CREATE INDEX maintenance_runs_newest ON maintenance_runs (kind, finished_at DESC);
