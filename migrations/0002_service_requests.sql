CREATE TABLE clients (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    phone_e164 text NOT NULL UNIQUE CHECK (phone_e164 ~ '^\+[1-9][0-9]{6,14}$'),
    created_at timestamptz NOT NULL
);

-- What a state needs is stated here as well as in src/requests/state.rs: a bug in the code, or a
-- hand-written UPDATE at night, must not be able to store a request that nobody can work on.
CREATE TABLE requests (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version           integer NOT NULL DEFAULT 1 CHECK (version > 0),
    client_id         bigint NOT NULL REFERENCES clients,
    city_id           bigint NOT NULL REFERENCES cities,
    type_id           bigint NOT NULL REFERENCES request_types,
    direction_id      bigint REFERENCES directions,
    campaign_id       bigint REFERENCES advertising_campaigns,
    source            text NOT NULL CHECK (source IN ('call', 'manual')),
    status            text NOT NULL CHECK (status IN ('new', 'callback', 'no_answer', 'not_order', 'waiting',
                          'offered', 'accepted', 'en_route', 'in_progress', 'deferred', 'done', 'refused')),
    client_name       text CHECK (char_length(client_name) BETWEEN 1 AND 100),
    description       text CHECK (char_length(description) <= 2000),
    address           text CHECK (char_length(address) BETWEEN 1 AND 300),
    callback_at       timestamptz,
    meeting_at        timestamptz,
    resume_at         timestamptz,
    master_id         bigint REFERENCES users,
    created_by        bigint REFERENCES users,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    first_response_at timestamptz,
    assigned_at       timestamptz,
    escalated_at      timestamptz,
    closed_at         timestamptz,
    result            numeric(12, 2) CHECK (result >= 0),
    expenses          numeric(12, 2) CHECK (expenses >= 0),
    net               numeric(12, 2) CHECK (net = result - expenses),
    handover          numeric(12, 2),
    deleted_at        timestamptz,
    CONSTRAINT requests_callback_has_time CHECK (status <> 'callback' OR callback_at IS NOT NULL),
    CONSTRAINT requests_deferred_has_time CHECK (status <> 'deferred' OR resume_at IS NOT NULL),
    CONSTRAINT requests_visit_has_place_and_time CHECK (
        status NOT IN ('waiting', 'offered', 'accepted', 'en_route', 'in_progress', 'deferred', 'done')
        OR (address IS NOT NULL AND meeting_at IS NOT NULL)),
    CONSTRAINT requests_visit_has_master CHECK (
        status NOT IN ('offered', 'accepted', 'en_route', 'in_progress', 'deferred', 'done')
        OR master_id IS NOT NULL),
    CONSTRAINT requests_done_has_money CHECK (
        (status = 'done') = (result IS NOT NULL)
        AND expenses <= result
        AND (result IS NULL) = (expenses IS NULL)
        AND (result IS NULL) = (net IS NULL)
        AND (result IS NULL) = (handover IS NULL)),
    CONSTRAINT requests_finished_has_time CHECK (
        (status IN ('done', 'refused', 'not_order')) = (closed_at IS NOT NULL))
);
CREATE INDEX requests_newest ON requests (created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX requests_city_newest ON requests (city_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX requests_master_newest ON requests (master_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL AND master_id IS NOT NULL;
CREATE INDEX requests_client ON requests (client_id, created_at DESC);

-- The history. Append-only: what happened cannot be rewritten, not even by the application.
CREATE TABLE request_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id  bigint NOT NULL REFERENCES requests,
    at          timestamptz NOT NULL,
    -- NULL is the system itself (the telephony worker).
    actor_id    bigint REFERENCES users,
    kind        text NOT NULL CHECK (kind IN ('created', 'transition', 'edited', 'commented', 'call_attached', 'deleted')),
    from_status text,
    to_status   text,
    reason      text CHECK (char_length(reason) BETWEEN 1 AND 500),
    -- Changed fields: {"field": [before, after]}.
    diff        jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT request_events_transition_has_states CHECK (
        (kind = 'transition') = (from_status IS NOT NULL) AND (kind IN ('transition', 'created')) = (to_status IS NOT NULL))
);
CREATE INDEX request_events_request ON request_events (request_id, id);

CREATE FUNCTION forbid_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER request_events_append_only BEFORE UPDATE OR DELETE ON request_events
    FOR EACH ROW EXECUTE FUNCTION forbid_change();
CREATE TRIGGER request_events_no_truncate BEFORE TRUNCATE ON request_events
    FOR EACH STATEMENT EXECUTE FUNCTION forbid_change();

CREATE TABLE request_comments (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id bigint NOT NULL REFERENCES requests,
    author_id  bigint NOT NULL REFERENCES users,
    at         timestamptz NOT NULL,
    body       text NOT NULL CHECK (char_length(body) BETWEEN 1 AND 2000)
);
CREATE INDEX request_comments_request ON request_comments (request_id, id);

-- The cash ledger: signed amounts, reversed rather than edited.
CREATE TABLE transactions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    city_id     bigint NOT NULL REFERENCES cities,
    type_id     bigint NOT NULL REFERENCES transaction_types,
    request_id  bigint REFERENCES requests,
    master_id   bigint REFERENCES users,
    amount      numeric(12, 2) NOT NULL,
    reverses_id bigint UNIQUE REFERENCES transactions,
    actor_id    bigint REFERENCES users,
    at          timestamptz NOT NULL
);
CREATE INDEX transactions_request ON transactions (request_id);
CREATE INDEX transactions_city ON transactions (city_id, at);
CREATE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE ON transactions
    FOR EACH ROW EXECUTE FUNCTION forbid_change();
CREATE TRIGGER transactions_no_truncate BEFORE TRUNCATE ON transactions
    FOR EACH STATEMENT EXECUTE FUNCTION forbid_change();
