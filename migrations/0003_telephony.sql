-- The inbox: a verified provider event is stored here and answered at once; a worker does the rest.
CREATE TABLE webhook_events (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider        text NOT NULL CHECK (provider IN ('mango', 'generic')),
    kind            text NOT NULL CHECK (char_length(kind) BETWEEN 1 AND 64),
    -- What makes a repeated delivery recognisable.
    event_key       text NOT NULL CHECK (char_length(event_key) BETWEEN 1 AND 512),
    -- NULL when the payload does not say which call it belongs to.
    call_key        text CHECK (char_length(call_key) BETWEEN 1 AND 256),
    -- Text, not jsonb: an event that is no valid JSON is kept too, to be looked at.
    payload         text NOT NULL,
    status          text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'processed', 'ignored', 'failed')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    error           text CHECK (char_length(error) <= 500),
    received_at     timestamptz NOT NULL,
    processed_at    timestamptz,
    -- W3C traceparent of the request that stored the event, so that the worker's span links to it.
    traceparent     text CHECK (char_length(traceparent) <= 64),
    CONSTRAINT webhook_events_key UNIQUE (provider, event_key)
);
CREATE INDEX webhook_events_pending ON webhook_events (next_attempt_at, id) WHERE status = 'pending';
CREATE INDEX webhook_events_call ON webhook_events (provider, call_key, id) WHERE call_key IS NOT NULL;
CREATE INDEX webhook_events_failed ON webhook_events (received_at DESC) WHERE status = 'failed';

CREATE TABLE calls (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider           text NOT NULL CHECK (provider IN ('mango', 'generic')),
    call_key           text NOT NULL CHECK (char_length(call_key) BETWEEN 1 AND 256),
    request_id         bigint REFERENCES requests,
    city_id            bigint REFERENCES cities,
    campaign_id        bigint REFERENCES advertising_campaigns,
    direction          text NOT NULL CHECK (direction IN ('incoming', 'outgoing', 'internal', 'unknown')),
    -- As the provider sent them; *_e164 only where they could be normalised.
    from_raw           text CHECK (char_length(from_raw) <= 128),
    from_e164          text CHECK (from_e164 ~ '^\+[1-9][0-9]{6,14}$'),
    to_raw             text CHECK (char_length(to_raw) <= 128),
    line_raw           text CHECK (char_length(line_raw) <= 128),
    line_e164          text CHECK (line_e164 ~ '^\+[1-9][0-9]{6,14}$'),
    operator_extension text CHECK (char_length(operator_extension) <= 128),
    received_at        timestamptz NOT NULL,
    started_at         timestamptz,
    answered_at        timestamptz,
    ended_at           timestamptz,
    talk_s             bigint CHECK (talk_s >= 0),
    wait_s             bigint CHECK (wait_s >= 0),
    result             text CHECK (result IN ('answered', 'missed')),
    cause              bigint,
    -- Why an incoming call has no request and needs a person's eye.
    triage             text CHECK (triage IN ('unknown_line', 'unknown_caller')),
    CONSTRAINT calls_key UNIQUE (provider, call_key),
    CONSTRAINT calls_triage_has_no_request CHECK (triage IS NULL OR request_id IS NULL)
);
CREATE INDEX calls_newest ON calls (received_at DESC, id DESC);
CREATE INDEX calls_city_newest ON calls (city_id, received_at DESC, id DESC);
CREATE INDEX calls_request ON calls (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX calls_triage ON calls (received_at DESC, id DESC) WHERE triage IS NOT NULL;
