"""Runtime: the processes themselves, and who gets in."""

from panels import (
    ATTENTION,
    BAD,
    CLIENT,
    FAINT,
    GOOD,
    NEUTRAL,
    PERCENTILE_COLOURS,
    as_limit,
    at_most,
    colours,
    dashboard,
    limit,
    lines,
    link,
    logs,
    percentiles,
    query,
    stat,
    steps,
)


def ours(selector):
    """Of the replicas only: exporters have processes too."""
    return f"({selector} and on (job, instance) build_info{{@}})"


def make(facts):
    figures = [
        stat(
            "Processor",
            "Processors in use, all replicas together: 1 is one core.",
            f"sum{ours('rate(process_cpu_seconds_total{@}[$__rate_interval])')}",
            unit="none",
            decimals=2,
        ),
        stat(
            "Memory",
            "Resident memory of the largest replica.",
            f"max{ours('process_resident_memory_bytes{@}')}",
            unit="bytes",
        ),
        stat(
            "Files open",
            "Share of the file descriptors a process may have that are open, on the worst replica.",
            "max(process_open_fds{@} / process_max_fds{@} and on (job, instance) build_info{@})",
            unit="percentunit",
            decimals=1,
            thresholds=at_most(facts.alert("FdUsageHigh"), 0.6),
            runbooks=["FdUsageHigh"],
        ),
        stat(
            "Event loop lag",
            """99 % of the runtime's timers were late by less than this. More means that something keeps the
             threads busy, and every request waits.""",
            "histogram_quantile(0.99, sum by (le) (rate(event_loop_lag_seconds_bucket{@}[$__rate_interval])))",
            unit="s",
            thresholds=at_most(facts.alert("EventLoopLag"), 0.05),
            runbooks=["EventLoopLag"],
        ),
        stat(
            "Restarts",
            "Starts of replicas in the time range.",
            "sum(changes(process_start_time_seconds{@}[$__range]) and on (job, instance) build_info{@})",
            unit="locale",
            decimals=0,
            over_range=True,
            runbooks=["RestartLoop"],
        ),
        stat(
            "Errors logged",
            "Log lines of level error in the time range.",
            'sum(increase(log_events_total{@, level="error"}[$__range]))',
            unit="locale",
            decimals=0,
            over_range=True,
            thresholds=steps(GOOD, (0.5, ATTENTION)),
            links=[link("Log lines", logs('level = "error"'))],
        ),
    ]
    process = [
        lines(
            "Processor by replica",
            "Processors in use.",
            [
                query(
                    f"sum by (instance) {ours('rate(process_cpu_seconds_total{@}[$__rate_interval])')}", "{{instance}}"
                )
            ],
            unit="none",
        ),
        lines(
            "Memory by replica",
            """Resident memory. About 100 MB and 15 MB for each upload; what only rises for hours is a leak.""",
            [query(f"max by (instance) {ours('process_resident_memory_bytes{@}')}", "{{instance}}")],
            unit="bytes",
        ),
        lines(
            "Address space by replica",
            "Virtual memory: reserved, not used. It matters where a limit counts it.",
            [query(f"max by (instance) {ours('process_virtual_memory_bytes{@}')}", "{{instance}}")],
            unit="bytes",
        ),
        lines(
            "Files and sockets",
            "Open file descriptors, and how many there may be (dashed).",
            [
                query(f"max by (instance) {ours('process_open_fds{@}')}", "{{instance}}"),
                query(f"min{ours('process_max_fds{@}')}", "limit"),
            ],
            unit="none",
            log=True,
            overrides=[as_limit("limit")],
            runbooks=["FdUsageHigh"],
        ),
        lines(
            "Threads",
            "Threads of the process, and those of them that run requests.",
            [
                query(f"max by (instance) {ours('process_threads{@}')}", "{{instance}}, all"),
                query("max by (instance) (tokio_workers{@})", "{{instance}}, workers"),
            ],
            unit="none",
        ),
        lines(
            "Log lines",
            "Log lines a second by level.",
            [query("sum by (level) (rate(log_events_total{@}[$__rate_interval]))", "{{level}}")],
            unit="cps",
            stacked=True,
            overrides=colours({"error": BAD, "warn": ATTENTION, "info": NEUTRAL, "debug": FAINT, "trace": CLIENT}),
            links=[link("Log lines of errors", logs('level = "error"'))],
        ),
    ]
    scheduler = [
        lines(
            "Lag",
            "How much later than asked a timer fires: half, 95 % and 99 % of them by less.",
            percentiles("event_loop_lag_seconds"),
            unit="s",
            log=True,
            overrides=PERCENTILE_COLOURS,
            thresholds=limit(facts.alert("EventLoopLag")),
            runbooks=["EventLoopLag"],
        ),
        lines(
            "Tasks",
            "Tasks of the runtime that are not finished. Rising without end is a leak.",
            [query("max by (instance) (tokio_alive_tasks{@})", "{{instance}}")],
            unit="none",
        ),
        lines(
            "Tasks waiting",
            "Tasks in the global queue: more than a handful for long, and the threads cannot keep up.",
            [query("max by (instance) (tokio_global_queue_depth{@})", "{{instance}}")],
            unit="none",
            runbooks=["EventLoopLag"],
        ),
        lines(
            "Live events",
            "Clients that listen to live events, and those cut off because they did not keep up.",
            [
                query("sum by (instance) (switchboard_event_streams{@})", "{{instance}}"),
                query(
                    "60 * sum(rate(switchboard_event_streams_dropped_total{@}[$__rate_interval]))", "cut off per minute"
                ),
            ],
            unit="short",
            w=12,
            overrides=colours({"cut off per minute": BAD}),
        ),
        lines(
            "Series by replica",
            """Series that each replica exposes. The dashed line is the limit that the alert has.""",
            [query(f"max by (instance) {ours('scrape_samples_scraped{@}')}", "{{instance}}")],
            unit="short",
            w=12,
            thresholds=limit(facts.alert("CardinalityHigh")),
            runbooks=["CardinalityHigh"],
        ),
    ]
    passwords = [
        lines(
            "Hashing and waiting",
            """Sign-ins whose password is being hashed, and those waiting for a core. As many are hashed at a time as
            there are cores.""",
            [query("sum(password_hash_inflight{@})", "hashing"), query("sum(password_hash_queue_depth{@})", "waiting")],
            unit="none",
            stacked=True,
            overrides=colours({"hashing": NEUTRAL, "waiting": ATTENTION}),
            runbooks=["PasswordHashQueueHigh"],
        ),
        lines(
            "Wait for a core",
            "Half, 95 % and 99 % of the waits were shorter. Whoever waits longer than 200 ms is turned away.",
            percentiles("password_hash_wait_seconds"),
            unit="s",
            log=True,
            thresholds=limit(0.2),
            overrides=PERCENTILE_COLOURS,
            runbooks=["PasswordHashQueueHigh", "LatencyLoginBudgetBurnPage"],
        ),
        lines(
            "Duration of a hash",
            """Half, 95 % and 99 % were faster. It should be the same all day: slower means that the cores are busy with
            something else.""",
            percentiles("password_hash_duration_seconds"),
            unit="s",
            overrides=PERCENTILE_COLOURS,
            runbooks=["LatencyLoginBudgetBurnPage"],
        ),
        lines(
            "Turned away",
            "Sign-ins a second answered 503 because no core was free in time.",
            [query("sum(rate(password_hash_rejected_total{@}[$__rate_interval]))", "turned away")],
            unit="reqps",
            w=12,
            overrides=colours({"turned away": BAD}),
            runbooks=["PasswordHashQueueHigh"],
        ),
        lines(
            "Hashed anew",
            "Passwords hashed anew at a sign-in an hour, because the cost or the pepper has changed.",
            [query("3600 * sum(rate(password_rehashes_total{@}[$__rate_interval]))", "hashed anew")],
            unit="short",
            w=12,
            every="5m",
            label="per hour",
        ),
    ]
    entry = [
        lines(
            "Sign-ins",
            """A minute by result: wrong (rejected), too many (rate_limited), waiting after wrong ones (locked), no core
            in time (overloaded).""",
            [query("60 * sum by (result) (rate(auth_attempts_total{@}[$__rate_interval]))", "{{result}}")],
            unit="cpm",
            stacked=True,
            overrides=colours(
                {
                    "success": GOOD,
                    "rejected": ATTENTION,
                    "rate_limited": CLIENT,
                    "locked": BAD,
                    "overloaded": "semi-dark-orange",
                }
            ),
            runbooks=["LoginAttackSuspected"],
        ),
        lines(
            "Refreshes",
            """Sessions refreshed, a minute by result. Repeated is a client that asked twice at once; reused is a token
            that was presented again after its use.""",
            [query("60 * sum by (result) (rate(auth_refreshes_total{@}[$__rate_interval]))", "{{result}}")],
            unit="cpm",
            stacked=True,
            overrides=colours({"success": GOOD, "repeated": FAINT, "rejected": ATTENTION, "reused": BAD}),
            runbooks=["RefreshTokenReuse"],
        ),
        lines(
            "Sessions ended by reuse",
            """Refresh tokens presented again after their use, in each interval: each ended its session. A stolen token
            looks like this, and so does a client that keeps two copies.""",
            [query("sum(increase(auth_refresh_reuse_total{@}[$__rate_interval]))", "ended")],
            unit="short",
            bars=True,
            overrides=colours({"ended": BAD}),
            runbooks=["RefreshTokenReuse"],
        ),
    ]
    jobs = [
        lines(
            "Rounds of the collector",
            "How long a round takes, on the replica that is elected.",
            percentiles("switchboard_collector_duration_seconds"),
            unit="s",
            w=12,
            every="5m",
            overrides=PERCENTILE_COLOURS,
            runbooks=["CollectorStale"],
        ),
        lines(
            "Collector errors",
            "Rounds that failed, and failed readings, in each interval.",
            [
                query(
                    "sum by (instance) (increase(switchboard_collector_errors_total{@}[$__rate_interval]))",
                    "{{instance}}",
                )
            ],
            unit="short",
            w=12,
            bars=True,
            runbooks=["CollectorStale"],
        ),
        lines(
            "Removed because of its age",
            "Rows deleted or anonymised an hour, by table.",
            [
                query("3600 * sum(rate(switchboard_retention_rows_total{@}[$__rate_interval]))", "all"),
                query(
                    "3600 * sum by (table) (rate(switchboard_retention_rows_total{@}[$__rate_interval])) > 0",
                    "{{table}}",
                ),
            ],
            unit="short",
            w=24,
            h=6,
            every="5m",
            label="per hour",
            right=True,
        ),
    ]
    return dashboard(
        "runtime",
        "Switchboard: runtime",
        """The processes: processor, memory, files, the asynchronous runtime, password hashing, who signs in, and the
        jobs that one replica does for all.""",
        [
            ("Are the processes well?", figures),
            ("What do they use?", process),
            ("Does the runtime keep up?", scheduler),
            ("Does hashing passwords keep up?", passwords),
            ("Who gets in, and who tries?", entry),
            ("Are the jobs being done?", jobs),
        ],
        docs=facts.docs,
        route=False,
    )
