use mesh_wire::l7;

use super::*;
use crate::http::tests::fixture::{Setup, on_worker, raw_server};

/// A policy that comes while the endpoint is being connected to counts, too.
#[test]
fn a_change_of_policy_is_not_missed_while_connecting() {
    on_worker(async {
        let address = raw_server(|_io| std::future::pending()).await;
        let proxy = Setup::to(&[address]).start();
        let context = proxy.context();
        let chain = context.chain.current().unwrap();
        let ready = open(&context, &chain).await.ok().expect("is allowed");
        let mut denying = Setup::to(&[address]);
        denying.policies = vec![l7::Authorization {
            namespace: "shop".into(),
            name: "nobody".into(),
            action: l7::authorization::Action::Deny.into(),
            rules: vec![l7::AuthorizationRule::default()],
            ..l7::Authorization::default()
        }];
        proxy.replace(denying);
        let (_client, io) = tokio::io::duplex(64);
        carry(io, context, ready, &chain).await;
    });
}
