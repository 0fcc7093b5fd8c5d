use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, MessageType, ResponseCode};

use super::*;
use crate::dns::fixture::{NameServer, reply, truncated_reply};

const BOTH: Families = Families { v4: true, v6: true, prefer_v4: true };
const V4: Families = Families { v4: true, v6: false, prefer_v4: true };

fn resolver(server: &NameServer) -> Resolver {
    Resolver::new(NameServers::fixed([server.addr]))
}

/// Knows IPv4 addresses of every name.
async fn v4_server(addresses: &'static [[u8; 4]]) -> NameServer {
    NameServer::start(move |query, _| {
        let asked = Request::read(query).unwrap();
        let is_v4 = asked.question().unwrap().kind == RecordType::A;
        vec![reply(query, if is_v4 { addresses } else { &[] })]
    })
    .await
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_name_is_asked_for_once_per_family_and_remembered() {
    let server = v4_server(&[[192, 0, 2, 1]]).await;
    let resolver = resolver(&server);
    for _ in 0..5 {
        assert_eq!(resolver.lookup("Db.Example.org.", BOTH).await, Ok(ip("192.0.2.1")));
    }
    let mut kinds: Vec<_> = server.seen().iter().map(|(_, query)| Request::read(query).unwrap()).collect();
    kinds.sort_by_key(|request| request.question().unwrap().kind.0);
    let asked: Vec<_> = kinds.iter().map(|request| request.question().unwrap().name.as_str()).collect();
    assert_eq!(asked, ["db.example.org", "db.example.org"]);
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let server = v4_server(&[[192, 0, 2, 1]]).await;
    let resolver = resolver(&server);
    let all = futures::future::join_all((0..50).map(|_| resolver.lookup("db.example.org", V4))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.seen().len(), 1);
    let cache = resolver.cache();
    assert_eq!((cache.len(), cache.turns()), (1, 0));
}

#[tokio::test]
async fn connections_are_spread_over_the_addresses() {
    let server = v4_server(&[[192, 0, 2, 1], [192, 0, 2, 2]]).await;
    let resolver = resolver(&server);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        seen.insert(resolver.lookup("db.example.org", V4).await.unwrap());
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_family_that_is_not_wanted_is_not_taken() {
    let server = v4_server(&[[192, 0, 2, 1]]).await;
    let resolver = resolver(&server);
    let v6 = Families { v4: false, v6: true, prefer_v4: true };
    let none = |host: &str| Err(ResolveError::NoAddress { host: host.to_owned() });
    assert_eq!(resolver.lookup("db.example.org", v6).await, none("db.example.org"));
    assert_eq!(resolver.lookup("192.0.2.9", v6).await, none("192.0.2.9"));
    assert_eq!(resolver.lookup("192.0.2.9", V4).await, Ok(ip("192.0.2.9")));
    let prefer_v6 = Families { prefer_v4: false, ..BOTH };
    assert_eq!(resolver.lookup("db.example.org", prefer_v6).await, Ok(ip("192.0.2.1")), "better than nothing");
}

#[tokio::test]
async fn a_long_answer_is_fetched_over_a_connection() {
    let server = NameServer::start(|query, transport| match transport {
        Transport::Udp => vec![truncated_reply(query)],
        Transport::Tcp => vec![reply(query, &[[192, 0, 2, 1]])],
    })
    .await;
    assert_eq!(resolver(&server).lookup("db.example.org", V4).await, Ok(ip("192.0.2.1")));
}

#[tokio::test]
async fn failures_are_told_and_forgotten_soon() {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = count.clone();
    let server = NameServer::start(move |query, _| {
        asked.fetch_add(1, Ordering::SeqCst);
        let mut message = Message::from_vec(query).unwrap();
        message.metadata.message_type = MessageType::Response;
        message.metadata.response_code =
            if message.queries[0].name().num_labels() == 1 { ResponseCode::NXDomain } else { ResponseCode::ServFail };
        vec![message.to_vec().unwrap()]
    })
    .await;
    let resolver = resolver(&server);
    assert_eq!(resolver.lookup("nobody", V4).await, Err(ResolveError::NoAddress { host: "nobody".into() }));
    let failed = resolver.lookup("db.example.org", V4).await.unwrap_err();
    assert_eq!(failed.to_string(), "resolving db.example.org: the name server answered with code 2");
    assert_eq!(resolver.lookup("db.example.org", V4).await, Err(failed));
    assert_eq!(count.load(Ordering::SeqCst), 2, "the second failure came out of memory");
    for bad in ["", "a..b", "a b", "-.\0", &"a".repeat(64), &"a.".repeat(200)] {
        let error = resolver.lookup(bad, V4).await.unwrap_err();
        assert!(matches!(error, ResolveError::BadName { .. }), "{bad:?}: {error}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let nobody = Resolver::new(NameServers::fixed(vec![]));
    let error = nobody.lookup("db.example.org", V4).await.unwrap_err();
    assert_eq!(error.to_string(), "resolving db.example.org: no name server is configured");
}

#[tokio::test(start_paused = true)]
async fn the_cache_has_a_bound_and_lets_go_of_the_oldest() {
    let mut cache = Cache::default();
    let key = |n: usize| Key { host: format!("h{n}").into(), kind: RecordType::A };
    let now = Instant::now();
    for n in 0..crate::limits::RESOLVER_CACHE_MAX + 10 {
        cache.put(key(n), Ok(Arc::default()), now + Duration::from_secs(10 + n as u64));
    }
    assert_eq!(cache.len(), crate::limits::RESOLVER_CACHE_MAX);
    assert!(cache.get(&key(9), now).is_err(), "the one that would have gone first");
    assert!(cache.get(&key(10), now).is_ok());
    assert!(cache.get(&key(10), now + Duration::from_secs(20)).is_err(), "no longer true");
    tokio::time::advance(Duration::from_secs(100)).await;
    cache.put(key(1_000_000), Ok(Arc::default()), now + Duration::from_secs(200));
    assert_eq!(cache.len(), crate::limits::RESOLVER_CACHE_MAX - 80, "what is no longer true makes room first");
}
