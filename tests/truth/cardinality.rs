//! Nothing that anybody sends makes more series than docs/METRICS.md states.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::json;
use switchboard::telemetry::{
    catalogue::{CATALOGUE, Kind, MetricSpec, PROCESS},
    labels::{DICTIONARY_CAP, Values},
    metrics::SERIES_CEILING,
};

use super::{
    client::{Line, Question},
    counts::{Counts, Tally},
    support::{
        actor::Actor,
        metrics::Scrape,
        process::Server,
        site::{Site, scrape},
    },
};

/// More of everything than labels there are.
const CODES: usize = 3 * DICTIONARY_CAP;
/// Requests of the first wave, which makes the series that there can be; the second is longer, and makes none.
const WAVES: [usize; 2] = [6_000, 14_000];

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_everything_makes_no_more_series_than_stated() {
    let site = Site::open().await;
    let settings = [("SWITCHBOARD_LIMITS_LOGIN_IP", "10/min"), ("SWITCHBOARD_LIMITS_WEBHOOK", "1000000/min")];
    let server = site.server(&settings).await;
    let boss = site.boss(&server).await;
    let before = scrape(&server).await;
    found_cities(&boss).await;
    let mut random = StdRng::seed_from_u64(1);
    let (mut seen, mut answers) = (Vec::new(), Counts::new());
    for requests in WAVES {
        answers.extend(flood(&server, &boss, requests, &mut random).await);
        seen.push(scrape(&server).await);
    }
    let [first, second] = [&seen[0], &seen[1]];
    println!(
        "{} series before, {} after {CODES} cities, {CODES} types and {} made-up requests, {} after {} more; the ceiling \
         is {SERIES_CEILING}",
        before.len(),
        first.len(),
        WAVES[0],
        second.len(),
        WAVES[1]
    );
    let more: Vec<&str> =
        second.series().map(|(series, _)| series).filter(|series| first.get(series).is_none()).collect();
    assert!(more.is_empty(), "the second wave made {more:#?}");
    assert!(second.len() <= SERIES_CEILING);
    labels_are_declared(second);
    // What was answered for the first time made the rest of HTTP's series: its buckets, one for all, a sum and a count.
    let each = DURATION.buckets.len() + 3;
    let new = answers.keys().filter(|key| !has(&before, key)).count();
    println!("{new} combinations of route, method and status were new: {} series", new * each);
    let of_http = |scrape: &Scrape| scrape.series().filter(|(series, _)| series.starts_with(DURATION.name)).count();
    assert_eq!(of_http(second) - of_http(&before), new * each);
}

static DURATION: LazyLock<&MetricSpec> =
    LazyLock::new(|| CATALOGUE.iter().find(|spec| spec.name == "http_server_request_duration_seconds").unwrap());

fn has(scrape: &Scrape, (route, method, status): &(String, String, u16)) -> bool {
    let labels =
        format!("{{http_request_method=\"{method}\",http_response_status_code=\"{status}\",http_route=\"{route}\"}}");
    scrape.get(&format!("{}_count{labels}", DURATION.name)).is_some()
}

/// Cities and types, beyond what may be labels; each has a service request.
async fn found_cities(boss: &Actor) {
    for number in 0..CODES {
        let code = format!("c{number}");
        let city = json!({ "code": code, "name_ru": code, "name_en": code, "timezone": "UTC" });
        boss.post("/api/v1/dictionaries/cities", city).await.expect(201);
        let kind = json!({ "code": code, "name_ru": code, "name_en": code });
        boss.post("/api/v1/dictionaries/request-types", kind).await.expect(201);
        let body = json!({ "city": code, "type": code, "phone": format!("+7919{number:07}") });
        boss.post("/api/v1/requests", body).await.expect(201);
    }
}

