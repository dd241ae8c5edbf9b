-- Sessions that are refreshed, tries to sign in, and who changed what.

-- A session is a family of refresh tokens (src/auth/sessions.rs). Of each token the hash is kept, also of
-- those that were used: whoever presents one of them again later has a copy, and the family ends.
ALTER TABLE sessions
    -- Where its tokens go: cookies of a browser, or the body.
    ADD COLUMN kind text NOT NULL DEFAULT 'token' CHECK (kind IN ('cookie', 'token')),
    -- When it was opened or last refreshed: idle sessions end, and those refreshed lately are at work.
    ADD COLUMN refreshed_at timestamptz;
UPDATE sessions SET refreshed_at = created_at;
ALTER TABLE sessions ALTER COLUMN refreshed_at SET NOT NULL;
-- The index of a user's sessions: those that may be alive.
DROP INDEX sessions_user;
CREATE INDEX sessions_user ON sessions (user_id, refreshed_at) WHERE revoked_at IS NULL;

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token.
    hash       bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    session_id text NOT NULL REFERENCES sessions ON DELETE CASCADE,
    -- On the database's clock: replicas must agree on how long ago that was.
    used_at    timestamptz
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- Every try to sign in that was looked at, for administrators; what the rate limit of an address turned
-- away is a metric only. A login that nobody has is not written down: people type passwords there.
CREATE TABLE login_attempts (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    user_id bigint REFERENCES users,
    address inet NOT NULL,
    result  text NOT NULL CHECK (result IN ('success', 'rejected', 'locked'))
);
CREATE INDEX login_attempts_newest ON login_attempts (at DESC, id DESC);
CREATE INDEX login_attempts_user ON login_attempts (user_id, at DESC, id DESC);
CREATE INDEX login_attempts_address ON login_attempts (address, at DESC, id DESC);

-- Failures of one login from one address (or IPv6 /64) since the last success. Only whoever fails waits:
-- the owner of the login, elsewhere, does not.
CREATE TABLE login_failures (
    -- For pages of what is locked.
    id           bigint GENERATED ALWAYS AS IDENTITY,
    -- HMAC of the login under a key of the server.
    login_key    bytea NOT NULL CHECK (octet_length(login_key) = 32),
    address      text NOT NULL CHECK (char_length(address) <= 64),
    failures     integer NOT NULL CHECK (failures >= 0),
    -- Tries that are being looked at: they count as failures only if nobody ever says how they ended.
    pending      integer NOT NULL DEFAULT 0 CHECK (pending >= 0),
    -- When the last try began or failed. This and the lock are on the database's clock.
    last_at      timestamptz NOT NULL,
    locked_until timestamptz,
    -- Whose login it is, if anybody's.
    user_id      bigint REFERENCES users,
    PRIMARY KEY (login_key, address)
);
CREATE INDEX login_failures_user ON login_failures (user_id);
CREATE INDEX login_failures_by_age ON login_failures (last_at);
CREATE INDEX login_failures_locked ON login_failures (locked_until DESC, id DESC) WHERE user_id IS NOT NULL;

-- Who changed what about people, rights, money and settings, and who took personal data out. Written in
-- the transaction that does it.
CREATE TABLE audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL,
    via        text NOT NULL CHECK (via IN ('api', 'cli')),
    -- NULL: nobody who was signed in, such as the command line.
    actor_id   bigint REFERENCES users,
    action     text NOT NULL CHECK (action ~ '^[a-z]+(_[a-z]+)*$'),
    -- What it was done to: a table's name and an id in it, or none for many rows.
    subject    text NOT NULL CHECK (subject ~ '^[a-z]+(_[a-z]+)*$'),
    subject_id bigint,
    address    inet,
    trace_id   text CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    -- Which fields, and the values of those that are no personal data.
    detail     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(detail) = 'object')
);
CREATE INDEX audit_log_newest ON audit_log (at DESC, id DESC);
CREATE INDEX audit_log_actor ON audit_log (actor_id, at DESC, id DESC);
CREATE INDEX audit_log_action ON audit_log (action, at DESC, id DESC);
CREATE INDEX audit_log_subject ON audit_log (subject, subject_id, at DESC, id DESC);

-- Nothing changes a row, and nothing removes one that is younger than a year, whatever the settings say.
CREATE FUNCTION audit_log_forbid_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.at < now() - interval '1 year' THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_forbid_change();
CREATE TRIGGER audit_log_not_truncated BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_forbid_change();
