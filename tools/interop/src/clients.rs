//! The released clients behind one trait, so that every check is written once.
//!
//! Requests and answers are those of the newest client; an older client gets its own types, field for
//! field. Everything else (HTTP, headers, retries, error mapping, encryption) is the client's own.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::bip32::Xpriv;
use bitcoin::secp256k1::rand::{thread_rng, RngCore};
use bitcoin::secp256k1::SecretKey;
use vss060::headers::sigs_auth::SigsAuthProvider;
use vss060::prost::Message;
use vss060::types::*;

use crate::signature::Signer;

/// No call takes longer, its retries included. (vss-client 0.3 has no time-out of its own.)
const DEADLINE: Duration = Duration::from_secs(45);

pub const RELEASES: [&dyn Release; 3] = [&v031::Client, &v041::Client, &v060::Client];

/// One released version of the client.
pub trait Release: Send + Sync {
    fn version(&self) -> &'static str;

    /// A client as an app makes one: new connections, its own header provider and retry policy.
    fn connect(&self, base_url: &str, credential: &Credential, retries: Retries)
        -> Arc<dyn Wallet>;

    /// Encrypts a value for the server, as the client's `StorableBuilder` does, bound to `aad` where
    /// the version can do so (0.3 cannot).
    fn seal(&self, key: &[u8; 32], aad: &[u8], value: &[u8], version: i64) -> Vec<u8>;

    /// The value and version that `seal` was given.
    fn open(&self, key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Result<(Vec<u8>, i64), String>;

    fn obfuscate(&self, master: [u8; 32], key: &str) -> String;

    fn deobfuscate(&self, master: [u8; 32], obfuscated: &str) -> Result<String, String>;
}

/// The four calls, as one wallet makes them.
#[async_trait]
pub trait Wallet: Send + Sync {
    async fn get(&self, request: GetObjectRequest) -> Result<GetObjectResponse, Error>;
    async fn put(&self, request: PutObjectRequest) -> Result<PutObjectResponse, Error>;
    async fn delete(&self, request: DeleteObjectRequest) -> Result<DeleteObjectResponse, Error>;
    async fn list(&self, request: ListKeyVersionsRequest)
        -> Result<ListKeyVersionsResponse, Error>;
}

/// What a client puts into `Authorization`.
#[derive(Clone)]
pub enum Credential {
    /// A signature, made anew for every request.
    Key(SecretKey),
    /// The same words with every request, by the client's `FixedHeaders`.
    Fixed(String),
    /// A token that the client's `LnurlAuthToJwtProvider` fetches.
    Login(Login),
    /// Nothing.
    None,
}

impl Credential {
    fn fixed_headers(&self) -> HashMap<String, String> {
        match self {
            Credential::Fixed(words) => HashMap::from([("Authorization".into(), words.clone())]),
            _ => HashMap::new(),
        }
    }
}

/// Who logs in by LNURL-auth, and where.
#[derive(Clone)]
pub struct Login {
    /// m/138' of the wallet's seed, the parent of its linking keys (LUD-05).
    pub parent: Xpriv,
    pub auth_url: String,
    /// Sent with the login's requests and with the calls.
    pub headers: HashMap<String, String>,
}

/// The client's own policies, stacked as ldk-node stacks them.
#[derive(Clone, Copy)]
pub struct Retries {
    pub base_delay: Duration,
    pub max_attempts: u32,
    pub max_total_delay: Duration,
    pub max_jitter: Duration,
}

impl Retries {
    /// ldk-node 0.4 to 0.6: about 10 s in 10 attempts.
    pub const LDK_NODE: Retries = Retries {
        base_delay: Duration::from_millis(10),
        max_attempts: 10,
        max_total_delay: Duration::from_secs(15),
        max_jitter: Duration::from_millis(10),
    };

    /// One attempt, so that a check sees what the server said first.
    pub const NEVER: Retries = Retries {
        max_attempts: 1,
        ..Retries::LDK_NODE
    };
}

/// What the client reported.
#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

/// The variants of `VssError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NoSuchKey,
    InvalidRequest,
    Conflict,
    Auth,
    InternalServer,
    /// The client could make nothing of the answer, or got none.
    Internal,
    /// Since 0.6: an answer without the right `vss-protocol-version`.
    VersionMismatch,
    /// Ours: nothing within the deadline.
    Deadline,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.kind, self.message)
    }
}

