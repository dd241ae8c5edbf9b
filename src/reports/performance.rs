//! How fast this replica answers, read from its own metrics: since it was started, and of it alone.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;
use utoipa::ToSchema;

use crate::telemetry::{
    labels::{CacheName, CacheResult, PoolState},
    metrics::Metrics,
};

const DURATION: &str = "http_server_request_duration_seconds";
/// The latency objective.
const FAST_S: f64 = 0.1;

/// How this replica has been doing since it was started.
#[derive(Debug, Serialize, ToSchema)]
pub struct PerformanceMetrics {
    /// How long ago it was started, in seconds: all figures are since then.
    #[schema(example = 86400.0)]
    pub since_start_s: f64,
    /// All requests but probes, together.
    pub all: Served,
    /// The same by operation, where there were any.
    pub by_operation: Vec<ServedOperation>,
    /// The pool of database connections, now.
    pub pool: PoolFigures,
    /// Look-ups in caches.
    pub cache: CacheFigures,
}

/// How requests were served. Latencies are those of answers that are no 5xx, estimated from histogram
/// buckets; null while there are none.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Served {
    /// Requests answered, or given up by their client.
    #[schema(example = 12000)]
    pub requests: u64,
    /// Mean over the whole time.
    #[schema(example = 0.139)]
    pub requests_per_second: f64,
    /// 5xx answers ÷ requests.
    #[schema(example = 0.0001)]
    pub error_ratio: Option<f64>,
    /// Median; at most 10, where the buckets end.
    #[schema(example = 0.004)]
    pub p50_s: Option<f64>,
    /// 95 % are faster.
    #[schema(example = 0.018)]
    pub p95_s: Option<f64>,
    /// 99 % are faster.
    #[schema(example = 0.047)]
    pub p99_s: Option<f64>,
    /// Share answered within 100 ms.
    #[schema(example = 0.998)]
    pub within_100ms: Option<f64>,
}

/// How one operation was served.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServedOperation {
    /// HTTP method.
    #[schema(example = "GET")]
    pub method: String,
    /// Route template.
    #[schema(example = "/api/v1/requests/{id}")]
    pub route: String,
    #[serde(flatten)]
    pub served: Served,
}

/// The pool of database connections.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolFigures {
    /// The most it may open.
    #[schema(example = 10)]
    pub max: i64,
    /// In use now.
    #[schema(example = 2)]
    pub used: i64,
    /// Open and free now.
    #[schema(example = 3)]
    pub idle: i64,
    /// Waits for a connection that were given up, since the start.
    #[schema(example = 0)]
    pub acquire_timeouts: u64,
}

/// Look-ups in caches, since the start.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheFigures {
    /// Found.
    #[schema(example = 990)]
    pub hits: u64,
    /// Not found.
    #[schema(example = 10)]
    pub misses: u64,
    /// The cache did not answer, and the database did.
    #[schema(example = 0)]
    pub errors: u64,
    /// hits ÷ (hits + misses + errors).
    #[schema(example = 0.99)]
    pub hit_ratio: Option<f64>,
}

