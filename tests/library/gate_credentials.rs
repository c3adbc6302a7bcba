//! What opens a gate and what does not: for every provider, every way to get a credential wrong.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use http_body_util::channel::Channel;
use tower::{Layer, Service};

use hookgate::clock::{Clock, SystemClock};
use hookgate::gate::{Gate, GateBuilder, GateError, GateLayer};
use hookgate::key::Keyring;
use hookgate::keystore::KeyStore;
use hookgate::outcome::Outcome;
use hookgate::provider::{Provider, Providers};
use hookgate::scheme::{Schemes, UrlKey};
use hookgate::switch::Switch;

use crate::support::{
    Answer, Indexer, NowOrNever, PLAIN, SIGNING, Sample, TestClock, ask, both_keys, keys, ring,
    schemes,
};

/// A gate with [`keys`] at `/webhook`, and the service behind it.
struct Hook {
    gate: Gate<Indexer>,
    indexer: Indexer,
}

impl Hook {
    fn new(change: impl FnOnce(GateBuilder) -> GateBuilder) -> Self {
        Self::with_keys(keys(), change)
    }

    fn with_keys(keys: KeyStore, change: impl FnOnce(GateBuilder) -> GateBuilder) -> Self {
        let builder = GateLayer::builder(keys).path("/webhook").schemes(schemes());
        let indexer = Indexer::default();
        Self { gate: change(builder).build().unwrap().layer(indexer.clone()), indexer }
    }

