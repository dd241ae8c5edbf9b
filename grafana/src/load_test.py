"""Load test: what k6 sees, beside what the server says of the same minutes."""

from panels import (
    ATTENTION,
    BAD,
    GOOD,
    NEUTRAL,
    PERCENTILE_COLOURS,
    as_limit,
    at_least,
    at_most,
    colours,
    column,
    dashboard,
    limit,
    lines,
    link,
    percentiles,
    query,
    select,
    stat,
    steps,
    table,
    traces,
)

DURATION = "http_server_request_duration_seconds"
K6 = "k6 writes its series itself, nothing scrapes them: they have neither job nor instance."
TEST = 'testid=~"$testid"'
# k6 writes a counter from its first event on, so increase() would miss that one, or all there are. Each run has series
# of its own, which begin at 0: the highest value is the number.
COUNTED = "sum(max_over_time({}[$__range]))"
# What k6 asks before it measures has a name of its own, which is no route.
NAMED = f'{TEST}, name=~"$route", name!="warm-up"'


def make(facts):
    errors, latency = facts.slo("errors"), facts.slo("latency")
    timed = f', http_response_status_code!~"5..", {latency.routes}'
    figures = [
        stat(
            "Virtual users",
            "Virtual users of k6 that are at work.",
            f"sum(k6_vus{{{TEST}}})",
            unit="none",
            none="no run",
            unscoped=K6,
        ),
        stat(
            "Requests",
            "Requests a second that k6 sent.",
            f"sum(rate(k6_http_reqs_total{{{TEST}}}[$__rate_interval]))",
            unit="reqps",
            none="no run",
            unscoped=K6,
        ),
        stat(
            "Failed",
            "Share of k6's requests that failed, so far in the run; the highest of all routes.",
            f"max(k6_http_req_failed_rate{{{TEST}}})",
            unit="percentunit",
            decimals=2,
            none="no run",
            thresholds=at_most(errors.budget, errors.budget / 2),
            unscoped=K6,
        ),
        stat(
            "p99, slowest route",
            """99 % of the requests of the slowest route were faster than this, so far in the run, as k6
             saw them; sign-in left out.""",
            f"max(k6_http_req_duration_p99{{{NAMED}, {matching(latency.routes)}}})",
            unit="s",
            none="no run",
            thresholds=at_most(latency.threshold),
            unscoped=K6,
        ),
        stat(
            "Dropped iterations",
            """Iterations in the time range that k6 could not begin in time: then it measured itself, and the run proves
            nothing.""",
            COUNTED.format(f"k6_dropped_iterations_total{{{TEST}}}") + " or vector(0)",
            unit="locale",
            decimals=0,
            over_range=True,
            thresholds=steps(GOOD, (0.5, BAD)),
            unscoped=K6,
        ),
        stat(
            "Checks passed",
            "Share of k6's checks that held, so far in the run; the worst of them.",
            f"min(k6_checks_rate{{{TEST}}})",
            unit="percentunit",
            none="no run",
            decimals=2,
            thresholds=at_least(1, 1),
            unscoped=K6,
        ),
    ]
    client = [
        lines(
            "Requests by route",
            "A second, as k6 sent them.",
            [query(f"sum by (name) (rate(k6_http_reqs_total{{{NAMED}}}[$__rate_interval]))", "{{name}}")],
            unit="reqps",
            w=12,
            stacked=True,
            calcs=("mean",),
            unscoped=K6,
        ),
        lines(
            "Users and iterations",
            """Virtual users at work, how many there may be (dashed), iterations a second, and how many could not begin
            in time so far.""",
            [
                query(f"sum(k6_vus{{{TEST}}})", "users"),
                query(f"max(k6_vus_max{{{TEST}}})", "limit"),
                query(f"sum(rate(k6_iterations_total{{{TEST}}}[$__rate_interval]))", "iterations a second"),
                query(
                    f"sum(max_over_time(k6_dropped_iterations_total{{{TEST}}}[$__rate_interval])) or vector(0)",
                    "dropped so far",
                ),
            ],
            unit="none",
            w=12,
            unscoped=K6,
            overrides=[
                *colours({"users": NEUTRAL, "iterations a second": GOOD, "dropped so far": BAD}),
                as_limit("limit"),
            ],
        ),
        table(
            "Routes as k6 saw them",
            "So far in the run, from the first byte sent to the last one read.",
            [
                (
                    "Requests",
                    f"sum by (name) (max_over_time(k6_http_reqs_total{{{NAMED}}}[$__range]))",
                    column("locale", decimals=0),
                ),
                (
                    "Failed",
                    f"max by (name) (k6_http_req_failed_rate{{{NAMED}}})",
                    column("percentunit", at_most(errors.budget, 1e-9)),
                ),
                ("Median", f"max by (name) (k6_http_req_duration_p50{{{NAMED}}})", column("s")),
                ("p95", f"max by (name) (k6_http_req_duration_p95{{{NAMED}}})", column("s")),
                (
                    "p99",
                    f"max by (name) (k6_http_req_duration_p99{{{NAMED}}})",
                    column("s", at_most(0.5, latency.threshold)),
                ),
                ("Worst", f"max by (name) (k6_http_req_duration_max{{{NAMED}}})", column("s")),
            ],
            key={"name": "Route"},
            sort="p99",
            h=10,
            unscoped=K6,
            key_links=[
                link(
                    "Traces over 100 ms", traces('span.http.route = "${__value.raw:percentencode}" && duration > 100ms')
                )
            ],
        ),
        lines(
            "Checks",
            "Share of each check of the journey that held, so far in the run.",
            [query(f"min by (check) (k6_checks_rate{{{TEST}}})", "{{check}}")],
            unit="percentunit",
            w=12,
            low=None,
            high=1,
            calcs=("min",),
            unscoped=K6,
        ),
        lines(
            "From a call to its request",
            """From the last delivery about a call until its service request can be seen: half and 95 % of the calls of
            the run so far, and the slowest.""",
            [
                query(f"max(k6_call_to_request_p50{{{TEST}}})", "p50"),
                query(f"max(k6_call_to_request_p95{{{TEST}}})", "p95"),
                query(f"max(k6_call_to_request_max{{{TEST}}})", "slowest"),
            ],
            unit="s",
            w=12,
            overrides=[*PERCENTILE_COLOURS, *colours({"slowest": BAD})],
            unscoped=K6,
            runbooks=["WebhookIntakeStalled"],
        ),
    ]
    server = [
        lines(
            "Latency at the server",
            """Half, 95 % and 99 % of the answers of the latency SLO, as the server measured. What k6 sees above this is
            the way, or k6 itself.""",
            percentiles(DURATION, matchers=timed),
            unit="s",
            thresholds=limit(latency.threshold),
            overrides=PERCENTILE_COLOURS,
            links=[link("Traces over 100 ms", traces("duration > 100ms"))],
            runbooks=["LatencyBudgetBurnPage"],
        ),
        lines(
            "Requests at the server",
            "A second; what k6 sends and what is answered must be the same.",
            [
                query(f"sum(rate({DURATION}_count{{@}}[$__rate_interval]))", "answered"),
                query(
                    f"""sum(rate({DURATION}_count{{@, http_response_status_code=~"5.."}}[$__rate_interval]))
                    or vector(0)""",
                    "5xx",
                ),
                query(
                    f'sum(rate({DURATION}_count{{@, http_response_status_code="429"}}[$__rate_interval])) or vector(0)',
                    "429",
                ),
            ],
            unit="reqps",
            overrides=colours({"answered": GOOD, "5xx": BAD, "429": ATTENTION}),
        ),
        lines(
            "Shed and limited",
            "Requests a second that were turned away: 503 for lack of room, 429 for a limit.",
            [
                query("sum by (scope) (rate(http_requests_shed_total{@}[$__rate_interval]))", "shed: {{scope}}"),
                query("sum by (scope) (rate(rate_limited_total{@}[$__rate_interval]))", "limited: {{scope}}"),
            ],
            unit="reqps",
        ),
    ]
    limits = [
        lines(
            "Processor",
            "Processors in use by each replica, and by k6's machine where it is the same.",
            [
                query(
                    """sum by (instance) (rate(process_cpu_seconds_total{@}[$__rate_interval])
                    and on (job, instance) build_info{@})""",
                    "{{instance}}",
                ),
                query(
                    'sum by (instance) (rate(node_cpu_seconds_total{@, mode!="idle"}[$__rate_interval]))',
                    "machine {{instance}}",
                ),
            ],
            unit="none",
            w=6,
        ),
        lines(
            "In flight",
            "Requests being served.",
            [query("sum by (instance) (http_server_active_requests{@})", "{{instance}}")],
            unit="none",
            w=6,
        ),
        lines(
            "Pool",
            "Database connections in use, and the most there may be (dashed).",
            [
                query('sum(db_pool_connections{@, state="used"})', "used"),
                query("sum(db_pool_max_connections{@})", "limit"),
            ],
            unit="none",
            w=6,
            overrides=[*colours({"used": NEUTRAL}), as_limit("limit")],
            runbooks=["DbPoolSaturated"],
        ),
        lines(
            "Event loop",
            "99 % of the runtime's timers were late by less than this.",
            [
                query(
                    """histogram_quantile(0.99, sum by (instance, le) (
                  rate(event_loop_lag_seconds_bucket{@}[$__rate_interval])))""",
                    "{{instance}}",
                )
            ],
            unit="s",
            w=6,
            thresholds=limit(facts.alert("EventLoopLag")),
            runbooks=["EventLoopLag"],
        ),
    ]
    made = dashboard(
        "load-test",
        "Switchboard: load test",
        """A run of k6 (make load, make smoke with PROMETHEUS set) beside what the server says of the same minutes: does
        the promise hold under load, and what gives way first?""",
        [
            ("Does it hold?", figures),
            ("What does the client see?", client),
            ("What does the server say?", server),
            ("What gives way first?", limits),
        ],
        docs=facts.docs,
        since="now-30m",
        refresh="10s",
        source="up",
    )
    chosen = made["templating"]["list"]
    # A run without --tag testid has no such label.
    chosen.insert(3, select("testid", "Run", "label_values(k6_vus, testid)", allValue=".*"))
    return made


def matching(routes):
    """The requests of k6 carry the route in `name`."""
    return routes.replace("http_route", "name", 1)
