"""What the dashboards are made of: one way to draw each kind of panel, so that all of them speak one visual language.

- A row is a question, and its panels answer it.
- Green is good, yellow wants attention, red breaks a promise; blue says nothing about good or bad, purple is the
  client's doing. A dashed red line is the limit that an SLO or an alert sets.
- What has no order (routes, providers, cities) is coloured by its name: the same colour on every panel.
"""

import json
import re
from urllib.parse import quote

SCHEMA_VERSION = 42
PLUGIN_VERSION = "12.4.11"

GOOD, ATTENTION, BAD = "semi-dark-green", "semi-dark-yellow", "semi-dark-red"
NEUTRAL, CLIENT, FAINT = "semi-dark-blue", "semi-dark-purple", "light-blue"
# From the fast half to the slow end.
P50, P95, P99 = FAINT, NEUTRAL, CLIENT
STATUS = {"2xx": GOOD, "3xx": NEUTRAL, "4xx": ATTENTION, "5xx": BAD, "hung up (499)": CLIENT}

COLUMNS = 24
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
# What the variables of a dashboard select. In a query it is written {@} or {@, other="matchers"}.
SELECTED = 'job=~"$job", instance=~"$instance"'


def expand(expr):
    """An expression on one line, with the variables' matchers in place."""
    return re.sub(r"\s*\n\s*", " ", expr.strip()).replace("{@", "{" + SELECTED)


def query(expr, legend="", **more):
    """A query over time."""
    return {
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": expand(expr),
        "instant": False,
        "legendFormat": legend or "__auto",
        "range": True,
    } | more


def now(expr, legend="", **more):
    """A query at the end of the time range."""
    return query(expr, legend, instant=True, range=False, **more)


def cells(expr):
    """A query of a table: a row for each series, a column for each label."""
    return now(expr, format="table")


def steps(*pairs):
    """Thresholds: the colour below all of them, then (value, colour) upwards."""
    base, *rest = pairs
    values = [{"color": base, "value": None}]
    values += [{"color": colour, "value": value} for value, colour in rest]
    return {"mode": "absolute", "steps": values}


def limit(value):
    """A dashed line where a promise ends."""
    return steps("transparent", (value, BAD))


def at_most(value, attention=None):
    """Good below, red from `value` on."""
    middle = [(attention, ATTENTION)] if attention is not None else []
    return steps(GOOD, *middle, (value, BAD))


def at_least(value, attention=None):
    """Red below `value`, good above."""
    middle = [(value, ATTENTION), (attention, GOOD)] if attention is not None else [(value, GOOD)]
    return steps(BAD, *middle)


PLAIN = steps(NEUTRAL)


def by_name(name, **properties):
    """What a series or a column of that name looks like."""
    return override({"id": "byName", "options": name}, properties)


def by_regexp(pattern, **properties):
    return override({"id": "byRegexp", "options": pattern}, properties)


def override(matcher, properties):
    names = {name: name.replace("__", ".") for name in properties}
    return {
        "matcher": matcher,
        "properties": [{"id": names[name], "value": value} for name, value in properties.items()],
    }


def fixed(colour):
    return {"fixedColor": colour, "mode": "fixed"}


def colours(names):
    """Series with a meaning have its colour."""
    return [by_name(name, color=fixed(colour)) for name, colour in names.items()]


def as_limit(name):
    """A series that is a limit is drawn as one."""
    return by_name(
        name,
        color=fixed(BAD),
        custom__fillOpacity=0,
        custom__lineStyle={"dash": [8, 6], "fill": "dash"},
        custom__lineWidth=1,
    )


def percentiles(metric, by="", matchers="", legend="", quantiles=(0.5, 0.95, 0.99)):
    """The percentiles of a histogram, each a query."""
    grouping = ", ".join(["le", *([by] if by else [])])
    return [
        query(
            f"""histogram_quantile({quantile}, sum by ({grouping}) (
                rate({metric}_bucket{{@{matchers}}}[$__rate_interval])))""",
            f"{legend}p{quantile * 100:g}",
        )
        for quantile in quantiles
    ]


PERCENTILE_COLOURS = colours({"p50": P50, "p95": P95, "p99": P99})


# Links. What Grafana fills in stays as it is, everything else is encoded.
def encoded(text):
    parts = re.split(r"(\$\{[^}]*\})", text)
    return "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)


