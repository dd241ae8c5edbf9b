//! Writes prometheus/rules/slo.yml from prometheus/slo.json.

use std::fmt::Write as _;

use crate::{
    slo::{Slo, Statement, Window, rounded},
    tree::{self, Tree},
};

pub fn current(tree: &Tree) -> Vec<String> {
    match Statement::read(tree) {
        Ok(statement) => tree::generated(tree, "prometheus/rules/slo.yml", &written(&statement)),
        Err(error) => vec![error],
    }
}

const HEAD: &str = "\
# Generated from prometheus/slo.json by `SWITCHBOARD_WRITE=1 cargo test --test artifacts`; do not edit.
#
# instance:slo_events:total and instance:slo_bad_events:total add up the counters of one instance, which all begin anew
# at the same moment, its restart: so the sum is a counter too, rate() sees its resets, and three days of it are two
# series and not a thousand. A series that appears with its first error is seen as well, which rate() of the series
# itself would not.
#
# Names and labels of the slo: records are those of Sloth. No traffic yields no sample.
groups:
";

const PERIOD: &str = "\
  # A month of samples is much to read every 15 s for something that changes slowly. So it is a group of its own, for
  # which what the other recorded a moment ago is as good; pint would have both in one.
  - name: slo-period
    interval: 1m
    rules:
";

/// Windows whose ratio is recorded, besides those that alerts need.
const RECORDED: &[&str] = &["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

pub fn written(statement: &Statement) -> String {
    let mut out = HEAD.to_owned();
    // One group: rules of a group are evaluated in their order, so that each sees what those before it recorded.
    let _ = writeln!(out, "  - name: slo\n    rules:");
    for slo in &statement.slos {
        objective(&mut out, statement, slo);
    }
    out.push_str(PERIOD);
    for slo in &statement.slos {
        period(&mut out, statement, slo);
    }
    out.trim_end().to_owned() + "\n"
}

struct Writer<'a> {
    out: &'a mut String,
    service: &'a str,
    slo: &'a str,
}

impl Writer<'_> {
    /// For the next rule, which reads what another group records.
    fn depends_on_other_groups(&mut self) {
        self.out.push_str("      # pint disable rule/dependency\n");
    }

    fn record(&mut self, name: &str, expr: &str, labels: &[(&str, &str)]) {
        let _ = write!(self.out, "      - record: {name}\n        expr: |\n{}\n", indented(expr, 10));
        let mut all = vec![("sloth_service", self.service), ("sloth_slo", self.slo)];
        all.extend(labels);
        let all: Vec<String> = all.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let _ = writeln!(self.out, "        labels: {{ {} }}", all.join(", "));
    }
}

fn indented(text: &str, by: usize) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("{:by$}{line}", "")).collect();
    lines.join("\n")
}

