use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_wire::l7;
use tokio::io::{AsyncReadExt, ReadBuf};

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

/// A client whose connection breaks at once.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn what_the_client_breaks_off_is_reset_and_what_it_ends_is_not() {
    on_worker(async {
        let (told, mut ends) = tokio::sync::mpsc::channel(2);
        let address = raw_server(move |mut io| {
            let told = told.clone();
            async move {
                let end = io.read(&mut [0; 64]).await.map_err(|error| error.kind());
                told.try_send(end).unwrap();
            }
        })
        .await;
        let proxy = Setup::to(&[address]).start();
        let chain = proxy.context().chain.current().unwrap();
        let ready = open(&proxy.context(), &chain).await.ok().expect("is allowed");
        carry(Broken, proxy.context(), ready, &chain).await;
        assert_eq!(ends.recv().await, Some(Err(io::ErrorKind::ConnectionReset)));
        let ready = open(&proxy.context(), &chain).await.ok().expect("is allowed");
        let (client, io) = tokio::io::duplex(64);
        drop(client);
        carry(io, proxy.context(), ready, &chain).await;
        assert_eq!(ends.recv().await, Some(Ok(0)));
    });
}
