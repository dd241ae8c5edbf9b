"""What is asked of every dashboard beyond its form: the rules of dashboard-linter and a few of our own."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request

import promql_parser as promql
import yaml

# Where every query selects by job and instance, without exception.
STRICT = {"overview", "calls", "dependencies", "runtime"}
# How many panels may do without, each with its reason: one more is a decision.
EXCLUSIONS = 33
# Counters that k6 writes from their first event on: an increase would miss it, so their highest value is read.
WRITTEN = {"k6_dropped_iterations_total", "k6_http_reqs_total"}
# How many panels do.
HIGHEST = 3
# Those of Grafana's units that are used, as its format registry names them.
UNITS = {"bytes", "cpm", "cps", "currencyRUB", "locale", "none", "ops", "percentunit", "reqps", "s", "short"}
# The same on every replica, because it comes from the database: a sum over replicas would count it twice.
SHARED = {
    "switchboard_active_users",
    "switchboard_service_request_oldest_open_timestamp_seconds",
    "switchboard_service_requests_open",
    "switchboard_service_requests_stuck",
    "switchboard_webhook_backlog",
}
RATES = {"increase", "irate", "rate"}
# What Grafana fills in, as a query sees it. The variables of a dashboard stand inside of strings.
FILLED_IN = {"__interval": "1m", "__range": "1h", "__rate_interval": "241s"}
# What Grafana fills in in a link.
LINKABLE = {"__from", "__to", "__value.raw", "__field.labels.http_route"}
# Filled in for $__rate_interval, and nobody writes it by hand.
RATE_INTERVAL = 241
SCREEN = 24


def filled_in(expr, variables=None):
    """`expr` with Grafana's variables in place."""
    values = FILLED_IN | (variables or {})
    return re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[0]), expr)


def walk(node, parents=()):
    """Every node of an expression, with those above it."""
    yield node, parents
    above = (*parents, node)
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None:
            yield from walk(child, above)
    for child in getattr(node, "args", None) or ():
        yield from walk(child, above)


def selectors(tree):
    return [(node, parents) for node, parents in walk(tree) if isinstance(node, promql.VectorSelector)]


def catalogue(root):
    """The metrics of docs/METRICS.md by name, with their type."""
    rows = re.findall(
        r"^\| `(\w+)` \| (counter|gauge|histogram) \|", (root / "docs" / "METRICS.md").read_text(), re.MULTILINE
    )
    return dict(rows)


def family(metric, declared):
    """The metric that a series belongs to: a histogram has three names."""
    base = re.sub(r"_(bucket|count|sum)$", "", metric)
    return base if declared.get(base) == "histogram" else metric


