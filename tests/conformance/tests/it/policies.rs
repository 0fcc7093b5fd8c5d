//! Policies on the wire: every row as a probe of a real connection.

use std::time::{Duration, Instant};

use conformance::isolated_test;
use conformance::net::Pod;
use conformance::peer::Client;
use conformance::wait::{soon, within};
use conformance::wire::AUTHORIZATION;
use conformance::wire::security::{
    ALLOW, Authorization, Cidr, Clause, DENY, GLOBAL, Match, NAMESPACE, Rule, ServiceAccountMatch, WORKLOAD_SELECTOR,
    exact, prefix, presence, rule,
};
use conformance::wire::workload::Workload;
use conformance::world::{Running, World, wl, workload};
use tokio::io::AsyncReadExt;

use crate::shop::{cancelled, echoed};

/// `D` of the specification: a pod of namespace `db` with applications at 5432, 5433 and 9000; `C` at 10.2.0.8.
struct Database {
    world: World,
    pod: Pod,
    caller: Pod,
    running: Running,
    client: Client,
}

impl Database {
    async fn open(settings: &[(&str, &str)]) -> Self {
        let world = World::new();
        let pod = world.hub.pod("db", "postgres", "10.3.0.1");
        let caller = world.hub.pod("web", "api", "10.2.0.8");
        for port in [5432, 5433, 9000] {
            pod.serve_copies(port);
        }
        world.ads.set(vec![wl(&workload(&pod, 1))]);
        let running = world.start(settings).await;
        running.enrol(&pod).await;
        let own = world.credentials("spiffe://cluster.local/ns/web/sa/api");
        let client = Client::connect(&caller, pod.at(15008), &own).await.unwrap();
        Self { world, pod, caller, running, client }
    }

    /// Exactly these policies are in force.
    async fn govern(&self, policies: &[Authorization]) {
        let resources: Vec<_> = policies.iter().map(conformance::ads::policy).collect();
        self.world.ads.apply(resources).await;
    }

