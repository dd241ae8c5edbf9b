"""Checks dashboards against the types that Grafana publishes for its release (npm: @grafana/schema), by its compiler.

The types leave options and custom settings of a panel open; those are checked against the types of its kind of panel. A
name that does not exist is an error, as is a value of another type.
"""

import json
import re
import shutil
import subprocess

KINDS = {
    "bargauge": "bargauge",
    "heatmap": "heatmap",
    "stat": "stat",
    "state-timeline": "statetimeline",
    "table": "table",
    "timeseries": "timeseries",
}
# Kinds without settings of their own for a field.
PLAIN_KINDS = {"bargauge", "stat"}

HEAD = """import type {
  AnnotationQuery, Dashboard, FieldConfig, Panel, RowPanel,
} from './types/raw/dashboard/x/types.gen';
import type { DataSourceRef } from './types/common/common.gen';

// What Prometheus' data source adds; it publishes its types in a package that needs all of Grafana's user interface.
interface Query {
  datasource: DataSourceRef; refId: string; expr: string; editorMode?: 'code' | 'builder';
  format?: 'time_series' | 'table' | 'heatmap'; instant?: boolean; range?: boolean; interval?: string;
  legendFormat?: string;
}
interface PrometheusAnnotation extends Omit<AnnotationQuery, 'target'> {
  target?: { expr: string; interval: string; refId: string };
  tagKeys?: string; textFormat?: string; titleFormat?: string;
}
interface DataLink { targetBlank: boolean; title: string; url: string }
"""


def literal(value):
    return json.dumps(value, ensure_ascii=False)


def types(package, target):
    """The declarations, with each enum as the union of its values: JSON has no enums."""
    shutil.rmtree(target, ignore_errors=True)
    for source in (package / "dist" / "types").rglob("*.d.ts"):
        text = source.read_text()

        def union(match):
            members = re.findall(r"(\w+) = ([^,\n]+)", re.sub(r"/\*.*?\*/", "", match[2], flags=re.DOTALL))
            values = " | ".join(value.strip() for _, value in members)
            inner = "".join(f" type {name} = {value.strip()};" for name, value in members)
            return f"export type {match[1]} = {values};\nexport declare namespace {match[1]} {{{inner} }}"

        text = re.sub(r"export declare enum (\w+) \{(.*?)\n\}", union, text, flags=re.DOTALL)
        # The package names itself in the types of the panels.
        depth = len(source.relative_to(package / "dist" / "types").parts) - 1
        text = text.replace("'@grafana/schema'", f"'{'../' * depth or './'}index'")
        out = target / source.relative_to(package / "dist" / "types")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)


def statements(name, made):
    """One constant for each part of a dashboard that has a type."""
    count = iter(range(100000))

    def constant(kind, value, about):
        return f"// {name}: {about}\nconst _{re.sub(r'[^a-z]', '_', name)}_{next(count)}: {kind} = {literal(value)};\n"

    rest = made | {"panels": [], "annotations": {"list": []}}
    out = [constant("Dashboard", rest, "dashboard")]
    for one in made["annotations"]["list"]:
        out.append(constant("PrometheusAnnotation", one, f"annotation {one['name']}"))
    for panel in made["panels"]:
        about = f"panel {panel['title']}"
        if panel["type"] == "row":
            out.append(constant("RowPanel", panel, about))
            continue
        kind = KINDS[panel["type"]]
        module = f"import('./types/raw/composable/{kind}/panelcfg/x/types.gen')"
        field = "Record<string, never>" if panel["type"] in PLAIN_KINDS else f"Partial<{module}.FieldConfig>"
        out.append(constant("Panel", panel, about))
        out.append(constant(f"{module}.Options", panel["options"], f"{about}, options"))
        defaults = panel["fieldConfig"]["defaults"]
        out.append(constant(field, defaults["custom"], f"{about}, custom"))
        for one in defaults.get("links", []):
            out.append(constant("DataLink", one, f"{about}, link"))
        for target in panel["targets"]:
            out.append(constant("Query", target, f"{about}, query"))
        for override in panel["fieldConfig"]["overrides"]:
            for setting in override["properties"]:
                key = setting["id"]
                if key.startswith("custom."):
                    kind_of = f"Pick<{module}.FieldConfig, {literal(key.removeprefix('custom.'))}>"
                    value = {key.removeprefix("custom."): setting["value"]}
                else:
                    kind_of, value = f"Pick<FieldConfig, {literal(key)}>", {key: setting["value"]}
                out.append(constant(kind_of, value, f"{about}, override of {override['matcher']['options']}"))
    return "".join(out)


def check(dashboards, node):
    """The compiler's complaints about `dashboards` (name → JSON); `node` has the packages."""
    work = node / "check"
    types(node / "node_modules" / "@grafana" / "schema", work / "types")
    (work / "dashboards.ts").write_text(HEAD + "".join(statements(name, made) for name, made in dashboards.items()))
    compiler = [
        "node",
        node / "node_modules" / "typescript" / "bin" / "tsc",
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "es2022",
        "--moduleResolution",
        "bundler",
        "dashboards.ts",
    ]
    done = subprocess.run(compiler, cwd=work, capture_output=True, text=True, check=False)
    lines = (work / "dashboards.ts").read_text().splitlines()
    found = []
    for complaint in done.stdout.splitlines():
        match = re.match(r"dashboards\.ts\((\d+),\d+\): (.*)", complaint)
        found.append(f"{lines[int(match[1]) - 2].removeprefix('// ')}: {match[2]}" if match else complaint)
    return found
