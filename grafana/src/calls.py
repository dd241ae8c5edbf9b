"""Calls: does every call of a client arrive, and is it answered?"""

from panels import (
    ATTENTION,
    BAD,
    CLIENT,
    FAINT,
    GOOD,
    NEUTRAL,
    PERCENTILE_COLOURS,
    at_most,
    colours,
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
    traces,
)

CALLS = "switchboard_calls_total"
EVENTS = "switchboard_webhook_events_total"
LAG = "switchboard_webhook_processing_lag_seconds"
INTAKE = {"accepted": GOOD, "duplicate": FAINT, "rejected": BAD}
PROCESSED = {"processed": GOOD, "ignored": FAINT, "failed": BAD}


def make(facts):
    incoming = ', direction="incoming"'
    missed_share = f"""sum(rate({CALLS}{{@{incoming}, result="missed"}}[$__rate_interval]))
        / sum(rate({CALLS}{{@{incoming}}}[$__rate_interval]))"""
    missed = facts.alert("MissedCallsHigh")
    figures = [
        stat(
            "Incoming calls",
            "Calls of clients that were over in the time range.",
            f"sum(increase({CALLS}{{@{incoming}}}[$__range]))",
            unit="locale",
            decimals=0,
            over_range=True,
            runbooks=["NoTraffic"],
        ),
        stat(
            "Missed",
            "Calls of clients that nobody answered, in the time range. Each is a lead to call back.",
            f'sum(increase({CALLS}{{@{incoming}, result="missed"}}[$__range]))',
            unit="locale",
            decimals=0,
            over_range=True,
            runbooks=["MissedCallsHigh"],
        ),
        stat(
            "Share missed",
            "Of the calls of clients in the time range.",
            f"""sum(increase({CALLS}{{@{incoming}, result="missed"}}[$__range]))
             / sum(increase({CALLS}{{@{incoming}}}[$__range]))""",
            unit="percentunit",
            decimals=1,
            over_range=True,
            thresholds=at_most(missed, missed / 2),
            runbooks=["MissedCallsHigh"],
        ),
        stat(
            "Waiting events",
            """Events of the PBX that are stored and not yet worked off. They belong there for milliseconds. The same on
            every replica.""",
            "sum(max by (provider) (switchboard_webhook_backlog{@}))",
            unit="locale",
            decimals=0,
            thresholds=steps(GOOD, (facts.alert("WebhookIntakeStalled"), ATTENTION)),
            runbooks=["WebhookIntakeStalled"],
        ),
        stat(
            "Given up",
            """Events that kept failing and were given up, in the time range: a person must look at each. They stay in
            the inbox.""",
            f'sum(increase({EVENTS}{{@, outcome="failed"}}[$__range]))',
            unit="locale",
            decimals=0,
            over_range=True,
            thresholds=steps(GOOD, (0.5, BAD)),
            runbooks=["WebhookIntakeStalled"],
        ),
        stat(
            "In triage",
            """Calls in the time range on a line that belongs to no campaign, or from a number that cannot be read. They
            wait for a person.""",
            """sum(increase(switchboard_calls_unknown_line_total{@}[$__range]))
             + sum(increase(switchboard_calls_unknown_caller_total{@}[$__range]))""",
            unit="locale",
            decimals=0,
            over_range=True,
            thresholds=steps(GOOD, (0.5, ATTENTION)),
            runbooks=["UnknownLineCalls"],
        ),
    ]
    answered = [
        lines(
            "Calls of clients",
            "Calls a minute that were over, answered or missed.",
            [query(f"60 * sum by (result) (rate({CALLS}{{@{incoming}}}[$__rate_interval]))", "{{result}}")],
            unit="cpm",
            stacked=True,
            overrides=colours({"answered": GOOD, "missed": BAD}),
            every="1m",
            runbooks=["NoTraffic", "MissedCallsHigh"],
        ),
        lines(
            "Share of calls missed",
            "Of the calls of clients. Whoever is missed rings somebody else.",
            [query(missed_share, "missed")],
            unit="percentunit",
            high=1,
            overrides=colours({"missed": BAD}),
            every="5m",
            thresholds=limit(missed),
            runbooks=["MissedCallsHigh"],
        ),
        lines(
            "All calls by direction",
            "Calls a minute that were over: from clients, to clients, among ourselves.",
            [query(f"60 * sum by (direction) (rate({CALLS}{{@}}[$__rate_interval]))", "{{direction}}")],
            unit="cpm",
            overrides=colours({"incoming": NEUTRAL, "outgoing": CLIENT, "internal": FAINT, "unknown": ATTENTION}),
            every="1m",
        ),
        lines(
            "How long clients wait",
            """From the first ring to the answer, or to the end of a missed call: half of the calls of clients waited
            shorter, and 95 % and 99 %.""",
            percentiles("switchboard_call_answer_wait_seconds", matchers=incoming),
            unit="s",
            every="5m",
            overrides=PERCENTILE_COLOURS,
            runbooks=["MissedCallsHigh"],
        ),
        lines(
            "How long they talk",
            "Talk time of calls of clients that were answered.",
            percentiles("switchboard_call_talk_seconds", matchers=incoming + ', result="answered"'),
            unit="s",
            every="5m",
            overrides=PERCENTILE_COLOURS,
        ),
        lines(
            "What became of them",
            """Calls a minute that joined an open service request of the same client, and those that wait in triage
            because line or caller is unknown.""",
            [
                query(
                    "60 * sum(rate(switchboard_calls_deduplicated_total{@}[$__rate_interval]))",
                    "joined an open request",
                ),
                query("60 * sum(rate(switchboard_calls_unknown_line_total{@}[$__rate_interval]))", "unknown line"),
                query("60 * sum(rate(switchboard_calls_unknown_caller_total{@}[$__rate_interval]))", "unknown caller"),
            ],
            unit="cpm",
            every="1m",
            runbooks=["UnknownLineCalls"],
            overrides=colours({"joined an open request": GOOD, "unknown line": ATTENTION, "unknown caller": CLIENT}),
        ),
    ]
    intake = [
        lines(
            "Deliveries",
            """What the providers sent, a second: stored (accepted), known already (duplicate), or not properly signed
            (rejected). Rejected ones that do not stop are a wrong secret, and every one is a lost call event.""",
            [
                query(
                    f'sum by (outcome) (rate({EVENTS}{{@, outcome=~"accepted|duplicate|rejected"}}[$__rate_interval]))',
                    "{{outcome}}",
                )
            ],
            unit="cps",
            stacked=True,
            overrides=colours(INTAKE),
            links=[link("Log lines of deliveries", logs('message = "request" | route =~ "/api/v1/webhooks/.*"'))],
            runbooks=["WebhookIntakeStalled"],
        ),
        lines(
            "Deliveries by provider",
            "What was stored, a second. A provider that falls silent in business hours is a fault.",
            [query(f'sum by (provider) (rate({EVENTS}{{@, outcome="accepted"}}[$__rate_interval]))', "{{provider}}")],
            unit="cps",
            runbooks=["WebhookIntakeStalled", "NoTraffic"],
        ),
        lines(
            "Turned away",
            """Deliveries a second that were properly signed and had no place: over the provider's rate (429), or too
            many at once (503). The provider sends them again.""",
            [
                query('sum(rate(rate_limited_total{@, scope="webhook"}[$__rate_interval]))', "rate limited"),
                query('sum(rate(http_requests_shed_total{@, scope="webhook"}[$__rate_interval]))', "shed"),
            ],
            unit="reqps",
            overrides=colours({"rate limited": ATTENTION, "shed": BAD}),
            runbooks=["WebhookIntakeStalled"],
        ),
    ]
    worked_off = [
        lines(
            "Worked off",
            """Stored events by what came of them, a second: done, nothing to do, or given up for good.""",
            [
                query(
                    f'sum by (outcome) (rate({EVENTS}{{@, outcome=~"processed|ignored|failed"}}[$__rate_interval]))',
                    "{{outcome}}",
                )
            ],
            unit="cps",
            stacked=True,
            overrides=colours(PROCESSED),
            links=[link("Traces of the worker over 100 ms", traces("duration > 100ms", kind="consumer"))],
            runbooks=["WebhookIntakeStalled"],
        ),
        lines(
            "Waiting events by provider",
            "Stored and not yet worked off. From the database, the same on every replica.",
            [query("max by (provider) (switchboard_webhook_backlog{@})", "{{provider}}")],
            unit="short",
            runbooks=["WebhookIntakeStalled"],
        ),
        lines(
            "From delivery to effect",
            "How long an event waits until its effect is in the database.",
            percentiles(LAG),
            unit="s",
            log=True,
            overrides=PERCENTILE_COLOURS,
            runbooks=["WebhookIntakeStalled"],
        ),
        heat(
            "From delivery to effect, all events",
            "How many events took how long; darker is more.",
            f"sum by (le) (increase({LAG}_bucket{{@}}[$__rate_interval]))",
            unit="s",
        ),
        lines(
            "Recordings",
            """Tries to fetch a recording an hour: stored, put off, given up, or no longer there. Put off is normal just
            after a call.""",
            [query("3600 * sum by (outcome) (rate(switchboard_recordings_total{@}[$__rate_interval]))", "{{outcome}}")],
            unit="short",
            w=12,
            every="5m",
            label="per hour",
            overrides=colours({"stored": GOOD, "postponed": FAINT, "failed": BAD, "gone": ATTENTION}),
        ),
    ]
    return dashboard(
        "calls",
        "Switchboard: calls",
        """Calls are leads: does each arrive from the PBX, is it answered, and does it become a service request at
        once?""",
        [
            ("How many, and how many missed?", figures),
            ("Are clients answered?", answered),
            ("Do the events of the PBX arrive?", intake),
            ("Are they worked off at once?", worked_off),
        ],
        docs=facts.docs,
        since="now-6h",
        refresh="30s",
        route=False,
    )
