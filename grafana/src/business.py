"""Business: are requests coming in, are they dealt with in time, and does it pay?"""

from panels import (
    ATTENTION,
    BAD,
    CLIENT,
    FAINT,
    GOOD,
    NEUTRAL,
    P50,
    P95,
    bars,
    colours,
    column,
    dashboard,
    limit,
    lines,
    query,
    stat,
    steps,
    table,
)

SERVICE = "switchboard_service_request"
EVERY = "5m"
STATES = {
    "new": ATTENTION,
    "callback": "light-yellow",
    "no_answer": "light-orange",
    "waiting": FAINT,
    "offered": NEUTRAL,
    "accepted": "dark-blue",
    "en_route": "light-purple",
    "in_progress": CLIENT,
    "deferred": "semi-dark-orange",
}


def total(metric, matchers="", by=""):
    group = f"by ({by}) " if by else ""
    return f"sum {group}(increase({metric}{{@{matchers}}}[$__range]))"


def hourly(metric, by, matchers=""):
    return f"3600 * sum by ({by}) (rate({metric}{{@{matchers}}}[$__rate_interval]))"


def median(metric, by="type"):
    return f"""histogram_quantile(0.5, sum by ({by}, le) (increase({metric}_bucket{{@}}[$__range]))) >= 0"""


