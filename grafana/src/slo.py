"""SLO: how much budget is left, is it burning too fast, and what burns it?"""

from panels import (
    ATTENTION,
    BAD,
    CLIENT,
    FAINT,
    GOOD,
    NEUTRAL,
    UP,
    at_most,
    bars,
    colours,
    column,
    dashboard,
    limit,
    lines,
    link,
    query,
    stat,
    states,
    steps,
    table,
    traces,
)

DURATION = "http_server_request_duration_seconds"
RECORDED = "Records of the rules are aggregated over all replicas: they have neither job nor instance."
ALERTS = "ALERTS carries the labels of the rule, and most rules aggregate job and instance away."
OF = 'sloth_service="switchboard"'
TITLES = {"availability": "Availability", "latency": "Latency", "latency-login": "Sign-in latency", "errors": "Errors"}
ALERT = {"availability": "Availability", "latency": "Latency", "latency-login": "LatencyLogin", "errors": "Errors"}
SLO_COLOURS = {"availability": GOOD, "latency": NEUTRAL, "latency-login": CLIENT, "errors": ATTENTION}
BUDGET = steps(BAD, (0, ATTENTION), (0.25, GOOD))


def runbooks(name):
    return [f"{ALERT[name]}BudgetBurnPage", f"{ALERT[name]}BudgetBurnTicket"]


def one(slo):
    return f'{OF}, sloth_slo="{slo.name}"'


def burn(slo, window):
    """How fast both windows of a pair burn, as a share of what raises the alert; nothing where one of them has no
    sample, as for the alert."""
    long, short = (f"slo:sli_error:ratio_rate{span}{{{one(slo)}}}" for span in (window.long, window.short))
    return f"""min by (sloth_slo) ((({long}) and ignoring (sloth_window) {short})
        or (({short}) and ignoring (sloth_window) {long}))
        / on (sloth_slo) max by (sloth_slo) (slo:error_budget:ratio{{{one(slo)}}}) / {window.factor:g}"""


