//! JWTs of a wallet company's own issuer, which its app puts into the client's `FixedHeaders`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::secp256k1::rand::thread_rng;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use serde_json::{json, Value};

use super::logins::{self, Observed};
use super::{equal, holds, refused, unique, Setup, Store, Verdict};
use crate::clients::{Credential, Kind, Retries};
use crate::issuer::{Key, Published};

const AUDIENCE: &str = "vss";

/// A wallet company with issuers of its own, each a credential source of a tenant, which takes signatures too. A source
/// that looks at no issuer takes every token, so that of the other kind is another tenant's.
pub struct Company {
    base_url: String,
    standard_base_url: String,
    /// As the reference server has it: one key in PEM.
    reference: Key,
    /// With an issuer, an audience, and its keys at a URL.
    standard: Key,
    issuer: String,
    /// In the namespace of the first: its successor.
    successor: Key,
    successor_issuer: String,
    _published: Published,
}

impl Company {
    /// The company, which the first check that needs it founds.
    async fn of(setup: &Setup) -> Result<&Company, String> {
        let found = || Company::found(setup);
        setup.target.company.get_or_try_init(found).await
    }

    async fn found(setup: &Setup) -> Result<Company, String> {
        let (slug, operator) = (unique("company"), &setup.target.operator);
        let (reference, standard) = (Key::rsa(), Key::p256("standard-1"));
        let published = Published::at_some_port(standard.public()).await;
        let published = published.map_err(|e| format!("expected a port, got {e}"))?;
        let standard_slug = format!("{slug}-2");
        let company = Company {
            base_url: setup.target.base_url_of(&slug),
            standard_base_url: setup.target.base_url_of(&standard_slug),
            issuer: format!("https://{slug}.example/"),
            successor: Key::p256("successor-1"),
            successor_issuer: format!("https://successor.{slug}.example/"),
            reference,
            standard,
            _published: published,
        };
        operator.run(&format!("tenant create {slug}"), "").await?;
        let add = format!("source add {slug}");
        let words = format!("{add} reference --kind jwt --preset reference --keys -");
        operator.run(&words, &company.reference.public()).await?;
        operator
            .run(&format!("tenant create {standard_slug}"), "")
            .await?;
        let words = format!(
            "source add {standard_slug} standard --kind jwt --issuer {} --audience {AUDIENCE} --jwks-url {} --egress-allow-private",
            company.issuer, company._published.url
        );
        operator.run(&words, "").await?;
        let words = format!(
            "{add} successor --kind jwt --issuer {} --keys - --namespace-of reference --yes",
            company.successor_issuer
        );
        operator.run(&words, &company.successor.public()).await?;

        let words = format!("{add} lnurl --kind lnurl --allow-shared-host");
        operator.run(&words, "").await?;

        // A running server knows them in a few seconds.
        let anybody = [
            company.open(setup, company.reference_token("anybody")),
            company.open_standard(setup, company.standard_token("anybody")),
            company.open(setup, company.successor_token("anybody")),
        ];
        for store in anybody {
            super::eventually(|| async {
                let got = store.get("k").await;
                refused("get with a token of a new source", Kind::NoSuchKey, got)
            })
            .await?;
        }
        Ok(company)
    }

    /// A new store of the wallet that brings these words.
    fn open(&self, setup: &Setup, authorization: String) -> Store {
        let credential = Credential::Fixed(authorization);
        setup.open(&self.base_url, &credential, Retries::NEVER)
    }

    /// As `open`, at the tenant of the source with an issuer.
    fn open_standard(&self, setup: &Setup, authorization: String) -> Store {
        let credential = Credential::Fixed(authorization);
        setup.open(&self.standard_base_url, &credential, Retries::NEVER)
    }

    fn reference_token(&self, sub: &str) -> String {
        self.reference.bearer(&claims(sub, json!({})))
    }

    fn standard_token(&self, sub: &str) -> String {
        let more = json!({"iss": self.issuer, "aud": AUDIENCE});
        self.standard.bearer(&claims(sub, more))
    }