/// What was answered.
async fn flood(server: &Server, boss: &Actor, requests: usize, random: &mut StdRng) -> Counts {
    const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"];
    const PATHS: &[(&str, &str)] = &[
        ("/{}", "unmatched"),
        ("/{}/{}/{}", "unmatched"),
        ("/api/v1/{}", "unmatched"),
        ("/api/v1/requests/{}", "/api/v1/requests/{id}"),
        ("/api/v1/requests?{}={}", "/api/v1/requests"),
        ("/api/v1/requests?city={}&type={}", "/api/v1/requests"),
        ("/api/v1/calls/{}/link", "/api/v1/calls/{id}/link"),
        ("/api/v1/users/masters/{}", "/api/v1/users/masters/{id}"),
        ("/api/v1/webhooks/telephony/{}/events/{}", "/api/v1/webhooks/telephony/{provider}/events/{kind}"),
        ("/api/v1/webhooks/telephony/mango/events/{}", "/api/v1/webhooks/telephony/{provider}/events/{kind}"),
        ("/api/v1/dictionaries/campaigns/{}/numbers/{}", "/api/v1/dictionaries/campaigns/{id}/numbers/{number_id}"),
        ("/docs/{}", "/docs/{*rest}"),
        ("/health/{}", "unmatched"),
    ];
    let (mut line, mut answers) = (Line::to(server.public), Tally::default());
    for turn in 0..requests {
        let (template, route) = PATHS[turn % PATHS.len()];
        let mut path = template.to_owned();
        while path.contains("{}") {
            path = path.replacen("{}", &word(random), 1);
        }
        // The known ones and as many made-up ones again, each on every path.
        let method = match turn / PATHS.len() % (2 * METHODS.len()) {
            known if known < METHODS.len() => METHODS[known].to_owned(),
            _ => word(random).to_uppercase(),
        };
        let token = (turn / PATHS.len() / (2 * METHODS.len())).is_multiple_of(2).then(|| boss.token.clone().unwrap());
        let question = Question::new(method.parse().unwrap(), route, &path)
            .by(token.as_deref())
            .with("host", format!("{}.example", word(random)))
            .with("user-agent", word(random))
            .with("x-forwarded-for", format!("10.{}.{}.1", random.random_range(0..200), turn % 250))
            .with("x-request-id", word(random));
        let answer = line.ask(&question).await.unwrap();
        assert!(answer.status < 500, "{question:?}: {}", answer.status);
        answers.add(&question, answer);
    }
    for turn in 0..requests / 20 {
        let login = json!({ "login": word(random), "password": word(random), "session": "token" });
        // From one address, which has to wait after the first few: hashing is not what this is about.
        let login =
            Question::plain(Method::POST, "/api/v1/auth/login").json(&login).with("x-forwarded-for", "10.8.8.8");
        let answer = line.ask(&login).await.unwrap();
        answers.add(&login, answer);
        let city = format!("c{}", turn % CODES);
        let body =
            json!({ "city": city, "type": city, "phone": format!("+7920{turn:07}"), "description": word(random) });
        let create = Question::plain(Method::POST, "/api/v1/requests").json(&body).by(boss.token.as_deref());
        assert_eq!(line.ask(&create).await.unwrap().status, 201);
    }
    answers.counts
}

fn word(random: &mut StdRng) -> String {
    (0..12).map(|_| char::from(b'a' + random.random_range(0..26_u8))).collect()
}

/// Every label of every series is one of those declared, and none has more values than it may.
fn labels_are_declared(scrape: &Scrape) {
    let mut values: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (series, _) in scrape.series() {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let spec = CATALOGUE.iter().find(|spec| {
            let is_part = ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(spec.name));
            name == spec.name || (spec.kind == Kind::Histogram && is_part)
        });
        let Some(spec) = spec else {
            assert!(PROCESS.iter().any(|(process, _)| *process == name), "{series} is not in the catalogue");
            continue;
        };
        for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
            let (label, value) = label.trim_end_matches('"').split_once("=\"").unwrap();
            if label != "le" {
                values.entry((spec.name, label)).or_default().insert(value);
            }
        }
    }
    for ((metric, label), values) in values {
        let spec = CATALOGUE.iter().find(|spec| spec.name == metric).unwrap();
        let (_, declared) = spec.labels.iter().find(|(name, _)| *name == label).unwrap();
        match declared {
            Values::Closed(known) => assert!(values.iter().all(|value| known.contains(value)), "{metric}: {label}"),
            Values::Capped { cap, .. } => assert!(values.len() <= *cap, "{metric}: {} of {label}", values.len()),
        }
    }
}
