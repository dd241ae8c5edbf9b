"""Dependencies: what Switchboard stands on, and whether that holds."""

from panels import (
    ATTENTION,
    BAD,
    FAINT,
    GOOD,
    NEUTRAL,
    PERCENTILE_COLOURS,
    UP,
    as_limit,
    at_least,
    at_most,
    colours,
    column,
    dashboard,
    heat,
    limit,
    lines,
    link,
    logs,
    percentiles,
    query,
    stat,
    steps,
    table,
    traces,
)

QUERY = "db_client_operation_duration_seconds"
CACHE = "cache_requests_total"
# The disks that the alert looks at.
FILES = 'fstype!~"tmpfs|ramfs|squashfs|iso9660|fuse.*"'
# What the alert about hits looks at.
LONG_LIVED = 'cache=~"dictionaries|users"'
DATABASE = 'datname!~"template.*|"'


def make(facts):
    full, hits = facts.alert("DbPoolSaturated"), facts.alert("CacheHitRatioLow")
    expiring = steps(
        BAD, (facts.alert("CertificateExpiring") / 2, ATTENTION), (facts.alert("CertificateExpiring"), GOOD)
    )
    figures = [
        stat(
            "PostgreSQL",
            "Whether PostgreSQL answers the replicas. Without it nothing but the cache is served.",
            'min(dependency_up{@, dependency="postgresql"})',
            unit="none",
            mappings=UP,
            thresholds=at_least(1),
            graph=False,
            runbooks=["PostgresDown"],
        ),
        stat(
            "Redis",
            """Whether Redis answers the replicas. Without it each has cache and limits of its own. Empty where none is
            configured.""",
            'min(dependency_up{@, dependency="redis"})',
            unit="none",
            mappings=UP,
            graph=False,
            thresholds=steps(ATTENTION, (1, GOOD)),
            none="not configured",
            runbooks=["RedisFallbackActive"],
        ),
        stat(
            "Queries", "Database operations a second.", f"sum(rate({QUERY}_count{{@}}[$__rate_interval]))", unit="ops"
        ),
        stat(
            "Slow queries",
            "99 % of the database operations were faster than this.",
            f"histogram_quantile(0.99, sum by (le) (rate({QUERY}_bucket{{@}}[$__rate_interval])))",
            unit="s",
            thresholds=at_most(0.1, 0.05),
            runbooks=["LatencyBudgetBurnPage"],
        ),
        stat(
            "Pool in use",
            "Share of the database connections that are in use, on the replica where it is highest.",
            """max(sum by (instance) (db_pool_connections{@, state="used"})
             / sum by (instance) (db_pool_max_connections{@}))""",
            unit="percentunit",
            thresholds=at_most(full, full * 0.75),
            runbooks=["DbPoolSaturated"],
        ),
        stat(
            "Cache hits",
            """Share of the look-ups of dictionaries and users that were hits. Reports live for 30 s, and a Redis that
            fails has a panel of its own: the alert counts neither.""",
            f"""sum(rate({CACHE}{{@, {LONG_LIVED}, result="hit"}}[$__rate_interval]))
             / sum(rate({CACHE}{{@, {LONG_LIVED}, result=~"hit|miss"}}[$__rate_interval]))""",
            unit="percentunit",
            none="no look-ups",
            thresholds=at_least(hits),
            runbooks=["CacheHitRatioLow"],
        ),
    ]
    database = [
        lines(
            "Operations",
            "Half, 95 % and 99 % of the database operations were faster than this.",
            percentiles(QUERY),
            unit="s",
            overrides=PERCENTILE_COLOURS,
            log=True,
            links=[link("Traces over 100 ms", traces("duration > 100ms"))],
            runbooks=["LatencyBudgetBurnPage"],
        ),
        lines(
            "Errors",
            """Failed operations a second by SQLSTATE class: 08 connection, 22 data, 23 constraint, 25 transaction
            state, 40 deadlock, 42 syntax or rights, 53 resources, 55 lock not had, 57 cancelled, and those that ran out
            of time. 23 is often a client's double, the others are ours.""",
            [
                query("sum(rate(db_client_errors_total{@}[$__rate_interval]))", "all"),
                query(
                    "sum by (sqlstate_class) (rate(db_client_errors_total{@}[$__rate_interval])) > 0",
                    "{{sqlstate_class}}",
                ),
            ],
            unit="ops",
            overrides=colours({"all": BAD}),
            links=[link("Log lines of errors", logs('level = "error"'))],
            runbooks=["PostgresDown", "DbPoolTimeouts"],
        ),
        lines(
            "Answers of PostgreSQL and Redis",
            "1 while it answers, 0 while it does not, the worst replica.",
            [
                query("min by (dependency) (dependency_up{@})", "{{dependency}}"),
                query("max(cache_fallback_active{@})", "cache without Redis"),
            ],
            unit="none",
            high=1,
            zeros=True,
            overrides=colours({"postgresql": GOOD, "redis": NEUTRAL, "cache without Redis": BAD}),
            runbooks=["PostgresDown", "RedisFallbackActive"],
        ),
        table(
            "Operations by time spent",
            """Which operations the database is busy with, over the time range: how often they ran, how long all of them
            took together in a second, and their slow end.""",
            [
                (
                    "Per second",
                    f"sum by (operation) (rate({QUERY}_count{{@}}[$__rate_interval])) > 0",
                    column("ops", decimals=2),
                ),
                (
                    "Busy",
                    f"sum by (operation) (rate({QUERY}_sum{{@}}[$__rate_interval])) > 0",
                    column("percentunit", decimals=2),
                ),
                (
                    "p50",
                    f"""histogram_quantile(0.5, sum by (operation, le) (
                   rate({QUERY}_bucket{{@}}[$__rate_interval]))) >= 0""",
                    column("s"),
                ),
                (
                    "p99",
                    f"""histogram_quantile(0.99, sum by (operation, le) (
                   rate({QUERY}_bucket{{@}}[$__rate_interval]))) >= 0""",
                    column("s", at_most(0.5, 0.1)),
                ),
            ],
            key={"operation": "Operation"},
            sort="Busy",
            w=16,
            h=10,
        ),
        heat(
            "Operations, all",
            "How many operations took how long; darker is more.",
            f"sum by (le) (increase({QUERY}_bucket{{@}}[$__rate_interval]))",
            unit="s",
            w=8,
            h=10,
        ),
    ]
    pool = [
        lines(
            "Connections",
            """Connections of the pools, in use and idle, and the most there may be (dashed). At the line requests
            wait.""",
            [
                query('sum(db_pool_connections{@, state="used"})', "used"),
                query('sum(db_pool_connections{@, state="idle"})', "idle"),
                query("sum(db_pool_max_connections{@})", "limit"),
            ],
            unit="none",
            overrides=[*colours({"used": NEUTRAL, "idle": FAINT}), as_limit("limit")],
            runbooks=["DbPoolSaturated"],
        ),
        lines(
            "Wait for a connection",
            "Half, 95 % and 99 % of the waits were shorter than this.",
            percentiles("db_pool_acquire_duration_seconds"),
            unit="s",
            log=True,
            overrides=PERCENTILE_COLOURS,
            runbooks=["DbPoolSaturated"],
        ),
        lines(
            "Waits given up",
            "Waits for a connection that were given up, a second: each is a 503.",
            [query("sum by (instance) (rate(db_pool_acquire_timeouts_total{@}[$__rate_interval]))", "{{instance}}")],
            unit="ops",
            thresholds=None,
            runbooks=["DbPoolTimeouts"],
        ),
    ]
    cache = [
        lines(
            "Hits by cache",
            """Share of the look-ups that were hits, not counting those that Redis failed to answer. A cache that is
            hardly asked jumps about; the dashed line is the alert's, for dictionaries and users. Reports live for 30 s,
            so few askers mean few hits.""",
            [
                query(
                    f"""sum by (cache) (rate({CACHE}{{@, result="hit"}}[$__rate_interval]))
                  / sum by (cache) (rate({CACHE}{{@, result=~"hit|miss"}}[$__rate_interval]))""",
                    "{{cache}}",
                )
            ],
            unit="percentunit",
            high=1,
            thresholds=limit(hits),
            overrides=colours({"reports": FAINT}),
            calcs=("lastNotNull", "min"),
            runbooks=["CacheHitRatioLow"],
        ),
        lines(
            "Look-ups",
            "Look-ups a second by result; error is Redis not answering in time.",
            [query(f"sum by (result) (rate({CACHE}{{@}}[$__rate_interval]))", "{{result}}")],
            unit="ops",
            stacked=True,
            overrides=colours({"hit": GOOD, "miss": NEUTRAL, "error": BAD}),
            runbooks=["RedisFallbackActive"],
        ),
        lines(
            "Duration of look-ups",
            "Half, 95 % and 99 % of the look-ups were faster than this.",
            percentiles("cache_operation_duration_seconds"),
            unit="s",
            log=True,
            overrides=PERCENTILE_COLOURS,
            runbooks=["RedisFallbackActive"],
        ),
    ]
    inside = [
        lines(
            "PostgreSQL: connections",
            """Connections of all clients by state, and how many there may be (dashed). Each replica needs its pool and
            nine more.""",
            [
                query("sum by (state) (pg_stat_activity_count{@}) > 0", "{{state}}"),
                query("max(pg_settings_max_connections{@})", "limit"),
            ],
            unit="none",
            overrides=[as_limit("limit")],
            runbooks=["PostgresDown", "DbPoolSaturated"],
        ),
        lines(
            "PostgreSQL: transactions",
            "A second; what was rolled back is often a client's double.",
            [
                query(f"sum(rate(pg_stat_database_xact_commit{{@, {DATABASE}}}[$__rate_interval]))", "committed"),
                query(f"sum(rate(pg_stat_database_xact_rollback{{@, {DATABASE}}}[$__rate_interval]))", "rolled back"),
            ],
            unit="ops",
            overrides=colours({"committed": GOOD, "rolled back": ATTENTION}),
        ),
        lines(
            "PostgreSQL: read from memory",
            """Share of the blocks that were in PostgreSQL's memory. Below 99 % for long, and it wants more of it.""",
            [
                query(
                    f"""sum(rate(pg_stat_database_blks_hit{{@, {DATABASE}}}[$__rate_interval]))
                  / (sum(rate(pg_stat_database_blks_hit{{@, {DATABASE}}}[$__rate_interval]))
                  + sum(rate(pg_stat_database_blks_read{{@, {DATABASE}}}[$__rate_interval])))""",
                    "from memory",
                )
            ],
            unit="percentunit",
            low=None,
            high=1,
            calcs=("lastNotNull", "min"),
        ),
        lines(
            "PostgreSQL: longest transaction",
            """How long the oldest transaction has been open. One that stays open keeps dead rows from being
            removed.""",
            [query("max(pg_stat_activity_max_tx_duration{@})", "longest")],
            unit="s",
        ),
        lines(
            "PostgreSQL: deadlocks",
            "A second. Each is tried again or answered 503.",
            [query(f"sum(rate(pg_stat_database_deadlocks{{@, {DATABASE}}}[$__rate_interval]))", "deadlocks")],
            unit="ops",
            overrides=colours({"deadlocks": BAD}),
        ),
        lines(
            "PostgreSQL: size",
            "Size of each database on disk.",
            [query(f"max by (datname) (pg_database_size_bytes{{@, {DATABASE}}})", "{{datname}}")],
            unit="bytes",
            runbooks=["DiskFilling"],
        ),
        lines(
            "Redis: memory",
            "Memory in use, and how much there may be (dashed, where there is a limit).",
            [query("max(redis_memory_used_bytes{@})", "used"), query("max(redis_memory_max_bytes{@}) > 0", "limit")],
            unit="bytes",
            overrides=[as_limit("limit")],
        ),
        lines(
            "Redis: commands",
            "Commands a second, of all clients.",
            [query("sum(rate(redis_commands_processed_total{@}[$__rate_interval]))", "commands")],
            unit="ops",
        ),
        lines(
            "Redis: keys removed",
            """Keys a second that were removed for lack of room (evicted) or because their time was over (expired).
            Evicted ones want more memory.""",
            [
                query("sum(rate(redis_evicted_keys_total{@}[$__rate_interval]))", "evicted"),
                query("sum(rate(redis_expired_keys_total{@}[$__rate_interval]))", "expired"),
            ],
            unit="ops",
            overrides=colours({"evicted": ATTENTION, "expired": FAINT}),
        ),
    ]
    machines = [
        lines(
            "Free disk",
            """Share of each file system that is free. At the dashed line the alert fires, below a quarter if it will be
            full within a day.""",
            [
                query(
                    f"""min by (instance, mountpoint) (node_filesystem_avail_bytes{{@, {FILES}}}
                  / node_filesystem_size_bytes{{@, {FILES}}})""",
                    "{{instance}} {{mountpoint}}",
                )
            ],
            unit="percentunit",
            high=1,
            thresholds=limit(facts.alert("DiskFilling")),
            calcs=("lastNotNull", "min"),
            runbooks=["DiskFilling"],
        ),
        lines(
            "Processor",
            "Share of the machine's processors that is busy.",
            [
                query(
                    """1 - avg by (instance) (rate(node_cpu_seconds_total{@, mode="idle"}[$__rate_interval]))""",
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            high=1,
        ),
        lines(
            "Free memory",
            "Share of the machine's memory that programs can still have.",
            [
                query(
                    """min by (instance) (node_memory_MemAvailable_bytes{@} / node_memory_MemTotal_bytes{@})""",
                    "{{instance}}",
                )
            ],
            unit="percentunit",
            high=1,
            calcs=("lastNotNull", "min"),
        ),
    ]
    traced = [
        lines(
            "Traces lost",
            """Spans a second that did not reach the collector: the queue was full, or the export failed. Requests do
            not wait for it; what is lost is only the trace.""",
            [query("sum by (reason) (rate(otel_spans_dropped_total{@}[$__rate_interval]))", "{{reason}}")],
            unit="cps",
            w=24,
            h=6,
            overrides=colours({"queue_full": ATTENTION, "export_failed": BAD}),
            runbooks=["TracesDropped"],
        ),
    ]
    safe = [
        stat(
            "Last backup",
            "How long ago the last backup was finished. Empty as long as there is none: that is red too.",
            "time() - max(switchboard_backup_last_success_timestamp_seconds{@})",
            unit="s",
            w=6,
            graph=False,
            thresholds=at_most(facts.alert("BackupStale"), 86400),
            none="none yet",
            runbooks=["BackupStale"],
        ),
        stat(
            "Certificate expires in",
            "Of the certificate in use, the one that ends first. Empty without TLS.",
            "min(tls_certificate_not_after_timestamp_seconds{@}) - time()",
            unit="s",
            w=6,
            graph=False,
            thresholds=expiring,
            none="no TLS here",
            runbooks=["CertificateExpiring"],
        ),
        stat(
            "Certificate at the balancer",
            "When the certificate that clients see ends. Empty without TLS.",
            "min(probe_ssl_earliest_cert_expiry{@}) - time()",
            unit="s",
            w=6,
            graph=False,
            thresholds=expiring,
            none="no TLS here",
            runbooks=["CertificateExpiring"],
        ),
        stat(
            "Certificates taken up",
            "New certificate files that were found in the time range and could not be used.",
            'sum(increase(tls_certificate_reloads_total{@, result="failure"}[$__range]))',
            unit="locale",
            w=6,
            decimals=0,
            over_range=True,
            thresholds=steps(GOOD, (0.5, BAD)),
            runbooks=["CertificateExpiring"],
        ),
    ]
    return dashboard(
        "dependencies",
        "Switchboard: dependencies",
        """PostgreSQL, Redis, disks, certificates, backups: as the replicas feel them, and as their exporters see them.
        All jobs are shown; choosing one job or instance narrows both views.""",
        [
            ("Does what it stands on answer?", figures),
            ("Is the database fast?", database),
            ("Are there enough connections?", pool),
            ("Does the cache help?", cache),
            ("How are PostgreSQL and Redis themselves?", inside),
            ("Is there room on the machines?", machines),
            ("Do traces reach their collector?", traced),
            ("Are the data safe, and the certificates good?", safe),
        ],
        docs=facts.docs,
        source="up",
        route=False,
    )
