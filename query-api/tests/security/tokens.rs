//! Tokens and keys that are not to be believed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_query_api::{Algorithm, IssuerOptions, KeySource, ModelRule};
use serde_json::{Value, json};

use crate::issuer::{AUDIENCE, ISSUER, RSA, Signing, b64, claims, ec_jwk, ec_key, good, now, rsa_jwk, token};
use crate::lines::Lines;
use crate::world::{API_KEY, Guarded};

fn status(world: &Guarded, token: &str) -> u16 {
    let answer = world.get_with("/v1/customer/7", &[("authorization", &format!("Bearer {token}"))]);
    if answer.status == 401 {
        assert_eq!(answer.json()["code"], "credentials_invalid");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"headwater\", error=\"invalid_token\"");
        assert_eq!(answer.header("cache-control"), "no-store");
        let said = answer.body.to_lowercase();
        for word in ["signature", "expired", "audience", "issuer", "kid", "algorithm"] {
            assert!(!said.contains(word), "an attacker is told why: {said}");
        }
    }
    answer.status
}

#[test]
fn tokens_of_every_listed_algorithm_are_believed() {
    let world = Guarded::new(ModelRule::default());
    let (ec, ed) = (&world.ec, &world.ed);
    for (alg, kid, signing) in [
        ("RS256", "rsa", Signing::Rs256(&RSA)),
        ("PS256", "rsa", Signing::Ps256(&RSA)),
        ("ES256", "ec", Signing::Es256(ec)),
        ("EdDSA", "ed", Signing::Ed25519(ed)),
    ] {
        let header = json!({"alg": alg, "kid": kid});
        assert_eq!(status(&world, &token(&header, &claims(json!({})), &signing)), 200, "{alg}");
        let header = json!({"alg": alg});
        assert_eq!(status(&world, &token(&header, &claims(json!({})), &signing)), 200, "{alg} without key id");
    }
    assert_eq!(world.get_with("/v1/customer/7", &[("x-api-key", API_KEY)]).status, 200);
}

#[test]
fn who_does_not_say_who_asks_is_asked() {
    let world = Guarded::new(ModelRule::default());
    for path in ["/v1/customer/7", "/v1/customer", "/openapi.json", "/graphql?query=%7B__typename%7D", "/nothing"] {
        let answer = world.get(path);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("credentials_missing")), "{path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"headwater\"");
    }
}

#[test]
fn algorithms_are_not_confused() {
    let world = Guarded::new(ModelRule::default());
    let public: ring::rsa::PublicKeyComponents<Vec<u8>> = RSA.public().into();
    let good_claims = claims(json!({}));
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({"alg": alg, "kid": "rsa"});
        assert_eq!(status(&world, &token(&header, &good_claims, &Signing::Nothing)), 401, "{alg}");
        let message = format!("{}.{}", b64(header.to_string()), b64(good_claims.to_string()));
        assert_eq!(status(&world, &message), 401, "{alg} without signature");
    }
    // The public key as a secret, in every form in which it might be kept.
    let jwk = rsa_jwk("rsa", &RSA);
    let secrets: [&[u8]; 5] = [
        &public.n,
        RSA.public().as_ref(),
        jwk["n"].as_str().unwrap().as_bytes(),
        &serde_json::to_vec(&jwk).unwrap(),
        b"",
    ];
    for secret in secrets {
        for kid in [json!("rsa"), Value::Null] {
            let forged = token(&json!({"alg": "HS256", "kid": kid}), &good_claims, &Signing::Hs256(secret));
            assert_eq!(status(&world, &forged), 401);
        }
    }
    // One key's signature under another key's name, and another algorithm's name over a good signature.
    for (alg, kid, signing) in [
        ("RS256", "ec", Signing::Rs256(&RSA)),
        ("ES256", "rsa", Signing::Es256(&world.ec)),
        ("ES256", "ec", Signing::Rs256(&RSA)),
        ("RS512", "rsa", Signing::Rs256(&RSA)),
        ("PS256", "rsa", Signing::Rs256(&RSA)),
        ("HS256", "rsa", Signing::Rs256(&RSA)),
    ] {
        assert_eq!(
            status(&world, &token(&json!({"alg": alg, "kid": kid}), &good_claims, &signing)),
            401,
            "{alg} {kid}"
        );
    }
}

