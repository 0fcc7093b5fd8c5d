//! What a rule does, in words.

use super::{Rule, SessionKind, SessionPersistence};
use crate::percent;

impl Rule {
    /// What it does to a request besides sending it on, in the order in which it happens. `backend` names backends of the
    /// resource by index.
    #[must_use]
    pub fn effects(&self, backend: &dyn Fn(usize) -> String) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.fault.as_ref().map(|fault| format!("fault: {fault}")));
        all.extend(self.cors.as_ref().map(|cors| format!("cors: {cors}")));
        all.extend(self.session.as_ref().map(session));
        all.extend(self.mirrors.iter().map(|mirror| {
            let share = percent(mirror.per_million);
            match &mirror.target {
                Ok(index) => format!("mirror: {share} to {}", backend(*index)),
                Err(unusable) => format!("mirror: {share} to nobody: {}", unusable.reason),
            }
        }));
        all.extend(self.rewrite.as_ref().map(|rewrite| format!("rewrite: {rewrite}")));
        if !self.request_headers.is_empty() {
            all.push(format!("request headers: {}", self.request_headers));
        }
        if !self.response_headers.is_empty() {
            all.push(format!("response headers: {}", self.response_headers));
        }
        all.extend(self.timeout.map(|timeout| format!("time-out: {timeout:?}")));
        all.extend(self.grpc_timeout_max.map(|most| format!("grpc-timeout: at most {most:?}")));
        all.extend(self.retry.as_ref().filter(|retry| retry.attempts > 0).map(|retry| format!("retries: {retry}")));
        all
    }
}

fn session(session: &SessionPersistence) -> String {
    let kind = match session.kind {
        SessionKind::Cookie => "cookie",
        SessionKind::Header => "header",
    };
    format!("session: by {kind} {}", session.name)
}

#[cfg(test)]
mod tests {
    use mesh_wire::l7;

    use crate::pattern::Cache;
    use crate::rule::{Context, Rule};

    fn effects(change: impl FnOnce(&mut l7::HttpRule)) -> Vec<String> {
        let mut wire = l7::HttpRule::default();
        change(&mut wire);
        let mut context = Context { backends: 2, cache: Cache::new(4) };
        Rule::compile(&wire, &mut context).unwrap().effects(&|index| format!("backend {index}"))
    }

    fn milliseconds(ms: i32) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds: 0, nanos: ms * 1_000_000 })
    }

    #[test]
    fn a_rule_without_filters_has_no_effects() {
        assert!(effects(|_| ()).is_empty());
        assert!(effects(|rule| rule.retry = Some(l7::Retry::default())).is_empty(), "no attempts are no retries");
    }

    #[test]
    fn every_effect_is_told_with_its_values() {
        let said = effects(|rule| {
            rule.fault = Some(l7::Fault {
                delay: milliseconds(400),
                delay_per_million: 125_000,
                abort_http_status: 418,
                abort_grpc_status: None,
                abort_per_million: 1_000_000,
            });
            rule.mirrors = vec![l7::Mirror { per_million: 100_000, target: Some(l7::mirror::Target::Backend(1)) }];
            rule.rewrite = Some(l7::Rewrite {
                authority: "other.example".into(),
                path: Some(l7::PathRewrite { kind: Some(l7::path_rewrite::Kind::Prefix("/new".into())) }),
            });
            rule.timeout = milliseconds(300);
            rule.retry = Some(l7::Retry {
                attempts: 2,
                status_codes: vec![503],
                conditions: vec!["connect-failure".into(), "retriable-status-codes".into()],
                per_try_timeout: milliseconds(50),
                ..Default::default()
            });
        });
        assert_eq!(
            said,
            [
                "fault: delays 12.5% by 400ms, aborts 100% with 418",
                "mirror: 10% to backend 1",
                "rewrite: host becomes other.example, matched prefix becomes \"/new\"",
                "time-out: 300ms",
                "retries: 2 more after 503, connect-failure; 50ms each; back-off from 25ms",
            ]
        );
    }

    #[test]
    fn credentials_that_a_route_sets_are_not_shown() {
        let header = |name: &str, value: &str| l7::Header { name: name.into(), value: value.into(), template: false };
        let said = effects(|rule| {
            rule.request_headers = Some(l7::HeaderEdits {
                remove: vec!["x-old".into()],
                set: vec![header("authorization", "Bearer geheim"), header("x-route", "taken")],
                add: vec![header("host", "a.example")],
            });
        });
        assert_eq!(
            said,
            [
                "request headers: removes x-old, sets authorization (value not shown), sets x-route: taken, adds host: a.example"
            ]
        );
    }
}
