//! The checks: each is a function of one client version and one server, written once for all versions.

mod answers;
mod calls;
mod errors;
mod lists;
mod logins;
mod retries;
mod tokens;
mod wallets;

use std::fmt::{Debug, Display};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::rand::{random, thread_rng};
use bitcoin::secp256k1::SecretKey;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use vss060::types::*;

use crate::clients::{Credential, Error, Kind, Release, Retries, Wallet, RELEASES};
use crate::operator::Operator;
use crate::wire;

/// No check takes longer; each of its calls has a deadline besides.
const DEADLINE: Duration = Duration::from_secs(180);

/// How far over the limit: more than an HTTP server and socket buffers swallow unread.
const OVER_LIMIT: usize = 48 << 20;

/// `Err` says what was expected and what came instead.
type Verdict = Result<(), String>;
type Running = Pin<Box<dyn Future<Output = Verdict> + Send>>;

macro_rules! checks {
    ($($name:literal => $check:path,)*) => {
        [$(($name, |subject| Box::pin($check(subject)))),*]
    };
}

type ClientCheck = (&'static str, fn(Arc<Setup>) -> Running);
type ServerCheck = (&'static str, fn(Arc<Target>) -> Running);

const CLIENT_CHECKS: &[ClientCheck] = &checks! {
    "signed calls: a value is read as it was last written" => calls::signed,
    "one signature serves many calls" => calls::one_signature,
    "a value of 1 MiB" => calls::large_value,
    "item versions: 0, n and -1" => calls::versions,
    "delete is idempotent and minds the version" => calls::delete,
    "a transaction with delete items is all or nothing" => calls::transaction,
    "global version" => calls::global_version,
    "list until done: 250 keys, newest first, each once" => lists::until_done,
    "list of an empty store ends" => lists::empty,
    "paging survives writes and a deleted cursor" => lists::paging_under_writes,
    "prefixes are literal" => lists::literal_prefix,
    "sealed values and obfuscated keys come back" => wallets::sealed,
    "start-up: list all, get all at once" => wallets::start_up,
    "reads what it and older versions have written" => wallets::upgrade,
    "two wallets, two tenants: nothing crosses" => wallets::isolation,
    "30 calls over 1 connection" => wallets::one_connection,
    "ConflictError" => errors::conflict,
    "InvalidRequestError" => errors::invalid_request,
    "InvalidRequestError for an unknown path" => errors::unknown_path,
    "InvalidRequestError for a body over the limit" => errors::body_over_limit,
    "NoSuchKeyError" => errors::no_such_key,
    "AuthError" => errors::auth,
    "InternalServerError for an unknown tenant" => errors::unknown_tenant,
    "signed by a clock 23 h behind or ahead; not by one 25 h off" => calls::wrong_clock,
    "LNURL-auth: one login, then all four calls" => logins::whole,
    "LNURL-auth: 20 first requests at once, each with a login" => logins::first_requests,
    "LNURL-auth: two wallets and one that signs, two tenants: nothing crosses" => logins::isolation,
    "LNURL-auth: the same wallet after every restart, with any version" => logins::restarts,
    "LNURL-auth: a token is refreshed 60 s before its end, by the client's clock" => logins::refresh,
    "LNURL-auth: a clock 23 h behind or ahead" => logins::wrong_clock,
    "LNURL-auth: with a client key, where the tenant asks for it" => logins::client_key,
    "LNURL-auth: AuthError with the reason, for a tenant without it" => logins::no_login,
    "LNURL-auth: a new signing key signs, and tokens of the old one go on" => logins::rotated_key,
    "LNURL-auth: a revoked signing key: AuthError until the app starts again" => logins::revoked_key,
    "JWT: RS256, as the reference server takes it" => tokens::reference,
    "JWT: ES256, with an issuer, an audience, and keys at a URL" => tokens::standard,
    "JWT: a subject that is another's names a wallet of its own" => tokens::chosen_subject,
    "JWT: a new source takes over the wallets of an old one" => tokens::moved,
    "retries: connections cut before the server heard" => retries::cut,
    "retries: 503" => retries::unavailable,
    "retries: answer lost after the write" => retries::lost_answer,
    "retries: gets in flight when the connection is cut" => retries::cut_among_many,
    "retries: stop at the policy's limits" => retries::limits,
    "retries: only for errors that may heal" => retries::selected_errors,
};

const SERVER_CHECKS: &[ServerCheck] = &checks! {
    "200 for a put and a get" => answers::success,
    "400 for a body that is no message" => answers::malformed,
    "401 without Authorization" => answers::unauthenticated,
    "403 for an unknown tenant" => answers::unknown_tenant,
    "404 for an absent key" => answers::absent_key,
    "404 for an unknown path of a tenant" => answers::unknown_call,
    "404 for any other path" => answers::unknown_path,
    "405 for another method" => answers::wrong_method,
    "409 for a conflict" => answers::conflict,
    "413 for a body over the limit" => answers::body_over_limit,
};

/// Runs every check whose line contains `only`; answers how many passed and failed.
pub async fn run(target: Target, only: &str) -> (usize, usize) {
    let target = Arc::new(target);
    let (mut passed, mut failed) = (0, 0);
    let mut report = |line: String, verdict: Verdict| match verdict {
        Ok(()) => {
            passed += 1;
            println!("ok {line}");
        }
        Err(why) => {
            failed += 1;
            println!("FAIL {line}: {why}");
        }
    };
    for release in RELEASES {
        let setup = Arc::new(Setup {
            release,
            target: target.clone(),
            key: SecretKey::new(&mut thread_rng()),
        });
        for (name, check) in CLIENT_CHECKS {
            let line = format!("{} {name}", release.version());
            if line.contains(only) {
                report(line, verdict(check(setup.clone())).await);
            }
        }
    }
    for (name, check) in SERVER_CHECKS {
        let line = format!("http/1.1 {name}");
        if line.contains(only) {
            report(line, verdict(check(target.clone())).await);
        }
    }
    (passed, failed)
}

/// What the check says, or that it panicked or did not end.
async fn verdict(check: Running) -> Verdict {
    let mut task = tokio::spawn(check);
    match tokio::time::timeout(DEADLINE, &mut task).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(panic)) => Err(format!("expected a verdict, got {panic}")),
        Err(_) => {
            task.abort();
            Err(format!("expected an end, got none in {DEADLINE:?}"))
        }
    }
}

