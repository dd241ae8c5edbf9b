"""Alerting: what fires, and would we hear of it?"""

from panels import (
    ATTENTION,
    BAD,
    FAINT,
    GOOD,
    NEUTRAL,
    UP,
    at_least,
    bars,
    colours,
    dashboard,
    limit,
    lines,
    link,
    query,
    stat,
    states,
    steps,
    table,
)

ALERTS = "ALERTS carries the labels of the rule, and most rules aggregate job and instance away."
STATE = {
    "type": "value",
    "options": {
        "1": {"color": ATTENTION, "index": 0, "text": "ticket"},
        "2": {"color": BAD, "index": 1, "text": "page"},
    },
}
RULES = "prometheus_rule_group"


def make(facts):
    figures = [
        stat(
            "Pages firing",
            "Alerts that wake somebody.",
            'count(ALERTS{alertstate="firing", severity="page"}) or vector(0)',
            unit="none",
            thresholds=steps(GOOD, (1, BAD)),
            unscoped=ALERTS,
        ),
        stat(
            "Tickets firing",
            "Alerts that wait for working hours.",
            'count(ALERTS{alertstate="firing", severity="ticket"}) or vector(0)',
            unit="none",
            thresholds=steps(GOOD, (1, ATTENTION)),
            unscoped=ALERTS,
        ),
        stat(
            "Pending",
            "Alerts whose condition holds, though not for long enough.",
            'count(ALERTS{alertstate="pending"}) or vector(0)',
            unit="none",
            unscoped=ALERTS,
        ),
        stat(
            "Watchdog",
            """The alert that always fires, so that its silence is heard. Anything but 1: nobody would be told of
            anything.""",
            'count(ALERTS{alertstate="firing", alertname="Watchdog"}) or vector(0)',
            unit="none",
            thresholds=at_least(1),
            graph=False,
            runbooks=["Watchdog"],
            unscoped=ALERTS,
        ),
        stat(
            "Messages that failed",
            "Notifications that Alertmanager could not deliver in the time range.",
            "sum(increase(alertmanager_notifications_failed_total{@}[$__range]))",
            unit="locale",
            decimals=0,
            over_range=True,
            thresholds=steps(GOOD, (0.5, BAD)),
            runbooks=["NotificationFailures"],
        ),
        stat(
            "Rules that failed",
            "Evaluations of rules that failed in the time range.",
            "sum(increase(prometheus_rule_evaluation_failures_total{@}[$__range]))",
            unit="locale",
            decimals=0,
            over_range=True,
            thresholds=steps(GOOD, (0.5, BAD)),
            runbooks=["RuleEvaluationFailures"],
        ),
    ]
    what = [
        table(
            "Firing and pending",
            "Every alert whose condition holds. A name links to its runbook.",
            [
                (
                    "Value",
                    """max by (alertname, alertstate, severity, slo, owner, instance) (
                  ALERTS{alertname!="Watchdog"})""",
                    None,
                )
            ],
            key={
                "alertname": "Alert",
                "alertstate": "State",
                "severity": "Level",
                "slo": "SLO",
                "owner": "Owner",
                "instance": "Instance",
            },
            w=12,
            h=10,
            hide=("Value",),
            unscoped=ALERTS,
            none="nothing",
            key_links=[link("Runbook", "${docs:raw}/runbooks/${__value.raw:percentencode}.md")],
        ),
        states(
            "Fired when",
            "Yellow is a ticket, red a page. Empty is good.",
            [
                query(
                    """max by (alertname) (ALERTS{alertstate="firing", severity="ticket"})
                   or 2 * max by (alertname) (ALERTS{alertstate="firing", severity="page"})""",
                    "{{alertname}}",
                )
            ],
            unit="none",
            w=12,
            h=10,
            mappings=[STATE],
            unscoped=ALERTS,
        ),
        bars(
            "Most often",
            "How long each alert fired in the time range. What fires often and changes nothing, remove.",
            """sort_desc(topk(10, sum by (alertname) (
                 count_over_time(ALERTS{alertstate="firing", alertname!="Watchdog"}[$__range])) * 15))""",
            "{{alertname}}",
            unit="s",
            w=24,
            h=6,
            none="none",
            unscoped=ALERTS,
            thresholds=steps(ATTENTION),
        ),
    ]
    evaluated = [
        lines(
            "Evaluations that failed",
            "A second, by group of rules. A rule that fails is an alert that is blind.",
            [
                query("sum(rate(prometheus_rule_evaluation_failures_total{@}[$__rate_interval]))", "all"),
                query(
                    "sum by (rule_group) (rate(prometheus_rule_evaluation_failures_total{@}[$__rate_interval])) > 0",
                    "{{rule_group}}",
                ),
            ],
            unit="ops",
            overrides=colours({"all": BAD}),
            runbooks=["RuleEvaluationFailures"],
        ),
        lines(
            "Duration of a group",
            """How long evaluating each group takes. They are evaluated every 15 s: at the dashed line rounds are
            missed.""",
            [query(f"max by (rule_group) ({RULES}_last_duration_seconds{{@}})", "{{rule_group}}")],
            unit="s",
            thresholds=limit(15),
            log=True,
            runbooks=["RuleEvaluationFailures"],
        ),
        lines(
            "Rounds missed",
            "Evaluations left out because the round before took too long, in each interval.",
            [
                query(f"sum(increase({RULES}_iterations_missed_total{{@}}[$__rate_interval]))", "all"),
                query(
                    f"sum by (rule_group) (increase({RULES}_iterations_missed_total{{@}}[$__rate_interval])) > 0",
                    "{{rule_group}}",
                ),
            ],
            unit="short",
            bars=True,
            overrides=colours({"all": BAD}),
            runbooks=["RuleEvaluationFailures"],
        ),
    ]
    delivered = [
        lines(
            "Sent to Alertmanager",
            "Alerts a second from Prometheus to Alertmanager: sent, failed, or dropped from a full queue.",
            [
                query("sum(rate(prometheus_notifications_sent_total{@}[$__rate_interval]))", "sent"),
                query("sum(rate(prometheus_notifications_errors_total{@}[$__rate_interval]))", "failed"),
                query("sum(rate(prometheus_notifications_dropped_total{@}[$__rate_interval]))", "dropped"),
            ],
            unit="cps",
            overrides=colours({"sent": GOOD, "failed": BAD, "dropped": BAD}),
            runbooks=["NotificationFailures"],
        ),
        lines(
            "Delivered by Alertmanager",
            "Messages an hour by the kind of receiver, and those that failed.",
            [
                query(
                    "3600 * sum by (integration) (rate(alertmanager_notifications_total{@}[$__rate_interval])) > 0",
                    "{{integration}}",
                ),
                query("3600 * sum(rate(alertmanager_notifications_failed_total{@}[$__rate_interval]))", "failed"),
            ],
            unit="short",
            every="5m",
            label="per hour",
            overrides=colours({"failed": BAD}),
            runbooks=["NotificationFailures"],
        ),
        lines(
            "How long delivery takes",
            "99 % of the messages were delivered faster than this.",
            [
                query(
                    """histogram_quantile(0.99, sum by (integration, le) (
                  rate(alertmanager_notification_latency_seconds_bucket{@}[$__rate_interval]))) >= 0""",
                    "{{integration}}",
                )
            ],
            unit="s",
            every="5m",
            runbooks=["NotificationFailures"],
        ),
        lines(
            "Alerts in Alertmanager",
            "Those that are told (active), and those held back by a silence or by inhibition.",
            [query("sum by (state) (alertmanager_alerts{@})", "{{state}}")],
            unit="none",
            w=12,
            overrides=colours({"active": ATTENTION, "suppressed": FAINT, "unprocessed": BAD}),
        ),
        lines(
            "Silences",
            "A silence that is forgotten hides the next fault.",
            [query("sum by (state) (alertmanager_silences{@})", "{{state}}")],
            unit="none",
            w=12,
            overrides=colours({"active": ATTENTION, "pending": NEUTRAL, "expired": FAINT}),
        ),
    ]
    scraped = [
        states(
            "Targets",
            "Whether each target was scraped. Red is down: what it says is not known.",
            [query("min by (job, instance) (up{@})", "{{job}} {{instance}}")],
            unit="none",
            w=24,
            h=10,
            mappings=[*UP],
            runbooks=["ApiMetricsAbsent", "ReplicaDown"],
        ),
        lines(
            "Duration of a scrape",
            "At 10 s a scrape is given up.",
            [query("max by (job) (scrape_duration_seconds{@})", "{{job}}")],
            unit="s",
            thresholds=limit(10),
            log=True,
            runbooks=["CardinalityHigh"],
        ),
        lines(
            "Series by target",
            "Samples in a scrape. The dashed line is where a replica of Switchboard has too many.",
            [query("max by (job, instance) (scrape_samples_scraped{@})", "{{job}} {{instance}}")],
            unit="short",
            thresholds=limit(facts.alert("CardinalityHigh")),
            log=True,
            runbooks=["CardinalityHigh"],
        ),
        lines(
            "Series in Prometheus",
            "Series that Prometheus holds in memory: each costs a few kilobytes.",
            [query("max(prometheus_tsdb_head_series{@})", "series")],
            unit="short",
            runbooks=["CardinalityHigh"],
        ),
        lines(
            "Disk of Prometheus",
            "What its blocks take, for the 35 days that it keeps.",
            [query("max(prometheus_tsdb_storage_blocks_bytes{@})", "blocks")],
            unit="bytes",
            w=12,
            runbooks=["DiskFilling"],
        ),
        lines(
            "Samples taken in",
            "Samples a second that Prometheus stores.",
            [query("sum(rate(prometheus_tsdb_head_samples_appended_total{@}[$__rate_interval]))", "samples")],
            unit="cps",
            w=12,
        ),
    ]
    return dashboard(
        "alerting",
        "Switchboard: alerting",
        """What fires now and what fired, and whether the whole chain from the scrape to the message works: an alert
        that cannot be delivered is worse than none.""",
        [
            ("What fires, and would we hear of it?", figures),
            ("What is it?", what),
            ("Are the rules evaluated?", evaluated),
            ("Do messages reach people?", delivered),
            ("Is everything scraped?", scraped),
        ],
        docs=facts.docs,
        since="now-6h",
        source="up",
        route=False,
    )
