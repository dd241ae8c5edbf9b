"""Overview: is it well, and if not, which route is it?"""

from panels import (
    ATTENTION,
    BAD,
    CLIENT,
    GOOD,
    NEUTRAL,
    PERCENTILE_COLOURS,
    PLAIN,
    STATUS,
    at_least,
    at_most,
    bars,
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
    table,
    traces,
)

DURATION = "http_server_request_duration_seconds"


def make(facts):
    errors, latency, login = facts.slo("errors"), facts.slo("latency"), facts.slo("latency-login")
    fast, quick = latency.threshold, login.threshold
    # Probes are no requests.
    asked = f', http_route=~"$route", {errors.routes}'
    timed = f', http_route=~"$route", http_response_status_code!~"5..", {latency.routes}'
    slow_traces = link(
        "Traces of this route over 100 ms",
        traces('span.http.route = "${__field.labels.http_route:percentencode}" && duration > 100ms'),
    )
    failed_traces = link(
        "Traces of this route that failed",
        traces('span.http.route = "${__field.labels.http_route:percentencode}" && status = error'),
    )

    def within(slo, matchers, by=""):
        group = f"by ({by}) " if by else ""
        return f"""sum {group}(rate({DURATION}_bucket{{@{matchers}, le="{slo.threshold:g}"}}[$__rate_interval]))
            / sum {group}(rate({DURATION}_count{{@{matchers}}}[$__rate_interval]))"""

    def failed(by=""):
        group = f"by ({by}) " if by else ""
        return f"""sum {group}(rate({DURATION}_count{{@{asked}, http_response_status_code=~"5.."}}[$__rate_interval]))
            / sum {group}(rate({DURATION}_count{{@{asked}}}[$__rate_interval]))"""

    def by_status(matcher, name):
        return query(f"sum(rate({DURATION}_count{{@{asked}, {matcher}}}[$__rate_interval])) or vector(0)", name)

    login_matchers = f', http_response_status_code!~"5..", {login.routes}'
    now = [
        stat(
            "Replicas up",
            """Replicas of Switchboard that Prometheus reaches. Fewer than you started: see which one in the last row.
            None: users see errors.""",
            "sum(up{@} and on (job, instance) last_over_time(build_info{@}[1h]))",
            unit="none",
            thresholds=at_least(1),
            none="0",
            runbooks=["ApiDown", "ReplicaDown"],
        ),
        stat(
            "Requests",
            "HTTP requests a second that were answered, probes and scrapes left out.",
            f"sum(rate({DURATION}_count{{@{asked}}}[$__rate_interval]))",
            unit="reqps",
            runbooks=["NoTraffic"],
        ),
        stat(
            "Failed",
            f"""Share of requests answered 5xx. The SLO allows {errors.budget:.1%} over 30 days; red from there on.""",
            failed(),
            unit="percentunit",
            decimals=2,
            thresholds=at_most(errors.budget, errors.budget / 2),
            runbooks=["ErrorsBudgetBurnPage", "ErrorsBudgetBurnTicket"],
        ),
        stat(
            "Within 100 ms",
            f"""Share of the answers of the latency SLO that came within 100 ms: no 5xx, no sign-in, files, exports or
            streams. Red below {latency.objective:.0%}.""",
            within(latency, timed),
            unit="percentunit",
            decimals=2,
            thresholds=at_least(latency.objective),
            runbooks=["LatencyBudgetBurnPage", "LatencyBudgetBurnTicket"],
        ),
        stat(
            "Sign-in within 500 ms",
            f"""Share of sign-ins answered within 500 ms, 5xx left out. They hash a password, so they have a limit of
            their own. Red below {login.objective:.0%}. Empty while nobody signs in.""",
            within(login, login_matchers),
            unit="percentunit",
            decimals=2,
            thresholds=at_least(login.objective),
            none="none",
            runbooks=["LatencyLoginBudgetBurnPage", "LatencyLoginBudgetBurnTicket"],
        ),
        stat(
            "In flight",
            """Requests being served now. It rises when answers get slow before it rises for any other reason; from 256
            on a replica turns requests away.""",
            "sum(http_server_active_requests{@})",
            unit="none",
            thresholds=PLAIN,
        ),
    ]
    red = [
        lines(
            "Requests by status",
            """How many requests were answered, and how. Yellow is the client's doing (4xx), red is ours (5xx), purple
            hung up before the answer.""",
            [
                by_status('http_response_status_code=~"2.."', "2xx"),
                by_status('http_response_status_code=~"[13].."', "3xx"),
                by_status('http_response_status_code=~"4..", http_response_status_code!="499"', "4xx"),
                by_status('http_response_status_code=~"5.."', "5xx"),
                by_status('http_response_status_code="499"', "hung up (499)"),
            ],
            unit="reqps",
            stacked=True,
            overrides=colours(STATUS),
            calcs=("lastNotNull",),
        ),
        lines(
            "Failed share",
            f"""Share of requests answered 5xx. The dashed line is what the SLO allows over 30 days
            ({errors.budget:.1%}); short spikes above it cost little, minutes above it cost budget.""",
            [query(failed(), "failed")],
            unit="percentunit",
            thresholds=limit(errors.budget),
            overrides=colours({"failed": BAD}),
            links=[link("Log lines of failed requests", logs('message = "request" | status >= 500'))],
            runbooks=["ErrorsBudgetBurnPage", "ErrorsBudgetBurnTicket"],
        ),
        lines(
            "Latency",
            """Half, 95 % and 99 % of the answers of the latency SLO were faster than this. The dashed line is 100 ms:
            while p99 is below it, the promise holds. Read off buckets, so between two of them it is an estimate.""",
            percentiles(DURATION, matchers=timed),
            unit="s",
            thresholds=limit(fast),
            overrides=PERCENTILE_COLOURS,
            links=[link("Traces over 100 ms", traces("duration > 100ms"))],
            runbooks=["LatencyBudgetBurnPage", "LatencyBudgetBurnTicket"],
        ),
    ]
    by_route = [
        table(
            "Routes",
            """Every route that was asked for: how often, how much of it failed, how slow its slow end is, and how much
            of it came within 100 ms. Sorted by traffic; click a heading to sort by trouble. A route links to its
            traces. Sign-in, files, exports and streams are slow by nature and have no part in the 100 ms.""",
            [
                (
                    "Requests",
                    f"sum by (http_route) (rate({DURATION}_count{{@{asked}}}[$__rate_interval])) > 0",
                    column("reqps", decimals=2),
                ),
                ("Failed", failed("http_route") + " >= 0", column("percentunit", at_most(errors.budget, 1e-9))),
                (
                    "p50",
                    f"""histogram_quantile(0.5, sum by (http_route, le) (
                   rate({DURATION}_bucket{{@{asked}}}[$__rate_interval]))) >= 0""",
                    column("s"),
                ),
                (
                    "p99",
                    f"""histogram_quantile(0.99, sum by (http_route, le) (
                   rate({DURATION}_bucket{{@{asked}}}[$__rate_interval]))) >= 0""",
                    column("s", at_most(quick, fast)),
                ),
                (
                    "Within 100 ms",
                    within(latency, timed, "http_route") + " >= 0",
                    column("percentunit", at_least(latency.objective - 0.04, latency.objective)),
                ),
            ],
            key={"http_route": "Route"},
            sort="Requests",
            h=11,
            key_links=[
                link(
                    "Traces over 100 ms", traces('span.http.route = "${__value.raw:percentencode}" && duration > 100ms')
                ),
                link(
                    "Traces that failed", traces('span.http.route = "${__value.raw:percentencode}" && status = error')
                ),
                link("Log lines", logs('message = "request" | route = "${__value.raw:percentencode}"')),
            ],
        ),
        lines(
            "Slowest routes",
            "The five routes with the highest p99 at each moment, of those with a promise.",
            [
                query(
                    f"""topk(5, histogram_quantile(0.99, sum by (http_route, le) (
                  rate({DURATION}_bucket{{@{timed}}}[$__rate_interval]))) >= 0)""",
                    "{{http_route}}",
                )
            ],
            unit="s",
            w=12,
            h=9,
            thresholds=limit(fast),
            links=[slow_traces],
            calcs=("max",),
            runbooks=["LatencyBudgetBurnPage"],
        ),
        lines(
            "Failing routes",
            "The five routes with the most 5xx at each moment. Nothing to see is the good case.",
            [
                query(
                    f"""topk(5, sum by (http_route) (
                  rate({DURATION}_count{{@{asked}, http_response_status_code=~"5.."}}[$__rate_interval])) > 0)""",
                    "{{http_route}}",
                )
            ],
            unit="reqps",
            w=12,
            h=9,
            links=[failed_traces],
            calcs=("max",),
            none="no failures",
            runbooks=["ErrorsBudgetBurnPage"],
        ),
    ]
    latency_row = [
        heat(
            "Latency, all answers",
            """How many answers took how long; darker is more. Two bands are two kinds of work: one below, as cached or
            simple, and one above. All routes that are selected, sign-in included.""",
            f"sum by (le) (increase({DURATION}_bucket{{@{asked}}}[$__rate_interval]))",
            unit="s",
            links=[link("Traces over 100 ms", traces("duration > 100ms"))],
        ),
        lines(
            "Share within the limit",
            f"""The SLO's own measure over time: answers within 100 ms, and sign-ins within 500 ms. The dashed line is
            the objective of both, {latency.objective:.0%}.""",
            [
                query(within(latency, timed), "within 100 ms"),
                query(within(login, login_matchers), "sign-in within 500 ms"),
            ],
            unit="percentunit",
            w=12,
            low=None,
            high=1,
            thresholds=limit(latency.objective),
            calcs=("lastNotNull", "min"),
            overrides=colours({"within 100 ms": NEUTRAL, "sign-in within 500 ms": CLIENT}),
            runbooks=["LatencyBudgetBurnPage", "LatencyLoginBudgetBurnPage"],
        ),
    ]
    turned_away = [
        lines(
            "Rate limited",
            """Requests answered 429, by the limit that was reached: one address (ip), one user, sign-in from one
            address (login_ip) or for one login, one provider of webhooks.""",
            [query("sum by (scope) (rate(rate_limited_total{@}[$__rate_interval]))", "{{scope}}")],
            unit="reqps",
            w=6,
            runbooks=["LoginAttackSuspected"],
        ),
        lines(
            "Shed",
            """Requests answered 503 because as many were being served as may be. Webhooks have places of their own: one
            that is turned away may be a client lost, although the provider sends it again.""",
            [query("sum by (scope) (rate(http_requests_shed_total{@}[$__rate_interval]))", "{{scope}}")],
            unit="reqps",
            w=6,
            overrides=colours({"webhook": BAD, "api": ATTENTION, "upload": NEUTRAL}),
            runbooks=["ErrorsBudgetBurnPage"],
        ),
        lines(
            "Sent again",
            """POSTs with an Idempotency-Key: done, answered as before (replayed), turned away because the
              first is still being done, or because the key came with another body. Many replays are clients whose
              answers get lost.""",
            [
                query(
                    "sum by (outcome) (rate(switchboard_idempotent_requests_total{@}[$__rate_interval]))", "{{outcome}}"
                )
            ],
            unit="reqps",
            w=6,
            overrides=colours({"executed": GOOD, "replayed": NEUTRAL, "in_flight": ATTENTION, "mismatch": BAD}),
        ),
        lines(
            "Sign-in trouble",
            """A minute: sign-ins that were not let in, by why, and sessions ended because a refresh token came a second
            time (reused).""",
            [
                query(
                    '60 * sum by (result) (rate(auth_attempts_total{@, result!="success"}[$__rate_interval]))',
                    "{{result}}",
                ),
                query("60 * sum(rate(auth_refresh_reuse_total{@}[$__rate_interval]))", "reused"),
            ],
            unit="cpm",
            w=6,
            overrides=colours(
                {
                    "rejected": ATTENTION,
                    "rate_limited": CLIENT,
                    "locked": BAD,
                    "reused": BAD,
                    "overloaded": "semi-dark-orange",
                }
            ),
            runbooks=["LoginAttackSuspected", "RefreshTokenReuse"],
        ),
    ]
    size = [
        lines(
            "In flight by method",
            "Requests being served, over all replicas that are selected.",
            [
                query(
                    """sum by (http_request_method) (
                  http_server_active_requests{@, http_request_method=~"GET|POST|PUT|PATCH|DELETE"})""",
                    "{{http_request_method}}",
                )
            ],
            unit="none",
            h=9,
            stacked=True,
        ),
        bars(
            "Largest requests",
            "95 % of the bodies of a route were smaller than this, over the time range; the largest.",
            f"""sort_desc(topk(8, histogram_quantile(0.95, sum by (http_route, le) (
                 increase(http_server_request_body_size_bytes_bucket{{@{asked}}}[$__range]))) > 64))""",
            "{{http_route}}",
            unit="bytes",
            h=9,
            names="top",
        ),
        bars(
            "Largest answers",
            """95 % of the bodies of a route were smaller than this, over the time range; the largest.
             Streams are not counted: nobody knows their size beforehand.""",
            f"""sort_desc(topk(8, histogram_quantile(0.95, sum by (http_route, le) (
                 increase(http_server_response_body_size_bytes_bucket{{@{asked}}}[$__range]))) > 64))""",
            "{{http_route}}",
            unit="bytes",
            h=9,
            names="top",
        ),
    ]
    running = [
        table(
            "Versions",
            """What each replica runs. Two versions at once are a roll-out, or one that stopped half way.""",
            [("Running", "max by (instance, version, revision, rustc) (build_info{@})", None)],
            key={"instance": "Instance", "version": "Version", "revision": "Revision", "rustc": "Compiler"},
            w=12,
            h=7,
            hide=("Value",),
            runbooks=["VersionSkew"],
        ),
        lines(
            "Running since",
            "How long each replica has been running. A saw is a replica that restarts.",
            [
                query(
                    "time() - max by (instance) (process_start_time_seconds{@} and on (job, instance) build_info{@})",
                    "{{instance}}",
                )
            ],
            unit="s",
            w=12,
            h=7,
            calcs=("lastNotNull",),
            runbooks=["RestartLoop"],
        ),
    ]
    return dashboard(
        "overview",
        "Switchboard: overview",
        """Is Switchboard well? The first row says so, the rows below say where it hurts. Colours: green good, yellow
        wants attention, red breaks a promise, purple is the client's doing; dashed lines are the limits of the
        SLOs.""",
        [
            ("Is it keeping its promises now?", now),
            ("How much, how well, how fast?", red),
            ("Which route is it?", by_route),
            ("How is latency spread?", latency_row),
            ("Who is turned away?", turned_away),
            ("How large is the work?", size),
            ("What is running, and since when?", running),
        ],
        docs=facts.docs,
    )
