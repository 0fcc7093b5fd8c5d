//! Against scripted API servers on loopback.
#![allow(clippy::indexing_slicing)] // a test may

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::auth::TokenReviewer;
use crate::auth::cluster::Reviewers;
use crate::cluster::Cluster;

/// Objects by the last part of their path; watches tell nothing until the lists change, and then end.
type Lists = Arc<BTreeMap<&'static str, Vec<Value>>>;

struct Api {
    addr: SocketAddr,
    lists: watch::Sender<Lists>,
}

impl Api {
    async fn start(lists: &[(&'static str, Vec<Value>)]) -> Self {
        let (lists, receiver) = watch::channel(Arc::new(lists.iter().cloned().collect()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(receiver);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { addr, lists }
    }

    fn set(&self, lists: &[(&'static str, Vec<Value>)]) {
        self.lists.send_replace(Arc::new(lists.iter().cloned().collect()));
    }

    fn client(&self) -> Client {
        Client::try_from(kube::Config::new(format!("http://{}", self.addr).parse().unwrap())).unwrap()
    }

    fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n",
            self.addr
        )
    }
}

async fn answer(
    State(mut lists): State<watch::Receiver<Lists>>,
    Query(query): Query<BTreeMap<String, String>>,
    uri: Uri,
) -> Response {
    let name = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    if name == "tokenreviews" {
        let status = json!({"authenticated": true, "audiences": ["istio-ca"], "user": {"username": "far"}});
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status});
        return (StatusCode::CREATED, Json(review)).into_response();
    }
    let list = lists.borrow_and_update().clone();
    if query.contains_key("watch") {
        let _ = lists.changed().await;
        let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "old", "reason": "Expired", "code": 410});
        return Json(json!({"type": "ERROR", "object": gone})).into_response();
    }
    let items = list.get(name.as_str()).cloned().unwrap_or_default();
    Json(json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}))
        .into_response()
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"}, "status": {"podIP": "10.0.0.1"}})
}

fn secret(clusters: &[(&str, &str)]) -> Value {
    let encode = |value: &str| base64::engine::general_purpose::STANDARD.encode(value);
    let data: BTreeMap<_, _> = clusters.iter().map(|(id, value)| (*id, encode(value))).collect();
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "remote", "namespace": "istio-system", "labels": {"istio/multiCluster": "true"}},
        "data": data,
    })
}

struct Bench {
    changes: mpsc::Receiver<Change>,
    clusters: Clusters,
    local: Client,
}

fn start(home: &Api, limit: Duration) -> Bench {
    let registry = MetricsRegistry::new();
    let (sender, changes) = mpsc::channel(64);
    let clusters = Clusters::new(&registry);
    let sources = RemoteClusters {
        client: home.client(),
        namespace: "istio-system".into(),
        own: vec!["c1".into()],
        timeout: limit,
        changes: sender,
        metrics: Arc::new(Metrics::new(&registry)),
        revision: "default".into(),
        supervisor: Supervisor::new(),
        clusters: clusters.clone(),
    };
    tokio::spawn(sources.run());
    Bench { changes, clusters, local: home.client() }
}

impl Bench {
    /// Waits for a change of this form, and tells what came before it.
    async fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let wait = async {
            let mut told = Vec::new();
            loop {
                let Some(Change::Remote(id, change)) = self.changes.recv().await else { panic!("{told:?}") };
                let text = match &*change {
                    RemoteChange::Told { epoch, change: Change::Upsert(object) } => {
                        format!("{id} {epoch} +{}", object.key())
                    }
                    RemoteChange::Told { .. } => continue,
                    RemoteChange::Complete { epoch } => format!("{id} {epoch} complete"),
                    RemoteChange::Gone => format!("{id} gone"),
                    RemoteChange::Settled => "settled".to_owned(),
                };
                told.push(text.clone());
                if wanted(&text) {
                    return told;
                }
            }
        };
        timeout(Duration::from_secs(20), wait).await.expect("the change comes")
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_cluster_is_read_swapped_and_left_as_its_secret_says() {
    let far = Api::start(&[("pods", vec![pod("a")])]).await;
    let home = Api::start(&[("secrets", vec![secret(&[("c2", &far.kubeconfig())])])]).await;
    let mut bench = start(&home, LONG);
    let told = bench.until(|one| one == "settled").await;
    assert_eq!(told, ["c2 1 +ns/a", "c2 1 complete", "settled"]);
    let view = bench.clusters.view();
    assert_eq!((&view[0]["id"], &view[0]["syncStatus"]), (&json!("c2"), &json!("synced")));

    // Tokens of that cluster are reviewed there, and those of unknown clusters by nobody.
    let reviewers = Reviewers { local: Cluster(bench.local.clone()), others: Some(bench.clusters.clone()) };
    assert!(reviewers.of_cluster("c3").is_none());
    let review = reviewers.of_cluster("c2").unwrap().review("t", &["istio-ca".to_owned()]).await.unwrap();
    assert_eq!(review.user.unwrap().username.as_deref(), Some("far"));

    let other = Api::start(&[("pods", vec![pod("b")])]).await;
    home.set(&[("secrets", vec![secret(&[("c2", &other.kubeconfig())])])]);
    assert_eq!(bench.until(|one| one == "c2 2 complete").await, ["c2 2 +ns/b", "c2 2 complete"]);
    home.set(&[("secrets", Vec::new())]);
    bench.until(|one| one == "c2 gone").await;
    assert!(bench.clusters.view().is_empty() && reviewers.of_cluster("c2").is_none());
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_not_waited_for_and_is_read_later() {
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = Api::start(&[("pods", vec![pod("a")])]).await;
    let dead = far.kubeconfig().replace(&far.addr.to_string(), &silent.local_addr().unwrap().to_string());
    let home = Api::start(&[("secrets", vec![secret(&[("c2", &dead)])])]).await;
    let mut bench = start(&home, Duration::from_millis(200));
    assert_eq!(bench.until(|one| one == "settled").await, ["settled"]);
    assert_eq!(bench.clusters.view()[0]["syncStatus"], "timeout");
    home.set(&[("secrets", vec![secret(&[("c2", &far.kubeconfig())])])]);
    bench.until(|one| one == "c2 2 complete").await;
}

#[tokio::test]
async fn without_secrets_and_with_bad_ones_we_start_all_the_same() {
    let home = Api::start(&[]).await;
    assert_eq!(start(&home, LONG).until(|one| one == "settled").await, ["settled"]);
    let bad = "users: [{name: u, user: {exec: {command: /bin/true}}}]";
    let home = Api::start(&[("secrets", vec![secret(&[("c2", bad), ("c1", bad)])])]).await;
    let mut bench = start(&home, Duration::from_millis(200));
    assert_eq!(bench.until(|one| one == "settled").await, ["settled"]);
    assert_eq!(bench.clusters.view().len(), 1, "our own is none");
}
