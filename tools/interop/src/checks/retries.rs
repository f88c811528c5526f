//! The client's own retry policies, with a proxy between client and server that fails as planned.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{equal, holds, refused, Setup, Store, Verdict};
use crate::clients::{Credential, Kind, Retries};
use crate::proxy::{Fault, Proxy};

/// Sleeps of at least 10, 30 and 70 ms before the second, third and fourth attempt.
const THREE_SLEEPS: Duration = Duration::from_millis(110);

async fn proxied(setup: &Setup, faults: &[Fault]) -> Result<Proxy, String> {
    let proxy = Proxy::start(&setup.target.authority, faults.iter().copied());
    proxy
        .await
        .map_err(|e| format!("expected a proxy, got {e}"))
}

/// A new store of that wallet behind the proxy.
fn store(setup: &Setup, proxy: &Proxy, credential: &Credential, retries: Retries) -> Store {
    let base_url = format!("http://{}{}", proxy.authority(), setup.target.path);
    setup.open(&base_url, credential, retries)
}

pub async fn cut(setup: Arc<Setup>) -> Verdict {
    heals(setup, Fault::Cut).await
}

pub async fn unavailable(setup: Arc<Setup>) -> Verdict {
    heals(setup, Fault::Unavailable).await
}

/// Each of the four calls fails three times, then succeeds, with one effect.
async fn heals(setup: Arc<Setup>, fault: Fault) -> Verdict {
    let proxy = proxied(&setup, &[fault; 3]).await?;
    let behind = store(&setup, &proxy, &setup.credential(), Retries::LDK_NODE);
    let start = Instant::now();
    behind.put("k", 0, b"v").await?;
    if start.elapsed() < THREE_SLEEPS {
        let elapsed = start.elapsed();
        return Err(format!(
            "time of the put: expected over {THREE_SLEEPS:?}, got {elapsed:?}"
        ));
    }
    equal("attempts of the put", proxy.requests(), 4)?;
    let direct = setup.reopen(&behind, Retries::NEVER);
    holds(&direct, "k", 1, b"v").await?;

    let through = |proxy: &Proxy| Store {
        id: behind.id.clone(),
        ..store(&setup, proxy, &setup.credential(), Retries::LDK_NODE)
    };
    let proxy = proxied(&setup, &[fault; 3]).await?;
    holds(&through(&proxy), "k", 1, b"v").await?;
    equal("attempts of the get", proxy.requests(), 4)?;
    let proxy = proxied(&setup, &[fault; 3]).await?;
    equal("keys", through(&proxy).keys(None).await?, vec!["k".into()])?;
    equal("attempts of the list", proxy.requests(), 4)?;
    let proxy = proxied(&setup, &[fault; 3]).await?;
    through(&proxy).delete("k", 1).await?;
    equal("attempts of the delete", proxy.requests(), 4)?;
    refused("get after delete", Kind::NoSuchKey, direct.get("k").await)
}

pub async fn lost_answer(setup: Arc<Setup>) -> Verdict {
    // As LDK writes: whatever was there. The second attempt writes the same again.
    let proxy = proxied(&setup, &[Fault::LoseAnswer]).await?;
    let behind = store(&setup, &proxy, &setup.credential(), Retries::LDK_NODE);
    behind.put("k", -1, b"v").await?;
    equal("attempts", proxy.requests(), 2)?;
    let direct = setup.reopen(&behind, Retries::NEVER);
    holds(&direct, "k", 1, b"v").await?;
    equal("keys", direct.keys(None).await?, vec!["k".into()])?;

    // With a condition, the second attempt meets the first one's work.
    let proxy = proxied(&setup, &[Fault::LoseAnswer]).await?;
    let behind = store(&setup, &proxy, &setup.credential(), Retries::LDK_NODE);
    let result = behind.put("k", 0, b"v").await;
    refused("put at 0, answer lost", Kind::Conflict, result)?;
    equal("attempts", proxy.requests(), 2)?;
    holds(&setup.reopen(&behind, Retries::NEVER), "k", 1, b"v").await?;

    let proxy = proxied(&setup, &[Fault::Pass, Fault::LoseAnswer]).await?;
    let behind = store(&setup, &proxy, &setup.credential(), Retries::LDK_NODE);
    behind.put("k", 0, b"v").await?;
    behind.delete("k", 1).await?;
    equal("attempts", proxy.requests(), 3)
}

