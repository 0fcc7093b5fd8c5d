//! Those who follow streams: who refuses one, what they are told, when they are let go.

use std::sync::Mutex;

use super::*;

/// Follows streams of machines, and notes what happens.
#[derive(Default)]
struct Porter {
    seen: Arc<Mutex<Vec<String>>>,
}

struct Follower(Arc<Mutex<Vec<String>>>);

impl Attendant for Follower {
    fn on_request(&mut self, request: &DeltaDiscoveryRequest) {
        self.0.lock().unwrap().push(request.type_url.clone());
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("left".to_owned());
    }
}

impl Gatekeeper for Porter {
    type Caller = ();

    async fn admit(&self, _: &http::HeaderMap, _: &http::Extensions) -> Result<(), Status> {
        Ok(())
    }

    fn check(&self, (): &(), _: &Node) -> Result<(), Status> {
        Ok(())
    }

    async fn attend(&self, (): &(), node: &Node) -> Result<Option<Box<dyn Attendant>>, Status> {
        // As one that asks somebody else.
        tokio::task::yield_now().await;
        match node.id.as_str() {
            "stranger" => Err(Status::not_found("nobody knows you")),
            "machine" => Ok(Some(Box::new(Follower(self.seen.clone())))),
            _ => Ok(None),
        }
    }
}

async fn open(id: &str, first: &str) -> (Client, Arc<Mutex<Vec<String>>>) {
    let hub = Hub::new(&TYPES, HubOptions::default(), Box::new(Unobserved));
    hub.set_ready(true);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let porter = Porter::default();
    let seen = porter.seen.clone();
    let service = AdsService::new(hub, Arc::new(porter));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Channel::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap();
    let (requests, stream) = mpsc::channel(16);
    let mut grpc = AggregatedDiscoveryServiceClient::new(channel);
    let responses = grpc.delta_aggregated_resources(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let mut client = Client { requests, responses, node: Some(node(id, "n1")) };
    client.subscribe(first, &[]).await;
    (client, seen)
}

const OTHER: &str = "type.googleapis.com/other.Type";

#[tokio::test]
async fn who_follows_a_stream_is_told_of_other_types_and_let_go_at_its_end() {
    let (mut client, seen) = open("machine", OTHER).await;
    client.subscribe(AUTHORIZATION, &[]).await;
    assert_eq!(client.next().await.type_url, AUTHORIZATION, "the other type is not answered");
    client.subscribe(OTHER, &[]).await;
    client.on_demand(ADDRESS).await;
    assert_eq!(client.next().await.type_url, ADDRESS);
    assert_eq!(*seen.lock().unwrap(), [OTHER, OTHER], "and of no types that are served");
    drop(client);
    let left = async {
        while seen.lock().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), left).await.expect("it is let go");
    assert_eq!(seen.lock().unwrap()[2], "left");
}

#[tokio::test]
async fn a_stream_that_nobody_wants_to_follow_ends_and_others_are_served() {
    let (mut client, _) = open("stranger", AUTHORIZATION).await;
    assert_eq!(client.failure().await, Code::NotFound);
    let (mut client, seen) = open("proxy", OTHER).await;
    client.subscribe(AUTHORIZATION, &[]).await;
    assert_eq!(client.next().await.type_url, AUTHORIZATION);
    assert!(seen.lock().unwrap().is_empty());
}