/// A matcher of any of these routes, or of none of them. Braces that are no repetition stand for themselves.
fn route_matcher(is: bool, routes: &[String]) -> String {
    match (routes, is) {
        ([route], true) => format!(r#"http_route="{route}""#),
        ([route], false) => format!(r#"http_route!="{route}""#),
        _ => {
            let routes: Vec<String> =
                routes.iter().map(|route| route.replace('.', "[.]").replace('*', "[*]")).collect();
            format!(r#"http_route{}~"{}""#, if is { "=" } else { "!" }, routes.join("|"))
        }
    }
}

/// The selector of an objective's requests, in lines that are not too long.
fn requests(statement: &Statement, slo: &Slo, suffix: &str, more: &[&str]) -> String {
    let mut matchers = vec![r#"job="switchboard""#.to_owned()];
    if slo.routes.is_empty() {
        // Several matchers on one label hold together; one expression of all routes would be a line nobody reads.
        matchers.push(route_matcher(false, &statement.not_requests));
        for routes in slo.exclude_routes.chunks(2) {
            matchers.push(route_matcher(false, routes));
        }
    } else {
        matchers.push(route_matcher(true, &slo.routes));
    }
    matchers.extend(more.iter().map(|matcher| (*matcher).to_owned()));
    format!("http_server_request_duration_seconds_{suffix}{{\n  {}\n}}", matchers.join(",\n  "))
}

/// Events of one window: how many, and how many were bad.
struct Events {
    total: String,
    bad: String,
}

/// Over a window, as an increase or a rate.
#[expect(clippy::single_match_else, reason = "probes, or requests")]
fn events(slo: &Slo, window: &str, function: &str) -> Events {
    match &slo.probe_job {
        Some(job) => {
            let probes = format!(r#"probe_success{{job="{job}"}}[{window}]"#);
            Events {
                total: format!("sum(count_over_time({probes}))"),
                bad: format!("sum(\n  count_over_time({probes})\n  - sum_over_time({probes})\n)"),
            }
        }
        None => {
            let sum = |metric: &str| {
                format!(
                    "sum by (sloth_service, sloth_slo) ({function}(instance:{metric}:total{{sloth_slo=\"{of}\"}}[{window}]))",
                    of = slo.name
                )
            };
            Events { total: sum("slo_events"), bad: sum("slo_bad_events") }
        }
    }
}

fn objective(out: &mut String, statement: &Statement, slo: &Slo) {
    let _ = writeln!(out, "      # {}", slo.description.replace("; ", ";\n      # "));
    let mut writer = Writer { out, service: &statement.service, slo: &slo.name };
    if slo.probe_job.is_none() {
        instances(&mut writer, statement, slo);
    }

    // Events a second. Probes are gauges, so theirs are counted.
    let five = events(slo, "5m", "rate");
    let per_second = if slo.probe_job.is_some() { " / 300" } else { "" };
    writer.record("slo:sli_total:rate5m", &format!("{}{per_second}", five.total), &[]);
    writer.record("slo:sli_bad:rate5m", &format!("{}{per_second}", five.bad), &[]);
    for window in &statement.burn_windows {
        let expr = events(slo, &window.long, "increase").bad;
        writer.record(&format!("slo:sli_bad:increase{}", window.long), &expr, &[]);
    }
    for window in RECORDED {
        let Events { total, bad } = events(slo, window, "rate");
        let name = format!("slo:sli_error:ratio_rate{window}");
        writer.record(&name, &format!("{bad}\n  / ({total} > 0)"), &[("sloth_window", window)]);
    }

    let of = format!("{{sloth_slo=\"{}\"}}", slo.name);
    let on = "on (sloth_service, sloth_slo)";
    let objective = format!("\"{}\"", slo.objective);
    writer.record("sloth_slo_info", "vector(1)", &[("sloth_objective", &objective)]);
    writer.record("slo:objective:ratio", &format!("vector({})", slo.share()), &[]);
    writer.record("slo:error_budget:ratio", &format!("vector({})", slo.budget()), &[]);
    writer.record("slo:time_period:days", &format!("vector({})", statement.window_days), &[]);
    let slowest = statement.burn_windows.last().and_then(|window| slo.min_bad.get(&window.name));
    writer.record("slo:min_bad:count", &format!("vector({})", slowest.copied().unwrap_or_default()), &[]);
    let burn = format!("slo:sli_error:ratio_rate5m{of}\n  / {on} slo:error_budget:ratio{of}");
    writer.record("slo:current_burn_rate:ratio", &burn, &[]);

    for severity in ["page", "ticket"] {
        alert(writer.out, statement, slo, severity);
    }
}

/// The counters of each instance, added up.
#[expect(clippy::single_match_else, reason = "with a threshold, or without")]
fn instances(writer: &mut Writer<'_>, statement: &Statement, slo: &Slo) {
    let sum = |selector: &str| format!("sum by (instance) ({selector})");
    let (total, bad) = match slo.threshold_seconds {
        Some(threshold) => {
            let answered = r#"http_response_status_code!~"5..""#;
            let within = format!("le=\"{threshold}\"");
            let all = sum(&requests(statement, slo, "count", &[answered]));
            let good = sum(&requests(statement, slo, "bucket", &[answered, &within]));
            (all.clone(), format!("{all}\n-\n{good}"))
        }
        None => {
            let all = sum(&requests(statement, slo, "count", &[]));
            let failed = sum(&requests(statement, slo, "count", &[r#"http_response_status_code=~"5..""#]));
            (all.clone(), format!("{failed}\nor\n0 * {all}"))
        }
    };
    writer.record("instance:slo_events:total", &total, &[]);
    writer.record("instance:slo_bad_events:total", &bad, &[]);
}

fn period(out: &mut String, statement: &Statement, slo: &Slo) {
    let days = format!("{}d", statement.window_days);
    let mut writer = Writer { out, service: &statement.service, slo: &slo.name };
    let of = format!("{{sloth_slo=\"{}\"}}", slo.name);
    let on = "on (sloth_service, sloth_slo)";
    writer.depends_on_other_groups();
    writer.record(
        &format!("slo:sli_error:ratio_rate{days}"),
        &format!(
            "sum_over_time(slo:sli_bad:rate5m{of}[{days}])\n  / (sum_over_time(slo:sli_total:rate5m{of}[{days}]) > 0)"
        ),
        &[("sloth_window", &days)],
    );
    writer.depends_on_other_groups();
    writer.record(&format!("slo:sli_bad:increase{days}"), &events(slo, &days, "increase").bad, &[]);
    // Days since the first sample, a quarter of an hour short at most. What was before is not known, and counts as
    // good: five minutes of the first hour are no more of a month than any other five.
    writer.depends_on_other_groups();
    writer.record(
        "slo:time_period_known:days",
        &format!("(time() - min_over_time(timestamp(slo:sli_total:rate5m{of})[{days}:15m])) / 86400"),
        &[],
    );
    writer.record(
        "slo:period_burn_rate:ratio",
        &format!(
            "slo:sli_error:ratio_rate{days}{of}\n  / {on} slo:error_budget:ratio{of}\n  \
             * {on} slo:time_period_known:days{of}\n  / {on} slo:time_period:days{of}"
        ),
        &[],
    );
    writer.record("slo:period_error_budget_remaining:ratio", &format!("1 - slo:period_burn_rate:ratio{of}"), &[]);
}

/// What the alerts of an objective say.
struct Words {
    summary: &'static str,
    /// After the share that was bad.
    bad: &'static str,
    action: &'static str,
}

fn words(slo: &Slo) -> Words {
    match slo.name.as_str() {
        "availability" => Words {
            summary: "Switchboard is not reachable for clients",
            bad: "of the probes of readiness failed",
            action: "See whether instances are up and PostgreSQL answers; then the balancer, then the last release.",
        },
        "latency" => Words {
            summary: "Answers are slow",
            bad: "of the answers took longer than 0.1 s",
            action: "Find the slow route on the dashboard and a trace of it; if it began with a release, take that back.",
        },
        "latency-login" => Words {
            summary: "Signing in is slow",
            bad: "of the answers to sign-ins took longer than 0.5 s",
            action: "See whether the machine is short of CPU or sign-ins come in masses; hashing needs whole cores.",
        },
        _ => Words {
            summary: "Requests fail",
            bad: "of the requests were answered 5xx",
            action: "Find the route and error_code that fail in the log; see whether PostgreSQL answers.",
        },
    }
}

fn alert(out: &mut String, statement: &Statement, slo: &Slo, severity: &str) {
    let windows: Vec<&Window> = statement.burn_windows.iter().filter(|window| window.severity == severity).collect();
    let name = format!("{}BudgetBurn{}", slo.alert, if severity == "page" { "Page" } else { "Ticket" });
    let of = format!("{{sloth_slo=\"{}\"}}", slo.name);
    let burns: Vec<String> = windows
        .iter()
        .map(|window| {
            let limit = rounded(window.factor * slo.budget());
            format!(
                "max without (sloth_window) (\n  \
                   slo:sli_error:ratio_rate{long}{of} > {limit}\n  \
                   and ignoring (sloth_window)\n  \
                   slo:sli_error:ratio_rate{short}{of} > {limit}\n\
                 )\n\
                 and\nslo:sli_bad:increase{long}{of} >= {floor}",
                long = window.long,
                short = window.short,
                floor = slo.min_bad.get(&window.name).copied().unwrap_or_default(),
            )
        })
        .collect();
    let spans: Vec<String> = windows
        .iter()
        .map(|window| format!("{} times as fast over {} and {}", window.factor, window.long, window.short))
        .collect();
    let longs: Vec<&str> = windows.iter().map(|window| window.long.as_str()).collect();
    let Words { summary, bad, action } = words(slo);
    let keep = match severity {
        "page" => format!("        keep_firing_for: {}\n", statement.page_keep_firing_for),
        _ => String::new(),
    };
    let of = format!("{{sloth_slo='{}'}}", slo.name);
    let month = match slo.probe_job {
        Some(_) => format!(" ({})", slo.budget_time(statement.window_days)),
        None => String::new(),
    };
    let _ = write!(
        out,
        "      # The budget burns {spans}.\n      \
           - alert: {name}\n        \
             expr: |\n{expr}\n        \
             for: {hold}\n{keep}        \
             labels: {{ severity: {severity}, service: {service}, slo: {slo}, owner: platform }}\n        \
             annotations:\n          \
               summary: {summary}\n          \
               description: >-\n            \
                 {{{{ $value | humanizePercentage }}}} {bad} over {longs};\n            \
                 at {objective} % it may be {allowed} %.\n            \
                 The budget burns {{{{ with query \"slo:current_burn_rate:ratio{of}\" -}}}}\n            \
                 {{{{ . | first | value | printf \"%.1f\" }}}}{{{{ else }}}}?{{{{ end }}}} times as fast as it may.\n          \
               budget: >-\n            \
                 {{{{ with query \"clamp_min(slo:period_error_budget_remaining:ratio{of}, 0)\" -}}}}\n            \
                 {{{{ . | first | value | humanizePercentage }}}}{{{{ else }}}}An unknown part{{{{ end }}}}\n            \
                 of the {days} days' budget{month} is left\n            \
                 {{{{- with query \"slo:time_period_known:days{of} < {nearly}\" }}}} (Prometheus knows\n            \
                 {{{{ . | first | value | printf \"%.1f\" }}}} of the days; the others count as good){{{{ end }}}}.\n            \
                 {{{{- with query \"slo:period_error_budget_remaining:ratio{of} * {period}\n            \
                 / slo:current_burn_rate:ratio{of} > 0\" }}}}\n            \
                 At this pace it ends in {{{{ . | first | value | humanizeDuration }}}}.{{{{ end }}}}\n          \
               action: {action}\n          \
               runbook_url: \"{{{{ $externalLabels.docs_url }}}}/runbooks/{name}.md\"\n          \
               dashboard_url: \"{{{{ $externalLabels.grafana_url }}}}/d/switchboard-slo\"\n\n",
        spans = spans.join(", or "),
        expr = indented(&burns.join("\nor\n"), 10),
        hold = statement.r#for,
        service = statement.service,
        slo = slo.name,
        longs = longs.join(" or "),
        objective = slo.objective,
        allowed = rounded(100.0 - slo.objective),
        days = statement.window_days,
        period = statement.window_days * 86_400,
        // A gap of hours is not worth a sentence.
        nearly = f64::from(statement.window_days) - 0.5,
    );
}