/// The server under test.
pub struct Target {
    base_url: String,
    other_base_url: String,
    unknown_base_url: String,
    authority: String,
    path: String,
    ops_authority: String,
    body_limit: usize,
    operator: Operator,
    company: OnceCell<tokens::Company>,
}

impl Target {
    pub fn new(
        base_url: &str,
        other_base_url: &str,
        ops_url: &str,
        body_limit: usize,
        operator: Operator,
    ) -> Result<Self, String> {
        let base_url = base_url.trim_end_matches('/');
        let (authority, path) = wire::split_url(base_url)?;
        let (ops_authority, _) = wire::split_url(ops_url)?;
        let tenant = path.strip_prefix("/t/").and_then(|p| p.split('/').next());
        let tenant = tenant.ok_or(format!("{base_url} does not name its tenant as /t/..."))?;
        let unknown_path = path.replacen(tenant, "no-such-tenant", 1);
        Ok(Target {
            base_url: base_url.to_string(),
            other_base_url: other_base_url.trim_end_matches('/').to_string(),
            unknown_base_url: format!("http://{authority}{unknown_path}"),
            authority: authority.to_string(),
            path: path.to_string(),
            ops_authority: ops_authority.to_string(),
            body_limit,
            operator,
            company: OnceCell::new(),
        })
    }

    /// The tenant that the base URL names.
    fn tenant(&self) -> &str {
        self.path.split('/').nth(2).unwrap_or_default()
    }

    /// Another tenant's base URL.
    fn base_url_of(&self, slug: &str) -> String {
        let path = self.path.replacen(self.tenant(), slug, 1);
        format!("http://{}{path}", self.authority)
    }

    fn auth_path(&self) -> String {
        auth_of(&self.path)
    }

    fn keys_path(&self) -> String {
        self.auth_path().replace("/auth", "/jwks.json")
    }

    /// Where wallets of the first tenant log in by LNURL-auth.
    fn auth_url(&self) -> String {
        auth_of(&self.base_url)
    }

