//! Signature tokens for the client versions that come without a provider of their own.
//!
//! A token is hex(public key) ‖ hex(compact signature) ‖ decimal unix seconds, signed over
//! SHA-256(salt ‖ public key ‖ seconds).

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey, SignOnly};

const SALT: &[u8; 64] = b"VSS Signature Authorizer Signing Salt Constant..................";

/// Signs tokens, one for every request.
pub struct Signer {
    key: SecretKey,
    secp: Secp256k1<SignOnly>,
}

impl Signer {
    pub fn new(key: SecretKey) -> Self {
        Signer {
            key,
            secp: Secp256k1::signing_only(),
        }
    }

    /// A token whose time is that of `at`.
    pub fn token(&self, at: SystemTime) -> String {
        let seconds = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs();
        let public = self.key.public_key(&self.secp);
        let mut signed = SALT.to_vec();
        signed.extend(public.serialize());
        signed.extend(seconds.to_string().bytes());
        let digest = Message::from_digest(sha256::Hash::hash(&signed).to_byte_array());
        let signature = self.secp.sign_ecdsa(&digest, &self.key);

        let mut token = public.to_string();
        for byte in signature.serialize_compact() {
            token += &format!("{byte:02x}");
        }
        token + &seconds.to_string()
    }

    fn headers(&self) -> HashMap<String, String> {
        HashMap::from([("Authorization".to_string(), self.token(SystemTime::now()))])
    }
}

macro_rules! header_provider {
    ($client:ident) => {
        #[async_trait::async_trait]
        impl $client::headers::VssHeaderProvider for Signer {
            async fn get_headers(
                &self,
                _request: &[u8],
            ) -> Result<HashMap<String, String>, $client::headers::VssHeaderProviderError> {
                Ok(self.headers())
            }
        }
    };
}

header_provider!(vss031);
header_provider!(vss041);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use bitcoin::secp256k1::rand::thread_rng;
    use vss060::headers::{sigs_auth::SigsAuthProvider, VssHeaderProvider};

    /// Signatures are deterministic: within one second both providers say the same, byte for byte.
    #[tokio::test]
    async fn token_equals_the_released_providers() {
        let _right = clock::IN_USE.lock();
        let key = SecretKey::new(&mut thread_rng());
        let released = SigsAuthProvider::new(key, HashMap::new());
        let ours = Signer::new(key);
        for _ in 0..10 {
            let before = ours.headers();
            let theirs = released.get_headers(&[]).await.unwrap();
            if before == ours.headers() {
                assert_eq!(theirs, before);
                return;
            }
        }
        panic!("the clock never stood still for one token");
    }
}
