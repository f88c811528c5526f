//! What a wallet does with the calls, laid out as ldk-node lays out its state.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::rand::{random, thread_rng};
use bitcoin::secp256k1::SecretKey;
use tokio::task::JoinSet;

use super::{equal, holds, refused, Setup, Store, Verdict};
use crate::clients::{Credential, Kind, Release, Retries, RELEASES};

/// The keys a wallet derives from its seed.
#[derive(Clone, Copy)]
struct Secrets {
    data: [u8; 32],
    names: [u8; 32],
}

impl Secrets {
    fn random() -> Self {
        Secrets {
            data: random(),
            names: random(),
        }
    }

    /// The prefix that all keys of a namespace have in common.
    fn prefix(&self, release: &dyn Release, namespace: &str) -> String {
        release.obfuscate(self.names, namespace)
    }

    fn key(&self, release: &dyn Release, namespace: &str, name: &str) -> String {
        let name = release.obfuscate(self.names, name);
        format!("{}#{name}", self.prefix(release, namespace))
    }

    fn name(&self, release: &dyn Release, key: &str) -> Result<String, String> {
        let (_, name) = key.split_once('#').unwrap_or(("", key));
        release.deobfuscate(self.names, name)
    }
}

fn namespaced(n: usize) -> (&'static str, String, Vec<u8>) {
    let namespace = ["monitors#", "monitor_updates#0", "#"][n % 3];
    let value = vec![n as u8; n * 977 % 4000];
    (namespace, format!("name {n}"), value)
}

/// Writes the nth thing a wallet keeps.
async fn keep(store: &Store, release: &dyn Release, secrets: Secrets, n: usize) -> Verdict {
    let (namespace, name, value) = namespaced(n);
    let key = secrets.key(release, namespace, &name);
    let sealed = release.seal(&secrets.data, key.as_bytes(), &value, n as i64);
    Ok(store.put(&key, -1, &sealed).await?)
}

pub async fn sealed(setup: Arc<Setup>) -> Verdict {
    let (release, secrets) = (setup.release, Secrets::random());
    let store = setup.store();
    for n in 0..30 {
        keep(&store, release, secrets, n).await?;
    }
    for n in 0..30 {
        let (namespace, name, value) = namespaced(n);
        let key = secrets.key(release, namespace, &name);
        let stored = store.get(&key).await?.value;
        let opened = release.open(&secrets.data, key.as_bytes(), &stored)?;
        equal(format!("opened {name}"), opened, (value, n as i64))?;
    }
    for namespace in ["monitors#", "monitor_updates#0", "#"] {
        let prefix = secrets.prefix(release, namespace);
        let keys = store.keys(Some(&prefix)).await?;
        let names: Result<Vec<_>, _> = keys.iter().map(|k| secrets.name(release, k)).collect();
        let kept = (0..30).rev().map(namespaced);
        let kept = kept.filter(|(n, _, _)| *n == namespace);
        let kept = kept.map(|(_, name, _)| name).collect();
        equal(format!("names in {namespace}"), names?, kept)?;
    }
    Ok(())
}

pub async fn start_up(setup: Arc<Setup>) -> Verdict {
    const KEPT: usize = 150;
    let (release, secrets) = (setup.release, Secrets::random());
    let store = setup.store();
    for n in 0..KEPT {
        keep(&store, release, secrets, n).await?;
    }

    // The app starts again: a new client lists, then reads everything at once, and writes meanwhile.
    let store = setup.reopen(&store, Retries::LDK_NODE);
    let keys = store.keys(None).await?;
    equal("keys listed", keys.len(), KEPT)?;
    let mut calls = JoinSet::new();
    for key in keys {
        let store = store.clone();
        calls.spawn(async move {
            let stored = store.get(&key).await?.value;
            let (value, n) = release.open(&secrets.data, key.as_bytes(), &stored)?;
            let (_, name, kept) = namespaced(n as usize);
            equal(format!("value of {name}"), value, kept)
        });
    }
    let meanwhile = store.clone();
    calls.spawn(async move {
        meanwhile.put("meanwhile", 0, b"v").await?;
        holds(&meanwhile, "meanwhile", 1, b"v").await?;
        equal(
            "keys listed meanwhile",
            meanwhile.keys(None).await?.len(),
            KEPT + 1,
        )
    });
    calls.join_all().await.into_iter().collect()
}

