//! LNURL-auth, by the client's own provider: it logs in by itself, and again before its token ends.

use std::collections::HashMap;
use std::sync::Arc;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use bitcoin::bip32::{DerivationPath, Xpriv};
use bitcoin::secp256k1::rand::{random, thread_rng};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::Network;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{equal, holds, item, refused, unique, Setup, Store, Verdict};
use crate::clients::{Credential, Kind, Login, Retries, RELEASES};
use crate::clock;
use crate::proxy::{Fault, Proxy};
use crate::wire;

/// The parent of a new wallet's linking keys.
pub fn parent() -> Xpriv {
    let path: DerivationPath = "m/138'".parse().expect("a path");
    let seed: [u8; 32] = random();
    let master = Xpriv::new_master(Network::Bitcoin, &seed);
    let parent = master.and_then(|master| master.derive_priv(&Secp256k1::new(), &path));
    parent.expect("a seed for a key")
}

fn login(parent: Xpriv, auth_url: String) -> Credential {
    Credential::Login(Login {
        parent,
        auth_url,
        headers: HashMap::new(),
    })
}

/// A client that logs in, and what it does about it: the auth URL it was given and its base URL are proxies'.
pub struct Observed {
    pub store: Store,
    auth: Proxy,
    calls: Proxy,
}

impl Observed {
    async fn open(setup: &Setup, parent: Xpriv, faults: &[Fault]) -> Result<Self, String> {
        Self::open_at(setup, &setup.target.path, parent, faults).await
    }

    /// At the tenant of that path.
    pub async fn open_at(
        setup: &Setup,
        path: &str,
        parent: Xpriv,
        faults: &[Fault],
    ) -> Result<Self, String> {
        let auth = proxy(setup, faults).await?;
        let calls = proxy(setup, &[]).await?;
        let auth_url = super::auth_of(&format!("http://{}{path}", auth.authority()));
        let base_url = format!("http://{}{path}", calls.authority());
        Ok(Observed {
            store: setup.open(&base_url, &login(parent, auth_url), Retries::NEVER),
            auth,
            calls,
        })
    }

    /// How often it asked for a challenge. (It goes on at the URL in the answer, beside the proxy.)
    fn logins(&self) -> usize {
        self.auth.requests()
    }

    /// Another's store, through this client.
    fn of(&self, store: &Store) -> Store {
        Store {
            id: store.id.clone(),
            ..self.store.clone()
        }
    }

    /// The token that it sent last.
    pub fn token(&self) -> Result<Token, String> {
        let authorizations = self.calls.authorizations();
        Token::read(authorizations.last().map_or("", String::as_str))
    }
}

async fn proxy(setup: &Setup, faults: &[Fault]) -> Result<Proxy, String> {
    let proxy = Proxy::start(&setup.target.authority, faults.iter().copied());
    proxy
        .await
        .map_err(|e| format!("expected a proxy, got {e}"))
}

/// What a token says.
pub struct Token {
    text: String,
    key: String,
    pub subject: String,
    issued: u64,
    expires: u64,
}

impl Token {
    fn read(authorization: &str) -> Result<Self, String> {
        let part = |text: &str, n| -> Option<Value> {
            let part = URL_SAFE_NO_PAD.decode(text.split('.').nth(n)?).ok()?;
            serde_json::from_slice(&part).ok()
        };
        let read = || {
            let text = authorization.strip_prefix("Bearer ")?;
            let (head, claims) = (part(text, 0)?, part(text, 1)?);
            Some(Token {
                text: text.to_string(),
                key: head["kid"].as_str()?.to_string(),
                subject: claims["sub"].as_str()?.to_string(),
                issued: claims["iat"].as_u64()?,
                expires: claims["exp"].as_u64()?,
            })
        };
        read().ok_or_else(|| {
            format!("expected a token with kid, sub, iat and exp, got {authorization:?}")
        })
    }
}

pub async fn whole(setup: Arc<Setup>) -> Verdict {
    let wallet = Observed::open(&setup, parent(), &[]).await?;
    let store = &wallet.store;
    refused("get before put", Kind::NoSuchKey, store.get("k").await)?;
    store.put("k", 0, b"v").await?;
    holds(store, "k", 1, b"v").await?;
    let items = vec![item("l", 0, b"w")];
    store.write(Some(0), items, vec![item("k", 1, b"")]).await?;
    equal("keys", store.keys(None).await?, vec!["l".into()])?;
    store.delete("l", 1).await?;
    equal("keys left", store.keys(None).await?, vec![])?;
    equal("logins", wallet.logins(), 1)?;

    let token = wallet.token()?;
    let is_key = token.subject.len() == 66 && token.subject.starts_with("0");
    equal("sub is a linking key", is_key, true)?;
    let published = published_keys(&setup).await?;
    equal("its key is published", published.contains(&token.key), true)
}

