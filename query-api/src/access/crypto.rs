//! Signatures of tokens, by the library that does TLS here already. `jsonwebtoken` leaves them to its user.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::{hmac, signature};

/// Verifies only: nothing here signs tokens.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(RingVerifier::new(*algorithm, key)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes `jsonwebtoken` use this library. A process has one choice: where it was made already, it stays.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if PROVIDER.install_default().is_err() {
            tracing::debug!("another library verifies the signatures of tokens");
        }
    });
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKeyKind,
}

impl RingVerifier {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        // The family is checked here too: the bytes of a public key must never serve as an HMAC secret.
        if algorithm.family() != key.family() {
            return Err(ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Self { algorithm, key: key.kind().clone() })
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], given: &Vec<u8>) -> std::result::Result<(), Error> {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        let rsa = match self.algorithm {
            RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            HS256 => return self.hmac(hmac::HMAC_SHA256, message, given),
            HS384 => return self.hmac(hmac::HMAC_SHA384, message, given),
            HS512 => return self.hmac(hmac::HMAC_SHA512, message, given),
            ES256 => return self.public(&signature::ECDSA_P256_SHA256_FIXED, message, given),
            ES384 => return self.public(&signature::ECDSA_P384_SHA384_FIXED, message, given),
            EdDSA => return self.public(&signature::ED25519, message, given),
            // Another kind than there was when this was written.
            _ => return Err(Error::new()),
        };
        match &self.key {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let components = signature::RsaPublicKeyComponents { n: significant(n), e: significant(e) };
                components.verify(rsa, message, given).map_err(|_| Error::new())
            }
            DecodingKeyKind::SecretOrDer(_) => self.public(rsa, message, given),
        }
    }
}

impl RingVerifier {
    fn bytes(&self) -> std::result::Result<&[u8], Error> {
        match &self.key {
            DecodingKeyKind::SecretOrDer(bytes) => Ok(bytes),
            DecodingKeyKind::RsaModulusExponent { .. } => Err(Error::new()),
        }
    }

    fn public(
        &self,
        algorithm: &'static dyn signature::VerificationAlgorithm,
        message: &[u8],
        given: &[u8],
    ) -> std::result::Result<(), Error> {
        let key = signature::UnparsedPublicKey::new(algorithm, self.bytes()?);
        key.verify(message, given).map_err(|_| Error::new())
    }

    fn hmac(&self, algorithm: hmac::Algorithm, message: &[u8], given: &[u8]) -> std::result::Result<(), Error> {
        let key = hmac::Key::new(algorithm, self.bytes()?);
        hmac::verify(&key, message, given).map_err(|_| Error::new())
    }
}

/// A number without the zeros that some issuers put in front.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
