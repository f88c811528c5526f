//! A proxy that fails on purpose, in front of the server: one fault a request, as planned.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::{JoinHandle, JoinSet};

use crate::wire;

/// What happens to one request.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Nothing: it is relayed.
    Pass,
    /// The connection is cut; the server never hears of the request.
    Cut,
    /// The connection is cut after the server has answered; the client never hears of the answer.
    LoseAnswer,
    /// 503, as the server would say it; the server never hears of the request.
    Unavailable,
    /// It is held until as many have come as the plan has of these, and then relayed.
    Gather,
}

/// Requests take the faults of the plan one by one, over all connections; when it is used up they pass.
pub struct Proxy {
    authority: String,
    plan: Arc<Plan>,
    listener: JoinHandle<()>,
}

struct Plan {
    upstream: String,
    gathered: Barrier,
    state: Mutex<State>,
}

struct State {
    faults: VecDeque<Fault>,
    requests: usize,
    authorizations: Vec<String>,
}

impl Proxy {
    pub async fn start(
        upstream: &str,
        faults: impl IntoIterator<Item = Fault>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let authority = listener.local_addr()?.to_string();
        let faults: VecDeque<_> = faults.into_iter().collect();
        let gathered = faults.iter().filter(|f| matches!(f, Fault::Gather));
        let plan = Arc::new(Plan {
            upstream: upstream.to_string(),
            gathered: Barrier::new(gathered.count()),
            state: Mutex::new(State {
                faults,
                requests: 0,
                authorizations: Vec::new(),
            }),
        });
        let listener = tokio::spawn(accept(listener, plan.clone()));
        Ok(Proxy {
            authority,
            plan,
            listener,
        })
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// How many requests have come so far, faults included.
    pub fn requests(&self) -> usize {
        self.plan.state.lock().unwrap().requests
    }

    /// The `Authorization` of every request so far that had one.
    pub fn authorizations(&self) -> Vec<String> {
        self.plan.state.lock().unwrap().authorizations.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort(); // and with it, all connections
    }
}

impl Plan {
    fn next(&self, request: &wire::Message) -> Fault {
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        let authorizations = request.all("authorization");
        let authorizations = authorizations.into_iter().map(str::to_string);
        state.authorizations.extend(authorizations);
        state.faults.pop_front().unwrap_or(Fault::Pass)
    }
}

async fn accept(listener: TcpListener, plan: Arc<Plan>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(serve(client, plan.clone()));
    }
}

async fn serve(client: TcpStream, plan: Arc<Plan>) -> io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = BufReader::new(from_client);
    let (from_server, mut to_server) = TcpStream::connect(&plan.upstream).await?.into_split();
    let mut from_server = BufReader::new(from_server);

    while let Some(request) = wire::read_request(&mut from_client).await? {
        let fault = plan.next(&request);
        match fault {
            Fault::Cut => break,
            Fault::Unavailable => {
                to_client.write_all(&unavailable()).await?;
                continue;
            }
            Fault::Gather => {
                plan.gathered.wait().await;
            }
            Fault::Pass | Fault::LoseAnswer => {}
        }
        to_server.write_all(&request.raw).await?;
        let answer = wire::read_answer(&mut from_server).await?;
        if let Fault::LoseAnswer = fault {
            break;
        }
        to_client.write_all(&answer.raw).await?;
    }
    Ok(())
}

fn unavailable() -> Vec<u8> {
    // ErrorResponse { error_code: INTERNAL_SERVER_EXCEPTION, message: "busy" }
    let body = b"\x08\x03\x12\x04busy";
    let mut answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\n\
         vss-protocol-version: 0\r\n\
         Connection: keep-alive\r\n\
         Content-Type: application/octet-stream\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every request with its own body, half of the connections' answers chunked.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (from, mut to) = peer.into_split();
                    let mut from = BufReader::new(from);
                    let mut chunked = false;
                    while let Ok(Some(request)) = wire::read_request(&mut from).await {
                        let (size, body) = (request.body.len(), &request.body);
                        let body = String::from_utf8_lossy(body);
                        let answer = if chunked {
                            format!(
                                "Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
                            )
                        } else {
                            format!("Content-Length: {size}\r\n\r\n{body}")
                        };
                        let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
                        to.write_all(answer.as_bytes()).await.unwrap();
                        chunked = !chunked;
                    }
                });
            }
        });
        authority
    }

    fn request(body: &str) -> Vec<u8> {
        let size = body.len();
        format!("POST / HTTP/1.1\r\nContent-Length: {size}\r\n\r\n{body}").into_bytes()
    }

    #[tokio::test]
    async fn faults_come_in_the_planned_order_then_requests_pass() {
        let plan = [Fault::Cut, Fault::Unavailable, Fault::LoseAnswer];
        let proxy = Proxy::start(&echo().await, plan).await.unwrap();
        let call = || {
            wire::exchange(
                proxy.authority(),
                b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
            )
        };

        assert!(call().await.is_err());
        let busy = call().await.unwrap();
        assert_eq!((busy.status(), busy.body.len()), (503, 8));
        assert!(call().await.is_err());
        assert_eq!(call().await.unwrap().body, b"hi");
        assert_eq!(proxy.requests(), 4);
    }

    #[tokio::test]
    async fn gathered_requests_wait_for_each_other_and_authorizations_are_kept() {
        let proxy = Proxy::start(&echo().await, [Fault::Gather; 2])
            .await
            .unwrap();
        let call = |name: &str| {
            let (authority, size) = (proxy.authority().to_string(), name.len());
            let head = format!("Authorization: {name}\r\nContent-Length: {size}");
            let request = format!("POST / HTTP/1.1\r\n{head}\r\n\r\n{name}");
            async move { wire::exchange(&authority, request.as_bytes()).await }
        };

        let (first, second) = (tokio::spawn(call("a")), call("b"));
        assert_eq!(second.await.unwrap().body, b"b");
        assert_eq!(first.await.unwrap().unwrap().body, b"a");
        let mut authorizations = proxy.authorizations();
        authorizations.sort();
        assert_eq!(authorizations, ["a", "b"]);
    }

    #[tokio::test]
    async fn pipelined_requests_are_answered_in_order_sized_or_chunked() {
        let proxy = Proxy::start(&echo().await, []).await.unwrap();
        let (from, mut to) = TcpStream::connect(proxy.authority())
            .await
            .unwrap()
            .into_split();
        let mut from = BufReader::new(from);
        to.write_all(&[request("a"), request("bc"), request("")].concat())
            .await
            .unwrap();
        for body in ["a", "bc", ""] {
            let answer = wire::read_answer(&mut from).await.unwrap();
            assert_eq!(answer.body, body.as_bytes());
        }
        assert_eq!(proxy.requests(), 3);
    }
}