#[test]
fn keys_of_the_attackers_own_are_not_used() {
    let world = Guarded::new(ModelRule::default());
    let own = ec_key();
    let server = crate::issuer::KeyServer::start(vec![ec_jwk("mine", &own)]);
    for header in [
        json!({"alg": "ES256", "kid": "ec"}),
        json!({"alg": "ES256", "jwk": ec_jwk("ec", &own)}),
        json!({"alg": "ES256", "kid": "mine", "jku": server.url()}),
        json!({"alg": "ES256", "kid": "mine", "x5u": server.url()}),
        json!({"alg": "ES256", "kid": "../../../../dev/null"}),
        json!({"alg": "ES256", "kid": "' or 1=1 --"}),
    ] {
        assert_eq!(status(&world, &token(&header, &claims(json!({})), &Signing::Es256(&own))), 401, "{header}");
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 0, "an address in a token was asked");
}

#[test]
fn claims_must_be_as_they_should() {
    let world = Guarded::with(ModelRule::default(), |access| {
        access.auth.as_mut().unwrap().issuers[0].required = vec!["scope.level".into()];
    });
    let level = json!({"scope": {"level": 1}});
    let with = |more: Value| {
        let mut all = level.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        good(all)
    };
    assert_eq!(status(&world, &with(json!({}))), 200);
    assert_eq!(status(&world, &with(json!({"aud": ["other", AUDIENCE]}))), 200);
    assert_eq!(status(&world, &with(json!({"exp": now() - 10}))), 200, "within the leeway");
    assert_eq!(status(&world, &with(json!({"iat": null, "nbf": null}))), 200, "these are not needed");
    for wrong in [
        json!({"exp": now() - 60}),
        json!({"exp": null}),
        json!({"exp": "9999999999"}),
        json!({"nbf": now() + 60}),
        json!({"nbf": "soon"}),
        json!({"iat": now() + 3600}),
        json!({"iat": "now"}),
        json!({"aud": "other"}),
        json!({"aud": ["other"]}),
        json!({"aud": null}),
        json!({"aud": {}}),
        json!({"iss": "https://id.example/"}),
        json!({"iss": "https://evil.example"}),
        json!({"iss": [ISSUER]}),
        json!({"iss": null}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": ["someone"]}),
        json!({"scope": {"level": null}}),
        json!({"scope": "level"}),
    ] {
        assert_eq!(status(&world, &with(wrong.clone())), 401, "{wrong}");
    }
}

#[test]
fn broken_tokens_are_refused() {
    let world = Guarded::new(ModelRule::default());
    let good_one = good(json!({}));
    let parts: Vec<&str> = good_one.split('.').collect();
    let other = b64(claims(json!({"sub": "admin"})).to_string());
    for broken in [
        "x".to_string(),
        "..".into(),
        "a.b.c".into(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{}.x", parts[0], parts[1], parts[2]),
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][4..]),
        format!("{}.{}.{}", parts[0], parts[1], b64([0; 256])),
        format!("{good_one}{}", "A".repeat(9000)),
    ] {
        assert_eq!(status(&world, &broken), 401, "{}", &broken[..broken.len().min(80)]);
    }
    for header in [
        json!({"alg": "RS256", "kid": "rsa", "crit": ["exp"]}),
        json!({"alg": "RS256", "kid": "rsa", "b64": false}),
        json!({"alg": "RS256", "kid": "rsa", "zip": "DEF"}),
    ] {
        assert_eq!(status(&world, &token(&header, &claims(json!({})), &Signing::Rs256(&RSA))), 401, "{header}");
    }
    let bearer = format!("Bearer {good_one}");
    for headers in [
        vec![("authorization", "Basic dXNlcjpwYXNz")],
        vec![("authorization", good_one.as_str())],
        vec![("authorization", "Bearer ")],
        vec![("authorization", bearer.as_str()), ("x-api-key", API_KEY)],
        vec![("authorization", bearer.as_str()), ("authorization", bearer.as_str())],
        vec![("x-api-key", API_KEY), ("x-api-key", API_KEY)],
        vec![("x-api-key", "")],
        vec![("x-api-key", &API_KEY[1..])],
        vec![("x-api-key", "reports")],
    ] {
        assert_eq!(world.get_with("/v1/customer/7", &headers).status, 401, "{headers:?}");
    }
    for path in [format!("/v1/customer/7?access_token={good_one}"), format!("/v1/customer/7?api_key={API_KEY}")] {
        assert_eq!(world.get(&path).status, 401, "credentials in an address end up in logs");
    }
}

