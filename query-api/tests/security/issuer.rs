//! An issuer of tokens: keys made for the test, a server that publishes them and counts who asks, and tokens of every
//! kind, also such as no issuer would make.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use ring::{hmac, rand};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://id.example";
pub(crate) const AUDIENCE: &str = "headwater";

/// Made once: a key of 2,048 bits takes a while.
pub(crate) static RSA: LazyLock<RsaKeyPair> = LazyLock::new(rsa_key);

fn rsa_key() -> RsaKeyPair {
    let args = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER"];
    let made = Command::new("openssl").args(args).output().expect("openssl; `scripts/need.sh tests` installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Which of the two it writes differs between versions.
    RsaKeyPair::from_der(&made.stdout).or_else(|_| RsaKeyPair::from_pkcs8(&made.stdout)).expect("a key")
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// How a token is signed.
pub(crate) enum Signing<'k> {
    Rs256(&'k RsaKeyPair),
    Ps256(&'k RsaKeyPair),
    Es256(&'k EcdsaKeyPair),
    Ed25519(&'k Ed25519KeyPair),
    Hs256(&'k [u8]),
    Nothing,
}

/// A token with any header and claims.
pub(crate) fn token(header: &Value, claims: &Value, signing: &Signing<'_>) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let random = SystemRandom::new();
    let signature = match signing {
        Signing::Rs256(key) | Signing::Ps256(key) => {
            let mut signature = vec![0; key.public().modulus_len()];
            let padding: &dyn ring::signature::RsaEncoding =
                if matches!(signing, Signing::Rs256(_)) { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
            key.sign(padding, &random, message.as_bytes(), &mut signature).unwrap();
            signature
        }
        Signing::Es256(key) => key.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
        Signing::Ed25519(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        Signing::Hs256(secret) => {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes()).as_ref().into()
        }
        Signing::Nothing => Vec::new(),
    };
    format!("{message}.{}", b64(signature))
}

pub(crate) fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Claims of a good token, with more of them or others.
pub(crate) fn claims(more: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "someone", "exp": now() + 600, "iat": now(), "nbf": now(),
    });
    for (name, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// A good token with these claims besides.
pub(crate) fn good(more: Value) -> String {
    token(&json!({"alg": "RS256", "typ": "JWT", "kid": "rsa"}), &claims(more), &Signing::Rs256(&RSA))
}

pub(crate) fn ec_key() -> EcdsaKeyPair {
    let random = rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

pub(crate) fn ed_key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&rand::SystemRandom::new()).unwrap().as_ref()).unwrap()
}

pub(crate) fn rsa_jwk(id: &str, key: &RsaKeyPair) -> Value {
    let public: ring::rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
    json!({"kty": "RSA", "use": "sig", "kid": id, "n": b64(public.n), "e": b64(public.e)})
}

pub(crate) fn ec_jwk(id: &str, key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "x": b64(&point[1..33]), "y": b64(&point[33..])})
}

pub(crate) fn ed_jwk(id: &str, key: &Ed25519KeyPair) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": id, "x": b64(key.public_key())})
}

/// A server of a key set.
pub(crate) struct KeyServer {
    address: SocketAddr,
    pub(crate) keys: Arc<Mutex<Vec<Value>>>,
    /// How often it was asked.
    pub(crate) asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl KeyServer {
    pub(crate) fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (keys, asked, stop) =
            (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (served, count, stopped) = (keys.clone(), asked.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let mut request = Vec::new();
                let mut part = [0; 1024];
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(0) | Err(_) => break,
                        Ok(len) => request.extend_from_slice(&part[..len]),
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                let body = json!({"keys": *served.lock().unwrap()}).to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { address, keys, asked, stop }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(self.address);
    }
}
