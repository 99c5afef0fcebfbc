//! Figures that Prometheus collects. Names begin with `kiln_`, counters end in `_total` (added here), times are in seconds, sizes in bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::{Metric, Registry};

/// A number that only grows.
pub type Counter = prometheus_client::metrics::counter::Counter;
/// A number that goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;
/// How observations spread over buckets.
pub type Histogram = prometheus_client::metrics::histogram::Histogram;

/// Series (label sets) of one metric; further ones share the series with the label `overflow="true"`, so that a client that invents queue names cannot fill memory.
pub const METRIC_SERIES_MAX: usize = 10_000;

/// Latency buckets: 50 µs doubled 20 times, up to 26 s.
const SECONDS_FIRST: f64 = 50e-6;
const SECONDS_BUCKETS: u16 = 20;

type Labels = Vec<(String, String)>;

/// All figures of this process. A handle: clones share one registry. Asking twice for the same metric gives the same series.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    registry: Registry,
    counters: BTreeMap<&'static str, Series<Counter>>,
    gauges: BTreeMap<&'static str, Series<Gauge>>,
    histograms: BTreeMap<&'static str, Series<Histogram, NewHistogram>>,
}

impl Metrics {
    /// A registry without metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter `name` with these labels. Keep it: asking again takes a lock and a search.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Counter {
        self.with(|inner| series(&mut inner.registry, &mut inner.counters, name, help).get(labels))
    }

    /// The gauge `name` with these labels.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        self.with(|inner| series(&mut inner.registry, &mut inner.gauges, name, help).get(labels))
    }

    /// The histogram `name` with these labels, for times in seconds: buckets from 50 µs to 26 s.
    pub fn seconds(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Histogram {
        self.with(|inner| series(&mut inner.registry, &mut inner.histograms, name, help).get(labels))
    }

    /// All figures in the `OpenMetrics` text format, which Prometheus reads.
    ///
    /// # Panics
    /// Never: it writes to memory.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.with(|inner| encode(&mut out, &inner.registry)).expect("writing to a String does not fail");
        out
    }

    /// The MIME type of [`Metrics::text`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One metric: its series by label set, for the registry and for finding them again.
#[derive(Debug, Clone)]
struct Series<M, C = fn() -> M> {
    family: Family<Labels, M, C>,
    known: BTreeMap<Labels, M>,
}

impl<M: Clone, C: MetricConstructor<M>> Series<M, C> {
    fn get(&mut self, labels: &[(&str, &str)]) -> M {
        let mut labels: Labels =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        labels.sort();
        if self.known.len() >= METRIC_SERIES_MAX && !self.known.contains_key(&labels) {
            labels = vec![("overflow".to_owned(), "true".to_owned())];
        }
        let make = || self.family.get_or_create(&labels).clone();
        self.known.entry(labels.clone()).or_insert_with(make).clone()
    }
}

/// How a metric that nobody has asked for yet comes to be.
trait Fresh {
    fn fresh() -> Self;
}

impl<M: Default> Fresh for Series<M> {
    fn fresh() -> Self {
        Self { family: Family::new_with_constructor(M::default), known: BTreeMap::new() }
    }
}

impl Fresh for Series<Histogram, NewHistogram> {
    fn fresh() -> Self {
        Self { family: Family::new_with_constructor(NewHistogram), known: BTreeMap::new() }
    }
}

#[derive(Debug, Clone)]
struct NewHistogram;

impl MetricConstructor<Histogram> for NewHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(SECONDS_FIRST, 2.0, SECONDS_BUCKETS))
    }
}

fn series<'m, M, C>(
    registry: &mut Registry,
    known: &'m mut BTreeMap<&'static str, Series<M, C>>,
    name: &'static str,
    help: &'static str,
) -> &'m mut Series<M, C>
where
    Series<M, C>: Fresh,
    Family<Labels, M, C>: Metric + Clone,
    Labels: EncodeLabelSet,
{
    known.entry(name).or_insert_with(|| {
        debug_assert!(name.starts_with("kiln_"), "metrics are named kiln_*, not {name}");
        let series = Series::fresh();
        registry.register(name, help, series.family.clone());
        series
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_and_labels_are_the_same_series() {
        let metrics = Metrics::new();
        metrics.counter("kiln_x", "Help", &[("a", "1"), ("b", "2")]).inc();
        metrics.clone().counter("kiln_x", "Help", &[("b", "2"), ("a", "1")]).inc_by(2);
        metrics.gauge("kiln_g", "Help", &[]).set(-3);
        metrics.seconds("kiln_t_seconds", "Help", &[]).observe(0.001);
        let text = metrics.text();
        assert!(text.contains("kiln_x_total{a=\"1\",b=\"2\"} 3\n"), "{text}");
        assert!(text.contains("kiln_g{} -3\n"), "{text}");
        assert!(text.contains("kiln_t_seconds_count{} 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn series_are_bounded() {
        let metrics = Metrics::new();
        for n in 0..METRIC_SERIES_MAX + 5 {
            metrics.counter("kiln_queues", "Help", &[("queue", &n.to_string())]).inc();
        }
        let text = metrics.text();
        assert!(text.contains("kiln_queues_total{overflow=\"true\"} 5\n"));
        assert_eq!(text.matches("kiln_queues_total{").count(), METRIC_SERIES_MAX + 1);
    }
}