/// The ids of the keys that the tenant's tokens can be verified with, by anybody.
async fn published_keys(setup: &Setup) -> Result<Vec<String>, String> {
    let (authority, path) = (&setup.target.authority, setup.target.keys_path());
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let answer = wire::exchange(authority, request.as_bytes()).await;
    let answer = answer.map_err(|e| format!("expected keys at {path}, got {e}"))?;
    let set: Value = serde_json::from_slice(&answer.body)
        .map_err(|e| format!("expected a key set at {path}, got {e}"))?;
    let keys = set["keys"].as_array().into_iter().flatten();
    Ok(keys
        .filter_map(|key| key["kid"].as_str().map(str::to_string))
        .collect())
}

pub async fn first_requests(setup: Arc<Setup>) -> Verdict {
    const CALLS: usize = 20;
    let wallet = Observed::open(&setup, parent(), &[Fault::Gather; CALLS]).await?;
    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        let store = wallet.store.clone();
        calls.spawn(async move { store.put(&format!("k{n}"), 0, b"v").await });
    }
    for done in calls.join_all().await {
        done?;
    }
    equal("logins", wallet.logins(), CALLS)?;
    // All as one wallet, which goes on with one of the tokens.
    equal("keys", wallet.store.keys(None).await?.len(), CALLS)?;
    equal("logins afterwards", wallet.logins(), CALLS)
}

pub async fn isolation(setup: Arc<Setup>) -> Verdict {
    let target = &setup.target;
    let id = unique("shared");
    let open = |base_url: &str, credential: &Credential| Store {
        id: id.clone(),
        ..setup.open(base_url, credential, Retries::NEVER)
    };
    let (alice, bob) = (parent(), parent());
    let [alice, bob] = [alice, bob].map(|p| login(p, target.auth_url()));
    let signer = Credential::Key(SecretKey::new(&mut thread_rng()));
    let stores = [
        ("alice", open(&target.base_url, &alice)),
        ("bob", open(&target.base_url, &bob)),
        ("one that signs", open(&target.base_url, &signer)),
    ];
    for (who, store) in &stores {
        refused(who, Kind::NoSuchKey, store.get("k").await)?;
        store.put("k", 0, who.as_bytes()).await?;
    }
    let (_, first) = &stores[0];
    first.delete("k", 1).await?;
    refused("get after delete", Kind::NoSuchKey, first.get("k").await)?;
    for (who, store) in &stores[1..] {
        holds(store, "k", 1, who.as_bytes()).await?;
        equal(
            format!("keys of {who}"),
            store.keys(None).await?,
            vec!["k".into()],
        )?;
    }
    // A tenant's token is nothing to another tenant.
    let elsewhere = open(&target.other_base_url, &bob);
    refused(
        "bob at another tenant",
        Kind::Auth,
        elsewhere.get("k").await,
    )
}

/// The linking key is made of the wallet's seed and the host of the auth URL, and of nothing else.
pub async fn restarts(setup: Arc<Setup>) -> Verdict {
    let parent = parent();
    let first = Observed::open(&setup, parent, &[]).await?;
    first.store.put("k", 0, b"v").await?;
    let subject = first.token()?.subject;
    for release in RELEASES.into_iter().chain([setup.release]) {
        let setup = Setup {
            release,
            target: setup.target.clone(),
            key: setup.key,
        };
        let again = Observed::open(&setup, parent, &[]).await?;
        holds(&again.of(&first.store), "k", 1, b"v").await?;
        let what = format!("sub with {}", release.version());
        equal(what, &again.token()?.subject, &subject)?;
        equal("logins", again.logins(), 1)?;
    }
    Ok(())
}

pub async fn refresh(setup: Arc<Setup>) -> Verdict {
    let wallet = Observed::open(&setup, parent(), &[]).await?;
    let store = &wallet.store;
    store.put("k", 0, b"v").await?;
    let first = wallet.token()?;
    let life = first.expires - first.issued;
    equal("a life of at least 5 minutes", life >= 300, true)?;
    {
        let _ahead = clock::set_to(first.expires - 160);
        holds(store, "k", 1, b"v").await?;
        equal("logins 160 s before the end", wallet.logins(), 1)?;
        equal(
            "token 160 s before the end",
            &wallet.token()?.text,
            &first.text,
        )?;

        // The new token has no more time left by this clock, so each call brings a login. All succeed.
        let _further = clock::set_to(first.expires - 10);
        for login in 2..5 {
            store.put("k", login - 1, b"v").await?;
            equal(
                "logins 10 s before the end",
                wallet.logins(),
                login as usize,
            )?;
        }
        let fresh = wallet.token()?;
        equal("a new token", fresh.text != first.text, true)?;
        equal("sub of the new token", &fresh.subject, &first.subject)?;
    }
    // By the right clock the last one serves on.
    holds(store, "k", 4, b"v").await?;
    store.put("k", 4, b"v").await?;
    equal("logins by the right clock", wallet.logins(), 4)
}