def panels_of(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def release(root, schema):
    """One release of Grafana, everywhere."""
    import panels

    said = (root / "grafana" / "README.md").read_text().splitlines()[0].removeprefix("Grafana release: ")
    pinned = json.loads((root / "grafana" / "src" / "package.json").read_text())["dependencies"]["@grafana/schema"]
    same = said == pinned == panels.PLUGIN_VERSION
    return [] if same else [f"grafana/README.md says {said}, package.json {pinned}, panels.py {panels.PLUGIN_VERSION}"]


def check(root, dashboards, unscoped):
    wrong, used = [], set()
    declared = catalogue(root)
    excused = {(dashboard, panel) for dashboard, panel, _ in unscoped}
    if len(unscoped) != EXCLUSIONS:
        wrong.append(f"{len(unscoped)} panels do without job and instance, not {EXCLUSIONS}")
    if len(highest(dashboards)) != HIGHEST:
        wrong.append(f"{len(highest(dashboards))} panels read a counter of k6 as it stands, not {HIGHEST}")
    for name, dashboard in dashboards.items():
        found = [*whole(name, dashboard), *layout(dashboard)]
        found += links(dashboard)
        for panel in panels_of(dashboard):
            scope = None if (dashboard["title"], panel["title"]) in excused else "selected"
            if scope is None and name in STRICT:
                found.append(f"{panel['title']}: no exclusions here")
            found += [f"{panel['title']}: {problem}" for problem in one(panel, declared, scope, used)]
        wrong += [f"{name}: {problem}" for problem in found]
    wrong += [f"docs/METRICS.md: {metric} is on no panel" for metric in declared if metric not in used]
    recorded, alerts = rules(root)
    wrong += [f"no rule records {metric}" for metric in sorted(used) if ":" in metric and metric not in recorded]
    return [*wrong, *runbooks(alerts, dashboards)]


def highest(dashboards):
    """The panels, with their dashboards, that read the highest value of a counter of k6."""
    return [
        (dashboard["title"], panel["title"])
        for dashboard in dashboards.values()
        for panel in panels_of(dashboard)
        if any(f"max_over_time({metric}{{" in target["expr"] for target in panel["targets"] for metric in WRITTEN)
    ]


def whole(name, dashboard):
    """What is asked of a dashboard."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    if dashboard["uid"] != f"switchboard-{name}":
        yield f"its uid is {dashboard['uid']}"
    if dashboard["editable"] or not dashboard["description"]:
        yield "it must not be editable, and needs a description"
    if variables["datasource"]["query"] != "prometheus" or variables["datasource"]["label"] != "Data source":
        yield "the variable datasource must select a Prometheus and be labelled Data source"
    for wanted in ("job", "instance"):
        variable = variables.get(wanted, {})
        right = {"type": "query", "label": wanted.title(), "multi": True, "allValue": ".+", "refresh": 2}
        if {key: variable.get(key) for key in right} != right or variable["datasource"]["uid"] != "${datasource}":
            yield f"the variable {wanted} must be {right}"
    for variable in variables.values():
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            yield from parses(selector[1] if selector else "")
    for annotation in dashboard["annotations"]["list"]:
        if "target" in annotation:
            yield from parses(annotation["target"]["expr"])
    titles = [panel["title"] for panel in dashboard["panels"]]
    yield from (f"there are two of {title}" for title in sorted({title for title in titles if titles.count(title) > 1}))


def parses(expr):
    try:
        promql.parse(filled_in(expr))
    except ValueError as error:
        yield f"{expr}: {error}"


def links(dashboard):
    """Links name only what Grafana can fill in, and those into Explore are what Explore reads."""
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    for url in re.findall(r'"url": "([^"]+)"', json.dumps(dashboard)):
        for name, path in re.findall(r"\$\{(\w+)((?:\.\w+)*)(?::\w+)?\}", url):
            if name not in known and f"{name}{path}" not in LINKABLE:
                yield f"{url}: Grafana knows no {name}{path}"
        if url.startswith("/explore"):
            panes = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["panes"][0]
            (query,) = json.loads(panes)["a"]["queries"]
            text = query.get("query") or query["expr"]
            if text.count("{") - text.count("${") != 1 or text.count('"') % 2:
                yield f"{text} is no query"


def layout(dashboard):
    """Every row of panels is as wide as the screen, of one height, and its first panel is wide enough to be read."""
    rows = {}
    for panel in dashboard["panels"]:
        rows.setdefault(panel["gridPos"]["y"], []).append(panel)
    for row in rows.values():
        if sum(panel["gridPos"]["w"] for panel in row) != SCREEN or len({panel["gridPos"]["h"] for panel in row}) != 1:
            yield f"the panels beside {row[0]['title']} leave a gap"
        for panel in row:
            if panel["type"] in ("heatmap", "timeseries") and panel["gridPos"]["w"] < 6:
                yield f"{panel['title']} is too narrow"


def one(panel, declared, scope, used):
    """What is asked of a panel."""
    defaults, scoped = panel["fieldConfig"]["defaults"], True
    if len(panel["description"]) < 10 or not panel["description"].endswith("."):
        yield "it needs a description"
    units = {
        setting["value"]
        for override in panel["fieldConfig"]["overrides"]
        for setting in override["properties"]
        if setting["id"] == "unit"
    }
    if not {defaults["unit"], *units} <= UNITS:
        yield f"one of its units {sorted({defaults['unit'], *units})} is not known"
    if panel["datasource"]["uid"] != "${datasource}" or not panel["targets"]:
        yield "it needs the chosen data source and a query"
    if panel["type"] == "timeseries" and not panel["options"]["legend"]["showLegend"]:
        yield "it needs a legend"
    if panel["type"] != "table" and any(target["legendFormat"] == "__auto" for target in panel["targets"]):
        yield "its legend is left to chance"
    for target in panel["targets"]:
        try:
            tree = promql.parse(filled_in(target["expr"]))
        except ValueError as error:
            yield f"{target['expr']}: {error}"
            continue
        for selector, parents in selectors(tree):
            chosen = {(matcher.name, str(matcher.op), matcher.value) for matcher in selector.matchers.matchers}
            scoped &= {("job", "MatchOp.Re", "$job"), ("instance", "MatchOp.Re", "$instance")} <= chosen
            yield from use(selector.name, parents, declared, used)
            if (
                len(parents) > 1
                and isinstance(parents[-1], promql.MatrixSelector)
                and parents[-2].func.name in ("rate", "irate")
            ):
                if parents[-1].range.total_seconds() != RATE_INTERVAL:
                    yield f"{target['expr']}: a rate is over $__rate_interval"
    if scope and not scoped:
        yield "a query does not select by job and instance"
    if not scope and scoped:
        yield "it selects by job and instance: it needs no exclusion"


def use(metric, parents, declared, used):
    """Whether a metric is asked for as its type allows."""
    known = family(metric, declared)
    used.add(known)
    ours = re.match(
        r"(switchboard|http|db|cache|password|auth|tokio|rate_limited|log_events|otel_spans|event_loop|tls)_", metric
    )
    if ours and known not in declared:
        yield f"docs/METRICS.md does not know {metric}"
    functions = [parent.func.name for parent in parents if isinstance(parent, promql.Call)]
    counts = declared.get(known) in ("counter", "histogram") or metric.endswith("_total")
    enough = RATES | {"max_over_time"} if metric in WRITTEN else RATES
    if counts and not enough & set(functions):
        yield f"{metric} only ever grows: it needs a rate"
    aggregations = [str(parent.op) for parent in parents if isinstance(parent, promql.AggregateExpr)]
    if metric in SHARED and (not aggregations or aggregations[-1] not in ("max", "min")):
        yield f"{metric} is the same on every replica: max or min, not {aggregations[-1:] or 'nothing'}"


def rules(root):
    """The names that rules record, and the alerts."""
    recorded, alerts = set(), {}
    for path in sorted((root / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            recorded |= {rule["record"] for rule in group["rules"] if "record" in rule}
            alerts |= {rule["alert"]: rule for rule in group["rules"] if "alert" in rule}
    return recorded, alerts


def runbooks(alerts, dashboards):
    """Every runbook that a panel links to exists, and the dashboard that an alert names has a panel about it."""
    linked = {
        name: {
            link["url"].rsplit("/", 1)[1].removesuffix(".md")
            for panel in panels_of(dashboard)
            for link in panel.get("links", [])
        }
        for name, dashboard in dashboards.items()
    }
    for name, known in linked.items():
        yield from (f"{name}: there is no alert {alert} to link to" for alert in sorted(known - alerts.keys()))
    for alert, rule in alerts.items():
        uid = rule["annotations"]["dashboard_url"].rsplit("/", 1)[1].removeprefix("switchboard-")
        if alert not in linked.get(uid, set()):
            yield f"{alert} names the dashboard {uid}, where no panel is about it"


def ask(url, dashboards):
    """Asks a Prometheus every query. Lists what it refuses (a failure), and what it has no series for."""
    everything = {name: ".*" for name in ("route", "testid")} | {name: ".+" for name in ("job", "instance")}
    refused, empty, answered = [], [], 0
    for name, dashboard in dashboards.items():
        for panel in panels_of(dashboard):
            for target in panel["targets"]:
                query = urllib.parse.urlencode({"query": filled_in(target["expr"], everything | {"__range": "30m"})})
                try:
                    with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=30) as answer:
                        series = json.load(answer)["data"]["result"]
                except urllib.error.HTTPError as error:
                    refused.append(f"{name}: {panel['title']} {target['refId']}: {json.load(error)['error']}")
                    continue
                if any(one["value"][1] != "NaN" for one in series):
                    answered += 1
                else:
                    empty.append(f"{name}: {panel['title']} {target['refId']}")
    for line in refused:
        print(f"refused  {line}")
    for line in empty:
        print(f"no data  {line}")
    print(f"dashboards: {answered} queries answered, {len(empty)} without data, {len(refused)} refused")
    return 1 if refused else 0
