//! Rules from the wire: bounds, and what each kind of target answers.

use mesh_wire::l7;

use super::*;
use crate::limits::DIRECT_BODY_BYTES_MAX;
use crate::pattern::Cache;

fn compile(wire: &l7::HttpRule) -> Result<Rule, String> {
    let mut context = Context { backends: 2, cache: Cache::new(4) };
    Rule::compile(wire, &mut context).map_err(|error| error.field)
}

fn with(change: impl FnOnce(&mut l7::HttpRule)) -> Result<Rule, String> {
    let mut wire = l7::HttpRule::default();
    change(&mut wire);
    compile(&wire)
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[test]
fn durations_of_zero_are_none() {
    let rule = with(|rule| {
        rule.timeout = seconds(0);
        rule.grpc_timeout_max = seconds(3);
        rule.retry = Some(l7::Retry { per_try_timeout: seconds(0), ..Default::default() });
    });
    let rule = rule.unwrap();
    assert_eq!((rule.timeout, rule.grpc_timeout_max), (None, Some(Duration::from_secs(3))));
    assert_eq!(rule.retry.unwrap().per_try_timeout, None);
}

#[test]
fn a_rule_without_an_action_has_no_backend() {
    let rule = with(|_| ()).unwrap();
    let Action::Forward(forward) = rule.action else { panic!("forwards to nobody") };
    assert!(matches!(forward.pick(0), Picked::None));
}

#[test]
fn bodies_of_direct_responses_are_bounded() {
    let direct = |bytes, status| {
        with(|rule| {
            let body = vec![b'x'; bytes];
            rule.action = Some(l7::http_rule::Action::DirectResponse(l7::DirectResponse { status, body }));
        })
    };
    assert!(direct(DIRECT_BODY_BYTES_MAX, 200).is_ok());
    assert_eq!(direct(DIRECT_BODY_BYTES_MAX + 1, 200).unwrap_err(), "direct_response.body");
    for status in [0, 100, 101, 199, 600, 100_000] {
        assert_eq!(direct(0, status).unwrap_err(), "direct_response.status", "{status}");
    }
}

#[test]
fn a_backend_answers_forwards_or_redirects() {
    let backend = |change: fn(&mut l7::WeightedBackend)| {
        let mut backend = l7::WeightedBackend { weight: 1, ..Default::default() };
        change(&mut backend);
        Forward::compile(&[backend], 2)
    };
    let unusable = backend(|backend| {
        let unusable = l7::Unusable { status: 503, flag: "NC".into(), reason: "no such host".into() };
        backend.target = Some(l7::weighted_backend::Target::Unusable(unusable));
    });
    let unusable = unusable.unwrap();
    let Picked::Unusable { unusable, .. } = unusable.pick(1) else { panic!("an error") };
    assert_eq!((unusable.status.as_u16(), unusable.flag.as_str()), (503, "NC"));
    let redirect = backend(|backend| {
        backend.target = Some(l7::weighted_backend::Target::Backend(1));
        backend.redirect = Some(l7::Redirect { status: 307, ..Default::default() });
    });
    let redirect = redirect.unwrap();
    assert!(matches!(redirect.pick(1), Picked::Redirect { redirect, .. } if redirect.status == 307));
    assert_eq!(backend(|_| ()).unwrap_err().field, "backends[0].target");
    assert!(backend(|backend| backend.target = Some(l7::weighted_backend::Target::Backend(1))).is_ok());
    let past = backend(|backend| backend.target = Some(l7::weighted_backend::Target::Backend(2)));
    assert_eq!(past.unwrap_err().field, "backends[0].backend");
}

#[test]
fn a_session_ends_where_its_backend_has_no_weight() {
    let weighted = |weight| l7::WeightedBackend {
        weight,
        target: Some(l7::weighted_backend::Target::Backend(0)),
        ..Default::default()
    };
    let forward = Forward::compile(&[weighted(1), weighted(0)], 1).unwrap();
    assert!(forward.at(0).is_some() && forward.at(1).is_none() && forward.at(2).is_none());
}

#[test]
fn mirrors_for_nobody_are_not_sent() {
    let mirror =
        |per_million, target| with(|rule| rule.mirrors = vec![l7::Mirror { target: Some(target), per_million }]);
    let nobody = l7::mirror::Target::Unusable(l7::Unusable::default());
    assert_eq!(mirror(1_000_000, nobody).unwrap().mirrors.first().unwrap().sampled(1), None);
    let all = mirror(1_000_000, l7::mirror::Target::Backend(1)).unwrap();
    assert_eq!(all.mirrors.first().unwrap().sampled(u64::MAX), Some(1));
    let none = mirror(0, l7::mirror::Target::Backend(1)).unwrap();
    assert_eq!(none.mirrors.first().unwrap().sampled(0), None);
    assert_eq!(mirror(1_000_001, l7::mirror::Target::Backend(1)).unwrap_err(), "mirrors[0].per_million");
    assert_eq!(mirror(1, l7::mirror::Target::Backend(2)).unwrap_err(), "mirrors[0].backend");
}

#[test]
fn sessions_are_kept_by_names_that_can_be_sent() {
    let session = |name: &str| {
        let session = l7::SessionPersistence { name: name.into(), lifetime: seconds(60), ..Default::default() };
        with(|rule| rule.session = Some(session))
    };
    let kept = session("shop-session").unwrap().session.unwrap();
    assert_eq!((kept.kind, kept.lifetime), (SessionKind::Cookie, Some(Duration::from_secs(60))));
    assert_eq!(session("a;b=c").unwrap_err(), "session.name");
    assert_eq!(session("").unwrap_err(), "session.name");
}