/// Reads them.
#[must_use]
pub fn read(metrics: &Metrics) -> PerformanceMetrics {
    let since_start_s = metrics.age().as_secs_f64();
    let (mut all, mut by_operation) = (Counts::default(), BTreeMap::<(String, String), Counts>::new());
    let family = metrics.family(DURATION);
    for metric in family.iter().flat_map(MetricFamily::get_metric) {
        let label = |name: &str| {
            let pair = metric.get_label().iter().find(|pair| pair.name() == name);
            pair.map(|pair| pair.value().to_owned()).unwrap_or_default()
        };
        let route = label("http_route");
        // Probes are not the service.
        if route.starts_with("/health") || metric.get_histogram().get_sample_count() == 0 {
            continue;
        }
        let failed = label("http_response_status_code").starts_with('5');
        all.add(metric, failed);
        by_operation.entry((route, label("http_request_method"))).or_default().add(metric, failed);
    }
    let by_operation = by_operation.into_iter().map(|((route, method), counts)| ServedOperation {
        method,
        route,
        served: counts.served(since_start_s),
    });
    let looked_up =
        |result: CacheResult| CacheName::ALL.iter().map(|name| metrics.cache_requests(*name, result).get()).sum();
    let (hits, misses, errors): (u64, u64, u64) =
        (looked_up(CacheResult::Hit), looked_up(CacheResult::Miss), looked_up(CacheResult::Error));
    PerformanceMetrics {
        since_start_s: (since_start_s * 1e3).round() / 1e3,
        all: all.served(since_start_s),
        by_operation: by_operation.collect(),
        pool: PoolFigures {
            max: metrics.db_pool_max_connections().get(),
            used: metrics.db_pool_connections(PoolState::Used).get(),
            idle: metrics.db_pool_connections(PoolState::Idle).get(),
            acquire_timeouts: metrics.db_pool_acquire_timeouts().get(),
        },
        cache: CacheFigures { hits, misses, errors, hit_ratio: ratio(hits, hits + misses + errors) },
    }
}

/// What histograms add up to.
#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    failed: u64,
    /// Upper bound and how many answers, no 5xx, are not above it.
    buckets: Vec<(f64, u64)>,
}

impl Counts {
    fn add(&mut self, metric: &Metric, failed: bool) {
        let histogram = metric.get_histogram();
        self.requests += histogram.get_sample_count();
        if failed {
            self.failed += histogram.get_sample_count();
            return;
        }
        let buckets = histogram.get_bucket();
        self.buckets.resize(buckets.len(), (0.0, 0));
        for (sum, bucket) in self.buckets.iter_mut().zip(buckets) {
            *sum = (bucket.upper_bound(), sum.1 + bucket.cumulative_count());
        }
    }

    fn served(&self, seconds: f64) -> Served {
        let answered = self.requests - self.failed;
        let fast = self.buckets.iter().find(|(bound, _)| *bound >= FAST_S).map_or(0, |(_, count)| *count);
        Served {
            requests: self.requests,
            requests_per_second: if seconds > 0.0 {
                (as_f64(self.requests) / seconds * 1e3).round() / 1e3
            } else {
                0.0
            },
            error_ratio: ratio(self.failed, self.requests),
            p50_s: self.quantile(0.50, answered),
            p95_s: self.quantile(0.95, answered),
            p99_s: self.quantile(0.99, answered),
            within_100ms: ratio(fast, answered),
        }
    }

    /// As PromQL's `histogram_quantile`: linear within the bucket, the last bound beyond it.
    fn quantile(&self, quantile: f64, answered: u64) -> Option<f64> {
        if answered == 0 {
            return None;
        }
        let rank = quantile * as_f64(answered);
        let (mut floor, mut below) = (0.0, 0);
        for (bound, count) in &self.buckets {
            if as_f64(*count) >= rank {
                let inside = (rank - as_f64(below)) / as_f64((count - below).max(1));
                return Some(((floor + (bound - floor) * inside) * 1e4).round() / 1e4);
            }
            (floor, below) = (*bound, *count);
        }
        Some(floor)
    }
}

/// To four decimals; `None` of nothing.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (as_f64(part) / as_f64(whole) * 1e4).round() / 1e4)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_buckets() {
        // 10 answers up to 0.1 s, 10 more up to 0.2 s, one beyond the last bucket.
        let counts = Counts { requests: 22, failed: 1, buckets: vec![(0.1, 10), (0.2, 20)] };
        let served = counts.served(11.0);
        assert_eq!((served.requests, served.requests_per_second), (22, 2.0));
        // The rank of the median is 10.5 of 21: a twentieth into the second bucket.
        assert_eq!(served.p50_s, Some(0.105));
        assert_eq!(served.p99_s, Some(0.2), "nothing is known beyond the last bound");
        assert_eq!(served.within_100ms, Some(0.4762));
        assert_eq!(served.error_ratio, Some(0.0455));
        let none = Counts::default().served(1.0);
        assert_eq!((none.p50_s, none.error_ratio, none.within_100ms), (None, None, None));
    }
}