def make(facts):
    latency, login, errors = facts.slo("latency"), facts.slo("latency-login"), facts.slo("errors")
    left = [
        stat(
            f"{TITLES[slo.name]}: budget left",
            f"""What is left of the {slo.budget:.1%} that may go wrong in 30 days ({slo.promise}). Below zero the
            promise of these 30 days is broken, and what fixes it goes before what is new. Days that Prometheus does not
            know count as good.""",
            f"slo:period_error_budget_remaining:ratio{{{one(slo)}}}",
            unit="percentunit",
            w=6,
            h=5,
            decimals=1,
            thresholds=BUDGET,
            runbooks=[*runbooks(slo.name), "ErrorBudgetExhausted"],
            unscoped=RECORDED,
            none="not yet known",
        )
        for slo in facts.slos
    ]
    left += [
        lines(
            "Budget left over time",
            """Each falls while something goes wrong, and rises as bad days leave the 30 days. At the dashed line
            nothing is left.""",
            [query(f"slo:period_error_budget_remaining:ratio{{{OF}}}", "{{sloth_slo}}")],
            unit="percentunit",
            w=12,
            low=None,
            high=1,
            thresholds=limit(0),
            overrides=colours(SLO_COLOURS),
            unscoped=RECORDED,
            runbooks=["ErrorBudgetExhausted"],
        ),
        table(
            "Promise and truth",
            """What was promised, what the last 30 days were like, as far as they are known, and how fast the budget
            burns now: at 1 it would be used up at the end of 30 days. For the budget, days that are not known count as
            good.""",
            [
                ("Objective", f"max by (sloth_slo) (slo:objective:ratio{{{OF}}})", column("percentunit", decimals=2)),
                (
                    "30 days",
                    f"1 - max by (sloth_slo) (slo:sli_error:ratio_rate30d{{{OF}}})",
                    column("percentunit", decimals=3),
                ),
                (
                    "Budget left",
                    f"max by (sloth_slo) (slo:period_error_budget_remaining:ratio{{{OF}}})",
                    column("percentunit", BUDGET, decimals=1),
                ),
                (
                    "Burn now",
                    f"max by (sloth_slo) (slo:current_burn_rate:ratio{{{OF}}})",
                    column("none", at_most(facts.window("fast").factor, 1), decimals=2),
                ),
                (
                    "Burn, 30 days",
                    f"max by (sloth_slo) (slo:period_burn_rate:ratio{{{OF}}})",
                    column("none", at_most(1), decimals=2),
                ),
                (
                    "Days known",
                    f"max by (sloth_slo) (slo:time_period_known:days{{{OF}}})",
                    column("none", decimals=1),
                ),
            ],
            key={"sloth_slo": "SLO"},
            w=12,
            h=8,
            unscoped=RECORDED,
            runbooks=["ErrorBudgetExhausted"],
        ),
    ]
    names = {
        window.name: f"{window.name} ({window.long}, {window.short}, {window.factor:g}×)" for window in facts.windows
    }
    shades = dict(zip(names.values(), (BAD, "semi-dark-orange", ATTENTION, FAINT), strict=True))
    burning = [
        lines(
            f"{TITLES[slo.name]}: burn",
            """How fast the budget burns, as a share of what raises the alert: the slower of both windows of a pair,
            over its factor. At the dashed line the alert fires, fast and medium as a page, slow and long as a ticket,
            provided that there were enough bad events: a single one on a quiet night wakes nobody.""",
            [query(burn(slo, window), names[window.name]) for window in facts.windows],
            unit="percentunit",
            w=12,
            thresholds=limit(1),
            overrides=colours(shades),
            calcs=("lastNotNull", "max"),
            runbooks=runbooks(slo.name),
            unscoped=RECORDED,
        )
        for slo in facts.slos
    ]
    spans = ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"]
    factor = {window.long: window.factor for window in facts.windows}
    burning.append(
        table(
            "Burn by window",
            """Times the budget: 1 uses it up in 30 days. Red where the longer window of a pair is over its factor: """
            + ", ".join(f"{window.long} {window.factor:g}×" for window in facts.windows)
            + ".",
            [
                (
                    span,
                    f"""max by (sloth_slo) (slo:sli_error:ratio_rate{span}{{{OF}}})
                  / on (sloth_slo) max by (sloth_slo) (slo:error_budget:ratio{{{OF}}})""",
                    column("none", at_most(factor[span]) if span in factor else None, decimals=2),
                )
                for span in spans
            ],
            key={"sloth_slo": "SLO"},
            h=7,
            unscoped=RECORDED,
        ),
    )

    def share(matchers, limit_):
        return f"""sort_desc(topk(8, sum by (http_route) (
            increase({DURATION}_count{{@, http_route=~"$route",
            http_response_status_code!~"5..", {matchers}}}[$__range]))
            - sum by (http_route) (increase({DURATION}_bucket{{@, http_route=~"$route",
            http_response_status_code!~"5..", {matchers}, le="{limit_:g}"}}[$__range])) >= 0.5))"""

    route_traces = link(
        "Traces that failed", traces('span.http.route = "${__field.labels.http_route:percentencode}" && status = error')
    )
    slow_traces = link(
        "Traces over 100 ms",
        traces('span.http.route = "${__field.labels.http_route:percentencode}" && duration > 100ms'),
    )
    spent = [
        bars(
            "Failed, by route",
            "Answers 5xx in the time range: bad events of the errors SLO. Empty is good.",
            f"""sort_desc(topk(8, sum by (http_route) (increase({DURATION}_count{{@, http_route=~"$route",
                 http_response_status_code=~"5..", {errors.routes}}}[$__range])) >= 0.5))""",
            "{{http_route}}",
            unit="locale",
            h=9,
            names="top",
            decimals=0,
            none="none",
            links=[route_traces],
            thresholds=steps(BAD),
            runbooks=runbooks("errors"),
        ),
        bars(
            "Slower than 100 ms, by route",
            "Bad events of the latency SLO in the time range. Empty is good.",
            share(latency.routes, latency.threshold),
            "{{http_route}}",
            unit="locale",
            h=9,
            names="top",
            decimals=0,
            none="none",
            links=[slow_traces],
            thresholds=steps(NEUTRAL),
            runbooks=runbooks("latency"),
        ),
        bars(
            "Sign-ins slower than 500 ms",
            "Bad events of the sign-in SLO in the time range. Empty is good.",
            share(login.routes, login.threshold),
            "{{http_route}}",
            unit="locale",
            h=9,
            names="top",
            decimals=0,
            none="none",
            thresholds=steps(CLIENT),
            runbooks=runbooks("latency-login"),
        ),
        lines(
            "Bad events a second",
            "What each SLO counted as bad, over five minutes.",
            [query(f"slo:sli_bad:rate5m{{{OF}}}", "{{sloth_slo}}")],
            unit="cps",
            w=12,
            unscoped=RECORDED,
            overrides=colours(SLO_COLOURS),
        ),
        lines(
            "Events a second",
            """What each SLO looked at, over five minutes: where it is low, a few bad events weigh much, which is why
            the alerts have a floor.""",
            [query(f"slo:sli_total:rate5m{{{OF}}}", "{{sloth_slo}}")],
            unit="cps",
            w=12,
            unscoped=RECORDED,
            overrides=colours(SLO_COLOURS),
        ),
        states(
            "Ready from outside",
            """The probe of readiness at the address that clients use: the availability SLO.""",
            [query('max by (instance) (probe_success{job=~"$job", instance=~"$instance"})', "{{instance}}")],
            w=12,
            h=6,
            unit="none",
            mappings=UP,
            runbooks=runbooks("availability"),
        ),
        lines(
            "How long the probe took",
            "A probe that takes long fails next.",
            [query('max by (instance) (probe_duration_seconds{job=~"$job", instance=~"$instance"})', "{{instance}}")],
            unit="s",
            w=12,
            h=6,
            runbooks=runbooks("availability"),
        ),
    ]
    firing = [
        table(
            "Firing now",
            "Alerts that fire, Watchdog left out. The alerting dashboard has their history.",
            [
                (
                    "Severity",
                    'max by (alertname, severity, slo, owner) (ALERTS{alertstate="firing", severity!="none"})',
                    None,
                )
            ],
            key={"alertname": "Alert", "severity": "Level", "slo": "SLO", "owner": "Owner"},
            w=12,
            h=7,
            unscoped=ALERTS,
            hide=("Value",),
            none="none",
            key_links=[link("Runbook", "${docs:raw}/runbooks/${__value.raw:percentencode}.md")],
        ),
        states(
            "Fired",
            "When each alert of an SLO fired. Empty is good.",
            [query('max by (alertname) (ALERTS{alertstate="firing", slo!="none"})', "{{alertname}}")],
            w=12,
            h=7,
            unit="none",
            unscoped=ALERTS,
            mappings=[{"options": {"1": {"color": BAD, "index": 0, "text": "firing"}}, "type": "value"}],
        ),
    ]
    return dashboard(
        "slo",
        "Switchboard: SLOs",
        """What was promised for 30 days, what is left of the budget, how fast it burns, and what burns it. The promises
        stand in prometheus/slo.json.""",
        [
            ("How much budget is left?", left),
            ("Is it burning faster than it may?", burning),
            ("What spends it?", spent),
            ("What is firing?", firing),
        ],
        docs=facts.docs,
        since="now-24h",
        refresh="1m",
        source="up",
    )
