-- Answers to POSTs that came with an Idempotency-Key (src/http/idempotency.rs), each written in the transaction that
-- had its effect.
CREATE TABLE idempotency_keys (
    -- Everybody has keys of their own, so that nobody meets another's.
    user_id     bigint NOT NULL REFERENCES users,
    key         text NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 255),
    -- SHA-256 of what was asked for, and with which rights.
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    -- The answer. What fails has no effect that could be had twice.
    status      smallint NOT NULL CHECK (status BETWEEN 200 AND 299),
    headers     jsonb NOT NULL CHECK (jsonb_typeof(headers) = 'object'),
    body        bytea NOT NULL,
    -- The service request that the answer tells of: when its client is forgotten, so is this.
    request_id  bigint REFERENCES requests,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_request ON idempotency_keys (request_id) WHERE request_id IS NOT NULL;
