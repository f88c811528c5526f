//! Lists, read as ldk-node reads them.

use std::sync::Arc;

use super::{equal, Setup, Store, Verdict};

pub async fn until_done(setup: Arc<Setup>) -> Verdict {
    const KEYS: usize = 250;
    let store = setup.store();
    store.put("other/before", 0, b"v").await?;
    for n in 0..KEYS {
        store.put(&format!("monitors/{n}"), 0, b"v").await?;
    }
    store.put("other/after", 0, b"v").await?;
    // An update does not move a key.
    for n in [0, 100, 200] {
        store.put(&format!("monitors/{n}"), 1, b"v").await?;
    }

    let version = |n| if n % 100 == 0 { 2 } else { 1 };
    let newest_first = (0..KEYS).rev();
    let expected: Vec<(String, i64)> = newest_first
        .map(|n| (format!("monitors/{n}"), version(n)))
        .collect();
    for size in [None, Some(0), Some(37), Some(50), Some(100), Some(1000)] {
        let pages = store.pages(Some("monitors/"), size).await?;
        for (number, page) in pages.iter().enumerate() {
            let what = format!("page {number} at page size {size:?}");
            let first_only = (number == 0).then_some(0);
            equal(
                format!("global version on {what}"),
                page.global_version,
                first_only,
            )?;
            let bytes = page.key_versions.iter().map(|kv| kv.value.len()).sum();
            equal(format!("bytes of values on {what}"), bytes, 0)?;
            let most = match size {
                Some(0) | None => KEYS,
                Some(size) => size as usize,
            };
            if page.key_versions.len() > most {
                let got = page.key_versions.len();
                return Err(format!(
                    "keys on {what}: expected at most {most}, got {got}"
                ));
            }
        }
        let listed = pages.into_iter().flat_map(|page| page.key_versions);
        let listed: Vec<_> = listed.map(|kv| (kv.key, kv.version)).collect();
        let differs = listed.iter().zip(&expected).position(|(l, e)| l != e);
        if let Some(at) = differs {
            let (listed, expected) = (&listed[at], &expected[at]);
            return Err(format!(
                "entry {at} at page size {size:?}: expected {expected:?}, got {listed:?}"
            ));
        }
        equal(format!("keys at page size {size:?}"), listed.len(), KEYS)?;
    }
    equal(
        "keys of the whole store",
        store.keys(None).await?.len(),
        KEYS + 2,
    )
}

pub async fn empty(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    for prefix in [None, Some(""), Some("bdk_wallet#")] {
        let pages = store.pages(prefix, None).await?;
        equal(format!("pages for {prefix:?}"), pages.len(), 1)?;
        equal(
            format!("keys for {prefix:?}"),
            pages[0].key_versions.len(),
            0,
        )?;
    }
    Ok(())
}

pub async fn paging_under_writes(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    for n in 0..30 {
        store.put(&format!("k{n}"), 0, b"v").await?;
    }
    let keys = |page: &vss060::types::ListKeyVersionsResponse| -> Vec<String> {
        page.key_versions.iter().map(|kv| kv.key.clone()).collect()
    };
    let numbered = |range: std::ops::Range<i32>| range.rev().map(|n| format!("k{n}"));

    let first = store.page(Some("k"), Some(10), None).await?;
    equal("first page", keys(&first), numbered(20..30).collect())?;
    store.delete("k20", -1).await?; // the entry that the token came from
    store.delete("k15", -1).await?; // one that is still to come
    store.put("k5", 1, b"moved?").await?;
    store.put("k30", 0, b"newer than the first page").await?;

    let rest = store.pages_from(Some("k"), Some(10), first.next_page_token);
    let rest: Vec<_> = rest.await?.iter().flat_map(keys).collect();
    let expected: Vec<_> = numbered(0..20).filter(|k| k != "k15").collect();
    equal("pages after the writes", rest, expected)
}

pub async fn literal_prefix(setup: Arc<Setup>) -> Verdict {
    let store = setup.store();
    let keys = ["a_1", "ax1", "a%1", "a\\1", "A_1", "ключ/1", "ключ/2", "b"];
    for key in keys {
        store.put(key, 0, b"v").await?;
    }
    let cases = [
        ("a_", vec!["a_1"]),
        ("a%", vec!["a%1"]),
        ("a\\", vec!["a\\1"]),
        ("a", vec!["a\\1", "a%1", "ax1", "a_1"]),
        ("ключ/", vec!["ключ/2", "ключ/1"]),
        ("ключ/1", vec!["ключ/1"]),
        ("%", vec![]),
        ("c", vec![]),
    ];
    for (prefix, expected) in cases {
        matches(&store, prefix, &expected).await?;
    }
    let mut all = keys.to_vec();
    all.reverse();
    matches(&store, "", &all).await
}

async fn matches(store: &Store, prefix: &str, expected: &[&str]) -> Verdict {
    let got = store.keys(Some(prefix)).await?;
    let got: Vec<_> = got.iter().map(String::as_str).collect();
    equal(format!("keys under {prefix:?}"), got.as_slice(), expected)
}
