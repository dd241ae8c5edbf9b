//! Reading /metrics as Prometheus would.

use std::{collections::BTreeMap, net::SocketAddr};

/// One scrape: series (name and sorted labels) and their values.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    pub text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    pub async fn fetch(ops: SocketAddr) -> Self {
        let response = reqwest::get(format!("http://{ops}/metrics")).await.unwrap();
        assert_eq!(response.status(), 200);
        Self::parse(&response.text().await.unwrap())
    }

    pub fn parse(text: &str) -> Self {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "twice: {name}");
        }
        Self { text: text.to_owned(), series }
    }

    /// The series as written, for example `x_total{a="b"}`, labels in alphabetical order; `None` when
    /// it does not exist.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    /// The series, which must exist.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("no series {series}"))
    }

    /// The sum over all series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.series.iter().filter(|(series, _)| series.split('{').next() == Some(name)).map(|(_, value)| value).sum()
    }

    /// All series with their values.
    pub fn series(&self) -> impl Iterator<Item = (&str, f64)> {
        self.series.iter().map(|(series, value)| (series.as_str(), *value))
    }

    /// How many HTTP requests of one operation were answered with a status; they must have a series.
    #[track_caller]
    pub fn served(&self, method: &str, route: &str, status: u16) -> f64 {
        self.value(&format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",\
             http_response_status_code=\"{status}\",http_route=\"{route}\"}}"
        ))
    }

    /// How many HTTP requests were answered with a status, over all routes.
    pub fn answered(&self, status: u16) -> f64 {
        let label = format!("http_response_status_code=\"{status}\"");
        let counts = self.series().filter(|(series, _)| {
            series.starts_with("http_server_request_duration_seconds_count{") && series.contains(&label)
        });
        counts.map(|(_, count)| count).sum()
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// What changed since `before`: series and by how much.
    pub fn changes_since(&self, before: &Self) -> BTreeMap<String, f64> {
        self.series
            .iter()
            .map(|(series, value)| (series.clone(), value - before.series.get(series).copied().unwrap_or(0.0)))
            .filter(|(_, change)| *change != 0.0)
            .collect()
    }
}
