//! Admission reviews: what anybody can send to the control plane's webhook port.

use std::sync::LazyLock;

use istiod::webhook::{WebhookMetrics, review};
use mesh_api::validate::Context;
use mesh_telemetry::metrics::Registry;

/// A review is answered with JSON, or refused with words.
pub fn run(bytes: &[u8]) {
    match review::answer(bytes, &Context::default(), &METRICS) {
        Ok(answer) => {
            let answer: serde_json::Value = serde_json::from_slice(&answer).expect("an answer is JSON");
            assert!(answer.pointer("/response/allowed").is_some_and(serde_json::Value::is_boolean));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

static METRICS: LazyLock<WebhookMetrics> = LazyLock::new(|| WebhookMetrics::new(&Registry::new()));
