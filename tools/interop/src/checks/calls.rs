//! get, put and delete: what they promise about values and versions.

use std::sync::Arc;
use std::time::SystemTime;

use bitcoin::secp256k1::rand::{thread_rng, RngCore};

use super::{equal, holds, item, refused, Setup, Verdict};
use crate::clients::{Credential, Kind, Retries};
use crate::clock;
use crate::signature::Signer;

pub async fn signed(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    refused("get before put", Kind::NoSuchKey, store.get("k").await)?;
    for round in 0..5 {
        let value = format!("value {round}");
        store.put("k", -1, value.as_bytes()).await?;
        holds(&store, "k", 1, value.as_bytes()).await?;
        holds(
            &setup.reopen(&store, Retries::NEVER),
            "k",
            1,
            value.as_bytes(),
        )
        .await?;
    }
    store.put("k", -1, b"").await?;
    holds(&store, "k", 1, b"").await
}

/// The signature binds neither call nor body: `FixedHeaders` can carry one for its 24 hours.
pub async fn one_signature(setup: Arc<Setup>) -> Verdict {
    let token = Signer::new(setup.key).token(SystemTime::now());
    let base_url = &setup.target.base_url;
    let fixed = setup.open(base_url, &Credential::Fixed(token), Retries::NEVER);
    fixed.put("a", 0, b"1").await?;
    fixed.put("a", 1, b"2").await?;
    holds(&fixed, "a", 2, b"2").await?;
    // The same wallet, however it is signed in.
    holds(&setup.reopen(&fixed, Retries::NEVER), "a", 2, b"2").await
}

/// The client's own provider signs the time of the client's clock.
pub async fn wrong_clock(setup: Arc<Setup>) -> Verdict {
    const HOUR: i64 = 3600;
    let store = setup.store();
    for (version, hours) in [(0, 23), (1, -23)] {
        let _wrong = clock::wrong_by(hours * HOUR);
        store.put("k", version, b"v").await?;
        holds(&store, "k", version + 1, b"v").await?;
        store.page(None, None, None).await?;
        store.delete("another", -1).await?;
    }
    for hours in [25, -25] {
        let _wrong = clock::wrong_by(hours * HOUR);
        let what = format!("get {hours} h off");
        refused(&what, Kind::Auth, store.get("k").await)?;
    }
    holds(&store, "k", 2, b"v").await
}

pub async fn large_value(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    let mut value = vec![0; 1 << 20];
    thread_rng().fill_bytes(&mut value);
    store.put("large", 0, &value).await?;
    holds(&store, "large", 1, &value).await
}

pub async fn versions(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    store.put("k", 0, b"first").await?;
    holds(&store, "k", 1, b"first").await?;
    let again = store.put("k", 0, b"again").await;
    refused("0 for a key that exists", Kind::Conflict, again)?;
    for version in 1..4 {
        store.put("k", version, b"next").await?;
        holds(&store, "k", version + 1, b"next").await?;
    }
    for stale in [1, 3, 5, i64::MAX] {
        let stale = store.put("k", stale, b"stale").await;
        refused("another version than 4", Kind::Conflict, stale)?;
    }
    holds(&store, "k", 4, b"next").await?;
    store.put("k", -1, b"forced").await?;
    holds(&store, "k", 1, b"forced").await?;
    store.put("new", -1, b"forced").await?;
    holds(&store, "new", 1, b"forced").await?;
    let absent = store.put("absent", 1, b"").await;
    refused("1 for a key that is absent", Kind::Conflict, absent)?;
    refused("get after it", Kind::NoSuchKey, store.get("absent").await)
}

pub async fn delete(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    store.delete("never", -1).await?;
    store.delete("never", 3).await?;
    store.put("k", 0, b"1").await?;
    store.put("k", 1, b"2").await?;
    store.delete("k", 1).await?;
    holds(&store, "k", 2, b"2").await?;
    store.delete("k", 2).await?;
    refused("get after delete", Kind::NoSuchKey, store.get("k").await)?;
    store.delete("k", 2).await?;
    store.put("k", 0, b"back").await?;
    holds(&store, "k", 1, b"back").await?;
    store.delete("k", -1).await?;
    refused("get after delete", Kind::NoSuchKey, store.get("k").await)
}

pub async fn transaction(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    let items = vec![
        item("a", 0, b"a1"),
        item("b", 0, b"b1"),
        item("c", -1, b"c1"),
    ];
    store.write(None, items, vec![]).await?;

    let items = vec![item("d", 0, b"d1"), item("a", 1, b"a2")];
    let deletes = vec![item("b", 1, b""), item("c", -1, b"")];
    store.write(None, items, deletes).await?;
    holds(&store, "a", 2, b"a2").await?;
    holds(&store, "d", 1, b"d1").await?;
    refused("get of deleted b", Kind::NoSuchKey, store.get("b").await)?;
    refused("get of deleted c", Kind::NoSuchKey, store.get("c").await)?;

    // One item that does not fit, and nothing of it happens.
    let failing = [
        (item("a", 1, b"stale"), item("d", 1, b"")),
        (item("e", 0, b"e1"), item("d", 7, b"")),
        (item("e", 0, b"e1"), item("gone", -1, b"")),
    ];
    for (put, delete) in failing {
        let items = vec![item("f", 0, b"f1"), put];
        let result = store.write(None, items, vec![delete]).await;
        refused("transaction with a misfit", Kind::Conflict, result)?;
    }
    holds(&store, "a", 2, b"a2").await?;
    holds(&store, "d", 1, b"d1").await?;
    equal(
        "keys",
        store.keys(None).await?,
        vec!["d".into(), "a".into()],
    )
}

pub async fn global_version(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    let read = || async { Ok::<_, String>(store.get("global_version").await?.version) };
    let listed = || async { Ok::<_, String>(store.page(None, None, None).await?.global_version) };
    let put = |global, key: &str| store.write(global, vec![item(key, -1, b"v")], vec![]);

    equal("before the first write", read().await?, 0)?;
    equal("listed before the first write", listed().await?, Some(0))?;
    put(None, "a").await?;
    equal("after a put without it", read().await?, 0)?;
    put(Some(0), "b").await?;
    equal("after a put at 0", read().await?, 1)?;
    put(Some(1), "c").await?;
    equal("after a put at 1", read().await?, 2)?;
    equal("listed", listed().await?, Some(2))?;
    for stale in [0, 1, 3] {
        let result = put(Some(stale), "stale").await;
        refused("another global version than 2", Kind::Conflict, result)?;
    }
    refused(
        "get of what it put",
        Kind::NoSuchKey,
        store.get("stale").await,
    )?;
    put(None, "d").await?;
    store.delete("d", -1).await?;
    equal("after writes without it", read().await?, 2)?;
    put(Some(-1), "e").await?;
    equal("after a put at -1", read().await?, 1)?;
    equal("keys", store.keys(None).await?.join(" "), "e c b a".into())
}