def make(facts):
    done = ', to="done"'
    figures = [
        stat(
            "Created",
            "Service requests created in the time range, from calls and typed in.",
            total(f"{SERVICE}s_created_total"),
            unit="locale",
            decimals=0,
            over_range=True,
        ),
        stat(
            "Done",
            "Service requests finished in the time range.",
            total(f"{SERVICE}_transitions_total", done),
            unit="locale",
            decimals=0,
            over_range=True,
        ),
        stat(
            "Refused or not an order",
            "Service requests that ended in the time range without work being done.",
            total(f"{SERVICE}_transitions_total", ', to=~"refused|not_order"'),
            unit="locale",
            decimals=0,
            over_range=True,
        ),
        stat(
            "Promises broken",
            "Promises to clients that were not kept in time, in the time range.",
            total(f"{SERVICE}_sla_breaches_total"),
            unit="locale",
            decimals=0,
            over_range=True,
            thresholds=steps(GOOD, (0.5, ATTENTION)),
            runbooks=["SlaBreaches"],
        ),
        stat(
            "Open",
            "Service requests that are not finished. The same on every replica.",
            f"sum(max by (status) ({SERVICE}s_open{{@}}))",
            unit="locale",
            decimals=0,
        ),
        stat(
            "Income",
            """Booked in the time range, what was reversed taken off. A figure for a feeling: the ledger in the database
            is the truth.""",
            f"{total('switchboard_revenue_rubles_total')} - {total('switchboard_refunds_rubles_total')}",
            unit="currencyRUB",
            over_range=True,
        ),
    ]
    coming = [
        lines(
            "Created by type",
            "New service requests an hour, by type of work.",
            [query(hourly(f"{SERVICE}s_created_total", "type"), "{{type}}")],
            unit="short",
            stacked=True,
            every=EVERY,
            label="per hour",
        ),
        lines(
            "Created by source",
            "New service requests an hour: from a call, or typed in by an operator.",
            [query(hourly(f"{SERVICE}s_created_total", "source"), "{{source}}")],
            unit="short",
            stacked=True,
            every=EVERY,
            label="per hour",
            overrides=colours({"call": NEUTRAL, "manual": CLIENT}),
        ),
        bars(
            "Created by city",
            "New service requests in the time range, the largest cities first.",
            f"sort_desc(topk(10, {total(f'{SERVICE}s_created_by_city_total', by='city')}))",
            "{{city}}",
            unit="locale",
            decimals=0,
        ),
    ]
    work = [
        lines(
            "Open by state",
            """Service requests that are not finished. Yellow waits for the office, blue for a master, purple is being
            worked on. From the database, the same on every replica.""",
            [query(f"max by (status) ({SERVICE}s_open{{@}}) > 0", "{{status}}")],
            unit="short",
            w=12,
            stacked=True,
            overrides=colours(STATES),
            calcs=("lastNotNull", "max"),
            runbooks=["BacklogTooOld"],
        ),
        table(
            "Waiting",
            """For each state: how many are in it, how many of those for longer than they should be, and how old the
            oldest is.""",
            [
                ("Open", f"max by (status) ({SERVICE}s_open{{@}}) > 0", column("locale", decimals=0)),
                (
                    "Too long",
                    f"max by (status) ({SERVICE}s_stuck{{@}}) and max by (status) ({SERVICE}s_open{{@}}) > 0",
                    column("locale", steps(GOOD, (0.5, ATTENTION)), decimals=0),
                ),
                (
                    "Oldest",
                    f"time() - min by (status) ({SERVICE}_oldest_open_timestamp_seconds{{@}})",
                    column("s"),
                ),
            ],
            key={"status": "State"},
            w=12,
            h=8,
            sort="Open",
            runbooks=["BacklogTooOld"],
        ),
        lines(
            "Moves",
            """Moves of service requests an hour, by the state that they arrive in.""",
            [query(hourly(f"{SERVICE}_transitions_total", "to") + " > 0", "{{to}}")],
            unit="short",
            w=12,
            every=EVERY,
            label="per hour",
            overrides=colours(STATES | {"done": GOOD, "refused": BAD, "not_order": "light-red"}),
        ),
        lines(
            "Moves refused",
            """Moves that were not allowed, an hour: not in the table (not_allowed), not for this role (forbidden),
            something missing, or somebody else was faster (stale). Many of one kind are a front end that is wrong, or
            people who were not told.""",
            [query(hourly(f"{SERVICE}_transition_rejections_total", "reason"), "{{reason}}")],
            unit="short",
            w=12,
            every=EVERY,
            label="per hour",
        ),
        bars(
            "Ways through",
            "The commonest moves in the time range.",
            f"sort_desc(topk(12, {total(f'{SERVICE}_transitions_total', by='from, to')} >= 0.5))",
            "{{from}} → {{to}}",
            unit="locale",
            w=12,
            h=9,
            decimals=0,
        ),
        table(
            "How long it takes",
            """The median of each step by type of work, over the time range: from the creation to a person's first move,
            to the first offer to a master, to done. Read off wide buckets: an estimate.""",
            [
                ("First response", median(f"{SERVICE}_first_response_seconds"), column("s")),
                ("Offered", median(f"{SERVICE}_assign_seconds"), column("s")),
                ("Done", median(f"{SERVICE}_completion_seconds"), column("s")),
            ],
            key={"type": "Type"},
            w=12,
            h=9,
            runbooks=["AssignSlow"],
        ),
    ]
    halves = colours({"half": P50, "95 %": P95})

    def human(metric):
        return [
            query(f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{@}}[$__rate_interval])))", name)
            for q, name in ((0.5, "half"), (0.95, "95 %"))
        ]

    promises = [
        lines(
            "First response",
            "From the creation of a service request to the first move by a person.",
            human(f"{SERVICE}_first_response_seconds"),
            unit="s",
            every="15m",
            overrides=halves,
            log=True,
            runbooks=["SlaBreaches"],
        ),
        lines(
            "Offered to a master",
            """From the creation of a service request to its first offer to a master. Above the dashed line, half of
            them, masters are missing.""",
            human(f"{SERVICE}_assign_seconds"),
            unit="s",
            every="15m",
            overrides=halves,
            log=True,
            thresholds=limit(facts.alert("AssignSlow")),
            runbooks=["AssignSlow"],
        ),
        lines(
            "Until done",
            "From the creation of a service request to done.",
            human(f"{SERVICE}_completion_seconds"),
            unit="s",
            every="15m",
            overrides=halves,
            log=True,
        ),
        lines(
            "Promises broken by kind",
            """An hour, by what was promised. At the dashed line of one kind the alert fires.""",
            [query(hourly(f"{SERVICE}_sla_breaches_total", "policy"), "{{policy}}")],
            unit="short",
            w=12,
            every=EVERY,
            thresholds=limit(facts.alert("SlaBreaches")),
            label="per hour",
            runbooks=["SlaBreaches"],
        ),
        lines(
            "In a state for too long",
            "Service requests that are in a state for longer than they should be, now.",
            [
                query(f"sum(max by (status) ({SERVICE}s_stuck{{@}}))", "all"),
                query(f"max by (status) ({SERVICE}s_stuck{{@}}) > 0", "{{status}}"),
            ],
            unit="short",
            w=12,
            overrides=colours(STATES | {"all": BAD}),
            runbooks=["BacklogTooOld"],
        ),
    ]
    money = [
        bars(
            "Income by city",
            "Booked in the time range.",
            f"sort_desc(topk(10, {total('switchboard_revenue_rubles_total', by='city')}))",
            "{{city}}",
            unit="currencyRUB",
            thresholds=steps(GOOD),
        ),
        bars(
            "Reversed by city",
            "Income reversed in the time range: work reopened, or a booking taken back.",
            f"sort_desc(topk(10, {total('switchboard_refunds_rubles_total', by='city')}))",
            "{{city}}",
            unit="currencyRUB",
            thresholds=steps(ATTENTION),
        ),
        lines(
            "Who is at work",
            """Users who signed in or refreshed their session within the lifetime of an access token. From the database,
            the same on every replica.""",
            [query("max by (role) (switchboard_active_users{@})", "{{role}}")],
            unit="short",
            stacked=True,
            calcs=("lastNotNull", "max"),
        ),
    ]
    fresh = [
        lines(
            "Age of the figures",
            """How old the figures from the database are that each replica exports. One replica computes them every 15 s
            for all; older than the dashed line, the gauges above show the past.""",
            [
                query(
                    "time() - max by (instance) (switchboard_collector_last_success_timestamp_seconds{@})",
                    "{{instance}}",
                )
            ],
            unit="s",
            w=18,
            h=6,
            thresholds=limit(facts.alert("CollectorStale")),
            runbooks=["CollectorStale"],
        ),
        stat(
            "Open since",
            """How long ago today's business hours began. Alerts about calls that do not come and clients who wait for an
            answer ask in this time only.""",
            "time() - max(switchboard_business_opened_timestamp_seconds{@})",
            unit="s",
            w=6,
            h=6,
            graph=False,
            none="closed",
            runbooks=["NoTraffic", "BacklogTooOld"],
        ),
    ]
    return dashboard(
        "business",
        "Switchboard: business",
        """Service requests from the call to the money: how many come in, how far they get, how long clients wait, and
        what it earns. Counters count since a replica started and are a picture, not the books: reports and ledger are
        exact.""",
        [
            ("How is it going?", figures),
            ("Are requests coming in?", coming),
            ("Are they being dealt with?", work),
            ("Are promises to clients kept?", promises),
            ("Does it pay, and who is at work?", money),
            ("Are these figures of now?", fresh),
        ],
        docs=facts.docs,
        since="now-24h",
        refresh="1m",
        route=False,
    )
