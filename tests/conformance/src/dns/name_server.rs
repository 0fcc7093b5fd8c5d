//! A scripted name server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Message;
use crate::net::Pod;
use crate::wait::eventually;

/// Answers as the test says.
#[derive(Clone)]
pub struct NameServer(Arc<Mutex<State>>);

struct State {
    queries: Vec<Query>,
    behaviour: Behaviour,
}

type Behaviour = Arc<dyn Fn(&Query) -> Option<Vec<u8>> + Send + Sync>;

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    /// Who asked.
    pub from: SocketAddr,
    /// By TCP.
    pub tcp: bool,
    /// The query.
    pub message: Message,
}

impl NameServer {
    /// Listens on port 53 of a pod, by UDP and TCP. `behaviour` makes the answer; `None`: silence.
    #[must_use]
    pub fn serve(pod: &Pod, behaviour: impl Fn(&Query) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let server = Self(Arc::new(Mutex::new(State { queries: Vec::new(), behaviour: Arc::new(behaviour) })));
        let udp = pod.udp(pod.at(53));
        let tcp = pod.listen(pod.at(53));
        let (by_udp, by_tcp) = (server.clone(), server.clone());
        tokio::spawn(async move {
            let mut buffer = vec![0; 65536];
            while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
                if let Some(answer) = by_udp.answer(from, false, &buffer[..len]) {
                    let _ = udp.send_to(&answer, from).await;
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, from)) = tcp.accept().await {
                let server = by_tcp.clone();
                tokio::spawn(async move {
                    loop {
                        let len = stream.read_u16().await?;
                        let mut bytes = vec![0; usize::from(len)];
                        stream.read_exact(&mut bytes).await?;
                        if let Some(answer) = server.answer(from, true, &bytes) {
                            let mut framed = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
                            framed.extend(answer);
                            stream.write_all(&framed).await?;
                        }
                    }
                    #[allow(unreachable_code)] // names the error type
                    std::io::Result::Ok(())
                });
            }
        });
        server
    }

    /// All queries so far.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        self.0.lock().unwrap().queries.clone()
    }

    /// The first query for a name, lower case with the final dot.
    pub async fn query(&self, host: &str) -> Query {
        eventually(&format!("a query for {host}"), async || {
            let asks = |query: &Query| query.message.question.as_ref().is_some_and(|(name, _)| name == host);
            self.queries().into_iter().find(asks)
        })
        .await
    }

    fn answer(&self, from: SocketAddr, tcp: bool, bytes: &[u8]) -> Option<Vec<u8>> {
        let query = Query { from, tcp, message: Message::read(bytes)? };
        let behaviour = {
            let mut state = self.0.lock().unwrap();
            state.queries.push(query.clone());
            Arc::clone(&state.behaviour)
        };
        behaviour(&query)
    }
}