pub async fn rotated_key(setup: Arc<Setup>) -> Verdict {
    let parent = parent();
    let wallet = Observed::open(&setup, parent, &[]).await?;
    wallet.store.put("k", 0, b"v").await?;
    let old = wallet.token()?;

    let words = format!("key rotate {} lnurl", setup.target.tenant());
    setup.target.operator.run(&words, "").await?;
    // It begins to sign once every instance knows it.
    let new = super::eventually(|| async {
        let again = Observed::open(&setup, parent, &[]).await?;
        holds(&again.of(&wallet.store), "k", 1, b"v").await?;
        let new = again.token()?;
        equal("the old key signs on", new.key == old.key, false)?;
        Ok((again, new))
    });
    let (again, new) = new.await?;
    equal("sub", &new.subject, &old.subject)?;
    let published = published_keys(&setup).await?;
    for (which, key) in [("old", &old.key), ("new", &new.key)] {
        equal(
            format!("{which} key is published"),
            published.contains(key),
            true,
        )?;
    }

    // Whoever has a token of the old key goes on with it.
    wallet.store.put("k", 1, b"w").await?;
    equal("logins", wallet.logins(), 1)?;
    equal("token", &wallet.token()?.text, &old.text)?;
    holds(&again.of(&wallet.store), "k", 2, b"w").await
}

/// No client logs in anew for a 401.
pub async fn revoked_key(setup: Arc<Setup>) -> Verdict {
    let parent = parent();
    let wallet = Observed::open(&setup, parent, &[]).await?;
    let store = &wallet.store;
    store.put("k", 0, b"v").await?;

    let words = format!("key rotate {} lnurl --revoke --yes", setup.target.tenant());
    setup.target.operator.run(&words, "").await?;
    super::eventually(|| async { refused("get", Kind::Auth, store.get("k").await) }).await?;
    refused("put", Kind::Auth, store.put("k", 1, b"w").await)?;
    equal("logins", wallet.logins(), 1)?;

    let again = Observed::open(&setup, parent, &[]).await?;
    let store = again.of(store);
    holds(&store, "k", 1, b"v").await?;
    store.put("k", 1, b"w").await?;
    equal("logins after a restart", again.logins(), 1)
}

/// The time of a login is the server's alone; the client's says only how often there is one.
pub async fn wrong_clock(setup: Arc<Setup>) -> Verdict {
    const HOUR: i64 = 3600;
    for (hours, logins) in [(-23, 1), (23, 3)] {
        let _wrong = clock::wrong_by(hours * HOUR);
        let wallet = Observed::open(&setup, parent(), &[]).await?;
        let store = &wallet.store;
        store.put("k", 0, b"v").await?;
        holds(store, "k", 1, b"v").await?;
        store.delete("k", 1).await?;
        equal(format!("logins {hours} h off"), wallet.logins(), logins)?;
    }
    Ok(())
}

/// Fixed headers come with the login, too: a tenant can ask for its app's key everywhere.
pub async fn client_key(setup: Arc<Setup>) -> Verdict {
    let (slug, operator) = (unique("gated"), &setup.target.operator);
    let base_url = setup.target.base_url_of(&slug);
    operator.run(&format!("tenant create {slug}"), "").await?;
    let words = format!("source add {slug} lnurl --kind lnurl --allow-shared-host");
    operator.run(&words, "").await?;
    let made = operator
        .run(&format!("client-key add {slug} app"), "")
        .await?;
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_string();
    let with_key = HashMap::from([(text("client_key_header"), text("key"))]);
    let open = |headers: &HashMap<String, String>| {
        let credential = Credential::Login(Login {
            parent: parent(),
            auth_url: super::auth_of(&base_url),
            headers: headers.clone(),
        });
        setup.open(&base_url, &credential, Retries::NEVER)
    };
    let (with, without) = (open(&with_key), open(&HashMap::new()));
    super::eventually(|| async { Ok(without.put("k", -1, b"v").await?) }).await?;

    let gate = |state| format!("client-key gate {slug} {state} --yes");
    operator.run(&gate("observed"), "").await?;
    super::eventually(|| async {
        holds(&without, "k", 1, b"v").await?;
        let counted = operator.run(&format!("auth failures {slug}"), "").await?;
        let reason = counted[0]["reason"].as_str().unwrap_or_default();
        equal(
            "counted",
            reason,
            "only observed: there is no client key, or more than one",
        )
    })
    .await?;
    operator.run(&gate("required"), "").await?;
    let what = "get without a client key";
    let refused_now = || async { refused(what, Kind::Auth, without.get("k").await) };
    super::eventually(refused_now).await?;
    let login = open(&HashMap::new()).get("k").await;
    refused("login without a client key", Kind::Auth, login)?;
    with.put("k", 0, b"v").await?;
    holds(&with, "k", 1, b"v").await?;

    operator.run(&gate("off"), "").await?;
    super::eventually(|| holds(&without, "k", 1, b"v")).await
}

pub async fn no_login(setup: Arc<Setup>) -> Verdict {
    let auth_url = setup.target.other_auth_url();
    let base_url = &setup.target.other_base_url;
    let store = setup.open(base_url, &login(parent(), auth_url), Retries::NEVER);
    let Err(failure) = store.get("k").await else {
        return Err("get: expected Auth, got ok".to_string());
    };
    equal("kind", failure.error.kind, Kind::Auth)?;
    let reason = "this tenant has no LNURL-auth";
    match failure.error.message.contains(reason) {
        true => Ok(()),
        false => Err(format!(
            "message: expected {reason:?} in it, got {}",
            failure.error
        )),
    }
}