/// With the clients since 0.5 all of these are on one connection, pipelined.
pub async fn cut_among_many(setup: Arc<Setup>) -> Verdict {
    const KEYS: usize = 40;
    let direct = setup.store();
    for n in 0..KEYS {
        direct.put(&format!("k{n}"), 0, &[n as u8; 300]).await?;
    }
    let mut faults = [Fault::Pass; 15];
    faults[14] = Fault::Cut;
    let proxy = proxied(&setup, &faults).await?;
    let behind = Store {
        id: direct.id,
        ..store(&setup, &proxy, &setup.credential(), Retries::LDK_NODE)
    };
    holds(&behind, "k0", 1, &[0; 300]).await?;
    let mut calls = JoinSet::new();
    for n in 0..KEYS {
        let behind = behind.clone();
        calls.spawn(async move { holds(&behind, &format!("k{n}"), 1, &[n as u8; 300]).await });
    }
    calls.join_all().await.into_iter().collect()
}

pub async fn limits(setup: Arc<Setup>) -> Verdict {
    let retries = Retries::LDK_NODE;
    let few = Retries {
        max_attempts: 3,
        ..retries
    };
    // Sleeps of 100, then 300 ms: the second would be over the total.
    let short = Retries {
        base_delay: Duration::from_millis(100),
        max_total_delay: Duration::from_millis(250),
        ..retries
    };
    for (what, retries, attempts) in [("3 attempts", few, 3), ("250 ms in all", short, 2)] {
        let proxy = proxied(&setup, &[Fault::Unavailable; 10]).await?;
        let behind = store(&setup, &proxy, &setup.credential(), retries);
        let result = behind.put("k", 0, b"v").await;
        refused(what, Kind::InternalServer, result)?;
        equal(
            format!("attempts with at most {what}"),
            proxy.requests(),
            attempts,
        )?;
        let direct = setup.reopen(&behind, Retries::NEVER);
        refused("get afterwards", Kind::NoSuchKey, direct.get("k").await)?;
    }
    Ok(())
}

pub async fn selected_errors(setup: Arc<Setup>) -> Verdict {
    let retries = Retries {
        max_attempts: 3,
        ..Retries::LDK_NODE
    };
    let proxy = proxied(&setup, &[]).await?;
    let behind = store(&setup, &proxy, &setup.credential(), retries);
    refused("absent key", Kind::NoSuchKey, behind.get("k").await)?;
    equal("attempts for an absent key", proxy.requests(), 1)?;
    let result = behind.put("k", 1, b"v").await;
    refused("wrong version", Kind::Conflict, result)?;
    equal("attempts for a conflict", proxy.requests(), 2)?;
    let result = behind.put("global_version", -1, b"v").await;
    refused("reserved key", Kind::InvalidRequest, result)?;
    equal("attempts for an invalid request", proxy.requests(), 3)?;

    // What an operator can set right is tried again.
    let proxy = proxied(&setup, &[]).await?;
    let unsigned = store(&setup, &proxy, &Credential::None, retries);
    refused("no credential", Kind::Auth, unsigned.get("k").await)?;
    equal("attempts without a credential", proxy.requests(), 3)?;
    let proxy = proxied(&setup, &[]).await?;
    let (_, path) = crate::wire::split_url(&setup.target.unknown_base_url)?;
    let base_url = format!("http://{}{path}", proxy.authority());
    let nobody = setup.open(&base_url, &setup.credential(), retries);
    refused(
        "unknown tenant",
        Kind::InternalServer,
        nobody.get("k").await,
    )?;
    equal("attempts at an unknown tenant", proxy.requests(), 3)
}
