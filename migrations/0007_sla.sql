-- What was promised to clients: how long each type of service request may take, and the clocks that
-- run for each request.
CREATE TABLE sla_policies (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type_id  bigint NOT NULL REFERENCES request_types,
    policy   text NOT NULL CHECK (policy IN ('first_response', 'assignment', 'completion')),
    -- Seconds, at most a year.
    target_s integer NOT NULL CHECK (target_s > 0 AND target_s <= 31536000),
    version  integer NOT NULL DEFAULT 1 CHECK (version > 0),
    CONSTRAINT sla_policies_key UNIQUE (type_id, policy)
);

-- A type without policies would have requests that nobody is late with.
CREATE FUNCTION sla_policies_of_new_type() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sla_policies (type_id, policy, target_s)
    VALUES (NEW.id, 'first_response', 900), (NEW.id, 'assignment', 7200), (NEW.id, 'completion', 259200);
    RETURN NULL;
END $$;
CREATE TRIGGER request_types_have_sla_policies AFTER INSERT ON request_types
    FOR EACH ROW EXECUTE FUNCTION sla_policies_of_new_type();

INSERT INTO sla_policies (type_id, policy, target_s)
SELECT t.id, p.policy, p.target_s
  FROM request_types t
 CROSS JOIN (VALUES (1, 'first_response', 900), (2, 'assignment', 7200), (3, 'completion', 259200)) AS p (n, policy, target_s)
 ORDER BY t.id, p.n;

-- One clock a request and policy. It runs until it is met or cancelled; while it is paused, due_at is
-- that of the moment it was paused, and moves on by the length of the pause when it runs again.
CREATE TABLE sla_timers (
    request_id   bigint NOT NULL REFERENCES requests,
    policy       text NOT NULL CHECK (policy IN ('first_response', 'assignment', 'completion')),
    started_at   timestamptz NOT NULL,
    due_at       timestamptz NOT NULL,
    paused_at    timestamptz,
    paused_total interval NOT NULL DEFAULT '0' CHECK (paused_total >= '0'),
    met_at       timestamptz,
    cancelled_at timestamptz,
    breached_at  timestamptz,
    PRIMARY KEY (request_id, policy),
    CONSTRAINT sla_timers_due_after_start CHECK (due_at > started_at),
    CONSTRAINT sla_timers_in_one_state CHECK (num_nonnulls(paused_at, met_at, cancelled_at) <= 1)
);
-- Those that a breach must yet be recorded of: running ones, and those that stopped too late and that
-- nobody has looked at since.
CREATE INDEX sla_timers_unbreached ON sla_timers (due_at)
    WHERE breached_at IS NULL AND COALESCE(met_at, cancelled_at, paused_at, 'infinity') > due_at;

-- Those that the business metrics count, the newest of them.
CREATE INDEX request_events_sla_breached ON request_events (at) INCLUDE (request_id) WHERE kind = 'sla_breached';

-- When the status last changed. Kept by the database, so that the previous release and a hand-written
-- UPDATE keep it too.
ALTER TABLE requests ADD COLUMN state_changed_at timestamptz;
UPDATE requests SET state_changed_at = updated_at;
ALTER TABLE requests ALTER COLUMN state_changed_at SET NOT NULL;

CREATE FUNCTION note_state_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.state_changed_at := CASE TG_OP WHEN 'INSERT' THEN NEW.created_at ELSE NEW.updated_at END;
    RETURN NEW;
END $$;
CREATE TRIGGER requests_begin_in_a_state BEFORE INSERT ON requests
    FOR EACH ROW WHEN (NEW.state_changed_at IS NULL) EXECUTE FUNCTION note_state_change();
CREATE TRIGGER requests_change_state BEFORE UPDATE OF status ON requests
    FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION note_state_change();

-- Adding to a timestamptz depends on the session's time zone, but for UTC; an index must not.
CREATE FUNCTION later(moment timestamptz, delay interval) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    RETURN (moment AT TIME ZONE 'UTC' + delay) AT TIME ZONE 'UTC';

-- From when on a request counts as stuck, unless somebody moves it before; NULL is never. For an offer
-- it is when that was made: how long it may stay unanswered is a setting, which stuck_requests() adds.
ALTER TABLE requests ADD COLUMN stuck_at timestamptz GENERATED ALWAYS AS (
    CASE WHEN deleted_at IS NULL THEN
        CASE status
            WHEN 'new'         THEN later(state_changed_at, '1 hour')
            WHEN 'callback'    THEN later(callback_at, '15 minutes')
            WHEN 'waiting'     THEN LEAST(later(state_changed_at, '4 hours'), meeting_at)
            WHEN 'offered'     THEN state_changed_at
            WHEN 'accepted'    THEN later(meeting_at, '2 hours')
            WHEN 'en_route'    THEN later(meeting_at, '2 hours')
            WHEN 'in_progress' THEN later(state_changed_at, '24 hours')
            WHEN 'deferred'    THEN resume_at
        END
    END) STORED;
CREATE INDEX requests_stuck ON requests (stuck_at, id) WHERE stuck_at IS NOT NULL;
CREATE INDEX requests_city_stuck ON requests (city_id, stuck_at, id) WHERE stuck_at IS NOT NULL;
CREATE INDEX requests_master_stuck ON requests (master_id, stuck_at, id) WHERE stuck_at IS NOT NULL AND master_id IS NOT NULL;
CREATE INDEX requests_offered ON requests (state_changed_at, id) WHERE status = 'offered' AND deleted_at IS NULL;

-- Requests that nobody moves, at a moment $1, when an offer may stay unanswered for $2. The planner
-- takes it apart like a view, so that it is read in the order of an index.
CREATE FUNCTION stuck_requests(moment timestamptz, offer_timeout interval)
    RETURNS TABLE (id bigint, version integer, status text, city_id bigint, type_id bigint, master_id bigint, why text, since timestamptz)
    LANGUAGE sql STABLE AS $$
    SELECT r.id, r.version, r.status, r.city_id, r.type_id, r.master_id,
           CASE r.status
               WHEN 'new'         THEN 'not_answered'
               WHEN 'callback'    THEN 'callback_overdue'
               WHEN 'waiting'     THEN CASE WHEN r.meeting_at <= $1 THEN 'meeting_passed' ELSE 'not_offered' END
               WHEN 'offered'     THEN 'offer_unanswered'
               WHEN 'in_progress' THEN 'not_finished'
               WHEN 'deferred'    THEN 'not_resumed'
               ELSE 'meeting_passed'
           END,
           r.stuck_at
      FROM requests r
     WHERE r.stuck_at <= $1 AND (r.status <> 'offered' OR r.stuck_at <= $1 - $2)
$$;

ALTER TABLE request_events DROP CONSTRAINT request_events_kind_check;
ALTER TABLE request_events ADD CONSTRAINT request_events_kind_check CHECK (kind IN
    ('created', 'transition', 'edited', 'commented', 'call_attached', 'deleted', 'file_attached', 'file_removed', 'sla_breached', 'escalated',
     'anonymised'));
