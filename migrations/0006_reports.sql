-- Reports, the business metrics, and the export.

-- A business day begins at midnight in the city. A zone that PostgreSQL does not know would break
-- every report that includes the city, so it cannot be stored.
ALTER TABLE cities ADD CONSTRAINT cities_timezone_known
    CHECK ((timestamptz '2000-01-01 00:00:00+00' AT TIME ZONE timezone) IS NOT NULL);

-- What finished on the days of a report.
CREATE INDEX requests_closed ON requests (closed_at, city_id)
    WHERE deleted_at IS NULL AND closed_at IS NOT NULL;
-- What is open now: few rows of a large table, looked at every few seconds.
CREATE INDEX requests_city_open ON requests (city_id, status, created_at)
    WHERE deleted_at IS NULL AND closed_at IS NULL;
-- Offers made on the days of a report.
CREATE INDEX request_events_offered ON request_events (at) INCLUDE (request_id)
    WHERE kind = 'transition' AND to_status = 'offered';
-- When a finished visit was accepted.
CREATE INDEX request_events_accepted ON request_events (request_id, at)
    WHERE kind = 'transition' AND to_status = 'accepted';
-- Which calls joined a request, rather than creating it.
CREATE INDEX request_events_call_attached ON request_events (at) INCLUDE (request_id)
    WHERE kind = 'call_attached';
-- How long the inbox took lately.
CREATE INDEX webhook_events_processed ON webhook_events (processed_at)
    WHERE status = 'processed';

-- The business metrics as the elected replica last computed them, in one read snapshot: every replica
-- exports this row, so that all of them say the same.
CREATE TABLE collector_snapshots (
    -- There is one.
    id          boolean PRIMARY KEY DEFAULT true CHECK (id),
    taken_at    timestamptz NOT NULL,
    duration_s  double precision NOT NULL CHECK (duration_s >= 0),
    -- The server process of the connection that holds the collector's lock: who computed it.
    backend_pid integer NOT NULL,
    -- Raised by every round, so that one can see whether two replicas compute.
    rounds      bigint NOT NULL DEFAULT 1 CHECK (rounds > 0),
    figures     jsonb NOT NULL CHECK (jsonb_typeof(figures) = 'object')
);
