//! With on-demand discovery only what is dialled is asked for, and nothing unknown is taken for unprotected.

use mesh_core::addr::ip_to_bytes;
use mesh_wire::{type_url, workload as wire};

use crate::agent::Town;
use crate::controller::{Controller, Session, address};
use crate::isolate::isolated_test;
use crate::pod::Pod;
use crate::proxy::Proxy;

const CONTROLLER: &str = "127.0.0.1:15010";
const SERVICE: &str = "shop/cart.shop.svc.cluster.local";

fn settings(uds: &str) -> [(&'static str, &str); 5] {
    [
        ("XDS_ADDRESS", "http://127.0.0.1:15010"),
        ("XDS_ON_DEMAND", "true"),
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("FAKE_CA", "true"),
        ("INPOD_UDS", uds),
    ]
}

fn pod(pod: &Pod, backs: bool) -> wire::address::Type {
    let ports = vec![wire::Port { service_port: 80, target_port: 8080, ..wire::Port::default() }];
    let services = backs.then(|| (SERVICE.to_owned(), wire::PortList { ports }));
    wire::address::Type::Workload(wire::Workload {
        uid: format!("c//Pod/shop/{}", pod.name),
        name: pod.name.into(),
        namespace: "shop".into(),
        service_account: pod.name.into(),
        addresses: vec![ip_to_bytes(pod.v4)],
        tunnel_protocol: 1,
        services: services.into_iter().collect(),
        ..wire::Workload::default()
    })
}

fn service() -> wire::address::Type {
    wire::address::Type::Service(wire::Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: "cart.shop.svc.cluster.local".into(),
        addresses: vec![wire::NetworkAddress { address: vec![172, 20, 0, 9], ..wire::NetworkAddress::default() }],
        ports: vec![wire::Port { service_port: 80, target_port: 8080, ..wire::Port::default() }],
        ..wire::Service::default()
    })
}

/// Two pods served, nothing known but the pods of the node that call.
async fn start<'a>(town: &'a Town, uds: &'a str, controller: &mut Controller) -> (Proxy<'a>, Session) {
    let mut proxy = Proxy::start(&town.host, &settings(uds));
    let mut session = controller.stream().await;
    let addresses = session.request().await;
    assert_eq!(addresses.type_url, type_url::ADDRESS);
    assert_eq!(
        (&addresses.resource_names_subscribe[..], &addresses.resource_names_unsubscribe[..]),
        (&["*".to_owned()][..], &["*".to_owned()][..])
    );
    let policies = session.request().await;
    assert!(policies.resource_names_subscribe.is_empty() && policies.type_url == type_url::AUTHORIZATION);
    session.send(type_url::AUTHORIZATION, vec![], &[]).await;
    let web = address("c//Pod/shop/web", &["/10.11.0.5"], pod(&town.web, false));
    session.send(type_url::ADDRESS, vec![web], &[]).await;
    let stream = town.agent.accept().await;
    town.enrol(&stream).await;
    proxy.ready().await;
    // The session with the agent lives on its own.
    std::mem::forget(stream);
    (proxy, session)
}

isolated_test! {
    async fn wds_row_17_what_the_controller_does_not_know_is_passed_through() {
        let town = Town::build();
        let uds = town.agent.uds();
        let mut controller = Controller::listen(&town.host, CONTROLLER.parse().unwrap());
        let (proxy, mut session) = start(&town, &uds, &mut controller).await;
        let far = Pod::new("far", "10.11.0.99", "fd00:11::99");
        far.cable(&town.web, "10.13.0.99", "10.13.0.5");
        far.serve_echo(8080);
        let asked = town.web.ask("10.13.0.99:8080".parse().unwrap(), "hello");
        let controller = async {
            let question = session.request().await;
            assert_eq!(question.resource_names_subscribe, ["/10.13.0.99"]);
            assert_eq!(question.response_nonce, "");
            session.send(type_url::ADDRESS, vec![], &["/10.13.0.99"]).await;
        };
        let (answer, ()) = tokio::join!(asked, controller);
        assert_eq!(answer.unwrap(), "10.13.0.5 said hello");
        proxy.log_line(&["connection complete", "dst.addr=10.13.0.99:8080", "direction=outbound"]).await;
    }
}

isolated_test! {
    async fn a_service_is_asked_for_once_and_then_known() {
        let town = Town::build();
        let uds = town.agent.uds();
        let mut controller = Controller::listen(&town.host, CONTROLLER.parse().unwrap());
        let (proxy, mut session) = start(&town, &uds, &mut controller).await;
        town.cart.serve_echo(8080);
        let vip = "172.20.0.9:80".parse().unwrap();
        let both = async { tokio::join!(town.web.ask(vip, "one"), town.web.ask(vip, "two")) };
        let controller = async {
            assert_eq!(session.request().await.resource_names_subscribe, ["/172.20.0.9"]);
            let cart = address("c//Pod/shop/cart", &["/10.11.0.77"], pod(&town.cart, true));
            session.send(type_url::ADDRESS, vec![address(SERVICE, &["/172.20.0.9"], service()), cart], &[]).await;
        };
        let ((one, two), ()) = tokio::join!(both, controller);
        assert_eq!((one.unwrap(), two.unwrap()), ("10.11.0.5 said one".to_owned(), "10.11.0.5 said two".to_owned()));
        assert_eq!(town.web.ask(vip, "three").await.unwrap(), "10.11.0.5 said three");
        proxy.log_line(&["dst.hbone_addr=10.11.0.77:8080", "direction=outbound"]).await;
    }
}

isolated_test! {
    async fn without_an_answer_nothing_leaves_in_the_clear() {
        let town = Town::build();
        let uds = town.agent.uds();
        let mut controller = Controller::listen(&town.host, CONTROLLER.parse().unwrap());
        let (proxy, mut session) = start(&town, &uds, &mut controller).await;
        town.cart.serve_echo(8080);
        let asked = town.web.ask(std::net::SocketAddr::new(town.cart.v4, 8080), "hello");
        let (answer, question) = tokio::join!(asked, session.request());
        assert_eq!(question.resource_names_subscribe, ["/10.11.0.77"]);
        assert_eq!(answer.unwrap_or_default(), "");
        proxy.log_line(&["connection failed", "control plane did not say within 5s what /10.11.0.77 is"]).await;
    }
}
