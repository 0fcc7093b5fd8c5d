//! Metrics registry and its text exposition.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::registry;
use tower_http::compression::CompressionLayer;

pub use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// Content type of the OpenMetrics exposition.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the classic Prometheus exposition.
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of one process. Cheap to clone; clones share the same metrics.
///
/// Counters are registered without their `_total` ending, which the exposition adds.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Mutex<registry::Registry>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric under its full name (`istio_build`, not `build`).
    pub fn register(&self, name: &str, help: &str, metric: impl registry::Metric) {
        self.lock().register(name, help, metric);
    }

    /// Adds a collector that is asked at every scrape.
    pub fn register_collector(&self, collector: Box<dyn Collector>) {
        self.lock().register_collector(collector);
    }

    /// The current values in OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail; a collector that fails leaves its part out.
        if text::encode(&mut out, &self.lock()).is_err() {
            tracing::warn!("a metrics collector failed");
        }
        out
    }

    /// The current values in the form that an `Accept` header asks for, and its content type.
    /// OpenMetrics only when it is named and not liked less than plain text.
    #[must_use]
    pub fn encode_for(&self, accept: Option<&str>) -> (&'static str, String) {
        let openmetrics = self.encode();
        if accept.is_some_and(prefers_openmetrics) {
            (OPENMETRICS, openmetrics)
        } else {
            (PROMETHEUS, classic(&openmetrics))
        }
    }

    /// Serves the metrics on `/metrics` and `/stats/prometheus`, compressed for who takes gzip, zstd,
    /// br or deflate.
    pub fn router(&self) -> Router {
        let routes = Router::new().route("/metrics", get(scrape)).route("/stats/prometheus", get(scrape));
        routes.layer(CompressionLayer::new()).with_state(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, registry::Registry> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

async fn scrape(
    axum::extract::State(registry): axum::extract::State<Registry>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (content_type, body) = registry.encode_for(accept);
    ([(header::CONTENT_TYPE, content_type)], body)
}

fn prefers_openmetrics(accept: &str) -> bool {
    let weight = |kind: &str| {
        let mut offers = accept.split(',').map(|offer| offer.split(';').map(str::trim));
        let mut parameters = offers.find_map(|mut parts| (parts.next() == Some(kind)).then_some(parts))?;
        let weight = parameters.find_map(|parameter| parameter.strip_prefix("q="));
        Some(weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0)))
    };
    weight("application/openmetrics-text").is_some_and(|open| open > 0.0 && open >= weight("text/plain").unwrap_or(0.0))
}

/// OpenMetrics text turned into the classic format: the family of a counter carries the `_total`
/// ending in its HELP and TYPE lines, and there is no end marker.
fn classic(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + 64);
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let Some(rest) = line.strip_prefix("# HELP ") else {
            push_line(&mut out, &counter_type(line));
            continue;
        };
        let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
        let is_counter = lines.peek().is_some_and(|next| counter_type(next) != **next);
        let ending = if is_counter { "_total" } else { "" };
        push_line(&mut out, &format!("# HELP {name}{ending} {help}"));
    }
    out
}

fn counter_type(line: &str) -> String {
    match line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
        Some(name) => format!("# TYPE {name}_total counter"),
        None => line.to_owned(),
    }
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    fn sample() -> Registry {
        let registry = Registry::new();
        let requests: Counter = Counter::default();
        requests.inc_by(3);
        registry.register("istio_requests", "Requests seen", requests);
        let open: Gauge = Gauge::default();
        open.set(2);
        registry.register("istio_open", "Open things", open);
        registry
    }

    #[test]
    fn openmetrics_is_sent_only_when_asked_for() {
        let table = [
            (Some("application/openmetrics-text;version=1.0.0"), OPENMETRICS),
            (
                Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"),
                OPENMETRICS,
            ),
            (Some("text/plain, application/openmetrics-text;q=0.4"), PROMETHEUS),
            (Some("application/openmetrics-text;q=0"), PROMETHEUS),
            (Some("*/*"), PROMETHEUS),
            (None, PROMETHEUS),
        ];
        for (accept, expected) in table {
            let (kind, body) = sample().encode_for(accept);
            assert_eq!(kind, expected, "{accept:?}");
            assert_eq!(body.ends_with("# EOF\n"), kind == OPENMETRICS, "{accept:?}: {body}");
        }
    }

    #[tokio::test]
    async fn a_scrape_is_compressed_as_the_client_asks() {
        let registry = sample();
        let requests: Family<Vec<(&str, String)>, Counter> = Family::default();
        for n in 0..50 {
            requests.get_or_create_owned(&vec![("n", n.to_string())]).inc();
        }
        registry.register("many", "Long enough to be worth it", requests);
        for encoding in ["gzip", "zstd"] {
            for path in ["/metrics", "/stats/prometheus"] {
                let request = Request::get(path).header(header::ACCEPT_ENCODING, encoding);
                let answer = registry.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                assert_eq!(answer.headers()[header::CONTENT_ENCODING], encoding);
                assert_eq!(answer.headers()[header::CONTENT_TYPE], PROMETHEUS);
                let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
                assert!(body.len() < registry.encode().len() / 2, "{encoding}: {}", body.len());
            }
        }
        let plain = registry.router().oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        let body = to_bytes(plain.into_body(), 1 << 20).await.unwrap();
        assert_eq!(body, registry.encode_for(None).1.as_bytes());
    }

    #[test]
    fn classic_text_names_counters_with_their_ending() {
        let (_, body) = sample().encode_for(Some("text/plain"));
        assert_eq!(
            body,
            "# HELP istio_requests_total Requests seen.\n# TYPE istio_requests_total counter\nistio_requests_total 3\n\
             # HELP istio_open Open things.\n# TYPE istio_open gauge\nistio_open 2\n"
        );
    }
}
