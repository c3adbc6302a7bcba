//! A known secret goes in by every door of the library, and is looked for in all that comes out.

use std::fmt::Write as _;

use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use hookgate::delivery::Delivery;
use hookgate::gate::{GateLayer, Rejection};
use hookgate::key::{Key, Keyring};
use hookgate::keystore::KeyStore;
use hookgate::provider::Provider;
use hookgate::scheme::{
    AzureDevops, Gitee, GiteeMode, Head, Message, Scheme, Schemes, StandardWebhooks,
};
use hookgate::secret::Secret;
use hookgate::time::Timestamp;
use http::{HeaderName, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use sha2::{Sha256, Sha512};
use tower::{Layer, ServiceExt, service_fn};

/// Characters that differ when they are percent-encoded.
const CANARY: &str = "canary!0$secret'of(the)gate";
const NOW: Timestamp = Timestamp::from_millis(1_777_000_000_000);

/// Every form in which the secret, or a MAC computed with it over `body`, could be seen.
fn forms(body: &[u8]) -> Vec<String> {
    let mut forms = vec![
        CANARY.to_owned(),
        "canary%210%24secret%27of%28the%29gate".into(),
        BASE64.encode(CANARY.as_bytes()).trim_end_matches('=').into(),
        BASE64URL.encode(CANARY.as_bytes()).trim_end_matches('=').into(),
        HEXLOWER.encode(CANARY.as_bytes()),
    ];
    let sha256 = Hmac::<Sha256>::new_from_slice(CANARY.as_bytes()).unwrap();
    let sha512 = Hmac::<Sha512>::new_from_slice(CANARY.as_bytes()).unwrap();
    for message in [body, b""] {
        for mac in [
            sha256.clone().chain_update(message).finalize().into_bytes().to_vec(),
            sha512.clone().chain_update(message).finalize().into_bytes().to_vec(),
        ] {
            forms.push(HEXLOWER.encode(&mac));
            forms.push(BASE64.encode(&mac));
            forms.push(format!("{mac:?}"));
        }
    }
    forms
}

#[track_caller]
fn assert_clean(what: &str, text: &str, body: &[u8]) {
    for form in forms(body) {
        assert!(!text.to_lowercase().contains(&form.to_lowercase()), "{what}: {text}");
    }
}

fn keys() -> Keyring {
    Keyring::parse(format!("{CANARY} name=a\n").as_bytes()).unwrap()
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let mac = Hmac::<Sha256>::new_from_slice(CANARY.as_bytes()).unwrap();
    let mac = HEXLOWER.encode(&mac.chain_update(b"{}").finalize().into_bytes());
    for text in [format!("x{CANARY}x"), format!("sha256={}", mac.to_uppercase())] {
        let found = std::panic::catch_unwind(|| assert_clean("twin", &text, b"{}"));
        assert!(found.is_err(), "{text}");
    }
}

#[test]
fn no_public_type_shows_a_secret_in_debug_or_display() {
    let ring = keys();
    let key = ring.keys().next().unwrap();
    let store = KeyStore::fixed(ring.clone());
    let body = br#"{"secret":"x"}"#;
    let message = Message { body, payload: body, id: "1", now: NOW };
    let schemes = Schemes::default()
        .azure_devops(AzureDevops::default().user(CANARY))
        .gitee(Gitee::new(GiteeMode::Password));
    let mut text = format!(
        "{:?} {ring:?} {key:?} {store:?} {:?} {schemes:?} {:?} {:#?}",
        Secret::new(CANARY),
        store.status(NOW),
        GateLayer::builder(store.clone()),
        GateLayer::new(store.clone()),
    );
    for provider in Provider::ALL {
        let Some(scheme) = schemes.get(provider) else { continue };
        let Ok(headers) = scheme.sign(&message, key) else { continue };
        // Debug of the headers too: their values are marked as sensitive.
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let head = Head { method: &method, uri: &uri, headers: &headers };
        let proof = scheme.begin(head, &ring, NOW);
        let verified = scheme.verify(head, &Bytes::from_static(body), &ring, NOW);
        write!(text, "{head:?} {proof:?} {:?}", verified.map(|verified| verified.key)).unwrap();
    }
    assert_clean("Debug", &text, body);
}

#[test]
fn an_error_in_a_key_file_shows_nothing_of_it() {
    for line in [
        format!("{CANARY}/"),
        format!("{CANARY} {CANARY}"),
        format!("{CANARY} name={CANARY}"),
        format!("{CANARY} use={CANARY}"),
        format!("{CANARY} until={CANARY}"),
        format!("{CANARY} repositories={CANARY}"),
        format!("{CANARY} weak={CANARY}"),
        format!("base64:{CANARY}"),
        format!("whsec_{CANARY}"),
        format!("{CANARY} name=a\n{CANARY} name=b"),
    ] {
        let error = Keyring::parse(line.as_bytes()).unwrap_err();
        assert_clean(&line.replace(CANARY, "*"), &format!("{error} {error:?}"), b"");
    }
}

#[test]
fn a_panic_over_a_result_shows_nothing_of_a_secret() {
    fn text<T>(panic: impl FnOnce() -> T + std::panic::UnwindSafe) -> String {
        let payload = std::panic::catch_unwind(panic).err().expect("a panic");
        payload.downcast_ref::<String>().expect("a text").clone()
    }
    let builder = || GateLayer::builder(KeyStore::fixed(keys()));
    let key = || Key::plain("a", CANARY).ok_or("no key");
    let message = Message { body: b"", payload: b"", id: "1", now: NOW };
    let panics = [
        text(|| Keyring::parse(format!("{CANARY}/").as_bytes()).unwrap()),
        text(|| Keyring::parse(format!("{CANARY} name=a\n").as_bytes()).unwrap_err()),
        text(move || builder().path(CANARY).build().unwrap()),
        text(move || builder().path("/webhook").build().unwrap_err()),
        text(move || key().unwrap_err()),
        text(move || StandardWebhooks.sign(&message, &key().unwrap()).unwrap()),
    ];
    for panic in panics {
        assert_clean("panic", &panic, b"");
    }
}

/// Accepts and refusals by every door: header, Basic, URL, signature, body.
#[tokio::test]
async fn neither_an_answer_nor_what_the_gate_says_of_it_shows_a_secret() {
    #[cfg(feature = "tracing")]
    let (logs, _logging) = logs::capture();
    let body = format!(r#"{{"password":"{CANARY}","secret":"{CANARY}","ref":"refs/heads/main"}}"#);
    let body = Bytes::from(body);
    let ring = keys();
    let key: &Key = ring.keys().next().unwrap();
    let schemes = Schemes::default().gitee(Gitee::new(GiteeMode::Password));
    let gate = GateLayer::builder(KeyStore::fixed(ring.clone()))
        .path("/webhook")
        .schemes(schemes.clone())
        .clock(NOW)
        .build()
        .unwrap();
    let service = gate.layer(service_fn(async |request: Request<_>| {
        let (parts, _): (http::request::Parts, _) = request.into_parts();
        let delivery = parts.extensions.get::<Delivery>().unwrap();
        let text = format!("{delivery:?} {}", parts.uri);
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(text)))
    }));
    let message = Message { body: &body, payload: &body, id: "1", now: NOW };
    let url_key = format!("/webhook/{CANARY}");
    let wrong_url_key = format!("/webhook/{CANARY}x");
    let mut seen = Vec::new();
    for provider in Provider::ALL {
        let signed = schemes.get(provider).and_then(|scheme| scheme.sign(&message, key).ok());
        for uri in ["/webhook", &url_key, &wrong_url_key] {
            for sent in [body.clone(), Bytes::from(CANARY)] {
                let mut request = Request::post(uri).body(Full::from(sent)).unwrap();
                request.headers_mut().extend(signed.clone().unwrap_or_default());
                if let Some(name) = provider.event_header() {
                    request.headers_mut().insert(name, "push".parse().unwrap());
                }
                let token = HeaderName::from_static("x-other-token");
                request.headers_mut().insert(token, CANARY.parse().unwrap());
                let answer = service.clone().oneshot(request).await.unwrap();
                let (parts, body) = answer.into_parts();
                seen.push(parts.status.as_u16());
                let rejection = parts.extensions.get::<Rejection>();
                let mut text = format!("{parts:?} {rejection:?}");
                if let Some(rejection) = rejection {
                    write!(text, "{rejection}").unwrap();
                }
                let said = body.collect().await.unwrap().to_bytes();
                text.push_str(std::str::from_utf8(&said).unwrap());
                assert_clean(&format!("{provider} {}", parts.status), &text, message.body);
            }
        }
    }
    assert!(seen.contains(&200) && seen.contains(&401), "{seen:?}");
    #[cfg(feature = "tracing")]
    {
        let logs = logs.text();
        assert!(logs.contains("unauthorized"), "the refusals are logged: {logs}");
        assert_clean("logs", &logs, message.body);
    }
}

/// Everything that is logged, at any level, with all its fields.
#[cfg(feature = "tracing")]
mod logs {
    use std::fmt::{Debug, Write};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::subscriber::DefaultGuard;
    use tracing::{Event, Metadata, Subscriber};

    #[derive(Clone, Default)]
    pub(super) struct Logs(Arc<Mutex<String>>);

    /// Takes in what this thread logs until the guard is dropped.
    pub(super) fn capture() -> (Logs, DefaultGuard) {
        let logs = Logs::default();
        (logs.clone(), tracing::subscriber::set_default(logs))
    }

    impl Logs {
        pub(super) fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }

        fn line(&self, metadata: &Metadata<'_>, record: impl FnOnce(&mut dyn Visit)) {
            let mut line = Line(format!("{} {}", metadata.level(), metadata.target()));
            record(&mut line);
            writeln!(self.0.lock().unwrap(), "{}", line.0).unwrap();
        }
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl Subscriber for Logs {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.line(span.metadata(), |line| span.record(line));
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            let mut line = Line(String::new());
            values.record(&mut line);
            writeln!(self.0.lock().unwrap(), "{}", line.0).unwrap();
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            self.line(event.metadata(), |line| event.record(line));
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }
}
