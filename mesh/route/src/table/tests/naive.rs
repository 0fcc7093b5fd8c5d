//! The index finds what reading all entries in order finds.

use proptest::prelude::*;

use super::*;

fn paths() -> impl Strategy<Value = Option<l7::PathMatch>> {
    let path = || "(/[ab]{0,2}){1,3}".prop_map(|text: String| text);
    let kind = prop_oneof![
        4 => path().prop_map(PathKind::Exact),
        4 => path().prop_map(PathKind::SegmentPrefix),
        4 => path().prop_map(PathKind::Prefix),
        1 => "/a?b*(/[ab])?".prop_map(PathKind::Regex),
        1 => Just(PathKind::Regex("/a(/.*)?".to_owned())),
        1 => Just(PathKind::Regex("/a|/b".to_owned())),
        1 => Just(PathKind::Regex("/ab?/[^/]+".to_owned())),
    ];
    proptest::option::weighted(
        0.9,
        (kind, any::<bool>()).prop_map(|(kind, fold)| {
            let ignore_case = fold && !matches!(kind, PathKind::SegmentPrefix(_));
            l7::PathMatch { kind: Some(kind), ignore_case }
        }),
    )
}

fn matches() -> impl Strategy<Value = l7::HttpMatch> {
    let value = || prop_oneof!["[ab]".prop_map(TextKind::Exact), "[ab]".prop_map(TextKind::Prefix)];
    let header = ("x-[ab]", value()).prop_map(|(name, kind)| header(&name, text(kind)));
    let method = proptest::option::weighted(0.2, prop_oneof![Just("GET"), Just("PUT")]);
    (paths(), proptest::collection::vec(header, 0..3), method).prop_map(|(path, headers, method)| l7::HttpMatch {
        path,
        headers,
        method: method.and_then(exact),
        ..Default::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn the_index_finds_the_first_of_all_in_written_order(
        wanted in proptest::collection::vec(matches(), 0..60),
        calls in proptest::collection::vec(("(/[abAB]{0,2}){1,4}", "[ab]{0,2}", "[ab]{0,2}"), 8),
    ) {
        let table = entries(wanted);
        for (path, a, b) in calls {
            let call = get(path).header("x-a", a).header("x-b", b);
            let naive = call.view(|view| {
                let all = &table.hosts[0].entries;
                all.iter().position(|entry| entry.path.matches(view.path) && entry.conditions.hold(view))
            });
            prop_assert_eq!(call.rule(&table), naive);
            prop_assert_eq!(call.view(|view| table.explain(view).chosen), naive);
        }
    }

    /// Whatever a resource says, it is a table or an error, and looking it up never panics.
    #[test]
    fn no_table_and_no_request_panics(
        hosts in proptest::collection::vec("\\PC{0,12}", 0..4),
        texts in proptest::collection::vec("\\PC{0,12}", 6),
        authority in "\\PC{0,16}",
        target in "\\PC{0,24}",
    ) {
        let some = |n: usize| texts[n].clone();
        let matches = vec![
            (path(PathKind::Exact(some(0))), 0),
            (path(PathKind::SegmentPrefix(some(1))), 0),
            (path(PathKind::Prefix(some(2))), 0),
            (path(PathKind::Regex(some(3))), 0),
            (l7::HttpMatch { queries: vec![query(&some(4), exact(&some(5)))], ..Default::default() }, 0),
        ];
        let hostnames: Vec<&str> = hosts.iter().map(String::as_str).collect();
        for one in matches {
            let table = l7::HttpTable { hosts: vec![virtual_host(&hostnames, vec![one])], rules: vec![forward(0)] };
            if let Ok(table) = Table::compile(&table, &Limits::default()) {
                let authority: &'static str = Box::leak(authority.clone().into_boxed_str());
                let call = Call { authority, ..get(target.clone()) };
                let found = call.rule(&table);
                prop_assert_eq!(call.view(|view| table.explain(view).chosen.is_some()), found.is_some());
            }
        }
    }
}
