//! `switchboard generate`: fills a database with the past of a company, for measuring how searches,
//! lists and reports behave at its size. What it writes keeps every rule of the schema: histories that
//! the state machine allows, money that agrees with the ledger.

use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{
    database, progress,
    simulate::plan::words::{NAMES, PROBLEMS, STREETS},
};
use crate::{config::Config, db::migrate};

/// Rows of one transaction.
const BATCH: i64 = 20_000;

/// What to generate.
#[derive(Clone, Copy, Debug, Args)]
pub struct Arguments {
    /// How many service requests
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(1..=100_000_000))]
    pub requests: i64,
    /// Over how many past days; the last two days' requests are still being worked on
    #[arg(long, default_value_t = 730, value_parser = clap::value_parser!(i32).range(3..=3650))]
    pub days: i32,
    /// The same seed over the same company gives the same past, relative to today
    #[arg(long, default_value_t = 1)]
    pub seed: i64,
}

/// Opens the database that the settings name, migrates it and fills it.
///
/// # Errors
/// When the database has no company yet, or cannot be used.
pub async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<()> {
    let database = database::open_existing(config).await?;
    migrate::run(&database.options).await?;
    let mut connection = database.options.connect().await.context("connecting to the database")?;
    let (started, bar) =
        (Instant::now(), progress::bar("generating service requests", arguments.requests.unsigned_abs()));
    fill(&mut connection, arguments, &|rows| bar.inc(rows)).await?;
    bar.finish_and_clear();
    connection.close().await?;
    database.close().await?;
    println!(
        "{} service requests with their histories in {:.0} s",
        arguments.requests,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Fills the database on a connection without a statement timeout; `report` hears of rows as they
/// are committed.
///
/// # Errors
/// When the database has no company yet, or cannot be used.
pub async fn fill(
    connection: &mut PgConnection,
    arguments: Arguments,
    report: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<()> {
    sqlx::raw_sql(SETUP).execute(&mut *connection).await.context("reading the company")?;
    let cities: i64 = sqlx::query_scalar("SELECT count(*) FROM generated_cities").fetch_one(&mut *connection).await?;
    ensure!(
        cities > 0,
        "there is no city with a campaign, a line and a master; start the server once with --demo, or create them"
    );
    let mut first = 0;
    while first < arguments.requests {
        let last = (first + BATCH).min(arguments.requests) - 1;
        let mut tx = connection.begin().await?;
        sqlx::query("TRUNCATE generated").execute(&mut *tx).await?;
        sqlx::query(DRAW)
            .bind(first)
            .bind(last)
            .bind(arguments.seed)
            .bind(arguments.requests)
            .bind(arguments.days)
            .bind(NAMES)
            .bind(STREETS)
            .bind(PROBLEMS)
            .execute(&mut *tx)
            .await
            .context("drawing")?;
        for statement in WRITE {
            sqlx::query(*statement).execute(&mut *tx).await.context(*statement)?;
        }
        tx.commit().await?;
        report((last - first + 1).unsigned_abs());
        first = last + 1;
    }
    // Plans are made from statistics, and the next one may be made before autovacuum has been here.
    sqlx::raw_sql("ANALYZE").execute(connection).await?;
    Ok(())
}

/// `chance(seed, n, k)`: the k-th number of row n, evenly from 0 up to 1. `skewed` draws an index from
/// 1 to `size`, low ones more often, as names and streets are in life.
const SETUP: &str = "
SET timezone = 'UTC';
CREATE OR REPLACE FUNCTION pg_temp.chance(seed bigint, n bigint, k bigint) RETURNS double precision
    LANGUAGE sql IMMUTABLE AS $$ SELECT (hashint8extended(n * 64 + k, seed) & 9007199254740991) / 9007199254740992.0::float8 $$;
CREATE OR REPLACE FUNCTION pg_temp.skewed(draw double precision, size integer) RETURNS integer
    LANGUAGE sql IMMUTABLE AS $$ SELECT 1 + floor(draw * draw * size)::integer $$;
DROP TABLE IF EXISTS generated_cities, generated_paths, generated;
CREATE TEMP TABLE generated_cities AS
    SELECT row_number() OVER (ORDER BY c.id)::integer AS n, c.id,
           ARRAY(SELECT a.id FROM advertising_campaigns a JOIN campaign_numbers l ON l.campaign_id = a.id
                  WHERE a.city_id = c.id GROUP BY a.id ORDER BY a.id) AS campaigns,
           ARRAY(SELECT u.id FROM users u JOIN user_cities uc ON uc.user_id = u.id JOIN master_profiles p ON p.user_id = u.id
                  WHERE uc.city_id = c.id AND u.role = 'master' ORDER BY u.id) AS masters,
           ARRAY(SELECT u.id FROM users u JOIN user_cities uc ON uc.user_id = u.id
                  WHERE uc.city_id = c.id AND u.role IN ('operator', 'manager', 'director') ORDER BY u.id) AS staff
      FROM cities c;
DELETE FROM generated_cities WHERE campaigns = '{}' OR masters = '{}';
UPDATE generated_cities g SET n = m.n FROM (SELECT id, row_number() OVER (ORDER BY id)::integer AS n FROM generated_cities) m
 WHERE m.id = g.id;
-- The way of a request into each state, and the minutes from its creation to each step of it.
CREATE TEMP TABLE generated_paths (final text, step integer, from_status text, to_status text, minutes integer);
INSERT INTO generated_paths
SELECT final, step::integer, path[step], path[step + 1], minutes[step]
  FROM (VALUES
        ('new',         ARRAY['new'],                                                           ARRAY[]::integer[]),
        ('callback',    ARRAY['new', 'callback'],                                               ARRAY[6]),
        ('no_answer',   ARRAY['new', 'no_answer'],                                              ARRAY[7]),
        ('not_order',   ARRAY['new', 'not_order'],                                              ARRAY[5]),
        ('waiting',     ARRAY['new', 'waiting'],                                                ARRAY[4]),
        ('offered',     ARRAY['new', 'waiting', 'offered'],                                     ARRAY[4, 35]),
        ('accepted',    ARRAY['new', 'waiting', 'offered', 'accepted'],                         ARRAY[4, 35, 41]),
        ('en_route',    ARRAY['new', 'waiting', 'offered', 'accepted', 'en_route'],             ARRAY[4, 35, 41, 160]),
        ('in_progress', ARRAY['new', 'waiting', 'offered', 'accepted', 'en_route', 'in_progress'], ARRAY[4, 35, 41, 160, 200]),
        ('deferred',    ARRAY['new', 'waiting', 'offered', 'accepted', 'en_route', 'in_progress', 'deferred'],
                        ARRAY[4, 35, 41, 160, 200, 250]),
        ('refused',     ARRAY['new', 'callback', 'refused'],                                    ARRAY[6, 90]),
        ('done',        ARRAY['new', 'waiting', 'offered', 'accepted', 'en_route', 'in_progress', 'done'],
                        ARRAY[4, 35, 41, 160, 200, 290])
       ) AS paths (final, path, minutes), generate_subscripts(minutes, 1) AS step;
CREATE TEMP TABLE generated (
    id bigint, n bigint, phone text, city integer, city_id bigint, campaign_id bigint, master_id bigint, staff_id bigint,
    created_at timestamptz, pace double precision, status text, by_call boolean, warranty boolean, name text, address text,
    description text, result numeric(12, 2), expenses numeric(12, 2), share numeric);
";

/// $1 to $2: rows; $3: seed; $4: rows in all; $5: days; $6, $7, $8: names, streets, problems. Times grow
/// with the row, so that ids and times agree, as in a company that has lived through them.
const DRAW: &str = "
INSERT INTO generated
SELECT nextval(pg_get_serial_sequence('requests', 'id')), d.n,
       '+79' || lpad(floor(d.client * $4 * 0.7)::bigint::text, 9, '0'), c.n, c.id,
       c.campaigns[pg_temp.skewed(d.campaign, cardinality(c.campaigns))],
       m.user_id, c.staff[pg_temp.skewed(d.staff, cardinality(c.staff))],
       d.created_at, 0.5 + d.pace, d.status, d.source < 0.8, d.kind < 0.05,
       $6[pg_temp.skewed(d.name, cardinality($6))],
       $7[pg_temp.skewed(d.street, cardinality($7))] || ', ' || (1 + floor(d.house * 150))::integer
           || ', кв. ' || (1 + floor(d.flat * 300))::integer,
       $8[pg_temp.skewed(d.problem, cardinality($8))] || CASE WHEN d.note < 0.2 THEN ', заказ ' || d.n ELSE '' END,
       round((1500 + 12000 * d.price * d.price)::numeric, 2), round((600 * d.parts)::numeric, 2), m.share
  FROM (SELECT n, pg_temp.chance($3, n, 1) AS client, pg_temp.chance($3, n, 2) AS city, pg_temp.chance($3, n, 3) AS campaign,
               pg_temp.chance($3, n, 4) AS master, pg_temp.chance($3, n, 5) AS staff, pg_temp.chance($3, n, 6) AS pace,
               pg_temp.chance($3, n, 7) AS source, pg_temp.chance($3, n, 8) AS kind, pg_temp.chance($3, n, 9) AS name,
               pg_temp.chance($3, n, 10) AS street, pg_temp.chance($3, n, 11) AS house, pg_temp.chance($3, n, 12) AS flat,
               pg_temp.chance($3, n, 13) AS problem, pg_temp.chance($3, n, 14) AS note, pg_temp.chance($3, n, 15) AS price,
               pg_temp.chance($3, n, 16) AS parts, made.at AS created_at,
               CASE WHEN made.at > now() - interval '2 days'
                    THEN (ARRAY['new', 'callback', 'no_answer', 'waiting', 'offered', 'accepted', 'en_route', 'in_progress',
                                'deferred', 'done'])[1 + floor(pg_temp.chance($3, n, 17) * 10)::integer]
                    WHEN pg_temp.chance($3, n, 17) < 0.55 THEN 'done'
                    WHEN pg_temp.chance($3, n, 17) < 0.75 THEN 'refused'
                    WHEN pg_temp.chance($3, n, 17) < 0.999 THEN 'not_order'
                    ELSE 'deferred' END AS status
          FROM generate_series($1::bigint, $2::bigint) AS n,
               LATERAL (SELECT now() - interval '10 hours' - make_interval(secs => ($5 * 86400.0 - 36000.0) * (1 - (n + 1.0) / $4)) AS at) AS made
       ) AS d
  JOIN generated_cities c ON c.n = pg_temp.skewed(d.city, (SELECT count(*)::integer FROM generated_cities))
  JOIN master_profiles m ON m.user_id = c.masters[pg_temp.skewed(d.master, cardinality(c.masters))]
 ORDER BY d.n";

/// From what was drawn into the tables.
const WRITE: &[&str] = &[
    "INSERT INTO clients (phone_e164, created_at) SELECT phone, min(created_at) FROM generated GROUP BY phone
     ON CONFLICT (phone_e164) DO NOTHING",
    "INSERT INTO requests (id, version, client_id, city_id, type_id, direction_id, campaign_id, source, status, client_name,
                           description, address, callback_at, meeting_at, resume_at, master_id, created_by, created_at,
                           updated_at, state_changed_at, first_response_at, assigned_at, closed_at, result, expenses, net, handover)
     OVERRIDING SYSTEM VALUE
     SELECT g.id, 1 + p.steps, c.id, g.city_id,
            (SELECT id FROM request_types WHERE code = CASE WHEN g.warranty THEN 'warranty'
                WHEN c.created_at < g.created_at THEN 'repeat' ELSE 'first_time' END),
            (SELECT id FROM directions ORDER BY id OFFSET g.n % 5 LIMIT 1),
            CASE WHEN g.by_call THEN g.campaign_id END, CASE WHEN g.by_call THEN 'call' ELSE 'manual' END, g.status,
            g.name, g.description, CASE WHEN p.visit THEN g.address END,
            CASE WHEN g.status = 'callback' THEN g.created_at + interval '1 day' END,
            CASE WHEN p.visit THEN g.created_at + interval '4 hours' END,
            CASE WHEN g.status = 'deferred' THEN g.created_at + interval '7 days' END,
            CASE WHEN p.offered IS NOT NULL THEN g.master_id END,
            CASE WHEN g.by_call THEN NULL ELSE g.staff_id END, g.created_at,
            g.created_at + g.pace * make_interval(mins => coalesce(p.last, 0)),
            g.created_at + g.pace * make_interval(mins => coalesce(p.last, 0)),
            g.created_at + g.pace * make_interval(mins => p.first),
            g.created_at + g.pace * make_interval(mins => p.offered),
            CASE WHEN g.status IN ('done', 'refused', 'not_order') THEN g.created_at + g.pace * make_interval(mins => p.last) END,
            CASE WHEN g.status = 'done' THEN g.result END, CASE WHEN g.status = 'done' THEN g.expenses END,
            CASE WHEN g.status = 'done' THEN g.result - g.expenses END,
            CASE WHEN g.status = 'done' THEN round((g.result - g.expenses) * g.share, 2) END
       FROM generated g JOIN clients c ON c.phone_e164 = g.phone
       JOIN LATERAL (SELECT count(*)::integer AS steps, min(minutes) AS first, max(minutes) AS last,
                            min(minutes) FILTER (WHERE to_status = 'offered') AS offered,
                            coalesce(bool_or(to_status = 'waiting'), false) AS visit
                       FROM generated_paths WHERE final = g.status) AS p ON true
      ORDER BY g.n",
    "INSERT INTO request_events (request_id, at, actor_id, kind, from_status, to_status, diff)
     SELECT g.id, g.created_at + g.pace * make_interval(mins => p.minutes),
            CASE WHEN p.step = 0 AND g.by_call THEN NULL WHEN p.step > 3 THEN g.master_id ELSE g.staff_id END,
            CASE WHEN p.step = 0 THEN 'created' ELSE 'transition' END, p.from_status, p.to_status,
            CASE WHEN p.to_status = 'offered' THEN jsonb_build_object('master_id', jsonb_build_array(NULL, g.master_id)) ELSE '{}' END
       FROM generated g
       JOIN LATERAL (SELECT 0 AS step, NULL AS from_status, 'new' AS to_status, 0 AS minutes
                     UNION ALL SELECT step, from_status, to_status, minutes FROM generated_paths WHERE final = g.status) AS p ON true
      ORDER BY g.n, p.step",
    "INSERT INTO transactions (city_id, type_id, request_id, master_id, amount, automatic, actor_id, at)
     SELECT r.city_id, (SELECT id FROM transaction_types WHERE code = 'income'), r.id, r.master_id, r.handover, true, r.master_id, r.closed_at
       FROM generated g JOIN requests r ON r.id = g.id WHERE r.status = 'done' ORDER BY g.n",
    "INSERT INTO calls (provider, call_key, request_id, city_id, campaign_id, direction, from_raw, from_e164, to_raw, line_raw, line_e164,
                        received_at, started_at, answered_at, ended_at, talk_s, wait_s, result)
     SELECT 'mango', 'generated-' || g.id, g.id, g.city_id, g.campaign_id, 'incoming', g.phone, g.phone, '101', l.phone_e164, l.phone_e164,
            g.created_at, g.created_at, CASE WHEN NOT t.missed THEN g.created_at + make_interval(secs => t.wait) END,
            g.created_at + make_interval(secs => t.wait + CASE WHEN t.missed THEN 0 ELSE t.talk END),
            CASE WHEN NOT t.missed THEN t.talk END, t.wait, CASE WHEN t.missed THEN 'missed' ELSE 'answered' END
       FROM generated g
       JOIN LATERAL (SELECT phone_e164 FROM campaign_numbers WHERE campaign_id = g.campaign_id ORDER BY id LIMIT 1) AS l ON true
       JOIN LATERAL (SELECT floor(5 + 20 * (g.pace - 0.5))::integer AS wait, floor(30 + 200 * (g.pace - 0.5))::integer AS talk,
                            g.status = 'not_order' AND g.n % 3 = 0 AS missed) AS t ON true
      WHERE g.by_call ORDER BY g.n",
];