/// The same message in another version's types.
fn convert<A: Message, B: Message + Default>(message: &A) -> B {
    B::decode(&message.encode_to_vec()[..]).expect("one protocol, one encoding")
}

type Headers = HashMap<String, String>;

struct Entropy;

impl Entropy {
    fn fill(buffer: &mut [u8]) {
        thread_rng().fill_bytes(buffer)
    }
}

async fn within_deadline<T, E>(
    call: impl Future<Output = Result<T, E>>,
    kind: fn(&E) -> Kind,
) -> Result<T, Error>
where
    E: std::error::Error,
{
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error {
            kind: kind(&error),
            message: error.to_string(),
        }),
        Err(_) => Err(Error {
            kind: Kind::Deadline,
            message: format!("no result in {DEADLINE:?}"),
        }),
    }
}

/// Everything the versions have in common but the types.
macro_rules! release {
    (
        $module:ident, $client:ident, $version:literal,
        signer: $signer:expr,
        login: $login:expr,
        build: $build:expr,
        deconstruct: $deconstruct:expr,
        $(newer_error: $pattern:pat => $kind:expr,)?
    ) => {
        mod $module {
            use super::*;
            use $client::client::VssClient;
            use $client::error::VssError;
            use $client::headers::{FixedHeaders, LnurlAuthToJwtProvider, VssHeaderProvider};
            use $client::types::Storable;
            use $client::util::key_obfuscator::KeyObfuscator;
            use $client::util::retry::*;
            use $client::util::storable_builder::{EntropySource, StorableBuilder};

            pub struct Client;

            type Policy = FilteredRetryPolicy<
                JitteredRetryPolicy<
                    MaxTotalDelayRetryPolicy<
                        MaxAttemptsRetryPolicy<ExponentialBackoffRetryPolicy<VssError>>,
                    >,
                >,
                Box<dyn Fn(&VssError) -> bool + Send + Sync>,
            >;

            fn policy(retries: Retries) -> Policy {
                ExponentialBackoffRetryPolicy::new(retries.base_delay)
                    .with_max_attempts(retries.max_attempts)
                    .with_max_total_delay(retries.max_total_delay)
                    .with_max_jitter(retries.max_jitter)
                    .skip_retry_on_error(Box::new(|e| {
                        let final_kinds = [Kind::NoSuchKey, Kind::InvalidRequest, Kind::Conflict];
                        final_kinds.contains(&kind(e))
                    }))
            }

            fn kind(error: &VssError) -> Kind {
                match error {
                    VssError::NoSuchKeyError(..) => Kind::NoSuchKey,
                    VssError::InvalidRequestError(..) => Kind::InvalidRequest,
                    VssError::ConflictError(..) => Kind::Conflict,
                    VssError::AuthError(..) => Kind::Auth,
                    VssError::InternalServerError(..) => Kind::InternalServer,
                    VssError::InternalError(..) => Kind::Internal,
                    $($pattern => $kind,)?
                }
            }

            impl EntropySource for Entropy {
                fn fill_bytes(&self, buffer: &mut [u8]) {
                    Entropy::fill(buffer)
                }
            }

            impl Release for Client {
                fn version(&self) -> &'static str {
                    $version
                }

                fn connect(
                    &self,
                    base_url: &str,
                    credential: &Credential,
                    retries: Retries,
                ) -> Arc<dyn Wallet> {
                    let signer: fn(SecretKey) -> Arc<dyn VssHeaderProvider> = $signer;
                    let login: fn(Xpriv, String, Headers) -> LnurlAuthToJwtProvider = $login;
                    let headers = match credential {
                        Credential::Key(key) => signer(*key),
                        Credential::Login(l) => {
                            let (url, headers) = (l.auth_url.clone(), l.headers.clone());
                            Arc::new(login(l.parent, url, headers))
                        }
                        _ => Arc::new(FixedHeaders::new(credential.fixed_headers())),
                    };
                    Arc::new(Connected(VssClient::new_with_headers(
                        base_url.to_string(),
                        policy(retries),
                        headers,
                    )))
                }

                fn seal(&self, key: &[u8; 32], aad: &[u8], value: &[u8], version: i64) -> Vec<u8> {
                    type Build = fn(&[u8; 32], &[u8], Vec<u8>, i64) -> Storable;
                    let build: Build = $build;
                    build(key, aad, value.to_vec(), version).encode_to_vec()
                }

                fn open(
                    &self,
                    key: &[u8; 32],
                    aad: &[u8],
                    sealed: &[u8],
                ) -> Result<(Vec<u8>, i64), String> {
                    type Deconstruct =
                        fn(&[u8; 32], &[u8], Storable) -> std::io::Result<(Vec<u8>, i64)>;
                    let deconstruct: Deconstruct = $deconstruct;
                    let storable = Storable::decode(sealed).map_err(|e| e.to_string())?;
                    deconstruct(key, aad, storable).map_err(|e| e.to_string())
                }

                fn obfuscate(&self, master: [u8; 32], key: &str) -> String {
                    KeyObfuscator::new(master).obfuscate(key)
                }

                fn deobfuscate(&self, master: [u8; 32], obfuscated: &str) -> Result<String, String> {
                    KeyObfuscator::new(master)
                        .deobfuscate(obfuscated)
                        .map_err(|e| e.to_string())
                }
            }

            struct Connected(VssClient<Policy>);

            #[async_trait]
            impl Wallet for Connected {
                async fn get(&self, request: GetObjectRequest) -> Result<GetObjectResponse, Error> {
                    let request = convert(&request);
                    let answer = within_deadline(self.0.get_object(&request), kind).await?;
                    Ok(convert(&answer))
                }

                async fn put(&self, request: PutObjectRequest) -> Result<PutObjectResponse, Error> {
                    let request = convert(&request);
                    let answer = within_deadline(self.0.put_object(&request), kind).await?;
                    Ok(convert(&answer))
                }

                async fn delete(
                    &self,
                    request: DeleteObjectRequest,
                ) -> Result<DeleteObjectResponse, Error> {
                    let request = convert(&request);
                    let answer = within_deadline(self.0.delete_object(&request), kind).await?;
                    Ok(convert(&answer))
                }

                async fn list(
                    &self,
                    request: ListKeyVersionsRequest,
                ) -> Result<ListKeyVersionsResponse, Error> {
                    let request = convert(&request);
                    let answer = within_deadline(self.0.list_key_versions(&request), kind).await?;
                    Ok(convert(&answer))
                }
            }
        }
    };
}

