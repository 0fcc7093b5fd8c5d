//! Which requests a rule applies to, and how often.

use super::{
    super::attributes::{ResourceSubject, Subject},
    *,
};

fn request(verb: &str, resource: &str, namespace: Option<&str>) -> Attributes {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_owned())),
        None => (resource, None),
    };
    let subject = ResourceSubject {
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource,
        namespace: namespace.map(str::to_owned),
        ..ResourceSubject::default()
    };
    Attributes { verb: verb.to_owned(), subject: Subject::Resource(subject) }
}

fn fault(filter: Filter, action: Action) -> Fault {
    Fault { filter, probability: 1.0, count: None, action }
}

fn status(code: u16) -> Action {
    Action::Status { code, retry_after_seconds: None }
}

#[test]
fn a_filter_covers_what_it_names() {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let pods = Filter { resources: names(&["pods"]), ..Filter::default() };
    let statuses = Filter { resources: names(&["pods/status"]), ..Filter::default() };
    let lists = Filter { verbs: names(&["list", "watch"]), ..Filter::default() };
    let demo = Filter { namespace: Some("demo".to_owned()), ..Filter::default() };
    let core = Filter { group: Some(String::new()), ..Filter::default() };
    let apps = Filter { group: Some("apps".to_owned()), ..Filter::default() };
    let istiod = Filter { user: Some("istiod".to_owned()), ..Filter::default() };
    let cases = [
        (&pods, request("get", "pods", None), true),
        (&pods, request("update", "pods/status", None), true),
        (&pods, request("get", "nodes", None), false),
        (&statuses, request("update", "pods/status", None), true),
        (&statuses, request("update", "pods", None), false),
        (&lists, request("watch", "pods", None), true),
        (&lists, request("get", "pods", None), false),
        (&demo, request("get", "pods", Some("demo")), true),
        (&demo, request("get", "pods", Some("other")), false),
        (&demo, request("list", "pods", None), false),
        (&core, request("list", "pods", None), true),
        (&apps, request("list", "pods", None), false),
        (&istiod, request("list", "pods", None), false),
    ];
    for (filter, request, wanted) in cases {
        assert_eq!(filter.covers(&User::admin(), &request), wanted, "{filter:?} {request:?}");
    }
    let path = Attributes { verb: "get".to_owned(), subject: Subject::Path("/apis".to_owned()) };
    assert!(Filter::default().covers(&User::admin(), &path) && !pods.covers(&User::admin(), &path));
}

#[test]
fn a_count_ends_and_delays_add_up() {
    let faults = Faults::default();
    faults.add(fault(Filter::default(), Action::Delay { ms: 10 })).unwrap();
    faults.add(fault(Filter::default(), Action::Delay { ms: 5 })).unwrap();
    let once = faults.add(Fault { count: Some(1), ..fault(Filter::default(), status(429)) }).unwrap();
    let first = faults.judge(&User::admin(), &request("list", "pods", None));
    assert_eq!(first.delay, Duration::from_millis(15));
    let refusal = first.refusal.unwrap();
    assert_eq!((refusal.code.as_u16(), refusal.reason, refusal.retry_after_seconds), (429, "TooManyRequests", Some(1)));
    assert_eq!(faults.judge(&User::admin(), &request("list", "pods", None)).refusal, None);
    assert_eq!(faults.list().into_iter().find(|rule| rule.id == once).unwrap().applied, 1);
    assert_eq!((faults.clear(Some(once)), faults.clear(None), faults.clear(None)), (1, 2, 0));
    assert_eq!(faults.judge(&User::admin(), &request("list", "pods", None)), Verdict::default());
}

#[test]
fn only_watches_are_cut() {
    let faults = Faults::default();
    let cut = Action::DropWatch { after_ms: 3, ending: Ending::Gone };
    faults.add(fault(Filter::default(), cut)).unwrap();
    assert_eq!(faults.judge(&User::admin(), &request("list", "pods", None)), Verdict::default());
    let verdict = faults.judge(&User::admin(), &request("watch", "pods", None));
    assert_eq!(verdict.cut, Some((Duration::from_millis(3), Ending::Gone)));
}

#[test]
fn rules_that_make_no_sense_and_too_many_are_refused() {
    let faults = Faults::default();
    let bad = [
        Fault { probability: 0.0, ..fault(Filter::default(), status(500)) },
        Fault { probability: f64::NAN, ..fault(Filter::default(), status(500)) },
        Fault { count: Some(0), ..fault(Filter::default(), status(500)) },
        fault(Filter::default(), status(200)),
        fault(Filter::default(), Action::Delay { ms: rule::DELAY_MS_MAX + 1 }),
        fault(Filter { name: Some("x".repeat(300)), ..Filter::default() }, status(500)),
    ];
    for rule in bad {
        assert!(matches!(faults.add(rule.clone()), Err(FaultError::Field { .. })), "{rule:?}");
    }
    for _ in 0..RULES_MAX {
        faults.add(fault(Filter::default(), Action::Delay { ms: rule::DELAY_MS_MAX })).unwrap();
    }
    let more = faults.add(fault(Filter::default(), status(500)));
    assert_eq!(more, Err(FaultError::TooMany { limit: RULES_MAX }));
}

#[test]
fn rules_are_short_in_json() {
    let text = r#"{"verbs":["watch"],"resources":["pods"],"action":{"dropWatch":{"afterMs":100,"ending":"gone"}}}"#;
    let rule: Fault = serde_json::from_str(text).unwrap();
    assert_eq!((rule.probability, rule.count), (1.0, None));
    assert_eq!(rule.action, Action::DropWatch { after_ms: 100, ending: Ending::Gone });
    let status: Action = serde_json::from_str(r#"{"status":{"code":429,"retryAfterSeconds":3}}"#).unwrap();
    assert_eq!(status, Action::Status { code: 429, retry_after_seconds: Some(3) });
}