    /// One that takes all providers, and one that takes this one alone.
    fn both(
        provider: Provider,
        change: impl Fn(GateBuilder) -> GateBuilder,
    ) -> [(&'static str, Self); 2] {
        [
            ("all providers", Self::new(&change)),
            ("one provider", Self::new(|gate| change(gate.providers(provider)))),
        ]
    }

    async fn answer(&self, sample: &Sample) -> Answer {
        let answer = ask(&self.gate, sample.request()).await;
        // The service behind the gate heard of it if and only if it answered.
        let passed = answer.rejection.is_none();
        assert_eq!(answer.outcome().is_none(), passed);
        assert_eq!(self.indexer.count(), usize::from(passed));
        self.indexer.take();
        answer
    }

    async fn status(&self, sample: &Sample) -> u16 {
        self.answer(sample).await.code()
    }
}

/// A good sample of every provider that has a scheme, with every key that fits it; the name of the
/// key, and whether it signs the body.
fn good() -> Vec<(Sample, String, bool)> {
    signed_with(&both_keys())
}

fn signed_with(keys: &Keyring) -> Vec<(Sample, String, bool)> {
    let mut samples = Vec::new();
    for provider in Provider::ALL {
        for key in keys.keys() {
            if let Some(sample) = Sample::of(provider).try_sign(key, SystemClock.now()) {
                let token = match provider {
                    Provider::AzureDevops | Provider::Gitee => true,
                    Provider::Gitlab => key.name() == "plain",
                    _ => false,
                };
                samples.push((sample, key.name().to_owned(), !token));
            }
        }
    }
    samples
}

/// [`good`], but with keys that the gate does not have.
fn of_other_keys() -> Vec<(Sample, String, bool)> {
    signed_with(&ring(
        "sdf34tGdfgGDG345g3y0045TYG23te38 name=plain\n\
         whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3U= name=signing\n",
    ))
}

fn with_url_key(sample: &Sample) -> Sample {
    sample.clone().uri(&format!("/webhook/{PLAIN}"))
}

fn with_bad_url_key(sample: &Sample) -> Sample {
    sample.clone().uri("/webhook/sdf34tGdfgGDG345g3y0045TYG23te38")
}

/// That it is refused, and that a good URL key does not rescue it.
async fn is_refused(sample: &Sample, why: &str) {
    for (which, hook) in Hook::both(sample.provider, |gate| gate) {
        for sample in [sample, &with_url_key(sample)] {
            let answer = hook.answer(sample).await;
            let provider = sample.provider;
            assert_eq!(answer.code(), 401, "{provider}, {which}, {}: {why}", sample.uri);
            assert_eq!(answer.outcome(), Some(Outcome::Unauthorized));
        }
    }
}

#[tokio::test]
async fn a_good_credential_of_every_provider_passes_and_is_told_to_the_service() {
    let tested: HashSet<_> = good().iter().map(|(sample, ..)| sample.provider).collect();
    assert_eq!(tested.len(), Provider::ALL.len() - 2, "all but Manual and Gerrit have a scheme");
    for (sample, key, signed) in good() {
        for (which, hook) in Hook::both(sample.provider, |gate| gate) {
            let answer = ask(&hook.gate, sample.request()).await;
            assert_eq!(answer.code(), 200, "{}, {which}", sample.provider);
            assert_eq!((answer.outcome(), &answer.body[..]), (None, &b"indexed"[..]));
            let received = hook.indexer.only();
            let delivery = received.delivery;
            assert_eq!(delivery.provider(), sample.provider, "{which}");
            assert_eq!((delivery.key_name(), delivery.is_signed()), (Some(&key[..]), signed));
            assert_eq!((&received.body, delivery.payload()), (&sample.body, &sample.body));
            let event = sample.provider.event_header().map(|name| sample.headers[name].clone());
            assert_eq!(delivery.event_name(), event.as_ref().map(|event| event.to_str().unwrap()));
            if sample.provider.delivery_header().is_some() && sample.provider != Provider::Manual {
                assert_eq!(delivery.id(), Some("d-1"), "{}", sample.provider);
            }
        }
    }
}

#[tokio::test]
async fn no_credential_is_refused_and_a_url_key_is_one() {
    for provider in Provider::ALL {
        let sample = Sample::of(provider);
        for (which, hook) in Hook::both(provider, |gate| gate) {
            assert_eq!(hook.status(&sample).await, 401, "{provider}, {which}");
            assert_eq!(hook.status(&with_bad_url_key(&sample)).await, 401, "{provider}, {which}");
            assert_eq!(hook.status(&with_url_key(&sample)).await, 200, "{provider}, {which}");
        }
    }
}

#[tokio::test]
async fn what_is_nobody_s_delivery_is_malformed_behind_a_url_key_and_else_unauthorized() {
    let hook = Hook::new(|gate| gate.schemes(Schemes::default()));
    for provider in [Provider::AzureDevops, Provider::Generic, Provider::StandardWebhooks] {
        // Without their credentials nothing tells these.
        let sample = Sample::of(provider);
        assert_eq!(hook.status(&sample).await, 401, "{provider}");
        let answer = hook.answer(&with_url_key(&sample)).await;
        assert_eq!((answer.code(), answer.outcome()), (400, Some(Outcome::Malformed)));
    }
    // A hook that describes a generic provider takes it for that one's.
    let hook = Hook::new(|gate| gate);
    ask(&hook.gate, with_url_key(&Sample::of(Provider::Generic)).request()).await;
    assert_eq!(hook.indexer.only().delivery.provider(), Provider::Generic);
}

#[tokio::test]
async fn an_empty_credential_is_none() {
    for (mut sample, ..) in good() {
        for name in &sample.credentials {
            sample.headers.insert(name, HeaderValue::from_static(""));
        }
        for (which, hook) in Hook::both(sample.provider, |gate| gate) {
            assert_eq!(hook.status(&sample).await, 401, "{}, {which}", sample.provider);
            let status = hook.status(&with_url_key(&sample)).await;
            assert_eq!(status, 200, "{}, {which}", sample.provider);
        }
    }
    let hook = Hook::new(|gate| gate);
    let prefix = Sample::of(Provider::Github).header("x-hub-signature-256", "sha256=");
    assert_eq!(hook.status(&prefix).await, 401);
    assert_eq!(hook.status(&with_url_key(&prefix)).await, 200);
}

#[tokio::test]
async fn a_malformed_credential_is_refused_also_beside_a_good_url_key() {
    for (sample, ..) in good() {
        for name in &sample.credentials {
            let good = sample.headers[name].to_str().unwrap();
            let changed = |value: String| {
                let mut sample = sample.clone();
                sample.headers.insert(name, value.parse().unwrap());
                sample
            };
            let mut values = vec![
                format!("{good}0"),
                format!("{good}, {good}"),
                good[..good.len() - 1].to_owned(),
                format!("x{good}"),
            ];
            if name == AUTHORIZATION {
                // Anything but Basic is somebody else's.
                values.pop();
                values.extend(["Basic ".to_owned(), "Basic ???".into(), "Basic OnA=".into()]);
            } else {
                if name == "webhook-signature" {
                    // A list, of which one entry may be bad.
                    values.remove(1);
                }
                values.extend(["x".to_owned(), "sha256=00".into(), good[..1].to_owned()]);
                values.push("0".repeat(good.len()));
                values.push("v1,".to_owned());
            }
            for value in values.into_iter().filter(|value| value != good) {
                is_refused(&changed(value.clone()), &format!("{name}: {value}")).await;
            }
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_of_a_credential_is_refused_wherever_it_is() {
    let hook = Hook::new(|gate| gate);
    for (sample, ..) in good() {
        for name in &sample.credentials {
            let good = sample.headers[name].as_bytes();
            for at in 0..good.len() {
                let mut flipped = good.to_vec();
                flipped[at] ^= 1;
                let letter = flipped[at].is_ascii_alphanumeric();
                // In hex and base64 some bits of a character say nothing; those are not flipped.
                if flipped[at].eq_ignore_ascii_case(&good[at]) || !letter {
                    continue;
                }
                let mut sample = sample.clone();
                sample.headers.insert(name, HeaderValue::from_bytes(&flipped).unwrap());
                let unread = name == AUTHORIZATION && (at < 6 || is_user(good, &flipped));
                let status = hook.status(&sample).await;
                assert_eq!(status == 401, !unread || at < 6, "{} {name} {at}", sample.provider);
            }
        }
    }

    /// Any user name is taken, so its bits do not matter.
    fn is_user(good: &[u8], flipped: &[u8]) -> bool {
        let password = |value: &[u8]| {
            let pair = data_encoding::BASE64.decode(&value[6..]).ok()?;
            let colon = pair.iter().position(|&byte| byte == b':')?;
            Some(pair[colon + 1..].to_vec())
        };
        password(good) == password(flipped)
    }
}

#[tokio::test]
async fn a_repeated_credential_is_refused_even_if_both_are_good() {
    for (sample, ..) in good() {
        for name in &sample.credentials {
            let mut sample = sample.clone();
            sample.headers.append(name, sample.headers[name].clone());
            is_refused(&sample, &format!("{name} twice")).await;
        }
    }
}

#[tokio::test]
async fn a_credential_of_another_key_is_refused() {
    for (sample, ..) in of_other_keys() {
        is_refused(&sample, "another key").await;
    }
}

#[tokio::test]
async fn a_changed_body_is_refused_where_the_credential_covers_it() {
    for (sample, _, signed) in good() {
        let mut changed = sample.body.to_vec();
        let at = changed.len() / 2;
        changed[at] ^= 1;
        let provider = sample.provider;
        let changed = [changed, [&sample.body[..], b" "].concat(), sample.body[1..].to_vec()];
        for body in changed {
            let sample = sample.clone().body(body);
            if signed {
                is_refused(&sample, "changed body").await;
            } else {
                assert_eq!(Hook::new(|gate| gate).status(&sample).await, 200, "{provider}");
            }
        }
    }
}

#[tokio::test]
async fn a_bad_url_key_is_refused_also_beside_a_good_credential() {
    for (sample, ..) in good() {
        for (which, hook) in Hook::both(sample.provider, |gate| gate) {
            for uri in [
                "/webhook/sdf34tGdfgGDG345g3y0045TYG23te38",
                "/webhook/s",
                "/webhook/sdf34tGdfgGDG345g3y0045TYG23te3",
                "/webhook/SDF34TGDFGGDG345G3Y0045TYG23TE37",
                "/webhook/%73df34tGdfgGDG345g3y0045TYG23te37",
            ] {
                let sample = sample.clone().uri(uri);
                assert_eq!(hook.status(&sample).await, 401, "{}, {which}, {uri}", sample.provider);
            }
            assert_eq!(hook.status(&with_url_key(&sample)).await, 200, "{}", sample.provider);
        }
    }
}

#[tokio::test]
async fn where_a_signature_is_required_tokens_and_url_keys_are_not_enough() {
    for (sample, key, signed) in good() {
        for (which, hook) in Hook::both(sample.provider, |gate| gate.require_signature(true)) {
            let status = if signed { 200 } else { 401 };
            for sample in [&sample, &with_url_key(&sample)] {
                let provider = sample.provider;
                assert_eq!(hook.status(sample).await, status, "{provider}, {which}");
            }
            if signed {
                ask(&hook.gate, with_url_key(&sample).request()).await;
                let delivery = hook.indexer.only().delivery;
                assert_eq!((delivery.key_name(), delivery.is_signed()), (Some(&key[..]), true));
            }
        }
    }
    for provider in Provider::ALL {
        for (which, hook) in Hook::both(provider, |gate| gate.require_signature(true)) {
            let sample = with_url_key(&Sample::of(provider));
            assert_eq!(hook.status(&sample).await, 401, "{provider}, {which}");
        }
    }
}

#[tokio::test]
async fn a_hook_of_one_provider_takes_no_other_one_s_proof() {
    use Provider::*;
    // Who sends whose headers as well, all of them over the same bytes and with the same key.
    let kin = |hook: Provider, sample: &Sample, key: &str| match (hook, sample.provider) {
        (Gitea | Forgejo, Github | Gitea | Forgejo | Gogs) => true,
        (Github, Gitea | Forgejo) | (Gogs, Gitea | Forgejo) => true,
        (BitbucketCloud, BitbucketServer) | (BitbucketServer, BitbucketCloud) => true,
        (BitbucketServer, AzureDevops) => true,
        (Gitlab, StandardWebhooks) => true,
        (StandardWebhooks, Gitlab) => key == "signing",
        (one, other) => one == other,
    };
    for provider in Provider::ALL {
        let hook = Hook::new(|gate| gate.providers(provider));
        for (sample, key, _) in good() {
            let status = if kin(provider, &sample, &key) { 200 } else { 401 };
            assert_eq!(hook.status(&sample).await, status, "{} at {provider}", sample.provider);
        }
    }
    let hook = Hook::new(|gate| gate.providers(Github));
    let token = Sample::of(Gitlab).sign(&both_keys());
    assert_eq!(token.headers["x-gitlab-token"], PLAIN);
    assert_eq!(hook.status(&token).await, 401);
    // What is none of its headers changes nothing beside a good signature.
    let signed = Sample::github("{}").header("x-gitlab-token", "wrong");
    assert_eq!(hook.status(&signed).await, 200);
}

#[tokio::test]
async fn sha_1_counts_for_nothing() {
    // HMAC-SHA1 of `{}` under PLAIN would be here; no SHA-1 is computed, so any will do.
    let sha1 = "sha1=126f2c800419c60137ce748d7672e77b65cf16d6";
    let hook = Hook::new(|gate| gate);
    let github = Sample::of(Provider::Github).header("x-hub-signature", sha1);
    assert_eq!(hook.status(&github).await, 401);
    assert_eq!(hook.status(&github.header("x-hub-signature-256", sha1)).await, 401);
    assert_eq!(hook.status(&Sample::github("{}").header("x-hub-signature", sha1)).await, 200);
    let bitbucket = Sample::of(Provider::BitbucketCloud).header("x-hub-signature", sha1);
    assert_eq!(hook.status(&bitbucket).await, 401);
}

#[tokio::test]
async fn of_several_signatures_none_may_be_bad() {
    let hook = Hook::new(|gate| gate);
    let wrong = "0".repeat(64);
    // A signature decides, and never the plain token beside it.
    let signed = Sample::of(Provider::Gitlab).sign(&ring(&format!("{SIGNING} name=signing\n")));
    let both = signed.clone().header("x-gitlab-token", PLAIN);
    assert_eq!(hook.status(&both).await, 200);
    let forged =
        both.clone().header("webhook-signature", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert_eq!(hook.status(&forged).await, 401);
    let garbled = both.header("webhook-signature", "garbage");
    assert_eq!(hook.status(&garbled).await, 401);
    assert_eq!(hook.status(&signed.header("x-gitlab-token", "wrong")).await, 200);
    // Gitea's own header and the one in GitHub's manner.
    let gitea = Sample::of(Provider::Gitea).sign(&both_keys());
    let hub = format!("sha256={wrong}");
    assert_eq!(hook.status(&gitea).await, 200);
    assert_eq!(hook.status(&gitea.clone().header("x-hub-signature-256", &hub)).await, 401);
    assert_eq!(hook.status(&gitea.header("x-gitea-signature", &wrong)).await, 401);
    // Signature and password of Bitbucket Server.
    let server = Sample::of(Provider::BitbucketServer).sign(&both_keys());
    let password =
        Sample::of(Provider::AzureDevops).sign(&both_keys()).headers[AUTHORIZATION].clone();
    let password = password.to_str().unwrap();
    assert_eq!(hook.status(&server.clone().header("authorization", password)).await, 200);
    assert_eq!(hook.status(&server.clone().header("authorization", "Basic OnA=")).await, 401);
    let forged = server.header("x-hub-signature", &hub);
    assert_eq!(hook.status(&forged.header("authorization", password)).await, 401);
}

mod replay {
    use super::*;

    /// Whoever saw one signed delivery has a signature, but only over those bytes.
    #[tokio::test]
    async fn a_signature_over_a_body_vouches_for_no_query() {
        let hook = Hook::new(|gate| gate);
        let github = Sample::github("{\"ref\":\"seen\"}");
        let evil = "/webhook?payload=%7B%22ref%22%3A%22evil%22%7D";
        for (mut sample, ..) in good().into_iter().chain([(github, "plain".into(), true)]) {
            sample = sample.uri(evil);
            sample.method = Method::GET;
            let answer = hook.answer(&sample).await;
            assert_ne!(answer.code(), 200, "{}", sample.provider);
        }
        for provider in [Provider::Gitea, Provider::Forgejo] {
            let payload = "{\"ref\":\"evil\"}";
            let mut sample = Sample::of(provider).body(payload).sign(&both_keys()).uri(evil);
            sample.method = Method::GET;
            // What was signed, with nothing that was not.
            assert_eq!(hook.status(&sample).await, 413);
            sample.body.clear();
            ask(&hook.gate, sample.request()).await;
            let received = hook.indexer.only();
            assert_eq!((received.delivery.payload(), received.body.len()), (&payload.into(), 0));
            assert!(received.delivery.is_signed());
            let other = sample.uri("/webhook?payload=%7B%22ref%22%3A%22other%22%7D");
            assert_eq!(hook.status(&other).await, 401);
        }
    }

    /// The media type is signed by nobody.
    #[tokio::test]
    async fn json_that_was_signed_is_never_read_as_a_form() {
        let hook = Hook::new(|gate| gate);
        for json in [
            r#"{"message":"x&payload=%7B%22ref%22%3A%22evil%22%7D&y"}"#,
            r#" {"message":"x&payload=%7B%22ref%22%3A%22evil%22%7D&y"}"#,
            r#"["x&payload=%7B%22ref%22%3A%22evil%22%7D&y"]"#,
        ] {
            let sample = Sample::github(json);
            assert_eq!(hook.status(&sample).await, 200);
            let form = sample.header("content-type", "application/x-www-form-urlencoded");
            let answer = hook.answer(&form).await;
            assert_eq!((answer.code(), answer.outcome()), (400, Some(Outcome::Malformed)));
        }
        let form = Sample::of(Provider::Github)
            .header("content-type", "application/x-www-form-urlencoded")
            .body("payload=%7B%22ref%22%3A%22main%22%7D")
            .sign(&both_keys());
        ask(&hook.gate, form.request()).await;
        let received = hook.indexer.only();
        assert_eq!(received.delivery.payload(), "{\"ref\":\"main\"}");
        assert_eq!(received.body, form.body);
    }
}

mod path {
    use super::*;

    #[tokio::test]
    async fn another_path_is_not_found_whatever_its_credential() {
        let hook = Hook::new(|gate| gate);
        for uri in [
            "/",
            "/webhoo",
            "/webhook2",
            "/webhooks/x",
            "/Webhook",
            "//webhook",
            "/webhook//",
            "/x/webhook",
            "/webhook/a/b",
            "/webhook/../webhook",
            "/%77ebhook",
            "/webhook%2fx",
            "/webhook;x",
            "/?/webhook",
        ] {
            let answer = hook.answer(&Sample::github("{}").uri(uri)).await;
            let outcome = Some(Outcome::NotFound);
            assert_eq!((answer.code(), answer.outcome()), (404, outcome), "{uri}");
        }
        for uri in ["/webhook", "/webhook/", "/webhook?x=/", "http://gate/webhook"] {
            assert_eq!(hook.status(&Sample::github("{}").uri(uri)).await, 200, "{uri}");
        }
    }

    #[tokio::test]
    async fn the_service_does_not_see_the_url_key_and_sees_all_the_rest() {
        let seen = async |path: &str, uri: &str| {
            let hook = Hook::new(|gate| gate.path(path));
            let uri = uri.replace("KEY", PLAIN);
            let answer = ask(&hook.gate, Sample::of(Provider::Gerrit).uri(&uri).request()).await;
            assert_eq!(answer.code(), 200, "{uri}");
            let received = hook.indexer.only();
            assert_eq!(received.delivery.key_name(), Some("plain"));
            received.uri.to_string()
        };
        assert_eq!(seen("/webhook", "/webhook/KEY").await, "/webhook");
        assert_eq!(seen("/webhook/", "/webhook/KEY?a=1&b=/%20").await, "/webhook?a=1&b=/%20");
        assert_eq!(seen("/a/b", "/a/b/KEY?").await, "/a/b?");
        assert_eq!(seen("/a", "http://gate:8080/a/KEY?x").await, "http://gate:8080/a?x");
        assert_eq!(seen("/", "/KEY").await, "/");
        assert_eq!(seen("/", "/KEY?x=1").await, "/?x=1");
        assert_eq!(seen("/", "http://gate/KEY?x=1").await, "http://gate/?x=1");
    }

    #[tokio::test]
    async fn without_a_path_every_path_is_the_hook_and_no_segment_is_a_key() {
        let layer = GateLayer::new(keys());
        let indexer = Indexer::default();
        let gate = layer.layer(indexer.clone());
        for uri in ["/", "/any/path?x", "*"] {
            assert_eq!(ask(&gate, Sample::github("{}").uri(uri).request()).await.code(), 200);
            assert_eq!(indexer.only().uri, uri);
        }
        let key = with_url_key(&Sample::of(Provider::Github));
        assert_eq!(ask(&gate, key.request()).await.code(), 401);
    }

    #[tokio::test]
    async fn a_url_key_is_taken_required_or_refused() {
        let hook = |url_key| Hook::new(|gate| gate.url_key(url_key));
        let signed = Sample::github("{}");
        let unsigned = Sample::of(Provider::Github);
        for (url_key, statuses) in [
            // Signed alone; signed with a good and a bad key; with a good and a bad key alone.
            (UrlKey::Accept, [200, 200, 401, 200, 401]),
            (UrlKey::Require, [401, 200, 401, 200, 401]),
            (UrlKey::Refuse, [200, 404, 404, 404, 404]),
        ] {
            let hook = hook(url_key);
            for (sample, status) in [
                signed.clone(),
                with_url_key(&signed),
                with_bad_url_key(&signed),
                with_url_key(&unsigned),
                with_bad_url_key(&unsigned),
            ]
            .iter()
            .zip(statuses)
            {
                assert_eq!(hook.status(sample).await, status, "{url_key:?} {}", sample.uri);
            }
        }
    }
}

mod method {
    use super::*;

    #[tokio::test]
    async fn a_method_that_no_provider_of_the_hook_uses_is_answered_405_with_those_that_are() {
        for (providers, allow) in [
            (Providers::ALL, "GET, POST, PUT"),
            (Provider::Github.into(), "POST"),
            (Provider::Gitea.into(), "GET, POST"),
            (Provider::Forgejo.into(), "GET, POST"),
            (Provider::Gogs.into(), "POST"),
            (Provider::Manual.into(), "POST, PUT"),
            ([Provider::Gitea, Provider::Manual].into_iter().collect(), "GET, POST, PUT"),
            ([Provider::Github, Provider::Gitlab].into_iter().collect(), "POST"),
        ] {
            let hook = Hook::new(|gate| gate.providers(providers));
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "X"]
            {
                let mut sample = Sample::github("{}");
                sample.method = method.parse().unwrap();
                let answer = hook.answer(&sample).await;
                if allow.split(", ").any(|allowed| allowed == method) {
                    assert_ne!(answer.code(), 405, "{method} {providers:?}");
                } else {
                    assert_eq!(answer.code(), 405, "{method} {providers:?}");
                    assert_eq!(answer.outcome(), Some(Outcome::Method));
                    assert_eq!(answer.headers[ALLOW], allow);
                }
            }
        }
    }

    #[tokio::test]
    async fn only_those_who_send_a_get_may_send_one() {
        let hook = Hook::new(|gate| gate);
        let url = format!("/webhook/{PLAIN}?payload=%7B%7D");
        for provider in Provider::ALL {
            let mut sample = Sample::of(provider).uri(&url).body("");
            sample.method = Method::GET;
            let status = match provider {
                Provider::Gitea | Provider::Forgejo => 200,
                // Of no provider, since only credentials would tell.
                _ => 405,
            };
            assert_eq!(hook.status(&sample).await, status, "{provider}");
        }
    }
}

mod switch {
    use super::*;

    #[tokio::test]
    async fn a_disabled_gate_lets_nothing_in_until_it_is_enabled_again() {
        let switch = Switch::new(false);
        let hook = Hook::new(|gate| gate.switch(switch.clone()));
        for sample in [Sample::github("{}"), Sample::of(Provider::Github)] {
            let answer = hook.answer(&sample).await;
            assert_eq!((answer.code(), answer.outcome()), (403, Some(Outcome::Disabled)));
        }
        // It says so only where the hook is.
        assert_eq!(hook.status(&Sample::github("{}").uri("/x")).await, 404);
        switch.enable();
        assert_eq!(hook.status(&Sample::github("{}")).await, 200);
        assert_eq!(hook.status(&Sample::of(Provider::Github)).await, 401);
        switch.disable();
        assert_eq!(hook.status(&Sample::github("{}")).await, 403);
    }

    #[tokio::test]
    async fn the_status_of_a_disabled_gate_is_chosen_but_410_is_refused() {
        let status = |status| {
            GateLayer::builder(keys()).switch(Switch::new(false)).disabled_status(status).build()
        };
        let layer = status(StatusCode::OK).unwrap();
        assert!(!layer.switch().is_enabled());
        let gate = layer.layer(Indexer::default());
        let answer = ask(&gate, Sample::github("{}").request()).await;
        assert_eq!((answer.code(), answer.outcome()), (200, Some(Outcome::Disabled)));
        assert_eq!(answer.body, "{\"outcome\":\"disabled\"}");
        layer.switch().enable();
        assert_eq!(ask(&gate, Sample::github("{}").request()).await.body, "indexed");
        for bad in [StatusCode::GONE, StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS] {
            assert_eq!(status(bad).unwrap_err(), GateError::BadDisabledStatus);
        }
    }
}

mod ping {
    use super::*;

    fn ping(body: &'static str) -> Sample {
        Sample::of(Provider::BitbucketServer).header("x-event-key", "diagnostics:ping").body(body)
    }

    const EXACT: &str = "{\"test\": true}";

    fn hooks() -> [(&'static str, Hook); 2] {
        Hook::both(Provider::BitbucketServer, |gate| gate)
    }

    #[tokio::test]
    async fn the_exact_unsigned_ping_is_answered_and_nothing_near_it() {
        for (which, hook) in hooks() {
            for body in [EXACT, "{\"test\":true}", " {\n\t\"test\" : true\r\n} "] {
                let answer = hook.answer(&ping(body)).await;
                let outcome = Some(Outcome::Pong);
                assert_eq!((answer.code(), answer.outcome()), (200, outcome), "{which} {body}");
                let rejection = answer.rejection.unwrap();
                let delivery = rejection.authentic().unwrap();
                assert_eq!((delivery.key_name(), delivery.is_signed()), (None, false));
            }
            for body in ["", "{}", "{\"test\": false}", "{\"test\": true, \"push\": 1}", "x"] {
                assert_eq!(hook.status(&ping(body)).await, 401, "{which} {body}");
            }
            let event = ping(EXACT).header("x-event-key", "repo:refs_changed");
            assert_eq!(hook.status(&event).await, 401, "{which}");
        }
        let cloud = ping(EXACT).header("x-hook-uuid", "{1}");
        assert_eq!(Hook::new(|gate| gate).status(&cloud).await, 401);
        let other = Hook::new(|gate| {
            gate.providers([Provider::Github, Provider::Gitlab].into_iter().collect::<Providers>())
        });
        assert_eq!(other.status(&ping(EXACT)).await, 401);
    }

    #[tokio::test]
    async fn of_a_ping_that_is_too_long_nothing_is_read() {
        let padded = |length: usize| format!("{{\"test\":true}}{}", " ".repeat(length - 13));
        for (which, hook) in hooks() {
            assert_eq!(hook.status(&ping("").body(padded(64))).await, 200, "{which}");
            assert_eq!(hook.status(&ping("").body(padded(65))).await, 401, "{which}");
            // A body that declares nothing is given up at the same length.
            let (mut sender, body) = Channel::<Bytes>::new(2);
            sender.send_data(padded(65).into()).await.unwrap();
            let answer = ask(&hook.gate, ping("").request_with(body)).await;
            assert_eq!((answer.code(), answer.outcome()), (401, Some(Outcome::Unauthorized)));
        }
    }

    #[tokio::test]
    async fn a_bad_credential_beside_a_ping_is_refused_and_a_good_one_is_not() {
        let signed = ping(EXACT).sign(&both_keys());
        for (which, hook) in hooks() {
            let wrong = format!("sha256={}", "0".repeat(64));
            for bad in [
                ping(EXACT).header("x-hub-signature", &wrong),
                ping(EXACT).header("x-hub-signature", "garbage"),
                ping(EXACT).header("authorization", "Basic OnA="),
                with_bad_url_key(&ping(EXACT)),
                with_bad_url_key(&signed),
            ] {
                assert_eq!(hook.status(&bad).await, 401, "{which}");
            }
            for good in [signed.clone(), with_url_key(&ping(EXACT)), with_url_key(&signed)] {
                let answer = hook.answer(&good).await;
                assert_eq!(
                    (answer.code(), answer.outcome()),
                    (200, Some(Outcome::Pong)),
                    "{which}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_ping_passes_where_a_signature_is_required_but_not_without_a_required_url_key() {
        let signature = Hook::new(|gate| gate.require_signature(true));
        assert_eq!(signature.answer(&ping(EXACT)).await.outcome(), Some(Outcome::Pong));
        let url_key = Hook::new(|gate| gate.url_key(UrlKey::Require));
        assert_eq!(url_key.status(&ping(EXACT)).await, 401);
        let answer = url_key.answer(&with_url_key(&ping(EXACT))).await;
        assert_eq!(answer.outcome(), Some(Outcome::Pong));
    }
}

mod rotation {
    use super::*;

    const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const NEW: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    /// With this key as signature, as token and in the URL.
    fn three_ways(key: &str) -> [Sample; 3] {
        let keys = ring(&format!("{key} name=k\n"));
        [
            Sample::of(Provider::Github).sign(&keys),
            Sample::of(Provider::Gitlab).sign(&keys),
            Sample::of(Provider::Gerrit).uri(&format!("/webhook/{key}")),
        ]
    }

    #[tokio::test]
    async fn from_and_until_take_effect_at_their_time() {
        let clock = TestClock::at("2026-11-01T00:00:00Z");
        let keys = KeyStore::fixed(ring(&format!(
            "{OLD} name=old until=2026-12-01T00:00:00Z\n{NEW} name=new from=2026-11-30T00:00:00Z\n"
        )));
        let hook = Hook::with_keys(keys, |gate| gate.clock(clock.clone()));
        for (time, old, new) in [
            ("2026-11-29T23:59:59Z", 200, 401),
            ("2026-11-30T00:00:00Z", 200, 200),
            ("2026-11-30T23:59:59.999Z", 200, 200),
            ("2026-12-01T00:00:00Z", 401, 200),
        ] {
            clock.set(time);
            for (key, status) in [(OLD, old), (NEW, new)] {
                for sample in three_ways(key) {
                    assert_eq!(hook.status(&sample).await, status, "{time} {}", sample.provider);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_ring_without_an_active_key_lets_nothing_in() {
        let keys = KeyStore::fixed(ring(&format!("{OLD} until=2020-01-01T00:00:00Z\n")));
        let hook = Hook::with_keys(keys, |gate| gate);
        for sample in three_ways(OLD) {
            assert_eq!(hook.status(&sample).await, 401, "{}", sample.provider);
        }
    }

    #[tokio::test]
    async fn a_replaced_ring_is_in_force_for_the_next_request_and_not_for_one_that_has_begun() {
        let keys = KeyStore::fixed(ring(&format!("{OLD} name=old\n")));
        let hook = Hook::with_keys(keys.clone(), |gate| gate);
        let [old, ..] = three_ways(OLD);
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let mut gate = hook.gate.clone();
        let begun = gate.call(old.request_with(body));
        keys.replace(ring(&format!("{NEW} name=new\n")));
        for (key, status) in [(OLD, 401), (NEW, 200)] {
            for sample in three_ways(key) {
                assert_eq!(hook.status(&sample).await, status, "{}", sample.provider);
            }
        }
        sender.send_data(old.body.clone()).await.unwrap();
        drop(sender);
        assert_eq!(begun.await.unwrap().status(), 200);
        assert_eq!(hook.indexer.only().delivery.key_name(), Some("old"));
    }

    #[tokio::test]
    async fn a_key_serves_only_the_uses_that_it_has() {
        for (uses, statuses) in [
            ("sign", [200, 401, 401]),
            ("token", [401, 200, 401]),
            ("url", [401, 401, 200]),
            ("sign,url", [200, 401, 200]),
        ] {
            let keys = KeyStore::fixed(ring(&format!("{OLD} use={uses}\n")));
            let hook = Hook::with_keys(keys, |gate| gate);
            for (sample, status) in three_ways(OLD).iter().zip(statuses) {
                assert_eq!(hook.status(sample).await, status, "{uses} {}", sample.provider);
            }
        }
    }

    /// Only a parser can say which repository a delivery is for.
    #[cfg(not(feature = "event"))]
    #[tokio::test]
    async fn a_key_that_is_bound_to_repositories_vouches_for_nothing_that_nobody_reads() {
        let keys = KeyStore::fixed(ring(&format!("{OLD} repositories=github.com/acme/*\n")));
        let hook = Hook::with_keys(keys, |gate| gate);
        for sample in three_ways(OLD) {
            assert_eq!(hook.status(&sample).await, 401, "{}", sample.provider);
        }
    }
}

mod answers {
    use super::*;

    #[tokio::test]
    async fn all_that_lack_a_good_credential_get_the_same_answer() {
        let hook = Hook::new(|gate| gate);
        let strict = Hook::new(|gate| gate.require_signature(true));
        let mut samples = Vec::new();
        for provider in Provider::ALL {
            samples.push(Sample::of(provider));
            samples.push(with_bad_url_key(&Sample::of(provider)));
        }
        for (sample, ..) in of_other_keys() {
            for name in &sample.credentials {
                let mut twice = sample.clone();
                twice.headers.append(name, HeaderValue::from_static("x"));
                samples.push(twice);
                let mut malformed = sample.clone();
                malformed.headers.insert(name, HeaderValue::from_static("Basic ?"));
                samples.push(malformed);
            }
            samples.push(sample);
        }
        let expired = Sample::of(Provider::StandardWebhooks)
            .try_sign(both_keys().keys().last().unwrap(), "2020-01-01T00:00:00Z".parse().unwrap());
        samples.push(expired.unwrap());
        let mut reasons = HashSet::new();
        let mut answers = Vec::new();
        for sample in &samples {
            answers.push(hook.answer(sample).await);
        }
        let token = Sample::of(Provider::Gitlab).sign(&both_keys());
        answers.push(strict.answer(&token).await);
        for answer in answers {
            reasons.insert(answer.reason().to_owned());
            assert_eq!(answer.outcome(), Some(Outcome::Unauthorized));
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert_eq!(
                answer.body,
                "{\"type\":\"about:blank\",\"title\":\"Unauthorized\",\"status\":401,\
                 \"outcome\":\"unauthorized\"}"
            );
            let mut headers: Vec<_> = answer.headers.iter().collect();
            headers.sort_by_key(|(name, _)| name.as_str());
            let expected = [
                ("content-type", "application/problem+json"),
                ("hookgate-outcome", "unauthorized"),
                ("www-authenticate", "Webhook realm=\"hookgate\""),
            ];
            let expected = expected.map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            assert!(headers.into_iter().eq(expected.iter().map(|(name, value)| (name, value))));
        }
        assert!(reasons.len() > 5, "inside, the reasons are told apart: {reasons:?}");
    }

    #[tokio::test]
    async fn every_answer_of_the_gate_says_its_outcome_and_a_problem_its_status() {
        let hook = Hook::new(|gate| gate.max_body(100));
        let disabled = Hook::new(|gate| gate.switch(Switch::new(false)));
        let good = Sample::github("{}");
        let mut patch = good.clone();
        patch.method = Method::PATCH;
        let text = Sample::github("{}").header("content-type", "text/plain");
        let form = Sample::of(Provider::Github)
            .header("content-type", "application/x-www-form-urlencoded")
            .sign(&both_keys());
        for (hook, sample, outcome) in [
            (&hook, Sample::of(Provider::Github), Outcome::Unauthorized),
            (&hook, good.clone().uri("/x"), Outcome::NotFound),
            (&hook, patch, Outcome::Method),
            (&hook, good.clone().body(vec![b'x'; 101]), Outcome::TooLarge),
            (&hook, text, Outcome::Unsupported),
            (&hook, good.clone().header("content-encoding", "gzip"), Outcome::Unsupported),
            (&hook, form, Outcome::Malformed),
            (&disabled, good, Outcome::Disabled),
        ] {
            let answer = hook.answer(&sample).await;
            assert_eq!((answer.outcome(), answer.status), (Some(outcome), outcome.status()));
            assert_eq!(answer.headers["content-type"], "application/problem+json");
            let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(problem["status"], outcome.status().as_u16());
            assert_eq!(problem["outcome"], outcome.as_str());
            assert_eq!(problem["type"], "about:blank");
            let challenged = answer.headers.contains_key(WWW_AUTHENTICATE);
            assert_eq!(challenged, outcome == Outcome::Unauthorized);
        }
    }

    /// A stranger must not learn what the gate would make of his body.
    #[tokio::test]
    async fn what_is_wrong_with_a_body_is_told_only_to_those_who_are_known() {
        let hook = Hook::new(|gate| gate);
        let text = Sample::of(Provider::Github).header("content-type", "text/plain");
        assert_eq!(hook.status(&text.clone().sign(&both_keys())).await, 415);
        assert_eq!(hook.status(&text.clone().sign(&both_keys()).body("x")).await, 401);
        assert_eq!(hook.status(&text).await, 401);
    }
}

/// What a hook asks of a body that never comes is nothing.
#[tokio::test]
async fn a_request_that_is_refused_by_its_head_is_answered_at_once() {
    let mut gate = Hook::new(|gate| gate).gate;
    let (_sender, body) = Channel::<Bytes>::new(1);
    let sample = Sample::of(Provider::Github).header("x-hub-signature-256", "sha256=00");
    let answer = gate.call(sample.request_with(body)).now_or_never();
    assert_eq!(answer.unwrap().unwrap().status(), 401);
    let (_sender, body) = Channel::<Bytes>::new(1);
    assert!(gate.call(Sample::github("{}").request_with(body)).now_or_never().is_none());
}