    fn other_auth_url(&self) -> String {
        auth_of(&self.other_base_url)
    }

    /// Whether anything is there.
    pub async fn reach(&self) -> Result<(), String> {
        let answer = TcpStream::connect(&self.authority).await;
        let unreachable = |e| format!("no server at {}: {e}", self.authority);
        answer.map(|_| ()).map_err(unreachable)
    }

    /// How many connections the API has accepted so far.
    async fn connections(&self) -> Result<u64, String> {
        const COUNTER: &str = "vss_http_connections_total";
        let request = format!(
            "GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n",
            self.ops_authority
        );
        let metrics = wire::exchange(&self.ops_authority, request.as_bytes())
            .await
            .map_err(|e| format!("expected metrics at {}, got {e}", self.ops_authority))?;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let series = metrics.lines().filter_map(|line| {
            let rest = line.strip_prefix(COUNTER)?;
            let labels_or_value = rest.starts_with(['{', ' ']);
            labels_or_value.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        let series: Vec<f64> = series.collect();
        match series.is_empty() {
            true => Err(format!("expected {COUNTER} among the metrics, got none")),
            false => Ok(series.iter().sum::<f64>() as u64),
        }
    }
}

/// The auth URL beside a base URL that names its tenant by path.
fn auth_of(base_url: &str) -> String {
    let tenant = base_url.strip_suffix("/vss").unwrap_or(base_url);
    format!("{tenant}/lnurl/auth")
}

/// One client version against the server, as one wallet; checks keep apart by their stores.
struct Setup {
    release: &'static dyn Release,
    target: Arc<Target>,
    key: SecretKey,
}

impl Setup {
    /// A new store of the setup's wallet, through a new client that never retries.
    fn store(&self) -> Store {
        self.open(&self.target.base_url, &self.credential(), Retries::NEVER)
    }

    fn credential(&self) -> Credential {
        Credential::Key(self.key)
    }

    /// A new store through a new client.
    fn open(&self, base_url: &str, credential: &Credential, retries: Retries) -> Store {
        Store {
            wallet: self.release.connect(base_url, credential, retries),
            id: unique("store"),
        }
    }

    /// The same store through another new client.
    fn reopen(&self, store: &Store, retries: Retries) -> Store {
        Store {
            id: store.id.clone(),
            ..self.open(&self.target.base_url, &self.credential(), retries)
        }
    }
}

/// One store of one wallet, through one client.
#[derive(Clone)]
struct Store {
    wallet: Arc<dyn Wallet>,
    id: String,
}

impl Store {
    async fn get(&self, key: &str) -> Result<KeyValue, Failure> {
        let request = GetObjectRequest {
            store_id: self.id.clone(),
            key: key.to_string(),
        };
        let answer = self.wallet.get(request).await;
        let answer = answer.map_err(|e| Failure::of(format!("get {}", short(key)), e))?;
        Ok(answer.value.expect("the clients make sure of it"))
    }

    async fn put(&self, key: &str, version: i64, value: &[u8]) -> Result<(), Failure> {
        self.write(None, vec![item(key, version, value)], vec![])
            .await
    }

    async fn write(
        &self,
        global_version: Option<i64>,
        items: Vec<KeyValue>,
        deletes: Vec<KeyValue>,
    ) -> Result<(), Failure> {
        let named = |list: &[KeyValue]| -> String {
            let first = list.iter().take(3);
            let first: Vec<_> = first
                .map(|i| format!("{} at {}", short(&i.key), i.version))
                .collect();
            first.join(", ")
        };
        let mut call = format!("put {}", named(&items));
        if !deletes.is_empty() {
            call += &format!(", deleting {}", named(&deletes));
        }
        if let Some(version) = global_version {
            call += &format!(", global version {version}");
        }
        let request = PutObjectRequest {
            store_id: self.id.clone(),
            global_version,
            transaction_items: items,
            delete_items: deletes,
        };
        let answer = self.wallet.put(request).await;
        answer.map(|_| ()).map_err(|e| Failure::of(call, e))
    }

    async fn delete(&self, key: &str, version: i64) -> Result<(), Failure> {
        let request = DeleteObjectRequest {
            store_id: self.id.clone(),
            key_value: Some(item(key, version, b"")),
        };
        let answer = self.wallet.delete(request).await;
        let call = || format!("delete {} at {version}", short(key));
        answer.map(|_| ()).map_err(|e| Failure::of(call(), e))
    }

    async fn page(
        &self,
        prefix: Option<&str>,
        size: Option<i32>,
        token: Option<String>,
    ) -> Result<ListKeyVersionsResponse, Failure> {
        let call = || format!("list {prefix:?}, page size {size:?}");
        let request = ListKeyVersionsRequest {
            store_id: self.id.clone(),
            key_prefix: prefix.map(str::to_string),
            page_size: size,
            page_token: token,
        };
        let answer = self.wallet.list(request).await;
        answer.map_err(|e| Failure::of(call(), e))
    }

    /// All pages, by ldk-node's loop: until the token is there and empty.
    async fn pages(
        &self,
        prefix: Option<&str>,
        size: Option<i32>,
    ) -> Result<Vec<ListKeyVersionsResponse>, String> {
        self.pages_from(prefix, size, None).await
    }

    /// The pages from that token on.
    async fn pages_from(
        &self,
        prefix: Option<&str>,
        size: Option<i32>,
        mut token: Option<String>,
    ) -> Result<Vec<ListKeyVersionsResponse>, String> {
        const MANY: usize = 1000;
        let mut pages = Vec::new();
        while token != Some(String::new()) {
            let page = self.page(prefix, size, token).await?;
            if page.next_page_token.is_none() {
                return Err("next_page_token: expected on every page, got a page without".into());
            }
            token = page.next_page_token.clone();
            pages.push(page);
            if pages.len() == MANY {
                return Err(format!(
                    "last page: expected an empty next_page_token, got none in {MANY} pages"
                ));
            }
        }
        Ok(pages)
    }

    /// All keys in the order of the list.
    async fn keys(&self, prefix: Option<&str>) -> Result<Vec<String>, String> {
        let pages = self.pages(prefix, None).await?;
        let entries = pages.into_iter().flat_map(|page| page.key_versions);
        Ok(entries.map(|entry| entry.key).collect())
    }
}

/// A call that did not succeed, for a check to look into or to end with.
struct Failure {
    call: String,
    error: Error,
}

impl Failure {
    fn of(call: String, error: Error) -> Self {
        Failure { call, error }
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        format!("{}: expected ok, got {}", failure.call, failure.error)
    }
}

/// The call must fail, and with that kind of error.
fn refused<T>(what: &str, kind: Kind, result: Result<T, Failure>) -> Verdict {
    match result {
        Err(failure) if failure.error.kind == kind => Ok(()),
        Err(failure) => Err(format!("{what}: expected {kind:?}, got {}", failure.error)),
        Ok(_) => Err(format!("{what}: expected {kind:?}, got ok")),
    }
}

/// What comes about in a few seconds, as by what an operator has changed.
async fn eventually<T, F>(check: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    const TRIES: usize = 200;
    for _ in 1..TRIES {
        if let Ok(done) = check().await {
            return Ok(done);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    check().await
}

fn equal<T: PartialEq + Debug>(what: impl Display, got: T, expected: T) -> Verdict {
    match got == expected {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected:?}, got {got:?}")),
    }
}

/// The store has that version and value under the key.
async fn holds(store: &Store, key: &str, version: i64, value: &[u8]) -> Verdict {
    let got = store.get(key).await?;
    equal(format!("key of {}", short(key)), got.key.as_str(), key)?;
    equal(format!("version of {}", short(key)), got.version, version)?;
    match got.value == value {
        true => Ok(()),
        false => Err(format!(
            "value of {}: expected the {} bytes written, got {} others",
            short(key),
            value.len(),
            got.value.len()
        )),
    }
}

fn item(key: &str, version: i64, value: &[u8]) -> KeyValue {
    KeyValue {
        key: key.to_string(),
        version,
        value: value.to_vec(),
    }
}

/// A name that no other run has used.
fn unique(name: &str) -> String {
    format!("{name}-{:016x}", random::<u64>())
}

fn short(key: &str) -> String {
    match key.char_indices().nth(40) {
        Some((end, _)) => format!("{:?}... ({} bytes)", &key[..end], key.len()),
        None => format!("{key:?}"),
    }
}
