//! The server's answers, byte for byte: what every client version relies on, refusals included.

use std::sync::Arc;
use std::time::SystemTime;

use bitcoin::secp256k1::rand::thread_rng;
use bitcoin::secp256k1::SecretKey;
use vss060::prost::Message as _;
use vss060::types::*;

use super::{equal, item, unique, Target, Verdict};
use crate::signature::Signer;
use crate::wire::{exchange, Message};

/// One wallet without a client.
struct Caller {
    target: Arc<Target>,
    token: String,
    store_id: String,
}

impl Caller {
    fn new(target: Arc<Target>) -> Self {
        let signer = Signer::new(SecretKey::new(&mut thread_rng()));
        Caller {
            target,
            token: signer.token(SystemTime::now()),
            store_id: unique("store"),
        }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &[u8],
    ) -> Result<Message, String> {
        let authority = &self.target.authority;
        let authorization = token.map(|t| format!("Authorization: {t}\r\n"));
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\n\
             Host: {authority}\r\n\
             {}Content-Type: application/octet-stream\r\n\
             Content-Length: {}\r\n\r\n",
            authorization.unwrap_or_default(),
            body.len()
        )
        .into_bytes();
        request.extend(body);
        let answer = exchange(authority, &request).await;
        answer.map_err(|e| format!("{method} {path}: expected an answer, got {e}"))
    }

    /// A call of the tenant's, signed.
    async fn call(&self, name: &str, body: &[u8]) -> Result<Message, String> {
        let path = format!("{}/{name}", self.target.path);
        self.send("POST", &path, Some(&self.token), body).await
    }

    fn put(&self, version: i64) -> Vec<u8> {
        let request = PutObjectRequest {
            store_id: self.store_id.clone(),
            global_version: None,
            transaction_items: vec![item("k", version, b"v")],
            delete_items: vec![],
        };
        request.encode_to_vec()
    }

    fn get(&self) -> Vec<u8> {
        let request = GetObjectRequest {
            store_id: self.store_id.clone(),
            key: "k".to_string(),
        };
        request.encode_to_vec()
    }
}

/// What every answer carries.
fn sound(answer: &Message, status: u16) -> Verdict {
    equal("status", answer.status(), status)?;
    equal(
        "vss-protocol-version",
        answer.all("vss-protocol-version"),
        vec!["0"],
    )?;
    let content_type = answer.all("content-type");
    equal(
        "content-type",
        content_type,
        vec!["application/octet-stream"],
    )?;
    equal("dates", answer.all("date").len(), 1)?;
    equal("location", answer.all("location"), vec![])?;
    let sized =
        answer.all("content-length").len() == 1 || answer.all("transfer-encoding") == ["chunked"];
    equal("body of a length that the client can tell", sized, true)?;
    // Refused in mid-body, the connection may have to end.
    match (status, answer.all("connection").as_slice()) {
        (413, ["close"]) => Ok(()),
        (_, connection) => equal("connection", connection, &["keep-alive"]),
    }
}

fn refusal(answer: Result<Message, String>, status: u16, code: ErrorCode) -> Verdict {
    let answer = answer?;
    sound(&answer, status)?;
    let error = ErrorResponse::decode(&answer.body[..])
        .map_err(|e| format!("body: expected an ErrorResponse, got {e}"))?;
    equal("error code", error.error_code(), code)?;
    equal("message is empty", error.message.is_empty(), false)
}

pub async fn success(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    let put = caller.call("putObjects", &caller.put(0)).await?;
    sound(&put, 200)?;
    equal("body of a put", put.body, vec![])?;
    let get = caller.call("getObject", &caller.get()).await?;
    sound(&get, 200)?;
    let value = GetObjectResponse::decode(&get.body[..]).map_err(|e| e.to_string())?;
    equal("value", value.value, Some(item("k", 1, b"v")))
}

pub async fn malformed(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    // Field 1, a string of 100 bytes, of which three are there.
    let answer = caller.call("putObjects", b"\x0a\x64abc").await;
    refusal(answer, 400, ErrorCode::InvalidRequestException)
}

pub async fn unauthenticated(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    let path = format!("{}/getObject", caller.target.path);
    let answer = caller.send("POST", &path, None, &caller.get()).await;
    refusal(answer, 401, ErrorCode::AuthException)
}

pub async fn unknown_tenant(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    let (_, path) = crate::wire::split_url(&caller.target.unknown_base_url)?;
    let path = format!("{path}/getObject");
    let token = Some(caller.token.as_str());
    let answer = caller.send("POST", &path, token, &caller.get()).await;
    refusal(answer, 403, ErrorCode::InternalServerException)
}

pub async fn absent_key(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    let answer = caller.call("getObject", &caller.get()).await;
    refusal(answer, 404, ErrorCode::NoSuchKeyException)
}

pub async fn unknown_call(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    for name in ["getObjects", "getObject/", "nowhere/getObject", ""] {
        let answer = caller.call(name, &caller.get()).await;
        refusal(answer, 404, ErrorCode::InvalidRequestException)
            .map_err(|why| format!("{name:?}: {why}"))?;
    }
    Ok(())
}

pub async fn unknown_path(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    for (method, path) in [("POST", "/"), ("GET", "/no/such/path")] {
        let answer = caller.send(method, path, None, b"").await;
        refusal(answer, 404, ErrorCode::InvalidRequestException)
            .map_err(|why| format!("{method} {path}: {why}"))?;
    }
    Ok(())
}

pub async fn wrong_method(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    for method in ["GET", "PUT", "DELETE"] {
        let path = format!("{}/getObject", caller.target.path);
        let answer = caller.send(method, &path, Some(&caller.token), b"");
        refusal(answer.await, 405, ErrorCode::InvalidRequestException)
            .map_err(|why| format!("{method}: {why}"))?;
    }
    Ok(())
}

pub async fn conflict(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    let answer = caller.call("putObjects", &caller.put(3)).await;
    refusal(answer, 409, ErrorCode::ConflictException)
}

pub async fn body_over_limit(target: Arc<Target>) -> Verdict {
    let caller = Caller::new(target);
    let body = vec![0; caller.target.body_limit + super::OVER_LIMIT];
    let answer = caller.call("putObjects", &body).await;
    refusal(answer, 413, ErrorCode::InvalidRequestException)
}
