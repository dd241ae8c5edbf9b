//! What the server counted: `/metrics`, read twice and subtracted.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use url::Url;

/// One reading of `/metrics`.
#[derive(Debug, Default)]
pub struct Scrape(Vec<Sample>);

#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    /// Reads the metrics at `url`.
    ///
    /// # Errors
    /// When nothing answers there, or something that is no Switchboard.
    pub async fn read(http: &reqwest::Client, url: &Url) -> anyhow::Result<Self> {
        let not_here = || format!("no metrics at {url}; name their address with --metrics-url");
        let read = async { http.get(url.clone()).send().await?.error_for_status()?.text().await };
        let text = read.await.map_err(reqwest::Error::without_url).with_context(not_here)?;
        let scrape = Self::parse(&text);
        anyhow::ensure!(scrape.0.iter().any(|sample| sample.name == "switchboard_webhook_events_total"), not_here());
        Ok(scrape)
    }

    /// Reads the text format; lines that are no samples are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of a metric's series that carry these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|is| is == value))
        };
        self.0.iter().filter(carries).map(|sample| sample.value).sum()
    }

    /// What two labels of a metric can be, by its series.
    fn pairs(&self, name: &str, first: &str, second: &str) -> BTreeSet<(String, String)> {
        let pair = |sample: &Sample| Some((sample.labels.get(first)?.clone(), sample.labels.get(second)?.clone()));
        self.0.iter().filter(|sample| sample.name == name).filter_map(pair).collect()
    }
}

/// What was counted between two readings.
#[derive(Debug, Default)]
pub struct Delta {
    /// The earlier one.
    pub before: Scrape,
    /// The later one.
    pub after: Scrape,
}

impl Delta {
    /// By how much a metric rose.
    #[must_use]
    pub fn rise(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.after.sum(name, labels) - self.before.sum(name, labels)
    }

    /// The values of two labels for which a metric rose.
    #[must_use]
    pub fn risen(&self, name: &str, first: &str, second: &str) -> BTreeSet<(String, String)> {
        let mut pairs = self.after.pairs(name, first, second);
        pairs.retain(|(one, two)| self.rise(name, &[(first, one), (second, two)]).abs() > 0.0);
        pairs
    }

    /// Events that were stored and have no effect yet.
    #[must_use]
    pub fn waiting(&self) -> f64 {
        let rise = |outcome| self.rise("switchboard_webhook_events_total", &[("outcome", outcome)]);
        rise("accepted") - rise("processed") - rise("ignored") - rise("failed")
    }

    /// Whether the counters began anew in between.
    #[must_use]
    pub fn restarted(&self) -> bool {
        self.rise("process_start_time_seconds", &[]).abs() > 0.5
    }
}

/// `name{label="value",…} 1.5`, as the exposition format has it.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP calls Calls.
# TYPE calls counter
calls{direction="incoming",result="missed"} 3
calls{direction="incoming",result="answered"} 4
calls{direction="a \"b\", }\\",result="answered"} 1.5
plain 7e2
broken{x="
lag_bucket{le="+Inf"} 5
"#;

    #[test]
    fn series_are_added_by_label() {
        let scrape = Scrape::parse(TEXT);
        let sum = |labels: &[(&str, &str)]| scrape.sum("calls", labels);
        assert!((sum(&[]) - 8.5).abs() < 1e-9);
        assert!((sum(&[("direction", "incoming")]) - 7.0).abs() < 1e-9);
        assert!((sum(&[("direction", "incoming"), ("result", "missed")]) - 3.0).abs() < 1e-9);
        assert!((sum(&[("direction", "a \"b\", }\\")]) - 1.5).abs() < 1e-9);
        assert!((scrape.sum("plain", &[]) - 700.0).abs() < 1e-9);
        assert!((scrape.sum("broken", &[])).abs() < 1e-9);
        assert_eq!(scrape.0.len(), 5);
    }

    #[test]
    fn a_series_that_is_new_rises_from_zero() {
        let delta = Delta {
            before: Scrape::parse("calls{a=\"1\",b=\"1\"} 2\n"),
            after: Scrape::parse("calls{a=\"1\",b=\"1\"} 2\ncalls{a=\"2\",b=\"1\"} 4\n"),
        };
        assert!((delta.rise("calls", &[]) - 4.0).abs() < 1e-9);
        assert_eq!(delta.risen("calls", "a", "b").into_iter().collect::<Vec<_>>(), [("2".to_owned(), "1".to_owned())]);
    }
}