    async fn repeal(&self, policies: &[Authorization]) {
        let names: Vec<_> = policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect();
        self.world.ads.withdraw(AUTHORIZATION, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }

    /// Whether C gets through to a port.
    async fn tunnel(&self, port: u16) -> bool {
        match self.client.status(&self.pod.at(port).to_string()).await {
            200 => true,
            401 => false,
            other => panic!("status {other}"),
        }
    }

    /// Whether plaintext from C's address gets through to a port.
    async fn plain(&self, port: u16) -> bool {
        let answer = soon("an answer or an end", self.caller.ask(self.pod.at(port), "?")).await;
        answer.unwrap_or_default() == "?"
    }

    /// The workload lists these policies.
    async fn attach(&self, names: &[&str]) {
        let authorization_policies = names.iter().map(|name| (*name).to_owned()).collect();
        self.world.ads.apply(vec![wl(&Workload { authorization_policies, ..workload(&self.pod, 1) })]).await;
    }
}

fn policy(name: &str, action: i32, rules: Vec<Rule>) -> Authorization {
    Authorization { name: name.into(), namespace: "db".into(), scope: NAMESPACE, action, rules, ..Default::default() }
}

fn one(one: Match) -> Vec<Rule> {
    vec![rule(vec![one])]
}

fn principal(text: &str) -> Match {
    Match { principals: vec![exact(text)], ..Match::default() }
}

const C: &str = "cluster.local/ns/web/sa/api";

fn everywhere(policy: Authorization) -> Authorization {
    Authorization { namespace: "istio-system".into(), scope: GLOBAL, ..policy }
}

fn namespaces(name: &str) -> Match {
    Match { namespaces: vec![exact(name)], ..Match::default() }
}

fn source(ip: [u8; 4], length: u32) -> Match {
    Match { source_ips: vec![Cidr { address: ip.to_vec(), length }], ..Match::default() }
}

fn strict() -> Match {
    Match { not_principals: vec![presence()], ..Match::default() }
}

/// One row: policies, then what C's tunnel and plaintext to 5432 get.
fn rows() -> Vec<(&'static str, Vec<Authorization>, bool, bool)> {
    let two_rules = vec![rule(vec![namespaces("elsewhere")]), Rule::default()];
    let matches = |all: Vec<Match>| vec![Rule { clauses: vec![Clause { matches: all }] }];
    let account = Match {
        service_accounts: vec![ServiceAccountMatch { namespace: "web".into(), service_account: "other".into() }],
        ..Match::default()
    };
    let on = |port: u32| Match { destination_ports: vec![port], ..Match::default() };
    let both = Match { destination_ports: vec![5433], ..namespaces("web") };
    let allow_c = policy("allow-c", ALLOW, one(principal(C)));
    let empty_allow = policy("empty", ALLOW, Vec::new());
    let empty_deny = everywhere(policy("empty-deny", DENY, Vec::new()));
    let other = Authorization { namespace: "other".into(), ..policy("deny-all", DENY, vec![Rule::default()]) };
    let scheme = one(principal("spiffe://cluster.local/ns/web/sa/api"));
    let we = Match { principals: vec![prefix("cluster.local/ns/we")], ..Match::default() };
    let dry = |p: Authorization| Authorization { dry_run: true, ..p };
    let allow_nobody = policy("allow-nobody", ALLOW, one(principal("cluster.local/ns/a/sa/b")));
    vec![
        ("row 1: none", vec![], true, true),
        ("row 2: an ALLOW without rules, one that matches", vec![empty_allow.clone(), allow_c.clone()], true, false),
        ("row 2: an ALLOW without rules", vec![empty_allow.clone()], false, false),
        ("row 3: a DENY without rules", vec![empty_deny, empty_allow, allow_c.clone()], true, false),
        ("row 4: one rule without clauses", vec![policy("p", ALLOW, two_rules)], true, true),
        ("rows 5 and 6: an exact principal", vec![allow_c.clone()], true, false),
        ("row 7: with the scheme", vec![policy("p", ALLOW, scheme)], false, false),
        ("row 8: a prefix", vec![policy("p", ALLOW, one(we))], true, false),
        ("row 9: strict", vec![policy("p", DENY, one(strict()))], true, false),
        ("row 10: attributes are joined by and", vec![policy("p", ALLOW, one(both))], false, false),
        ("row 11: clauses too", vec![policy("p", DENY, vec![rule(vec![namespaces("web"), on(5432)])])], false, true),
        (
            "row 12: matches by or",
            vec![policy("p", DENY, matches(vec![account, source([10, 2, 0, 0], 16)]))],
            false,
            false,
        ),
        (
            "row 13: DENY wins",
            vec![allow_c.clone(), everywhere(policy("p", DENY, one(source([10, 2, 0, 8], 32))))],
            false,
            false,
        ),
        ("row 14: a dry ALLOW", vec![dry(allow_nobody.clone())], true, true),
        ("row 15: a dry ALLOW that matches", vec![allow_nobody, dry(allow_c)], false, false),
        ("row 18: another namespace", vec![other], true, true),
        ("a Match without attributes is skipped", vec![policy("p", DENY, matches(vec![Match::default()]))], true, true),
        ("a DENY with one empty rule", vec![policy("p", DENY, vec![Rule::default()])], false, false),
    ]
}

isolated_test! {
    async fn policy_row_1_to_15_and_18_hold_on_the_wire() {
        let db = Database::open(&[]).await;
        for (what, policies, tunnel, plain) in rows() {
            if !policies.is_empty() {
                db.govern(&policies).await;
            }
            assert_eq!(db.tunnel(5432).await, tunnel, "{what}: C");
            assert_eq!(db.plain(5432).await, plain, "{what}: plaintext");
            if !policies.is_empty() {
                db.repeal(&policies).await;
            }
        }
    }
}

isolated_test! {
    async fn policy_row_19_and_20_strict_with_exceptions_by_port() {
        let db = Database::open(&[]).await;
        let selected = |name: &str, one_match: Match| Authorization {
            scope: WORKLOAD_SELECTOR,
            ..policy(name, DENY, one(one_match))
        };
        let exempt = selected("exempt", Match { not_destination_ports: vec![9000], ..strict() });
        let only = selected("only", Match { destination_ports: vec![5432], ..strict() });
        db.govern(&[exempt, only]).await;
        assert!(db.plain(5432).await, "policies that no workload names have no effect");
        for (attached, what) in [("db/exempt", "19"), ("db/only", "20")] {
            db.attach(&[attached]).await;
            assert!(db.plain(9000).await, "row {what}");
            assert!(!db.plain(5432).await, "row {what}");
            assert!(db.tunnel(5432).await && db.tunnel(9000).await, "row {what}");
        }
        db.attach(&[]).await;
        assert!(db.plain(5432).await);
    }
}

isolated_test! {
    async fn policy_row_16_an_unknown_reference_is_refused_or_skipped_as_promised() {
        let strict = Database::open(&[]).await;
        strict.attach(&["db/p1"]).await;
        let asked = Instant::now();
        assert!(!strict.tunnel(5432).await, "strict: refused");
        assert!(asked.elapsed() < Duration::from_secs(4), "held for a second at most");
        strict.running.proxy.log_line(&["connection complete", "db/p1"]).await;
        // A policy that arrives while a connection is held decides it.
        strict.attach(&["db/late"]).await;
        let late = Authorization { scope: WORKLOAD_SELECTOR, ..policy("late", ALLOW, one(principal(C))) };
        let held = strict.tunnel(5432);
        let (through, ()) = tokio::join!(held, strict.govern(std::slice::from_ref(&late)));
        assert!(through);
        let reference = Database::open(&[("PROMISE_POLICY_BEFORE_TRAFFIC", "reference")]).await;
        reference.attach(&["db/p1"]).await;
        assert!(reference.tunnel(5432).await, "as the reference: skipped");
        reference.running.proxy.log_line(&["warn", "db/p1"]).await;
    }
}

isolated_test! {
    async fn policy_row_17_a_new_denial_ends_open_streams_and_nothing_else() {
        let db = Database::open(&[]).await;
        let mut denied = db.client.open(&db.pod.at(5432).to_string()).await.unwrap().tunnel;
        let mut spared = db.client.open(&db.pod.at(9000).to_string()).await.unwrap().tunnel;
        let mut plain = db.caller.connect(db.pod.at(5432)).await.unwrap();
        echoed(&mut denied, b"1").await;
        echoed(&mut spared, b"2").await;
        echoed(&mut plain, b"3").await;
        let web = Match { destination_ports: vec![5432], ..principal(C) };
        let pushed = Instant::now();
        db.govern(&[policy("no-api", DENY, one(web))]).await;
        let reason = within("the stream is reset", Duration::from_secs(2), denied.reset_reason()).await.unwrap();
        assert_eq!(reason, h2::Reason::CANCEL);
        assert!(pushed.elapsed() < Duration::from_millis(1500), "{:?}", pushed.elapsed());
        echoed(&mut spared, b"4").await;
        echoed(&mut plain, b"5").await;
        db.running.proxy.log_line(&["connection complete", "policy change", "db/no-api"]).await;
        let failed = [("reporter", "destination"), ("response_flags", "DENY")];
        db.running.proxy.metric_is("istio_tcp_connections_failed_total", &failed, 1.0).await;
        // Plaintext is closed, too.
        db.govern(&[policy("strict", DENY, one(strict()))]).await;
        let read = within("the plaintext connection is closed", Duration::from_secs(2), plain.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap_or(0), 0);
        echoed(&mut spared, b"6").await;
    }
}

isolated_test! {
    async fn policy_row_17_holds_when_a_policy_is_attached_or_an_allowance_withdrawn() {
        let db = Database::open(&[]).await;
        let authority = db.pod.at(5432).to_string();
        let selected = Authorization { scope: WORKLOAD_SELECTOR, ..policy("sel", DENY, one(principal(C))) };
        db.govern(&[selected]).await;
        let mut open = db.client.open(&authority).await.unwrap().tunnel;
        echoed(&mut open, b"1").await;
        db.attach(&["db/sel"]).await;
        assert!(cut(&mut open).await, "a policy that the workload now names");
        db.attach(&[]).await;
        let allow = [policy("c", ALLOW, one(principal(C))), policy("nobody", ALLOW, Vec::new())];
        db.govern(&allow).await;
        let mut open = db.client.open(&authority).await.unwrap().tunnel;
        echoed(&mut open, b"2").await;
        db.repeal(&allow[..1]).await;
        assert!(cut(&mut open).await, "the policy that allowed is gone");
    }
}

/// Whether a stream is reset with CANCEL within a second or so.
async fn cut(tunnel: &mut conformance::tunnel::Tunnel) -> bool {
    let read = within("the stream is reset", Duration::from_secs(2), tunnel.read(&mut [0; 1])).await;
    read.is_err_and(|error| cancelled(&error))
}

isolated_test! {
    async fn policy_decisions_are_logged_with_the_policy() {
        let db = Database::open(&[("AUTHZ_POLICY_INFO_LOGGING", "true"), ("RUST_LOG", "info")]).await;
        let dry = Authorization { dry_run: true, ..policy("dry", DENY, one(principal(C))) };
        let allow = policy("allow", ALLOW, one(principal(C)));
        db.govern(&[dry, allow]).await;
        assert!(db.tunnel(5432).await);
        db.running.proxy.log_line(&["policy=db/dry"]).await;
        db.running.proxy.log_line(&["policy=db/allow"]).await;
    }
}

isolated_test! {
    async fn policy_messages_are_read_as_leniently_as_the_table_says_and_no_weaker() {
        let db = Database::open(&[]).await;
        let odd = Cidr { address: vec![1, 2, 3], length: 8 };
        let long = Cidr { address: vec![10, 2, 0, 8], length: 33 };
        let broken = Match { source_ips: vec![odd, long], ..Match::default() };
        db.govern(&[policy("allow", ALLOW, one(broken.clone()))]).await;
        assert!(!db.tunnel(5432).await, "an ALLOW whose entries were all dropped never matches");
        db.repeal(&[policy("allow", ALLOW, Vec::new())]).await;
        let deny = Match { namespaces: vec![exact("web")], ..broken };
        db.govern(&[policy("deny", DENY, one(deny))]).await;
        assert!(!db.tunnel(5432).await, "in a DENY the attribute counts as unconstrained");
        db.repeal(&[policy("deny", DENY, Vec::new())]).await;
        for bad in [
            Authorization { scope: 9, ..policy("bad", DENY, Vec::new()) },
            Authorization { action: 9, ..policy("bad", DENY, Vec::new()) },
        ] {
            let nonces = db.world.ads.set(vec![conformance::ads::policy(&bad)]);
            let answer = db.world.ads.answer(&nonces[0]).await;
            let message = answer.error_detail.expect("a NACK").message;
            assert!(message.starts_with("db/bad: "), "{message}");
            assert!(message.contains(if bad.scope == 9 { "scope" } else { "action" }), "{message}");
        }
    }
}

isolated_test! {
    async fn policy_scopes_may_change_and_policies_may_move() {
        let db = Database::open(&[]).await;
        let deny = policy("moving", DENY, one(principal(C)));
        db.govern(std::slice::from_ref(&deny)).await;
        assert!(!db.tunnel(5432).await);
        db.govern(&[Authorization { scope: WORKLOAD_SELECTOR, ..deny.clone() }]).await;
        assert!(db.tunnel(5432).await, "nobody names it");
        db.govern(&[Authorization { scope: GLOBAL, ..deny.clone() }]).await;
        assert!(!db.tunnel(5432).await);
        db.govern(&[Authorization { action: ALLOW, ..deny.clone() }]).await;
        assert!(db.tunnel(5432).await);
        assert!(!db.plain(5432).await);
        db.repeal(&[deny]).await;
        assert!(db.plain(5432).await);
    }
}
