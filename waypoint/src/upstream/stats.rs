//! Counters of one pool.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Counters of one pool, all workers together. Names are those that dashboards know.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl Stats {
            /// Every counter with its name.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name.total()),)*]
            }
        }
    };
}

stats! {
    /// Connections made.
    cx_total = "upstream_cx_total";
    /// Connections that could not be made.
    cx_connect_fail = "upstream_cx_connect_fail";
    /// Of these, for lack of time.
    cx_connect_timeout = "upstream_cx_connect_timeout";
    /// Connections that ended.
    cx_destroy = "upstream_cx_destroy";
    /// Of these, because nothing was to do for them.
    cx_idle_timeout = "upstream_cx_idle_timeout";
    /// Connections that the breaker did not allow.
    cx_overflow = "upstream_cx_overflow";
    /// Connections on which the peer broke the protocol.
    cx_protocol_error = "upstream_cx_protocol_error";
    /// Requests sent, retries included.
    rq_total = "upstream_rq_total";
    /// Requests that were answered.
    rq_completed = "upstream_rq_completed";
    /// Answers of that class.
    rq_1xx = "upstream_rq_1xx";
    /// Answers of that class.
    rq_2xx = "upstream_rq_2xx";
    /// Answers of that class.
    rq_3xx = "upstream_rq_3xx";
    /// Answers of that class.
    rq_4xx = "upstream_rq_4xx";
    /// Answers of that class.
    rq_5xx = "upstream_rq_5xx";
    /// Requests not answered in time.
    rq_timeout = "upstream_rq_timeout";
    /// Attempts not answered in the time of one attempt.
    rq_per_try_timeout = "upstream_rq_per_try_timeout";
    /// Requests that the peer reset.
    rq_rx_reset = "upstream_rq_rx_reset";
    /// Requests that had to wait for a connection.
    rq_pending_total = "upstream_rq_pending_total";
    /// Requests that a breaker did not allow.
    rq_pending_overflow = "upstream_rq_pending_overflow";
    /// Retries.
    rq_retry = "upstream_rq_retry";
    /// Retries that were answered well.
    rq_retry_success = "upstream_rq_retry_success";
    /// Retries that the breaker or budget did not allow.
    rq_retry_overflow = "upstream_rq_retry_overflow";
    /// Requests that failed after their last retry.
    rq_retry_limit_exceeded = "upstream_rq_retry_limit_exceeded";
    /// Retries after a pause that grew.
    rq_retry_backoff_exponential = "upstream_rq_retry_backoff_exponential";
    /// Requests, and their copies, that policies of the service kept from being sent on to it.
    rq_denied = "rbac_denied";
    /// Changes of the endpoints.
    membership_change = "membership_change";
    /// Picks among endpoints that are not healthy, because too few are.
    lb_healthy_panic = "lb_healthy_panic";
    /// Ejections.
    ejections = "outlier_detection_ejections_enforced_total";
    /// Ejections that the share of ejected endpoints did not allow.
    ejections_overflow = "outlier_detection_ejections_overflow";
    /// Ejections for errors in a row.
    ejections_5xx = "outlier_detection_ejections_enforced_consecutive_5xx";
    /// Ejections for gateway errors in a row.
    ejections_gateway = "outlier_detection_ejections_enforced_consecutive_gateway_failure";
    /// Ejections for local failures in a row.
    ejections_local = "outlier_detection_ejections_enforced_consecutive_local_origin_failure";
}

impl Stats {
    pub(super) fn answered(&self, status: u16) {
        self.rq_completed.add();
        match status / 100 {
            1 => self.rq_1xx.add(),
            2 => self.rq_2xx.add(),
            3 => self.rq_3xx.add(),
            4 => self.rq_4xx.add(),
            _ => self.rq_5xx.add(),
        }
    }
}
