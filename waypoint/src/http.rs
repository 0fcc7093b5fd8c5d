//! HTTP: from a byte stream to requests, and each request through its pipeline.
//!
//! The life of a request, one file a stage:
//!
//! ```text
//! preface -> guard(strict) -> hyper -> exchange:
//!   canonical   what was asked for, in the one form that everything sees
//!   identify    request id, who the client is, what it may not say
//!   authorize   (filter) who may
//!   route       which rule
//!   fault, cors, answer   (filter) answers that need no upstream
//!   outgoing    what is sent
//!   mirror      copies of it
//!   forward     attempts, each with its timeouts
//!   tunnel      upgrades, judged again when policies change
//! -> download -> record
//! ```
//!
//! Every stage that ends a request ends it with a [`local::Local`] answer, which names its flag and details.

mod canonical;
mod client_cert;
mod connection;
mod copies;
mod deadline;
mod download;
mod exchange;
mod forward;
mod guard;
mod h1;
mod h2;
mod identify;
mod interim;
mod judged;
mod life;
pub(crate) mod local;
mod messages;
mod mirror;
mod outgoing;
mod preface;
mod record;
mod replay;
mod response;
mod sticky;
pub mod strict;
mod tunnel;
mod unread;
mod upload;
mod web;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::ConnectionContext;

pub(crate) use canonical::{Canonical, authority};
pub(crate) use connection::Connection;
pub(crate) use identify::Client;
pub(crate) use outgoing::{Outgoing, rewritten_target};
pub(crate) use replay::ReplayBudget;

/// The body of a request as the server gives it.
pub(crate) type RequestUpload = upload::Upload<unread::ClientBody>;

/// Serves HTTP/1.1 or HTTP/2, whichever the client begins with, until the connection ends.
///
/// # Cancel safety
/// Dropping it ends the connection with everything on it.
pub async fn serve<IO>(mut io: IO, context: ConnectionContext)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let begun = tokio::select! {
        biased;
        begun = preface::read(&mut io) => begun,
        () = context.nothing_said() => return,
    };
    let Some(begun) = begun else { return };
    if begun.is_http2 {
        h2::serve(io, begun.bytes, context).await;
    } else {
        h1::serve(io, begun.bytes, context).await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
