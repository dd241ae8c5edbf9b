-- The ledger takes entries by hand: which type an entry has says its sign.
ALTER TABLE transactions
    ADD COLUMN note      text CHECK (char_length(note) BETWEEN 1 AND 500),
    ADD COLUMN reason    text CHECK (char_length(reason) BETWEEN 1 AND 500),
    -- Written by the state machine, which alone may take it back. All there were before are, and so is what
    -- a replica of the version before writes, which does not know this column.
    ADD COLUMN automatic boolean NOT NULL DEFAULT true,
    ADD CONSTRAINT transactions_automatic_has_request CHECK (NOT automatic OR request_id IS NOT NULL),
    ADD CONSTRAINT transactions_reason_is_of_reversal CHECK (reason IS NULL OR reverses_id IS NOT NULL);
CREATE INDEX transactions_newest ON transactions (at DESC, id DESC);
CREATE INDEX transactions_city_newest ON transactions (city_id, at DESC, id DESC);
CREATE INDEX transactions_master_newest ON transactions (master_id, at DESC, id DESC) WHERE master_id IS NOT NULL;
DROP INDEX transactions_city;

-- What one entry must be in the light of others, which no CHECK can see. Both sides of the comparison are
-- append-only, so that what holds at the insertion holds for ever.
CREATE FUNCTION check_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind     transaction_types;
    original transactions;
BEGIN
    SELECT * INTO kind FROM transaction_types WHERE id = NEW.type_id;
    IF (kind.code = 'reversal') <> (NEW.reverses_id IS NOT NULL) THEN
        RAISE EXCEPTION 'a reversal, and nothing else, names what it reverses'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_reversal_names_original';
    END IF;
    IF NEW.reverses_id IS NULL THEN
        -- A request that earned nothing has an income of nothing; nobody spends nothing.
        IF kind.sign IS NULL OR (kind.sign = 1 AND NEW.amount < 0) OR (kind.sign = -1 AND NEW.amount >= 0) THEN
            RAISE EXCEPTION 'the sign of the amount is not that of its type'
                USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_sign_of_type';
        END IF;
        -- The request's row is locked by whoever moves it, so two cannot come past this at once.
        IF NEW.automatic AND EXISTS (
            SELECT FROM transactions t
             WHERE t.request_id = NEW.request_id AND t.automatic AND t.reverses_id IS NULL
               AND NOT EXISTS (SELECT FROM transactions r WHERE r.reverses_id = t.id)) THEN
            RAISE EXCEPTION 'a service request has one income that stands'
                USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_one_income_of_request';
        END IF;
        RETURN NEW;
    END IF;
    SELECT * INTO original FROM transactions WHERE id = NEW.reverses_id;
    IF original.reverses_id IS NOT NULL THEN
        RAISE EXCEPTION 'a reversal cannot be reversed'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_reversal_is_final';
    END IF;
    IF (NEW.amount, NEW.city_id, NEW.request_id, NEW.master_id, NEW.automatic) IS DISTINCT FROM
       (-original.amount, original.city_id, original.request_id, original.master_id, original.automatic) THEN
        RAISE EXCEPTION 'a reversal takes back exactly what it reverses'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transactions_reversal_is_exact';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER transactions_check BEFORE INSERT ON transactions
    FOR EACH ROW EXECUTE FUNCTION check_transaction();

ALTER TABLE request_events DROP CONSTRAINT request_events_kind_check;
ALTER TABLE request_events ADD CONSTRAINT request_events_kind_check CHECK (kind IN
    ('created', 'transition', 'edited', 'commented', 'call_attached', 'file_attached', 'file_removed', 'deleted'));

-- What was attached. The content lies in the object store; a row is written when its object is whole.
CREATE TABLE files (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id     bigint REFERENCES requests,
    transaction_id bigint REFERENCES transactions,
    kind           text NOT NULL CHECK (kind IN ('receipt', 'contract', 'photo', 'recording', 'other')),
    -- Drawn by us: nothing that a client wrote becomes a path.
    object         text NOT NULL UNIQUE CHECK (object ~ '^[a-z0-9/._-]{1,200}$'),
    name           text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255 AND name !~ '[[:cntrl:]/\\]'),
    mime           text NOT NULL CHECK (mime ~ '^(image|audio|application)/[a-z0-9.+-]{1,40}$'),
    bytes          bigint NOT NULL CHECK (bytes > 0),
    sha256         text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    uploaded_by    bigint NOT NULL REFERENCES users,
    at             timestamptz NOT NULL,
    deleted_at     timestamptz,
    deleted_by     bigint REFERENCES users,
    CONSTRAINT files_have_one_owner CHECK (num_nonnulls(request_id, transaction_id) = 1),
    CONSTRAINT files_deleted_by_somebody CHECK ((deleted_at IS NULL) = (deleted_by IS NULL))
);
CREATE INDEX files_request ON files (request_id, id) WHERE request_id IS NOT NULL;
CREATE INDEX files_transaction ON files (transaction_id, id) WHERE transaction_id IS NOT NULL;
CREATE INDEX files_uploaded_by ON files (uploaded_by);

-- Recordings of calls, fetched from the provider by a job. The notice may come before the first event of
-- its call, so the call is named by its key and not by its row.
CREATE TABLE recordings (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider        text NOT NULL CHECK (provider IN ('mango', 'generic')),
    call_key        text NOT NULL CHECK (char_length(call_key) BETWEEN 1 AND 256),
    recording_id    text NOT NULL CHECK (char_length(recording_id) BETWEEN 1 AND 256),
    -- `gone`: the provider has it no more. `failed`: given up.
    status          text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'stored', 'failed', 'gone')),
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at timestamptz NOT NULL,
    error           text CHECK (char_length(error) <= 500),
    -- When the provider had it ready.
    at              timestamptz NOT NULL,
    object          text UNIQUE CHECK (object ~ '^[a-z0-9/._-]{1,200}$'),
    mime            text CHECK (mime ~ '^audio/[a-z0-9.+-]{1,40}$'),
    bytes           bigint CHECK (bytes > 0),
    sha256          text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    -- W3C traceparent of the request that brought the notice, so that the fetch links to it.
    traceparent     text CHECK (char_length(traceparent) <= 64),
    CONSTRAINT recordings_key UNIQUE (provider, recording_id),
    CONSTRAINT recordings_stored_has_object CHECK (
        num_nonnulls(object, mime, bytes, sha256) = CASE WHEN status = 'stored' THEN 4 ELSE 0 END)
);
CREATE INDEX recordings_due ON recordings (next_attempt_at, id) WHERE status = 'pending';
CREATE INDEX recordings_call ON recordings (provider, call_key, at DESC, id DESC);
