"""What the dashboards show but do not decide: the promises of prometheus/slo.json, and where the documentation is."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def matcher(operator, routes):
    """A matcher of routes, which are no regular expressions themselves."""
    pattern = "|".join(re.sub(r"([.{}*+?()|\[\]^$])", r"\\\\\1", route) for route in routes)
    return f'http_route{operator}"{pattern}"'


@dataclass(frozen=True)
class Window:
    """A pair of windows and the burn rate that raises its alert."""

    name: str
    severity: str
    long: str
    short: str
    factor: float


@dataclass(frozen=True)
class Slo:
    """One promise. `routes` is the matcher of the requests that it is about."""

    name: str
    objective: float
    threshold: float
    routes: str
    days: int

    @property
    def budget(self):
        return round(1 - self.objective, 9)

    @property
    def promise(self):
        """What the budget is of all the time, as people say it."""
        minutes, seconds = divmod(round(self.budget * self.days * 86400), 60)
        hours, minutes = divmod(minutes, 60)
        parts = [f"{value} {unit}" for value, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if value]
        return " ".join(parts) + " if nothing went right meanwhile"


class Facts:
    def __init__(self):
        stated = json.loads((ROOT / "prometheus" / "slo.json").read_text())
        unasked = stated["not_requests"]
        self.windows = [
            Window(pair["name"], pair["severity"], pair["long"], pair["short"], pair["factor"])
            for pair in stated["burn_windows"]
        ]
        self.slos = []
        for slo in stated["slos"]:
            if "routes" in slo:
                routes = matcher("=~", slo["routes"])
            else:
                routes = matcher("!~", [*unasked, *slo.get("exclude_routes", [])])
            objective = round(slo["objective"] / 100, 9)
            self.slos.append(
                Slo(slo["name"], objective, slo.get("threshold_seconds", 0), routes, stated["window_days"])
            )
        configured = (ROOT / "prometheus" / "prometheus.yml").read_text()
        found = re.search(r"^\s+docs_url:\s*['\"]?([^'\"\s]+)", configured, re.MULTILINE)
        if not found:
            raise SystemExit("dashboards: prometheus/prometheus.yml names no external label docs_url")
        self.docs = found[1]

    def slo(self, name):
        return next(slo for slo in self.slos if slo.name == name)

    def window(self, name):
        return next(window for window in self.windows if window.name == name)

    def alert(self, name, which=0):
        """The limit of an alert: the number that its expression compares with, unless it is a later one."""
        for rules in sorted((ROOT / "prometheus" / "rules").glob("*.yml")):
            found = re.search(
                rf"- alert: {name}\n(?:(?!- alert:).)*?expr:(.*?)\n\s*(?:for|labels|annotations):",
                rules.read_text(),
                re.DOTALL,
            )
            if found:
                compared = re.findall(r"(?:>=|<=|>|<)\s*([0-9.]+)", found[1])
                return float(compared[which])
        raise SystemExit(f"dashboards: there is no rule of the alert {name}")
