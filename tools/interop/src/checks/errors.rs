//! Every kind of refusal, by what the client makes of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bitcoin::secp256k1::rand::thread_rng;
use bitcoin::secp256k1::SecretKey;

use super::{holds, item, refused, Setup, Store, Verdict};
use crate::clients::{Credential, Kind, Retries};
use crate::signature::Signer;

pub async fn conflict(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    store.put("k", 0, b"v").await?;
    let result = store.put("k", 0, b"w").await;
    refused("put over a key", Kind::Conflict, result)?;
    let result = store.write(Some(5), vec![item("k", 1, b"w")], vec![]).await;
    refused("put at global version 5", Kind::Conflict, result)?;
    let result = store.write(None, vec![], vec![item("gone", -1, b"")]).await;
    refused("put deleting an absent key", Kind::Conflict, result)?;
    holds(&store, "k", 1, b"v").await
}

pub async fn invalid_request(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    let invalid = |what: &str, result| refused(what, Kind::InvalidRequest, result);
    let put = |items, deletes| store.write(None, items, deletes);
    let one = |key: &str, version| put(vec![item(key, version, b"v")], vec![]);
    let long_key = "k".repeat(601);

    invalid("put to the reserved key", one("global_version", -1).await)?;
    invalid("put to an empty key", one("", -1).await)?;
    invalid("put to a key of 601 characters", one(&long_key, -1).await)?;
    invalid("put to a key with NUL", one("a\0b", -1).await)?;
    invalid("put at version -2", one("k", -2).await)?;
    let twice = vec![item("k", -1, b"v"), item("k", -1, b"w")];
    invalid("put of one key twice", put(twice, vec![]).await)?;
    let both = put(vec![item("k", -1, b"v")], vec![item("k", -1, b"")]);
    invalid("put of a key that it deletes", both.await)?;
    let reserved = put(vec![], vec![item("global_version", -1, b"")]);
    invalid("put deleting the reserved key", reserved.await)?;
    let many = (0..1001)
        .map(|n| item(&format!("k{n}"), -1, b"v"))
        .collect();
    invalid("put of 1001 items", put(many, vec![]).await)?;
    let negative = store.write(Some(-2), vec![item("k", -1, b"v")], vec![]);
    invalid("put at global version -2", negative.await)?;
    invalid(
        "delete of the reserved key",
        store.delete("global_version", -1).await,
    )?;
    invalid("delete of an empty key", store.delete("", -1).await)?;
    refused(
        "get of an empty key",
        Kind::InvalidRequest,
        store.get("").await,
    )?;
    let result = store.get(&long_key).await;
    refused(
        "get of a key of 601 characters",
        Kind::InvalidRequest,
        result,
    )?;
    for (size, token) in [(Some(-1), None), (None, Some("no token".to_string()))] {
        let what = format!("list with page size {size:?}, token {token:?}");
        refused(
            &what,
            Kind::InvalidRequest,
            store.page(None, size, token).await,
        )?;
    }
    let unnamed = Store {
        id: "s".repeat(121),
        ..store.clone()
    };
    let result = unnamed.put("k", -1, b"v").await;
    invalid("put to a store id of 121 characters", result)?;
    refused("get afterwards", Kind::NoSuchKey, store.get("k").await)?;

    // The longest that are allowed.
    let longest = Store {
        id: format!("{:0<120}", store.id),
        ..store
    };
    let key = "🗝".repeat(600);
    longest.put(&key, 0, b"v").await?;
    holds(&longest, &key, 1, b"v").await
}

pub async fn unknown_path(setup: Arc<Setup>) -> Verdict {
    let base_url = format!("{}/nowhere", setup.target.base_url);
    let store = setup.open(&base_url, &setup.credential(), Retries::NEVER);
    all_refused("at an unknown path", Kind::InvalidRequest, &store).await
}

/// Since 0.5 the client looks for an answer only after the whole body has gone out: a server that cuts
/// the connection before is not heard, and the client tries again and again.
pub async fn body_over_limit(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    let value = vec![0; setup.target.body_limit + super::OVER_LIMIT];
    let result = store.put("k", 0, &value).await;
    refused("put", Kind::InvalidRequest, result)?;
    store.put("k", 0, b"v").await?;
    holds(&store, "k", 1, b"v").await
}

pub async fn no_such_key(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    refused("get, new store", Kind::NoSuchKey, store.get("k").await)?;
    store.put("k", 0, b"v").await?;
    refused("get, other key", Kind::NoSuchKey, store.get("K").await)?;
    let sibling = setup.store();
    refused("get, other store", Kind::NoSuchKey, sibling.get("k").await)
}

pub async fn auth(setup: Arc<Setup>) -> Verdict {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const HOUR: Duration = Duration::from_secs(3600);
    let now = SystemTime::now();
    let signer = Signer::new(setup.key);
    let good = signer.token(now);
    let foreign = Signer::new(SecretKey::new(&mut thread_rng())).token(now);
    let (key, rest) = good.split_at(66);
    let (signature, seconds) = rest.split_at(128);
    let seconds: u64 = seconds.parse().expect("made by the signer");
    let fixed = Credential::Fixed;
    let cases = [
        ("without Authorization", Credential::None),
        ("with nonsense", fixed("nonsense".into())),
        ("with a nonsensical JWT", fixed("Bearer a.b.c".into())),
        ("signed 25 hours ago", fixed(signer.token(now - DAY - HOUR))),
        ("signed in 25 hours", fixed(signer.token(now + DAY + HOUR))),
        (
            "with another key's signature",
            fixed(format!("{key}{}", &foreign[66..])),
        ),
        (
            "with another time than signed",
            fixed(format!("{key}{signature}{}", seconds - 1)),
        ),
        ("without a time", fixed(format!("{key}{signature}"))),
    ];
    for (what, credential) in cases {
        let store = setup.open(&setup.target.base_url, &credential, Retries::NEVER);
        all_refused(what, Kind::Auth, &store).await?;
    }
    Ok(())
}

pub async fn unknown_tenant(setup: Arc<Setup>) -> Verdict {
    let base_url = &setup.target.unknown_base_url;
    let store = setup.open(base_url, &setup.credential(), Retries::NEVER);
    all_refused("at an unknown tenant", Kind::InternalServer, &store).await
}

/// Each of the four calls fails in that way.
async fn all_refused(what: &str, kind: Kind, store: &Store) -> Verdict {
    refused(&format!("get {what}"), kind, store.get("k").await)?;
    refused(&format!("put {what}"), kind, store.put("k", -1, b"v").await)?;
    refused(&format!("delete {what}"), kind, store.delete("k", -1).await)?;
    let page = store.page(None, None, None).await;
    refused(&format!("list {what}"), kind, page)
}