def explore(kind, uid, query_type):
    """A link into Explore with one query, over the time range of the dashboard."""
    source = {"type": kind, "uid": uid}
    pane = {
        "datasource": uid,
        "queries": [{"datasource": source, "refId": "A"} | query_type],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    return f"/explore?schemaVersion=1&orgId=1&panes={encoded(json.dumps({'a': pane}))}"


def traces(condition, kind="server"):
    """Traces in Tempo with a span of that kind that meets a condition of TraceQL."""
    text = f'{{ resource.service.name = "switchboard" && kind = {kind} && {condition} }}'
    return explore("tempo", "${tempo}", {"limit": 20, "query": text, "queryType": "traceql", "tableType": "traces"})


def logs(pipeline):
    """Log lines in Loki."""
    text = f'{{service_name="switchboard"}} | json | {pipeline}'
    return explore("loki", "${loki}", {"expr": text, "queryType": "range"})


def link(title, url):
    return {"targetBlank": True, "title": title, "url": url}


def runbook(name):
    return {
        "asDropdown": False,
        "icon": "doc",
        "includeVars": False,
        "keepTime": False,
        "tags": [],
        "targetBlank": True,
        "title": f"Runbook: {name}",
        "tooltip": f"What to do when {name} fires",
        "type": "link",
        "url": f"${{docs:raw}}/runbooks/{name}.md",
    }


def panel(
    kind,
    title,
    description,
    targets,
    *,
    unit,
    w,
    h,
    options,
    custom=None,
    thresholds=PLAIN,
    color=None,
    overrides=(),
    decimals=None,
    low=None,
    high=None,
    none=None,
    mappings=(),
    links=(),
    runbooks=(),
    every=None,
    transformations=(),
    unscoped=None,
):
    """A panel. `unscoped` is the reason why its queries do not select by job and instance."""
    targets = [target | {"refId": chr(ord("A") + n)} for n, target in enumerate(targets)]
    defaults = {
        "color": color or {"mode": "thresholds"},
        "custom": custom or {},
        "mappings": list(mappings),
        "thresholds": thresholds,
        "unit": unit,
    }
    for name, value in {"decimals": decimals, "min": low, "max": high, "noValue": none}.items():
        if value is not None:
            defaults[name] = value
    if links:
        defaults["links"] = list(links)
    made = {
        "datasource": PROMETHEUS,
        "description": re.sub(r"\s*\n\s*", " ", description.strip()),
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "gridPos": {"h": h, "w": w},
        "options": options,
        "pluginVersion": PLUGIN_VERSION,
        "targets": targets,
        "title": title,
        "type": kind,
    }
    if runbooks:
        made["links"] = [runbook(name) for name in runbooks]
    if transformations:
        made["transformations"] = list(transformations)
    if every:
        made["interval"] = every
    if unscoped:
        made["unscoped"] = unscoped
    return made


LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def stat(
    title,
    description,
    expr,
    *,
    unit,
    w=4,
    h=4,
    legend="",
    graph=True,
    over_range=False,
    thresholds=PLAIN,
    text="auto",
    none="–",
    mappings=(),
    **more,
):
    """One figure; with `over_range` of the whole time range, else the latest. `none` is said where there is nothing."""
    # A share of nothing is not a number, and neither good nor bad.
    nothing = {"options": {"match": "nan", "result": {"color": "text", "index": 9, "text": none}}, "type": "special"}
    options = {
        "colorMode": "value",
        "graphMode": "none" if over_range or not graph else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": LAST,
        "showPercentChange": False,
        "textMode": text,
        "wideLayout": True,
    }
    targets = expr if isinstance(expr, list) else [(now if over_range else query)(expr, legend or title)]
    return panel(
        "stat",
        title,
        description,
        targets,
        unit=unit,
        w=w,
        h=h,
        options=options,
        thresholds=thresholds,
        none=none,
        mappings=[*mappings, nothing],
        **more,
    )


def lines(
    title,
    description,
    targets,
    *,
    unit,
    w=8,
    h=8,
    thresholds=None,
    stacked=False,
    bars=False,
    right=False,
    calcs=("lastNotNull", "max"),
    label="",
    log=False,
    zeros=False,
    fill=10,
    color=None,
    **more,
):
    """Series over time, the legend a table with the latest and the highest value."""
    custom = {
        "axisBorderShow": False,
        "axisCenteredZero": False,
        "axisColorMode": "text",
        "axisLabel": label,
        "axisPlacement": "auto",
        "barAlignment": 0,
        "barWidthFactor": 0.6,
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 40 if stacked else fill,
        "gradientMode": "none",
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "insertNulls": False,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 4,
        "scaleDistribution": {"log": 10, "type": "log"} if log else {"type": "linear"},
        "showPoints": "never" if bars else "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
    }
    options = {
        "legend": {
            "calcs": list(calcs),
            "displayMode": "table",
            "placement": "right" if right else "bottom",
            "showLegend": True,
        },
        "tooltip": {"hideZeros": not zeros, "mode": "multi", "sort": "desc"},
    }
    more.setdefault("low", None if log else 0)
    return panel(
        "timeseries",
        title,
        description,
        targets,
        unit=unit,
        w=w,
        h=h,
        options=options,
        custom=custom,
        thresholds=thresholds or PLAIN,
        color=color or {"mode": "palette-classic-by-name"},
        **more,
    )


def bars(title, description, expr, legend, *, unit, w=8, h=8, thresholds=PLAIN, names="left", **more):
    """A bar for each series, the longest first when the query sorts."""
    options = {
        "displayMode": "basic",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "maxVizHeight": 300,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": names,
        "orientation": "horizontal",
        "reduceOptions": LAST,
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    return panel(
        "bargauge",
        title,
        description,
        [now(expr, legend)],
        unit=unit,
        w=w,
        h=h,
        options=options,
        thresholds=thresholds,
        **{"low": 0} | more,
    )


def heat(title, description, expr, *, unit, w=12, h=8, **more):
    """How a histogram's buckets fill up over time."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "exponent": 0.5,
            "fill": NEUTRAL,
            "mode": "scheme",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Blues",
            "steps": 32,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    custom = {
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "scaleDistribution": {"type": "linear"},
    }
    return panel(
        "heatmap",
        title,
        description,
        [query(expr, "{{le}}", format="heatmap")],
        unit="short",
        w=w,
        h=h,
        options=options,
        custom=custom,
        **more,
    )


def states(title, description, targets, *, unit="short", w=12, h=8, mappings=(), **more):
    """What was the case when."""
    options = {
        "alignValue": "left",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "never",
        "tooltip": {"hideZeros": False, "mode": "single", "sort": "none"},
    }
    custom = {
        "axisPlacement": "auto",
        "fillOpacity": 70,
        "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        "lineWidth": 0,
    }
    return panel(
        "state-timeline",
        title,
        description,
        targets,
        unit=unit,
        w=w,
        h=h,
        options=options,
        custom=custom,
        mappings=mappings,
        **more,
    )


def table(title, description, columns, *, key, w=24, h=9, sort=None, unit="short", key_links=(), hide=(), **more):
    """A row for each `key` (label → heading); `columns` are (heading, query or None, properties)."""
    targets = [cells(expr) for _, expr, _ in columns if expr]
    one = len(targets) == 1
    renames = dict(key)
    order = list(key)
    for n, heading in enumerate(heading for heading, expr, _ in columns if expr):
        field = "Value" if one else f"Value #{chr(ord('A') + n)}"
        renames[field] = heading
        order.append(field)
    overrides = []
    for heading, _, properties in columns:
        if properties:
            overrides.append(by_name(heading, **properties))
    for heading in key.values():
        if key_links and heading == next(iter(key.values())):
            overrides.append(by_name(heading, links=list(key_links), custom__minWidth=220))
    transformations = ([] if one else [{"id": "merge", "options": {}}]) + [
        {
            "id": "organize",
            "options": {
                "excludeByName": {name: True for name in ("Time", *hide)},
                "indexByName": {name: n for n, name in enumerate(order)},
                "renameByName": renames,
            },
        }
    ]
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    if sort:
        options["sortBy"] = [{"desc": True, "displayName": sort}]
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False, "inspect": False}
    return panel(
        "table",
        title,
        description,
        targets,
        unit=unit,
        w=w,
        h=h,
        options=options,
        custom=custom,
        overrides=overrides,
        transformations=transformations,
        **more,
    )


TEXT = {"type": "color-text"}


def column(unit, thresholds=None, **more):
    """A column with a unit, coloured where it has thresholds."""
    properties = {"unit": unit, **more}
    if thresholds:
        properties |= {"custom__cellOptions": TEXT, "thresholds": thresholds}
    return properties


UP = [
    {
        "options": {"0": {"color": BAD, "index": 0, "text": "down"}, "1": {"color": GOOD, "index": 1, "text": "up"}},
        "type": "value",
    }
]


def select(name, label, expr, **more):
    """A variable with several choices; all of them unless some are chosen."""
    return {
        "allValue": ".+",
        "current": {"selected": True, "text": "All", "value": "$__all"},
        "datasource": PROMETHEUS,
        "hide": 0,
        "includeAll": True,
        "label": label,
        "multi": True,
        "name": name,
        "options": [],
        "query": {"qryType": 1, "query": expr, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
        "type": "query",
    } | more


def constant(name, label, value):
    return {
        "current": {"selected": False, "text": value, "value": value},
        "hide": 2,
        "label": label,
        "name": name,
        "query": value,
        "skipUrlSync": True,
        "type": "constant",
    }


def variables(docs, source, route):
    """`source` is the metric whose jobs and instances can be selected."""
    chosen = [
        {
            "current": {"selected": True, "text": "Prometheus", "value": "prometheus"},
            "hide": 0,
            "includeAll": False,
            "label": "Data source",
            "multi": False,
            "name": "datasource",
            "options": [],
            "query": "prometheus",
            "refresh": 1,
            "regex": "",
            "skipUrlSync": False,
            "type": "datasource",
        },
        select("job", "Job", f"label_values({source}, job)"),
        select("instance", "Instance", f'label_values({source}{{job=~"$job"}}, instance)'),
    ]
    if route:
        count = 'http_server_request_duration_seconds_count{job=~"$job", instance=~"$instance"}'
        chosen.append(select("route", "Route", f"label_values({count}, http_route)"))
    return [
        *chosen,
        constant("docs", "Where the runbooks are", docs),
        constant("tempo", "Traces", "tempo"),
        constant("loki", "Logs", "loki"),
    ]


def annotation(name, colour, expr, title, text, tags, step="60s", enable=True):
    return {
        "datasource": PROMETHEUS,
        "enable": enable,
        "hide": False,
        "iconColor": colour,
        "name": name,
        "tagKeys": tags,
        "target": {"expr": expand(expr), "interval": step, "refId": "Anno"},
        "textFormat": text,
        "titleFormat": title,
    }


# A version that was not there in the quarter of an hour before: one that comes back after an outage was not deployed,
# one that is gone back to was. No job is asked for: what was deployed matters on every dashboard.
DEPLOYED = """max by (version, revision) (build_info)
    unless max by (version, revision) (last_over_time(build_info[15m] offset $__interval))"""


def annotations():
    return [
        {
            "builtIn": 1,
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "enable": True,
            "hide": True,
            "iconColor": "rgba(0, 211, 255, 1)",
            "name": "Annotations & Alerts",
            "type": "dashboard",
        },
        annotation("Deploys", NEUTRAL, DEPLOYED, "Version {{version}}", "Revision {{revision}}", "version,revision"),
        annotation(
            "Pages",
            BAD,
            'ALERTS{alertstate="firing", severity="page"}',
            "{{alertname}}",
            "Owner: {{owner}}",
            "alertname,slo",
        ),
        annotation("k6 runs", CLIENT, "max by (testid) (k6_vus) > 0", "Load test {{testid}}", "", "testid"),
    ]


def dashboard_links():
    shared = {"icon": "external link", "includeVars": False, "keepTime": True, "targetBlank": False}
    return [
        shared
        | {
            "asDropdown": True,
            "includeVars": True,
            "tags": ["switchboard"],
            "title": "Switchboard",
            "tooltip": "The other dashboards, at the same time",
            "type": "dashboards",
            "url": "",
        },
        shared
        | {
            "asDropdown": False,
            "icon": "doc",
            "keepTime": False,
            "tags": [],
            "targetBlank": True,
            "title": "Runbooks",
            "tooltip": "By symptom",
            "type": "link",
            "url": "${docs:raw}/runbooks/README.md",
        },
    ]


def dashboard(name, title, description, rows, *, docs, since="now-1h", refresh="30s", source="build_info", route=True):
    """`rows` are (question, [panel…]); panels flow from left to right, and every row of them is full."""
    placed, y, ids = [], 0, iter(range(1, 1000))
    for question, members in rows:
        placed.append(
            {
                "collapsed": False,
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
                "id": next(ids),
                "panels": [],
                "title": question,
                "type": "row",
            }
        )
        y += 1
        x, height = 0, 0
        for member in members:
            size = member["gridPos"]
            if x + size["w"] > COLUMNS:
                x, y = 0, y + height
            height = size["h"]
            placed.append(member | {"gridPos": {"x": x, "y": y, **size}, "id": next(ids)})
            x += size["w"]
        y += height
    return {
        "annotations": {"list": annotations()},
        "description": re.sub(r"\s*\n\s*", " ", description.strip()),
        "editable": False,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "links": dashboard_links(),
        "panels": placed,
        "preload": False,
        "refresh": refresh,
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["switchboard"],
        "templating": {"list": variables(docs, source, route)},
        "time": {"from": since, "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": title,
        "uid": f"switchboard-{name}",
        "weekStart": "",
    }
