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
fn parent() -> Xpriv {
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
struct Observed {
    store: Store,
    auth: Proxy,
    calls: Proxy,
}

impl Observed {
    async fn open(setup: &Setup, parent: Xpriv, faults: &[Fault]) -> Result<Self, String> {
        let auth = proxy(setup, faults).await?;
        let calls = proxy(setup, &[]).await?;
        let auth_url = format!("http://{}{}", auth.authority(), setup.target.auth_path());
        let base_url = format!("http://{}{}", calls.authority(), setup.target.path);
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
    fn token(&self) -> Result<Token, String> {
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
struct Token {
    text: String,
    key: String,
    subject: String,
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
                expires: claims["exp"].as_u64()?,
            })
        };
        read()
            .ok_or_else(|| format!("expected a token with kid, sub and exp, got {authorization:?}"))
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
