//! What is concluded from what was seen.

use k8s_openapi::api::core::v1::NamespaceStatus;

use super::*;

fn namespace(name: &str) -> Namespace {
    Namespace { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() }
}

fn map(map: Map, namespace: &str, content: &str) -> Seen {
    let mut object = map.object(content);
    object.metadata.namespace = Some(namespace.into());
    Seen::Map(map, Event::Apply(object))
}

fn roots(bundle: &str) -> Wanted {
    Wanted { roots: Some(bundle.into()), revocations: None }
}

fn namespaces(known: &Known, wanted: &Wanted) -> Vec<String> {
    known.lacking(wanted).into_iter().map(|write| write.namespace).collect()
}

fn read(names: &[&str]) -> Known {
    let mut known = Known::default();
    known.see(Seen::Namespace(Event::Init));
    names.iter().for_each(|name| known.see(Seen::Namespace(Event::InitApply(namespace(name)))));
    known.see(Seen::Namespace(Event::InitDone));
    Map::ALL.into_iter().for_each(|map| known.see(Seen::Map(map, Event::InitDone)));
    known
}

#[test]
fn xds_row_18_every_namespace_but_the_excluded_lacks_the_map_until_it_is_there() {
    let mut known = read(&["kube-system", "kube-public", "kube-node-lease", "shop", "data"]);
    assert_eq!(namespaces(&known, &roots("root")), ["data", "kube-system", "shop"]);
    known.see(map(Map::Roots, "shop", "root"));
    known.see(map(Map::Roots, "data", "edited"));
    assert_eq!(namespaces(&known, &roots("root")), ["data", "kube-system"], "an edited map is restored");
    known.see(Seen::Map(
        Map::Roots,
        Event::Delete({
            let mut gone = Map::Roots.object("root");
            gone.metadata.namespace = Some("shop".into());
            gone
        }),
    ));
    assert!(namespaces(&known, &roots("root")).contains(&"shop".to_owned()), "a deleted map is made again");
    assert_eq!(namespaces(&known, &roots("new root")).len(), 3, "a changed root goes everywhere");
    assert!(known.lacking(&Wanted::default()).is_empty(), "another channel distributes the roots");
}

#[test]
fn nothing_is_written_before_everything_was_read() {
    let mut known = Known::default();
    known.see(Seen::Namespace(Event::Apply(namespace("shop"))));
    assert!(known.lacking(&roots("root")).is_empty());
    known.see(Seen::Namespace(Event::Init));
    known.see(Seen::Namespace(Event::InitApply(namespace("shop"))));
    known.see(Seen::Namespace(Event::InitDone));
    assert!(known.lacking(&roots("root")).is_empty(), "the map may be there");
    known.see(Seen::Map(Map::Roots, Event::InitDone));
    assert_eq!(namespaces(&known, &roots("root")), ["shop"]);
}

#[test]
fn terminating_namespaces_and_hopeless_ones_are_left_alone() {
    let mut known = read(&["going"]);
    let mut going = namespace("going");
    assert_eq!(namespaces(&known, &roots("root")), ["going"]);
    going.status = Some(NamespaceStatus { phase: Some("Terminating".into()), ..Default::default() });
    known.see(Seen::Namespace(Event::Apply(going)));
    assert!(known.lacking(&roots("root")).is_empty());
    known.see(Seen::Namespace(Event::Apply(namespace("hopeless"))));
    for _ in 0..TRIES_MAX {
        let write = known.lacking(&roots("root")).remove(0);
        known.written(write, false);
    }
    assert!(known.lacking(&roots("root")).is_empty());
    known.see(Seen::Namespace(Event::Apply(namespace("hopeless"))));
    assert_eq!(namespaces(&known, &roots("root")), ["hopeless"], "a change is a new chance");
}

#[test]
fn revocations_come_with_lists_and_are_emptied_when_there_are_none_any_more() {
    let mut known = read(&["shop"]);
    known.see(map(Map::Roots, "shop", "root"));
    let with = Wanted { revocations: Some("list".into()), ..roots("root") };
    assert!(known.lacking(&roots("root")).is_empty(), "no lists, no map");
    let write = known.lacking(&with).remove(0);
    assert_eq!((write.map, write.content.as_str(), write.exists), (Map::Revocations, "list", false));
    known.written(write, true);
    assert!(known.lacking(&with).is_empty());
    let write = known.lacking(&roots("root")).remove(0);
    assert_eq!((write.map, write.content.as_str(), write.exists), (Map::Revocations, "", true));
    known.written(write, true);
    assert!(known.lacking(&roots("root")).is_empty());
}
