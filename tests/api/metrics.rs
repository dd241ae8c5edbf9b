//! `/metrics` against the catalogue: the same names, kinds, labels and values, from the start and
//! under a flood.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::json;
use sqlx::Executor;
use switchboard::{
    auth::Role,
    reports::collector::collect,
    requests::state::TABLE,
    server::openapi,
    telemetry::{
        ProcessCounters,
        catalogue::{CATALOGUE, Kind, PROCESS},
        labels::{DICTIONARY_CAP, Label, Method as LabelMethod, Route, Values},
        metrics::{Metrics, Operation, SERIES_CEILING},
    },
    workers,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    MOSCOW, TestApp, actor::number, config, database::TestDatabase, eventually, found_company, metrics::Scrape,
};

/// Every exposed family with its kind and help.
fn families(scrape: &Scrape) -> BTreeMap<&str, (&str, &str)> {
    let told = |what: &str| -> BTreeMap<&str, &str> {
        scrape.text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' ')).collect()
    };
    let helps = told("# HELP ");
    told("# TYPE ").into_iter().map(|(name, kind)| (name, (kind, helps[name]))).collect()
}

/// The labels of a series, without the `le` of a bucket.
fn labels(series: &str) -> BTreeMap<&str, &str> {
    let inside = series.split_once('{').map_or("", |(_, rest)| rest.strip_suffix('}').unwrap());
    let pairs = inside.split_terminator("\",").map(|pair| pair.trim_end_matches('"').split_once("=\"").unwrap());
    pairs.filter(|(name, _)| *name != "le").collect()
}

