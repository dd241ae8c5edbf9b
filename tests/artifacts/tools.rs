//! What promtool and amtool say of what ships.

use std::{
    fs,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    alerts::EXPECTED,
    checks::none,
    rules,
    scratch::Scratch,
    tree::{Tree, root},
};

/// Runs a tool in the repository's root; what it printed if it failed.
fn run(tool: &str, package: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("{tool} (Debian's package {package}) must be installed: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("{tool} {}:\n{said}", arguments.join(" "))) }
}

fn promtool(arguments: &[&str]) -> Result<String, String> {
    run("promtool", "prometheus", arguments)
}

fn amtool(arguments: &[&str]) -> Result<String, String> {
    run("amtool", "prometheus-alertmanager", arguments)
}

#[test]
fn promtool_accepts_the_configuration() {
    promtool(&["check", "config", "prometheus/prometheus.yml"]).unwrap();
}

/// promtool evaluates one file on one core.
#[test]
fn promtool_cases_pass() {
    let tree = Tree::load();
    let files: Vec<&str> = tree.under("prometheus/tests/", ".yml").map(|(path, _)| path).collect();
    assert!(!files.is_empty(), "there are cases");
    let (next, complaints) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    complaints.lock().unwrap().extend(promtool(&["test", "rules", file]).err());
                }
            });
        }
    });
    none("cases", &complaints.into_inner().unwrap());
}

#[test]
fn promtool_finds_no_fault_with_the_rules() {
    let tree = Tree::load();
    let files: Vec<&str> = tree.under("prometheus/rules/", ".yml").map(|(path, _)| path).collect();
    promtool(&[["check", "rules", "--lint=all", "--lint-fatal"].as_slice(), &files].concat()).unwrap();
}

#[test]
fn each_alert_reaches_its_receiver() {
    const CONFIG: &str = "--config.file=alertmanager/alertmanager.yml";
    let tree = Tree::load();
    let mut complaints = Vec::new();
    for (_, rule) in rules::alerts(&tree) {
        let Some((name, _, _, _, receiver)) = EXPECTED.iter().find(|expected| expected.0 == rule.name()) else {
            complaints.push(format!("{} is not in the list of alerts", rule.name()));
            continue;
        };
        let verify = format!("--verify.receivers={receiver}");
        let labels = rule.labels.iter().map(|(label, value)| {
            if value.starts_with("{{") { format!("{label}=availability") } else { format!("{label}={value}") }
        });
        let labels: Vec<String> = labels.chain([format!("alertname={name}")]).collect();
        let mut arguments = vec!["config", "routes", "test", CONFIG, verify.as_str()];
        arguments.extend(labels.iter().map(String::as_str));
        complaints.extend(amtool(&arguments).err());
    }
    // Who has no severity is loud.
    complaints.extend(amtool(&["config", "routes", "test", CONFIG, "--verify.receivers=pages", "alertname=New"]).err());
    none("routes", &complaints);
}

/// As README.md says: by itself, with each way that waits in comments, and with all of them.
#[test]
fn alertmanager_accepts_every_way_of_telling() {
    const WAYS: &[&str] = &["slack", "telegram", "email"];
    let tree = Tree::load();
    let scratch = Scratch::new("alertmanager");
    fs::create_dir_all(scratch.path().join("templates")).unwrap();
    for (path, text) in tree.under("alertmanager/templates/", ".tmpl") {
        fs::write(scratch.path().join(path.trim_start_matches("alertmanager/")), text).unwrap();
    }
    let plain = tree.text("alertmanager/alertmanager.yml");
    let chosen = WAYS.iter().map(|way| vec![*way]).chain([vec![], WAYS.to_vec()]);
    for ways in chosen {
        let mut text = plain.to_owned();
        for way in &ways {
            let marked = format!("#~{way} ");
            assert!(text.contains(&marked), "{way} waits in comments");
            text = text.replace(&marked, "");
        }
        // What a site fills in.
        text = text.replace("bot_token: ''", "bot_token: '1:x'");
        let file = scratch.path().join("alertmanager.yml");
        fs::write(&file, text).unwrap();
        let said = amtool(&["check-config", file.to_str().unwrap()]).unwrap();
        assert!(said.contains("SUCCESS") && said.contains("1 templates"), "{said}");
    }
}

