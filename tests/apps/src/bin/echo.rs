//! A server that answers with what it saw: HTTP/1.1, HTTP/2, gRPC, WebSocket and raw TCP.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use apps::http::Echo;
use apps::seen::Memory;
use apps::tcp::Behaviour;
use apps::tls::ServerTls;
use apps::whoami::WhoAmI;
use clap::Parser;
use tokio::net::TcpListener;

/// Answers with what it saw.
#[derive(Debug, Parser)]
#[command(after_help = "Example: echo --http 8080 --tcp 9000 --banner 9001 --digest 9002")]
struct Args {
    /// Port for HTTP/1.1, HTTP/2 (prior knowledge), gRPC and WebSocket (/ws).
    #[arg(long, default_value_t = 8080)]
    http: u16,
    /// Port for the same inside TLS.
    #[arg(long)]
    https: Option<u16>,
    /// File with the certificate chain for --https.
    #[arg(long)]
    tls_cert: Option<PathBuf>,
    /// File with the key for --https.
    #[arg(long)]
    tls_key: Option<PathBuf>,
    /// File with authorities whose client certificates --https asks for.
    #[arg(long)]
    tls_client_ca: Option<PathBuf>,
    /// Port that sends everything back.
    #[arg(long)]
    tcp: Option<u16>,
    /// Port where the server speaks first.
    #[arg(long)]
    banner: Option<u16>,
    /// Port that answers with a checksum and as many bytes.
    #[arg(long)]
    digest: Option<u16>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let me = WhoAmI::from_env();
    let raw = [(args.tcp, Behaviour::Mirror), (args.banner, Behaviour::Banner), (args.digest, Behaviour::Digest)];
    for (port, behaviour) in raw {
        if let Some(port) = port {
            let listener = listen(port).await?;
            tokio::spawn(apps::tcp::serve(listener, behaviour, me.clone()));
        }
    }
    let router = apps::http::router(Arc::new(Echo { me, memory: Memory::default() }));
    if let Some(port) = args.https {
        let (Some(chain), Some(key)) = (&args.tls_cert, &args.tls_key) else {
            bail!("--https needs --tls-cert and --tls-key");
        };
        let tls = ServerTls::from_files(chain, key, args.tls_client_ca.as_deref())?;
        tokio::spawn(apps::http::serve(listen(port).await?, router.clone(), Some(tls)));
    }
    let listener = listen(args.http).await?;
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        served = apps::http::serve(listener, router, None) => served,
        _ = term.recv() => Ok(()),
    }
}

async fn listen(port: u16) -> Result<TcpListener> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match TcpListener::bind(both).await {
        Ok(listener) => Ok(listener),
        // Without IPv6 on the host.
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("listening on port {port}")),
    }
}
