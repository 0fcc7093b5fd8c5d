//! Why a request takes its rule, and not the others.

use super::*;

#[test]
fn every_candidate_says_what_does_not_hold() {
    let blue = l7::HttpMatch {
        method: exact("POST"),
        headers: vec![header("x-env", exact("blue"))],
        queries: vec![query("v", text(TextKind::Present(true)))],
        ..below("/shop")
    };
    let table = entries(vec![blue, exact_path("/shop/cart"), below("/shop"), below("/")]);
    let explanation = get("/shop/x").header("x-env", "red").view(|view| table.explain(view));
    assert_eq!(explanation.chosen, Some(2));
    assert_eq!(explanation.hostnames, ["*"]);
    let misses: Vec<Vec<String>> = explanation
        .candidates
        .iter()
        .map(|candidate| candidate.misses.iter().map(ToString::to_string).collect())
        .collect();
    assert_eq!(
        misses[0],
        [
            "method is \"POST\", but it is \"GET\"",
            "header x-env is \"blue\", but it is \"red\"",
            "query parameter v is there, but it is not there",
        ]
    );
    assert_eq!(misses[1], ["path is \"/shop/cart\", but it is \"/shop/x\""]);
    assert!(misses[2].is_empty() && misses[3].is_empty(), "later ones match as well, and come too late");
    let choice = explanation.choice().unwrap();
    assert_eq!(choice.to_string(), "HTTPRoute shop/web rule 0: path is \"/shop\" or below");
    assert_eq!(explanation.candidates[1].wants, "path is \"/shop/cart\"");
}

#[test]
fn a_host_that_nobody_has_has_no_candidates() {
    let table = compile(&l7::HttpTable {
        hosts: vec![virtual_host(&["a.example"], vec![(below("/"), 0)])],
        rules: vec![forward(0)],
    });
    let explanation = Call { authority: "B.example:80", ..get("/") }.view(|view| table.explain(view));
    assert_eq!((explanation.host.as_str(), explanation.candidates.len(), explanation.chosen), ("b.example", 0, None));
    assert!(explanation.hostnames.is_empty());
}

#[test]
fn long_values_are_cut_and_claims_are_not_repeated() {
    let claim = l7::ClaimMatch { path: vec!["sub".into()], value: exact("you"), invert: false };
    let table = entries(vec![l7::HttpMatch {
        headers: vec![header("x-long", exact("short"))],
        claims: vec![claim],
        ..Default::default()
    }]);
    let call = Call { claims: Some(TestClaims(vec![("sub", vec!["secret-me"])])), ..get("/") };
    let explanation = call.header("x-long", "y".repeat(1000)).view(|view| table.explain(view));
    let text = explanation.candidates[0].to_string();
    assert!(text.len() < 500 && !text.contains("secret-me"), "{text}");
    assert_eq!(explanation.candidates[0].misses.len(), 2);
}