release! {
    v031, vss031, "0.3.1",
    signer: |key| Arc::new(Signer::new(key)),
    login: |parent, url, headers| LnurlAuthToJwtProvider::new(parent, url, headers).expect("headers"),
    build: |key, _, value, version| StorableBuilder::new(*key, Entropy).build(value, version),
    deconstruct: |key, _, storable| StorableBuilder::new(*key, Entropy).deconstruct(storable),
}

release! {
    v041, vss041, "0.4.1",
    signer: |key| Arc::new(Signer::new(key)),
    login: |parent, url, headers| LnurlAuthToJwtProvider::new(parent, url, headers).expect("headers"),
    build: |key, aad, value, version| StorableBuilder::new(Entropy).build(value, version, key, aad),
    deconstruct: |key, aad, storable| StorableBuilder::new(Entropy).deconstruct(storable, key, aad),
}

release! {
    v060, vss060, "0.6.0",
    signer: |key| Arc::new(SigsAuthProvider::new(key, HashMap::new())),
    login: LnurlAuthToJwtProvider::new,
    build: |key, aad, value, version| StorableBuilder::new(Entropy).build(value, version, key, aad),
    deconstruct: |key, aad, storable| StorableBuilder::new(Entropy).deconstruct(storable, key, aad),
    newer_error: VssError::VSSVersionMismatchError { .. } => Kind::VersionMismatch,
}