    fn successor_token(&self, sub: &str) -> String {
        let more = json!({"iss": self.successor_issuer});
        self.successor.bearer(&claims(sub, more))
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

/// A token's claims: that subject for an hour, and more; null takes one away.
fn claims(sub: &str, more: Value) -> Value {
    let mut claims = json!({"sub": sub, "iat": now(), "exp": now() + 3600});
    for (name, value) in more.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    let map = claims.as_object_mut().expect("it is one");
    map.retain(|_, value| !value.is_null());
    claims
}

/// Every one of `good` is a token of one wallet, which `other` is not; `bad` are nobody's.
async fn one_wallet(
    wallet: impl Fn(String) -> Store,
    good: Vec<(&str, String)>,
    other: String,
    bad: Vec<(&str, String)>,
) -> Verdict {
    let id = unique("store");
    let open = |token| Store {
        id: id.clone(),
        ..wallet(token)
    };
    let other = open(other);
    for (version, (what, token)) in good.into_iter().enumerate() {
        let (version, store) = (version as i64, open(token));
        let put = store.put("k", version, b"v").await;
        put.map_err(|failure| format!("{what}: {}", String::from(failure)))?;
        holds(&store, "k", version + 1, b"v").await?;
        equal("keys", store.keys(None).await?, vec!["k".into()])?;
        store.delete("another", -1).await?;
        refused("get by another", Kind::NoSuchKey, other.get("k").await)?;
        equal("keys of another", other.keys(None).await?, vec![])?;
    }
    for (what, token) in bad {
        let store = open(token);
        let put = store.put("k", -1, b"forged").await;
        refused(&format!("put with a token {what}"), Kind::Auth, put)?;
        let get = store.get("k").await;
        refused(&format!("get with a token {what}"), Kind::Auth, get)?;
    }
    Ok(())
}

pub async fn reference(setup: Arc<Setup>) -> Verdict {
    let company = Company::of(&setup).await?;
    let (alice, bob) = (unique("alice"), unique("bob"));
    let of = |more| company.reference.bearer(&claims(&alice, more));
    let good = vec![
        ("a plain token", of(json!({}))),
        ("a later one", of(json!({"exp": now() + 7200}))),
        (
            "one of any issuer",
            of(json!({"iss": "https://any.example"})),
        ),
        ("one of the future", of(json!({"nbf": now() + 3600}))),
        ("one just expired", of(json!({"exp": now() - 1}))),
    ];
    let bad = vec![
        ("with an audience", of(json!({"aud": AUDIENCE}))),
        ("long expired", of(json!({"exp": now() - 120}))),
        ("without an end", of(json!({"exp": null}))),
        ("without a subject", of(json!({"sub": null}))),
        (
            "of another RSA key",
            Key::rsa().bearer(&claims(&alice, json!({}))),
        ),
        (
            "of another kind of key",
            Key::p256("p").bearer(&claims(&alice, json!({}))),
        ),
        ("cut short", of(json!({}))[..200].to_string()),
    ];
    let other = company.reference_token(&bob);
    one_wallet(|token| company.open(&setup, token), good, other, bad).await
}

pub async fn standard(setup: Arc<Setup>) -> Verdict {
    let company = Company::of(&setup).await?;
    let (alice, bob) = (unique("alice"), unique("bob"));
    let with = |key: &Key, more: Value| {
        let mut all = json!({"iss": company.issuer, "aud": AUDIENCE});
        for (name, value) in more.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        key.bearer(&claims(&alice, all))
    };
    let of = |more| with(&company.standard, more);
    let good = vec![
        ("a plain token", of(json!({}))),
        (
            "one for several audiences",
            of(json!({"aud": ["app", AUDIENCE]})),
        ),
        ("one since a while", of(json!({"nbf": now() - 60}))),
    ];
    let bad = vec![
        ("for another audience", of(json!({"aud": "app"}))),
        ("without an audience", of(json!({"aud": null}))),
        ("of the future", of(json!({"nbf": now() + 600}))),
        ("long expired", of(json!({"exp": now() - 120}))),
        (
            "of another key of that name",
            with(&Key::p256("standard-1"), json!({})),
        ),
        (
            "of another issuer",
            of(json!({"iss": "https://any.example"})),
        ),
    ];
    let other = company.standard_token(&bob);
    let wallet = |token| company.open_standard(&setup, token);
    one_wallet(wallet, good, other, bad).await
}

/// A subject that is another scheme's, or another source's, names a wallet of its own.
pub async fn chosen_subject(setup: Arc<Setup>) -> Verdict {
    let company = Company::of(&setup).await?;
    let key = SecretKey::new(&mut thread_rng());
    let public_key = key.public_key(&Secp256k1::new()).to_string();
    let signed = setup.open(&company.base_url, &Credential::Key(key), Retries::NEVER);

    let (_, path) = crate::wire::split_url(&company.base_url)?;
    let login = Observed::open_at(&setup, path, logins::parent(), &[]).await?;
    refused("get", Kind::NoSuchKey, login.store.get("k").await)?;
    let linking_key = login.token()?.subject;

    for (sub, owner) in [(public_key, &signed), (linking_key, &login.store)] {
        let named = |token| Store {
            id: owner.id.clone(),
            ..company.open(&setup, token)
        };
        let stores = [
            ("whose key it is", owner.clone()),
            ("of the source", named(company.reference_token(&sub))),
        ];
        for (who, store) in &stores {
            refused(who, Kind::NoSuchKey, store.get("k").await)?;
            store.put("k", 0, who.as_bytes()).await?;
        }
        for (who, store) in &stores {
            holds(store, "k", 1, who.as_bytes()).await?;
        }
    }
    Ok(())
}

/// A source that was made in the namespace of another takes over its wallets.
pub async fn moved(setup: Arc<Setup>) -> Verdict {
    let company = Company::of(&setup).await?;
    let sub = unique("alice");
    let before = company.open(&setup, company.reference_token(&sub));
    before.put("k", 0, b"v").await?;
    let after = Store {
        id: before.id.clone(),
        ..company.open(&setup, company.successor_token(&sub))
    };
    holds(&after, "k", 1, b"v").await?;
    after.put("k", 1, b"w").await?;
    holds(&before, "k", 2, b"w").await
}