/// The message alone says what is broken, since when, what it costs and what to do first.
#[test]
fn messages_stand_alone() {
    let tree = Tree::load();
    let scratch = Scratch::new("messages");
    let data = scratch.path().join("data.json");
    let alert = serde_json::json!({
        "status": "firing",
        "labels": { "alertname": "ErrorsBudgetBurnPage", "severity": "page", "slo": "errors", "owner": "platform" },
        "annotations": {
            "summary": "Requests fail", "description": "20% of the requests were answered 5xx", "budget": "40% is left",
            "action": "See whether PostgreSQL answers", "runbook_url": "http://docs/r.md",
            "dashboard_url": "http://grafana/d"
        },
        "startsAt": "2026-11-23T03:04:05Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://prometheus/graph"
    });
    let mut over = alert.clone();
    over["status"] = "resolved".into();
    over["endsAt"] = "2026-11-23T03:24:05Z".into();
    assert!(!tree.text("alertmanager/templates/switchboard.tmpl").is_empty());
    for (status, alert, until) in [("firing", alert, None), ("resolved", over, Some("2026-11-23 03:24 UTC"))] {
        let labels = alert["labels"].clone();
        let message = serde_json::json!({
            "receiver": "pages", "status": status, "alerts": [alert],
            "groupLabels": { "alertname": "ErrorsBudgetBurnPage" },
            "commonLabels": labels, "commonAnnotations": {}, "externalURL": "http://alertmanager"
        });
        fs::write(&data, message.to_string()).unwrap();
        for template in ["text", "telegram", "html"] {
            let said = amtool(&[
                "template",
                "render",
                "--template.glob=alertmanager/templates/*.tmpl",
                &format!("--template.text={{{{ template \"switchboard.{template}\" . }}}}"),
                &format!("--template.data={}", data.display()),
            ])
            .unwrap();
            let parts =
                ["answered 5xx", "2026-11-23 03:04 UTC", "40% is left", "See whether PostgreSQL answers", "r.md"];
            for part in parts.into_iter().chain(until) {
                assert!(said.contains(part), "{template}, {status}: no {part:?} in\n{said}");
            }
        }
        let title = amtool(&[
            "template",
            "render",
            "--template.glob=alertmanager/templates/*.tmpl",
            "--template.text={{ template \"switchboard.title\" . }}",
            &format!("--template.data={}", data.display()),
        ]);
        let begins = if status == "firing" { "PAGE" } else { "RESOLVED" };
        assert_eq!(title.unwrap().trim(), format!("{begins} ErrorsBudgetBurnPage: Requests fail"));
    }
}

/// A message about two replicas of which one is back: the title is about the other, and each says which it is.
#[test]
fn messages_tell_what_fires_from_what_is_over() {
    let scratch = Scratch::new("group");
    let data = scratch.path().join("data.json");
    let alert = |instance: &str, status: &str| {
        serde_json::json!({
            "status": status,
            "labels": { "alertname": "ReplicaDown", "severity": "ticket", "instance": instance },
            "annotations": { "summary": format!("The replica {instance} does not answer") },
            "startsAt": "2026-11-23T03:04:05Z", "endsAt": "2026-11-23T03:24:05Z"
        })
    };
    let message = serde_json::json!({
        "receiver": "tickets", "status": "firing", "alerts": [alert("a", "resolved"), alert("b", "firing")],
        "groupLabels": { "alertname": "ReplicaDown" }, "commonLabels": { "severity": "ticket" },
        "commonAnnotations": {}, "externalURL": "http://alertmanager"
    });
    fs::write(&data, message.to_string()).unwrap();
    let render = |template: &str| {
        let said = amtool(&[
            "template",
            "render",
            "--template.glob=alertmanager/templates/*.tmpl",
            &format!("--template.text={{{{ template \"switchboard.{template}\" . }}}}"),
            &format!("--template.data={}", data.display()),
        ]);
        said.unwrap()
    };
    assert_eq!(render("title").trim(), "TICKET ReplicaDown: The replica b does not answer");
    for template in ["text", "telegram", "html"] {
        let said = render(template);
        assert!(said.contains("Over: The replica a does not answer"), "{template}:\n{said}");
        assert!(said.contains("The replica b") && !said.contains("Over: The replica b"), "{template}:\n{said}");
    }
}