#[test]
fn a_flood_of_unknown_keys_asks_the_issuer_once_in_a_while() {
    let world = Guarded::new(ModelRule::default());
    let before = world.issuer.asked.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let world = &world;
            scope.spawn(move || {
                for n in 0..50 {
                    let header = json!({"alg": "RS256", "kid": format!("{thread}-{n}")});
                    assert_eq!(status(world, &token(&header, &claims(json!({})), &Signing::Rs256(&RSA))), 401);
                }
            });
        }
    });
    let asked = world.issuer.asked.load(Ordering::SeqCst) - before;
    assert!(asked <= 1, "400 tokens with unknown keys made {asked} requests to the issuer");
    assert_eq!(status(&world, &good(json!({}))), 200, "known keys are still known");
}

#[test]
fn keys_come_and_go() {
    let world = Guarded::with(ModelRule::default(), |access| {
        let issuer = &mut access.auth.as_mut().unwrap().issuers[0];
        (issuer.refetch_min, issuer.refresh) = (Duration::from_millis(50), Duration::from_millis(200));
    });
    let own = ec_key();
    let header = json!({"alg": "ES256", "kid": "new"});
    let new = token(&header, &claims(json!({})), &Signing::Es256(&own));
    assert_eq!(status(&world, &new), 401);
    let old = good(json!({}));
    assert_eq!(status(&world, &old), 200);
    *world.issuer.keys.lock().unwrap() = vec![ec_jwk("new", &own)];
    crate::fixture::wait_until("the new key to be fetched", || status(&world, &new) == 200);
    crate::fixture::wait_until("the old key to be forgotten, with all tokens", || status(&world, &old) == 401);
    world.issuer.keys.lock().unwrap().clear();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(status(&world, &new), 200, "an issuer that is broken does not lock everybody out");
}

#[test]
fn an_issuer_with_a_secret_takes_no_other_algorithm() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let world = Guarded::with(ModelRule::default(), |access| {
        let shared = KeySource::Secret(secret.to_vec());
        let options = IssuerOptions::new("shared", AUDIENCE, Algorithm::HS256, shared);
        access.auth.as_mut().unwrap().issuers.push(options);
    });
    let of = |alg: &str, issuer: &str, signing: Signing<'_>| {
        token(&json!({"alg": alg}), &claims(json!({"iss": issuer})), &signing)
    };
    assert_eq!(status(&world, &of("HS256", "shared", Signing::Hs256(secret))), 200);
    assert_eq!(status(&world, &of("HS256", ISSUER, Signing::Hs256(secret))), 401, "one issuer's key for another");
    assert_eq!(status(&world, &of("RS256", "shared", Signing::Rs256(&RSA))), 401);
    assert_eq!(status(&world, &of("HS512", "shared", Signing::Hs256(secret))), 401);
}

#[test]
fn keys_that_cannot_be_had_are_no_reason_to_say_a_token_is_wrong() {
    Lines::all();
    let world = Guarded::with(ModelRule::default(), |access| {
        let keys = KeySource::Url("http://127.0.0.1:9/keys".into());
        access.auth.as_mut().unwrap().issuers.push(IssuerOptions::new("gone", AUDIENCE, Algorithm::RS256, keys));
    });
    let header = json!({"alg": "RS256"});
    let from_it = format!("Bearer {}", token(&header, &claims(json!({"iss": "gone"})), &Signing::Rs256(&RSA)));
    let headers = [("authorization", from_it.as_str()), ("x-request-id", "without-keys")];
    let answer = world.get_with("/v1/customer/7", &headers);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"));
    assert_eq!(answer.json()["code"], "keys_unavailable");
    let told = Lines::all().of("without-keys");
    let audited: Vec<&Value> = told.iter().filter(|line| line["target"] == "headwater::audit").collect();
    assert_eq!(audited.len(), 1, "{told:?}");
    assert_eq!((&audited[0]["reason"], audited[0].get("principal")), (&json!("keys_unavailable"), None));
    assert!(!audited[0].to_string().contains("eyJ"), "a token is told: {}", audited[0]);
}
