//! Records of denials, and of what policies said.

use mesh_policy::{Connection as Seen, Policy, Verdict, evaluate};
use mesh_wire::security::{Action, Authorization, Scope};

use super::*;
use crate::report::denial::{BURST, Budgets, REFILL};

/// A connection of `info`, and what an allow policy for somebody else says about it.
struct Case {
    source: Arc<Workload>,
    destination: Arc<Workload>,
    seen: Seen,
    policies: [Arc<Policy>; 1],
    verdict: Verdict,
}

impl Case {
    fn new(action: Action, dry_run: bool) -> Self {
        let rule = match action {
            Action::Allow => from_principal("x/ns/a/sa/b"),
            Action::Deny => from_principal("cluster.local/ns/shop/sa/web"),
        };
        let message = Authorization { rules: vec![rule], dry_run, ..policy("shop/p", Scope::Namespace, action) };
        let policies = [Arc::new(Policy::decode("shop/p", message).unwrap())];
        let info = info(Direction::Inbound);
        let seen = Seen {
            source_ip: info.src_addr.ip(),
            identity: info.source.identity.clone(),
            destination: "10.1.0.77:8080".parse().unwrap(),
        };
        let verdict = evaluate(&policies, &seen);
        let (source, destination) = (info.source.workload.unwrap(), info.destination.workload.unwrap());
        Self { source, destination, seen, policies, verdict }
    }

    fn denial(&self) -> Denial<'_> {
        Denial {
            src_addr: "10.1.0.5:40000".parse().unwrap(),
            source: Some(&self.source),
            destination: &self.destination,
            connection: &self.seen,
            cause: Cause::Policy { policies: &self.policies, verdict: &self.verdict },
            established: false,
        }
    }
}

const ENDS: &str = "warn\tdenial\tconnection denied\tsrc.addr=10.1.0.5:40000 src.workload=web src.namespace=shop \
    src.identity=spiffe://cluster.local/ns/shop/sa/web dst.addr=10.1.0.77:8080 dst.workload=cart-1 \
    dst.namespace=shop dst.identity=spiffe://cluster.local/ns/shop/sa/cart-1";

#[test]
fn a_denial_names_both_ends_the_rule_and_the_nearest_change() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    let (allow, deny) = (Case::new(Action::Allow, false), Case::new(Action::Deny, false));
    let late = Denial { src_addr: "10.1.0.5:0".parse().unwrap(), established: true, ..deny.denial() };
    let missing = Denial { cause: Cause::MissingPolicy { reason: "policy shop/q is not known" }, ..allow.denial() };
    let lines = logged("info", || {
        for denial in [allow.denial(), late, missing] {
            report.denied(&denial);
        }
    });
    let expected = [
        format!(
            "{ENDS} denied_by=no_allow_rule policy=shop/p reason=\"allow policies exist but none matched: shop/p\" \
             nearest_allow=\"add principal cluster.local/ns/shop/sa/web to rule 0 of allow policy shop/p\""
        ),
        format!(
            "{ENDS} denied_by=deny_rule policy=shop/p rule=0 reason=\"explicitly denied by policy shop/p rule 0\" \
             nearest_allow=\"{}\" established=true",
            mesh_policy::nearest_allow(&deny.policies, &deny.seen).unwrap()
        )
        .replace("10.1.0.5:40000", "10.1.0.5"),
        format!("{ENDS} denied_by=missing_policy reason=\"policy shop/q is not known\""),
    ];
    assert_eq!(lines, expected);
    let text = registry.encode();
    for reason in ["no_allow_rule", "deny_rule", "missing_policy"] {
        assert!(text.contains(&format!("ztunnel_denials_total{{reason=\"{reason}\"}} 1\n")), "{text}");
    }
}

#[test]
fn a_burst_is_recorded_then_counted_then_recorded_again() {
    let mut budgets = Budgets::default();
    let (pod, other) = (Case::new(Action::Deny, false).source, Case::new(Action::Deny, false).destination);
    let now = Instant::now();
    for _ in 0..BURST {
        assert_eq!(budgets.admit(&pod, now), Some(0));
    }
    assert_eq!(budgets.admit(&pod, now), None);
    assert_eq!(budgets.admit(&pod, now), None);
    assert_eq!(budgets.admit(&other, now), Some(0), "one workload does not silence another");
    assert_eq!(budgets.admit(&pod, now + REFILL), Some(2));
    assert_eq!(budgets.admit(&pod, now + REFILL), None);
    budgets.sweep(now + REFILL * 2 * BURST);
    assert_eq!(budgets.take_left_out().len(), 1, "what was left out is not forgotten");
}

#[test]
fn what_was_left_out_is_counted_and_summed_up() {
    let registry = Registry::new();
    let report = Report::new(&registry, false);
    let case = Case::new(Action::Deny, false);
    let lines = logged("info", || {
        for _ in 0..BURST + 5 {
            report.denied(&case.denial());
        }
        report.summarise();
        report.summarise();
    });
    assert_eq!(lines.len() as u32, BURST + 1, "{lines:?}");
    assert_eq!(
        lines.last().unwrap(),
        "warn\tdenial\tmore connections were denied than are recorded one by one\tdst.workload=cart-1 \
         dst.namespace=shop suppressed=5"
    );
    let text = registry.encode();
    assert!(text.contains("ztunnel_denial_records_suppressed_total 5\n"), "{text}");
    assert!(text.contains(&format!("ztunnel_denials_total{{reason=\"deny_rule\"}} {}\n", BURST + 5)), "{text}");
}

#[test]
fn policy_decisions_are_logged_at_debug_or_as_the_operator_wants_at_info() {
    let case = Case::new(Action::Deny, true);
    let lines = |filter: &str, at_info: bool| {
        let report = Report::new(&Registry::new(), at_info);
        logged(filter, || report.verdict(&case.seen, &case.verdict))
    };
    assert_eq!(lines("info", false), <[&str; 0]>::default());
    assert_eq!(lines("info,policy=off", true), <[&str; 0]>::default());
    for (lines, level) in [(lines("debug", false), "debug"), (lines("info", true), "info")] {
        let [decision, dry_run] = &lines[..] else { panic!("{lines:?}") };
        let expected = format!(
            "{level}\tpolicy\tpolicy decision\tsrc.ip=10.1.0.5 src.identity=spiffe://cluster.local/ns/shop/sa/web \
             dst.addr=10.1.0.77:8080 allowed=true reason="
        );
        assert!(decision.starts_with(&expected), "{decision}");
        assert!(dry_run.starts_with(&format!("{level}\tpolicy\tdry run\tpolicy=shop/p")), "{dry_run}");
        assert!(dry_run.contains("shop/p"), "{dry_run}");
    }
}