/// A wallet's state outlives the client version that wrote it. (0.3 cannot open what newer ones seal.)
pub async fn upgrade(setup: Arc<Setup>) -> Verdict {
    let secrets = Secrets::random();
    let store = setup.store();
    let reader = setup.release;
    let older = RELEASES
        .iter()
        .take_while(|r| r.version() != reader.version());
    for writer in older.chain([&reader]) {
        let (base_url, version) = (&setup.target.base_url, writer.version());
        let theirs = Store {
            wallet: writer.connect(base_url, &setup.credential(), Retries::NEVER),
            id: store.id.clone(),
        };
        // Without associated data, as before 0.4.
        let sealed = writer.seal(&secrets.data, b"", version.as_bytes(), 7);
        let key = secrets.key(*writer, "#", version);
        theirs.put(&key, 0, &sealed).await?;

        equal("key", &key, &secrets.key(reader, "#", version))?;
        let stored = store.get(&key).await?;
        let opened = reader.open(&secrets.data, b"", &stored.value)?;
        let expected = (version.as_bytes().to_vec(), 7);
        equal(format!("value written by {version}"), opened, expected)?;
        store.put(&key, stored.version, b"taken over").await?;
        holds(&theirs, &key, 2, b"taken over").await?;
    }
    Ok(())
}

pub async fn isolation(setup: Arc<Setup>) -> Verdict {
    let new_wallet = || Credential::Key(SecretKey::new(&mut thread_rng()));
    let (alice, bob, carol) = (new_wallet(), new_wallet(), new_wallet());
    let tenants = [&setup.target.base_url, &setup.target.other_base_url];
    let id = super::unique("shared");
    let open = |base_url: &String, wallet: &Credential| Store {
        id: id.clone(),
        ..setup.open(base_url, wallet, Retries::NEVER)
    };
    let stores = [
        ("alice at the first tenant", open(tenants[0], &alice)),
        ("bob at the first tenant", open(tenants[0], &bob)),
        ("alice at the second tenant", open(tenants[1], &alice)),
        ("bob at the second tenant", open(tenants[1], &bob)),
    ];
    // Each finds the key unwritten, then sees its own, and nobody else's.
    for (who, store) in &stores {
        refused(who, Kind::NoSuchKey, store.get("k").await)?;
        store.put("k", 0, who.as_bytes()).await?;
        store
            .write(Some(0), vec![super::item(who, 0, b"v")], vec![])
            .await?;
    }
    for (who, store) in &stores {
        holds(store, "k", 1, who.as_bytes()).await?;
        let keys = store.keys(None).await?;
        equal(
            format!("keys of {who}"),
            keys,
            vec![who.to_string(), "k".into()],
        )?;
        let global_version = store.get("global_version").await?.version;
        equal(format!("global version of {who}"), global_version, 1)?;
    }
    // What one deletes or resets, the others keep.
    let (_, first) = &stores[0];
    first.delete("k", -1).await?;
    let reset = vec![super::item("k2", -1, b"v")];
    first.write(Some(1), reset, vec![]).await?;
    for (who, store) in &stores[1..] {
        holds(store, "k", 1, who.as_bytes()).await?;
        let global_version = store.get("global_version").await?.version;
        equal(format!("global version of {who}"), global_version, 1)?;
    }
    for tenant in tenants {
        let stranger = open(tenant, &carol);
        refused("a stranger's get", Kind::NoSuchKey, stranger.get("k").await)?;
        equal("a stranger's keys", stranger.keys(None).await?, vec![])?;
    }
    Ok(())
}

/// Counted by the server.
pub async fn one_connection(setup: Arc<Setup>) -> Verdict {
    // Back to back, 0.4.1 is ready for the next call before its pool has the connection back, and now
    // and then opens another, whatever the server does.
    const PAUSE: Duration = Duration::from_millis(20);
    // Connections that earlier checks left half open have come by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = setup.target.connections().await?;
    let store = setup.store();
    for call in 0..30 {
        tokio::time::sleep(PAUSE).await;
        let key = format!("k{}", call / 3);
        match call % 3 {
            0 => store.put(&key, 0, b"v").await?,
            1 => holds(&store, &key, 1, b"v").await?,
            _ if call % 2 == 0 => store.delete(&key, 1).await?,
            _ => drop(store.page(None, None, None).await?),
        }
    }
    let grown = setup.target.connections().await? - before;
    equal("connections accepted", grown, 1)
}
