//! Token issuers, as wallet companies have them: keys that sign JWTs, and a URL that says which those are.

use std::io;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use bitcoin::secp256k1::rand::thread_rng;
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair, ECDSA_P256_SHA256_FIXED_SIGNING};
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use rsa::sha2::{Digest, Sha256};
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use serde_json::{json, Value};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::wire;

/// A key of an issuer.
pub enum Key {
    /// RS256, as the reference server takes it: without a name.
    Rsa(Box<RsaPrivateKey>),
    /// ES256, of that name (kid).
    P256(String, Box<EcdsaKeyPair>),
}

impl Key {
    pub fn rsa() -> Self {
        let key = RsaPrivateKey::new(&mut thread_rng(), 2048);
        Key::Rsa(Box::new(key.expect("a key of a usual size")))
    }

    pub fn p256(name: &str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a new key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
        Key::P256(name.to_string(), Box::new(key.expect("the new key")))
    }

    /// What verifies its tokens: a PEM, or a set of one JWK.
    pub fn public(&self) -> String {
        match self {
            Key::Rsa(key) => {
                let pem = key.to_public_key().to_public_key_pem(LineEnding::LF);
                pem.expect("a key in PEM")
            }
            Key::P256(name, key) => {
                let point = key.public_key().as_ref(); // 4, x, y
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": name});
                json!({ "keys": [jwk] }).to_string()
            }
        }
    }

    /// `Authorization` of a wallet to which a token with these claims was issued.
    pub fn bearer(&self, claims: &Value) -> String {
        let header = match self {
            Key::Rsa(_) => json!({"typ": "JWT", "alg": "RS256"}),
            Key::P256(name, _) => json!({"typ": "JWT", "alg": "ES256", "kid": name}),
        };
        let [header, claims] = [&header, claims].map(|part| encode(part.to_string().as_bytes()));
        let signed = format!("{header}.{claims}");
        let signature = match self {
            Key::Rsa(key) => {
                let digest = Sha256::digest(&signed);
                key.sign(Pkcs1v15Sign::new::<Sha256>(), &digest)
                    .expect("a signature by RSA")
            }
            Key::P256(_, key) => {
                let signature = key.sign(&SystemRandom::new(), signed.as_bytes());
                signature.expect("a signature by P-256").as_ref().to_vec()
            }
        };
        format!("Bearer {signed}.{}", encode(&signature))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A URL at which an issuer publishes its keys.
pub struct Published {
    pub url: String,
    listener: JoinHandle<()>,
}

impl Published {
    pub async fn at_some_port(keys: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/keys.json", listener.local_addr()?);
        let listener = tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                let keys = keys.clone();
                tokio::spawn(async move {
                    let (from, mut to) = peer.into_split();
                    let mut from = BufReader::new(from);
                    while let Ok(Some(_)) = wire::read_request(&mut from).await {
                        let size = keys.len();
                        let head = format!(
                            "Content-Type: application/jwk-set+json\r\nContent-Length: {size}"
                        );
                        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{keys}");
                        if to.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(Published { url, listener })
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
