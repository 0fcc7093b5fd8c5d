//! Namespaces that come into view.

use super::*;

#[tokio::test]
async fn a_namespace_that_becomes_visible_wakes_the_distributor() {
    use crate::world::{Change, Labels, MeshSettings, Object, Selector};
    let selector = Selector { match_labels: [("mesh".to_owned(), "on".to_owned())].into(), ..Selector::default() };
    let settings = MeshSettings { discovery_selectors: vec![selector], ..MeshSettings::default() };
    let model: Arc<RwLock<Model>> = Arc::default();
    model.write().unwrap().apply(Change::Settings(Arc::new(settings)));
    let (published, mut publications) = watch::channel(());
    let hidden = BTreeSet::from(["shop".to_owned()]);
    let waiting = tokio::spawn({
        let model = model.clone();
        async move { shown(&mut publications, &model, &hidden).await }
    });
    for (label, ends) in [("off", false), ("on", true)] {
        let labels: Labels = [("mesh", label)].into_iter().collect();
        let namespace = crate::world::Namespace { name: "shop".into(), labels, distribution: None, binding: None };
        model.write().unwrap().apply(Change::Upsert(Object::Namespace(namespace)));
        published.send_replace(());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting.is_finished(), ends, "{label}");
    }
}