/// The catalogued name of a series.
fn family(series: &str) -> &str {
    let name = series.split('{').next().unwrap();
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    base.filter(|base| CATALOGUE.iter().any(|spec| spec.name == *base)).unwrap_or(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exposed_is_what_the_catalogue_declares() {
    let app = TestApp::start().await;
    let declared: BTreeSet<&str> =
        CATALOGUE.iter().map(|spec| spec.name).chain(PROCESS.iter().map(|(name, _)| *name)).collect();
    let missing = |scrape: &Scrape| -> Vec<String> {
        let exposed = families(scrape);
        declared.iter().filter(|name| !exposed.contains_key(*name)).map(|name| (*name).to_owned()).collect()
    };
    // Until there was a request there are no sizes, until it was asked for no dependency is up or down, until
    // the collector's first round nothing is known of the business, and before the first backup there is no last
    // one. Nor is there a certificate without TLS.
    let not_yet = [
        "dependency_up",
        "http_server_request_body_size_bytes",
        "http_server_response_body_size_bytes",
        "switchboard_active_users",
        "switchboard_backup_last_success_timestamp_seconds",
        "switchboard_collector_last_success_timestamp_seconds",
        "switchboard_service_request_oldest_open_timestamp_seconds",
        "switchboard_service_requests_open",
        "switchboard_service_requests_stuck",
        "tls_certificate_not_after_timestamp_seconds",
    ];
    assert_eq!(missing(&app.scrape().await), not_yet);

    app.app.check_dependencies().await;
    let backup =
        "INSERT INTO maintenance_runs (kind, started_at, finished_at, bytes) VALUES ('backup', 'epoch', 'epoch', 0)";
    app.database.execute(backup).await;
    workers::sample_backup(&app.app).await;
    app.app.metrics.tls_certificate_not_after().set(0);
    app.actor(Role::Operator, &[MOSCOW]).await.create_request(MOSCOW, "+79161234567").await;
    collect(&app.app, &mut app.app.db.connect_alone().await.unwrap()).await.unwrap();
    let scrape = app.scrape().await;
    assert_eq!(missing(&scrape), [""; 0]);
    assert_eq!(scrape.value("dependency_up{dependency=\"postgresql\"}"), 1.0);
    assert_eq!(scrape.get("dependency_up{dependency=\"redis\"}"), None, "it is not configured");

    for (name, (kind, help)) in families(&scrape) {
        if let Some((_, declared)) = PROCESS.iter().find(|(process, _)| *process == name) {
            assert_eq!(kind, declared.as_str(), "{name}");
            continue;
        }
        let spec = CATALOGUE.iter().find(|spec| spec.name == name);
        let spec = spec.unwrap_or_else(|| panic!("{name} is exposed and not in the catalogue"));
        assert_eq!((kind, help), (spec.kind.as_str(), spec.help), "{name}");
    }
    for (series, _) in scrape.series() {
        let Some(spec) = CATALOGUE.iter().find(|spec| spec.name == family(series)) else {
            assert!(PROCESS.iter().any(|(name, _)| *name == series), "{series}");
            continue;
        };
        let given = labels(series);
        let names: BTreeSet<&str> = spec.labels.iter().map(|(name, _)| *name).collect();
        assert_eq!(given.keys().copied().collect::<BTreeSet<_>>(), names, "{series}");
        for (name, values) in spec.labels {
            if let Values::Closed(values) = values {
                assert!(values.contains(&given[name]), "{series}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_start_at_zero_with_every_legal_combination_of_labels() {
    let app = TestApp::start().await;
    let scrape = app.scrape().await;
    let of =
        |name: &str| -> Vec<(&str, f64)> { scrape.series().filter(|(series, _)| family(series) == name).collect() };
    let moves: BTreeSet<String> = TABLE
        .iter()
        .map(|rule| {
            let (from, to) = (rule.from.as_str(), rule.to.as_str());
            format!("switchboard_service_request_transitions_total{{from=\"{from}\",to=\"{to}\"}}")
        })
        .collect();
    let exposed = of("switchboard_service_request_transitions_total");
    assert_eq!(exposed.iter().map(|(series, _)| (*series).to_owned()).collect::<BTreeSet<_>>(), moves);
    for spec in CATALOGUE.iter().filter(|spec| spec.kind == Kind::Counter) {
        let series = of(spec.name);
        let closed = spec.labels.iter().map(|(_, values)| match values {
            Values::Closed(values) => Some(values.len()),
            Values::Capped { .. } => None,
        });
        if let Some(combinations) = closed.product::<Option<usize>>()
            && spec.name != "switchboard_service_request_transitions_total"
        {
            assert_eq!(series.len(), combinations, "{}", spec.name);
        }
        assert!(!series.is_empty(), "{}", spec.name);
        // What starting up itself does is counted from the first moment on.
        if spec.name != "cache_requests_total" {
            assert!(series.iter().all(|(_, value)| *value == 0.0), "{series:?}");
        }
    }
    for (series, expected) in [
        ("switchboard_service_requests_created_total{source=\"call\",type=\"repeat\"}", 0.0),
        ("switchboard_service_requests_created_by_city_total{city=\"kazan\"}", 0.0),
        ("switchboard_revenue_rubles_total{city=\"moscow\"}", 0.0),
        ("switchboard_refunds_rubles_total{city=\"moscow\"}", 0.0),
    ] {
        assert_eq!(scrape.value(series), expected);
    }
    // Each operation's success, 500 and 503.
    for status in [201, 500, 503] {
        assert_eq!(scrape.served("POST", "/api/v1/requests", status), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_made_up_paths_and_methods_adds_a_bounded_number_of_series() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let flood = async || {
        for method in ["GET", "POST", "DELETE", "OPTIONS", "BREW", "X", "PROPFIND", &format!("M{}", number())] {
            for path in [
                "/{}",
                "/{}/{}",
                "/api/v1/{}",
                "/api/v1/requests/{}",
                "/api/v1/requests?{}={}",
                "/api/v1/calls/{}/link",
                "/api/v1/webhooks/telephony/{}/events/{}",
                "/docs/{}",
            ] {
                let path = path.replace("{}", &format!("{:x}", number() + 1_000_000));
                let request = operator.request(Method::from_bytes(method.as_bytes()).unwrap(), &path);
                let status = operator.send(request).await.status;
                assert!(!status.is_server_error(), "{method} {path}: {status}");
            }
        }
    };
    let combinations = |scrape: &Scrape| {
        scrape.series().filter(|(series, _)| series.starts_with("http_server_request_duration_seconds_count")).count()
    };
    let before = app.scrape().await;
    flood().await;
    let once = app.scrape().await;
    for _ in 0..3 {
        flood().await;
    }
    let scrape = app.scrape().await;
    assert_eq!(scrape.len(), once.len(), "nothing new after the first wave");
    // Eight routes, five known methods and the rest, one or two statuses each.
    let more = combinations(&once) - combinations(&before);
    assert!((1..60).contains(&more), "{more} more");
    assert!(scrape.len() <= SERIES_CEILING, "{}", scrape.len());
    for (series, _) in scrape.series() {
        assert!(!series.contains("BREW") && !series.contains("PROPFIND"), "{series}");
    }
    assert!(scrape.answered(404) > 0.0);
}

/// Everything that can be asked and answered, once.
#[test]
fn a_replica_at_its_worst_stays_below_the_ceiling_and_near_it() {
    let metrics = Metrics::new(ProcessCounters::default()).unwrap();
    let document = serde_json::to_value(openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let Values::Capped { cap, .. } = <Route as Label>::VALUES else { panic!("routes are capped") };
    // The pages of the documentation, and what is unmatched.
    assert!(paths.len() + 8 <= cap, "{} routes", paths.len());
    let answer = |method: &str, route: &str, status: u16| Operation {
        method: axum::http::Method::from_bytes(method.as_bytes()).unwrap(),
        route: route.to_owned(),
        success: axum::http::StatusCode::from_u16(status).unwrap(),
    };
    let (mut answers, mut refused) = (Vec::new(), 0);
    let others = (0..8).map(|n| format!("/docs/{n}"));
    let paths = paths.iter().map(|(route, item)| (route.clone(), item.as_object().cloned().unwrap()));
    for (route, item) in paths.chain(others.map(|route| (route, serde_json::Map::new()))) {
        for method in LabelMethod::ALL.iter().map(|method| method.as_str()) {
            // HEAD is answered as GET, and OPTIONS by what guards against other origins.
            let declared = item.get(&method.replace("HEAD", "GET").to_lowercase());
            let declared = declared.and_then(|operation| operation["responses"].as_object());
            let statuses = declared.into_iter().flatten().map(|(status, _)| status.parse().unwrap());
            let other = if declared.is_some() { 499 } else { 405 };
            refused += usize::from(declared.is_none());
            answers.extend(statuses.chain([other]).map(|status| answer(method, &route, status)));
        }
    }
    metrics.seed_operations(&answers);
    let codes: Vec<String> = (0..=DICTIONARY_CAP).map(|n| format!("c{n}")).collect();
    metrics.seed_dictionaries(codes.iter().map(String::as_str), codes.iter().map(String::as_str));
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    // Seeding adds 500 and 503, which a method that is refused never gets as far as.
    let duration = CATALOGUE.iter().find(|spec| spec.name == "http_server_request_duration_seconds").unwrap();
    let series = series - refused * 2 * (duration.buckets.len() + 3);
    assert!((SERIES_CEILING * 3 / 4..=SERIES_CEILING).contains(&series), "{series}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_more_cities_than_labels_the_rest_is_one() {
    let database = std::sync::Arc::new(TestDatabase::create().await);
    found_company(&database).await;
    let add = "INSERT INTO cities (code, name_ru, name_en, timezone)
               SELECT 'c' || n, 'x', 'x', 'UTC' FROM generate_series(1, 60) AS n";
    database.execute(add).await;
    let app = TestApp::over(config(), database).await;
    let admin = app.actor(Role::Admin, &[]).await;
    for city in [MOSCOW, "c48", "c49", "c60"] {
        admin.create_request(city, "+79161234567").await;
    }
    let scrape = app.scrape().await;
    let by_city =
        |city: &str| scrape.get(&format!("switchboard_service_requests_created_by_city_total{{city=\"{city}\"}}"));
    assert_eq!((by_city(MOSCOW), by_city("c48")), (Some(1.0), Some(1.0)));
    assert_eq!((by_city("c49"), by_city("c60"), by_city("other")), (None, None, Some(2.0)));
    let cities = scrape.series().filter(|(series, _)| family(series) == "switchboard_revenue_rubles_total").count();
    assert_eq!(cities, DICTIONARY_CAP + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_is_counted_as_499_and_none_is_lost() {
    let mut config = config();
    config.database.query_timeout_ms = 60_000;
    config.http.request_timeout_ms = 60_000;
    let app = TestApp::start_with(config).await;
    let (manager, master) = (app.actor(Role::Manager, &[MOSCOW]).await, app.actor(Role::Master, &[MOSCOW]).await);
    let id = manager.waiting_request(MOSCOW, "+79161234567").await;
    manager.assign(id, master.id).await.expect(200);
    let before = app.scrape().await;

    // Somebody else holds the row, so that none of the five can be answered yet.
    let mut holder = app.database.connect().await;
    holder.execute("BEGIN; SELECT FROM requests FOR UPDATE").await.unwrap();
    let accept = || {
        let path = format!("/api/v1/requests/{id}/transitions");
        tokio::spawn(master.request(Method::POST, &path).json(&json!({ "to": "accepted" })).send())
    };
    let (patient, hasty) = ([accept(), accept()], [accept(), accept(), accept()]);
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("all five wait for the row", async || (app.database.count(waiting).await == 5).then_some(())).await;
    assert_eq!(app.scrape().await.value("http_server_active_requests{http_request_method=\"POST\"}"), 5.0);
    for request in hasty {
        request.abort();
    }
    eventually("three hang-ups are counted", async || (app.scrape().await.answered(499) == 3.0).then_some(())).await;
    holder.execute("ROLLBACK").await.unwrap();
    let mut answers = Vec::new();
    for request in patient {
        answers.push(request.await.unwrap().unwrap().status().as_u16());
    }
    answers.sort_unstable();
    assert_eq!(answers, [200, 409]);

    let after = app.scrape().await;
    let more = |status: u16| after.answered(status) - before.answered(status);
    assert_eq!((more(200), more(409), more(499)), (1.0, 1.0, 3.0), "five were sent");
    assert_eq!(after.value("http_server_active_requests{http_request_method=\"POST\"}"), 0.0);
    let accepted = "SELECT count(*) FROM request_events WHERE to_status = 'accepted'";
    assert_eq!(app.database.count(accepted).await, 1, "what was abandoned did not happen");
    // The connections come back.
    let free = async || (app.scrape().await.value("db_pool_connections{state=\"used\"}") == 0.0).then_some(());
    eventually("no connection is in use", free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_measured_by_route() {
    let app = TestApp::start().await;
    let operator = app.actor(Role::Operator, &[MOSCOW]).await;
    let before = app.scrape().await;
    let body = json!({ "city": MOSCOW, "phone": "+79161234567", "description": "x".repeat(1000) }).to_string();
    let request = operator.request(Method::POST, "/api/v1/requests").header("content-type", "application/json");
    let answer = operator.send(request.body(body.clone())).await;
    assert_eq!(answer.status, 201);
    let changes = app.scrape().await.changes_since(&before);
    let bytes = |text: &str| f64::from(u32::try_from(text.len()).unwrap());
    let measured = |metric: &str, part: &str| {
        changes.get(&format!("http_server_{metric}_body_size_bytes_{part}{{http_route=\"/api/v1/requests\"}}")).copied()
    };
    assert_eq!((measured("request", "count"), measured("request", "sum")), (Some(1.0), Some(bytes(&body))));
    assert_eq!((measured("response", "count"), measured("response", "sum")), (Some(1.0), Some(bytes(&answer.text))));
    // What counts is what came: not what is claimed, and what is not announced counts too.
    let mut liar = TcpStream::connect(app.public).await.unwrap();
    let head =
        "POST /api/v1/requests HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9000000000000000000\r\n\r\n";
    liar.write_all(head.as_bytes()).await.unwrap();
    liar.read_to_end(&mut Vec::new()).await.unwrap();
    let chunks = stream::iter([Ok::<_, std::io::Error>(body.clone())]);
    let request = operator.request(Method::POST, "/api/v1/requests").header("content-type", "application/json");
    assert_eq!(operator.send(request.body(Body::wrap_stream(chunks))).await.status, 201);
    let sum = "http_server_request_body_size_bytes_sum{http_route=\"/api/v1/requests\"}";
    assert_eq!(app.scrape().await.changes_since(&before)[sum], 2.0 * bytes(&body));
    // Neither scrapes nor probes are the service.
    let quiet = app.scrape().await;
    reqwest::get(format!("http://{}/health/ready", app.ops)).await.unwrap();
    let changes = app.scrape().await.changes_since(&quiet);
    assert!(!changes.keys().any(|series| series.starts_with("http_")), "{changes:?}");
}
