//! What a push of every host becomes, told to a service that is strict about it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Uri};

use super::gij::{ANSWER, Complaint, Gij};
use super::{Double, PATIENCE};
use crate::delivery::Delivery;
use crate::event::{Event, Kind, ParseOptions, parse};
use crate::form;
use crate::provider::Provider;
use crate::proxy::upstream::{
    Content, ContentError, ForwardHeaders, PathTemplate, Stamp, UpstreamBody, UpstreamRequest,
    Values, rebuild_headers,
};
use crate::scheme::{Head, payload};
use crate::secret::Secret;

const KEY: &str = "sdf34tGdfgGDG345g3y0045TYG23te37";
const TEMPLATE: &str = "/rest/gitplugin/webhook/1.0/reindex/{upstream_key}";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// A delivery of a host.
struct Sample {
    provider: Provider,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    /// The origins by which the repository may be known.
    origins: &'static [&'static str],
    /// Whether the documentation has the body as it is.
    documented: Result<(), Complaint>,
}

const IDS: &str = r#""before":"1111111111","after":"2222222222""#;

fn samples() -> Vec<Sample> {
    // Each body is written by hand after the host's documentation, as short as it can be.
    vec![
        Sample {
            provider: Provider::Github,
            headers: &[("x-github-event", "push"), ("x-github-delivery", "72d3162e")],
            body: r#"{"ref":"refs/heads/main",IDS,"repository":{"full_name":"acme/widget",
                "clone_url":"https://github.com/acme/widget.git","ssh_url":"git@github.com:acme/widget.git",
                "git_url":"git://github.com/acme/widget.git"}}"#,
            origins: &["https://github.com/acme/widget.git", "git@github.com:acme/widget.git"],
            documented: Ok(()),
        },
        Sample {
            provider: Provider::Gitlab,
            headers: &[("x-gitlab-event", "Push Hook"), ("idempotency-key", "f5e5f430")],
            body: r#"{"object_kind":"push","ref":"refs/heads/main",IDS,
                "project":{"path_with_namespace":"acme/widget","git_http_url":"https://gitlab.com/acme/widget.git"},
                "repository":{"git_http_url":"https://gitlab.com/acme/widget.git",
                "git_ssh_url":"git@gitlab.com:acme/widget.git"}}"#,
            origins: &["https://gitlab.com/acme/widget.git", "git@gitlab.com:acme/widget.git"],
            documented: Ok(()),
        },
        // A system hook's event for a whole push has no `repository`.
        Sample {
            provider: Provider::Gitlab,
            headers: &[("x-gitlab-event", "System Hook")],
            body: r#"{"event_name":"repository_update","project":{"path_with_namespace":"acme/widget",
                "git_http_url":"https://gitlab.com/acme/widget.git","git_ssh_url":"git@gitlab.com:acme/widget.git"},
                "changes":[{"ref":"refs/heads/main",IDS}]}"#,
            origins: &["https://gitlab.com/acme/widget.git", "git@gitlab.com:acme/widget.git"],
            documented: Err(Complaint::NoRepository),
        },
        Sample {
            provider: Provider::BitbucketCloud,
            headers: &[
                ("x-event-key", "repo:push"),
                ("x-hook-uuid", "0c1f"),
                ("x-request-uuid", "9d3a"),
            ],
            body: r#"{"push":{"changes":[{"old":null,"new":{"type":"branch","name":"main",
                "target":{"hash":"2222222222"}}}]},"repository":{"full_name":"acme/widget"}}"#,
            origins: &[
                "https://bitbucket.org/acme/widget.git",
                "git@bitbucket.org:acme/widget.git",
            ],
            documented: Err(Complaint::NoRepository),
        },
        Sample {
            provider: Provider::BitbucketServer,
            headers: &[("x-event-key", "repo:refs_changed"), ("x-request-id", "3f0d")],
            body: r#"{"eventKey":"repo:refs_changed","repository":{"slug":"widget","project":{"key":"ACME"},
                "links":{"clone":[{"name":"http","href":"https://bitbucket.example.com/scm/acme/widget.git"},
                {"name":"ssh","href":"ssh://git@bitbucket.example.com:7999/acme/widget.git"}]}},
                "changes":[{"refId":"refs/heads/main","fromHash":"1111111111","toHash":"2222222222","type":"UPDATE"}]}"#,
            origins: &[
                "https://bitbucket.example.com/scm/acme/widget.git",
                "ssh://git@bitbucket.example.com:7999/acme/widget.git",
            ],
            documented: Err(Complaint::NoRepository),
        },
        gitea(Provider::Gitea, &[("x-gitea-event", "push"), ("x-github-event", "push")]),
        gitea(Provider::Forgejo, &[("x-forgejo-event", "push"), ("x-gitea-event", "push")]),
        gitea(Provider::Gogs, &[("x-gogs-event", "push"), ("x-github-event", "push")]),
        Sample {
            provider: Provider::AzureDevops,
            headers: &[("x-gij-microsoft-event", "1")],
            body: r#"{"eventType":"git.push","subscriptionId":"b2fb8a3c-0b1f-4f0e-9f5b-0a3c1d2e4f56","resource":{
                "refUpdates":[{"name":"refs/heads/main","oldObjectId":"1111111111","newObjectId":"2222222222"}],
                "repository":{"name":"widget","project":{"name":"Tools"},
                "remoteUrl":"https://acme@dev.azure.com/acme/Tools/_git/widget"}}}"#,
            origins: &["https://acme@dev.azure.com/acme/Tools/_git/widget"],
            documented: Ok(()),
        },
        Sample {
            provider: Provider::Gerrit,
            headers: &[("x-origin-url", "https://gerrit.example.com/")],
            body: r#"{"type":"ref-updated","refUpdate":{"project":"tools/widget","refName":"refs/heads/main",
                "oldRev":"1111111111","newRev":"2222222222"}}"#,
            origins: &["https://gerrit.example.com/tools/widget"],
            documented: Err(Complaint::NoRepository),
        },
        Sample {
            provider: Provider::Gitee,
            headers: &[("x-gitee-event", "Push Hook")],
            body: r#"{"hook_name":"push_hooks","password":"s3cret","sign":"","ref":"refs/heads/main",IDS,
                "repository":{"path_with_namespace":"acme/widget","clone_url":"https://gitee.com/acme/widget.git",
                "ssh_url":"git@gitee.com:acme/widget.git"}}"#,
            origins: &["https://gitee.com/acme/widget.git", "git@gitee.com:acme/widget.git"],
            documented: Ok(()),
        },
        Sample {
            provider: Provider::Manual,
            headers: &[("x-bbb-webhook-type", "PUSH"), ("x-bbb-webhook-id", "nightly")],
            body: r#"{"origin":"repository-origin"}"#,
            origins: &["repository-origin"],
            documented: Ok(()),
        },
        Sample {
            provider: Provider::Manual,
            headers: &[("x-bbb-webhook-type", "push")],
            body: r#"{"origin":"ssh://git@git.example.com/acme/widget.git"}"#,
            origins: &["ssh://git@git.example.com/acme/widget.git"],
            documented: Ok(()),
        },
        Sample {
            provider: Provider::Manual,
            headers: &[],
            body: r#"{"repository":{"git_http_url":"https://git.example.com/acme/widget.git"}}"#,
            origins: &["https://git.example.com/acme/widget.git"],
            documented: Ok(()),
        },
        Sample {
            provider: Provider::Generic,
            headers: &[("x-event", "push")],
            body: r#"{"ref":"refs/heads/main",IDS,"project":{"http_url":"https://git.example.com/acme/widget"}}"#,
            origins: &["https://git.example.com/acme/widget"],
            documented: Err(Complaint::NoRepository),
        },
        Sample {
            provider: Provider::StandardWebhooks,
            headers: &[("webhook-id", "msg_1"), ("webhook-timestamp", "1777000000")],
            body: r#"{"type":"push","data":{"repository":"ssh://git@git.example.com/acme/widget"}}"#,
            origins: &["ssh://git@git.example.com/acme/widget"],
            documented: Err(Complaint::NoRepository),
        },
    ]
}

fn gitea(provider: Provider, headers: &'static [(&'static str, &'static str)]) -> Sample {
    Sample {
        provider,
        headers,
        body: r#"{"ref":"refs/heads/main",IDS,"repository":{"full_name":"acme/widget",
            "clone_url":"https://git.example.com:3000/acme/widget.git",
            "ssh_url":"ssh://git@git.example.com:2222/acme/widget.git"}}"#,
        origins: &[
            "https://git.example.com:3000/acme/widget.git",
            "ssh://git@git.example.com:2222/acme/widget.git",
        ],
        documented: Ok(()),
    }
}

impl Sample {
    fn json(&self) -> String {
        self.body.replace("IDS", IDS)
    }

    fn headers(&self, content_type: &str) -> HeaderMap {
        let types = [("content-type", content_type), ("user-agent", "host/1")];
        let all = types.iter().chain(self.headers);
        all.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// As the gate would hand it over.
    fn delivery(&self, headers: &HeaderMap, body: &Bytes) -> Delivery {
        let (method, uri) = (Method::POST, Uri::from_static("/webhook"));
        let payload = payload(Head { method: &method, uri: &uri, headers }, body).unwrap();
        let event: Event<'_> =
            parse(self.provider, headers, &payload, &ParseOptions::default()).unwrap();
        assert_eq!(event.kind, Kind::Push, "{}", self.provider);
        let event = event.into_owned();
        Delivery::builder(self.provider, None, true).payload(payload).event(event).build()
    }

    /// The request that upstream gets.
    fn sent(&self, content_type: &str, body: UpstreamBody) -> UpstreamRequest {
        let headers = self.headers(content_type);
        let json = self.json();
        let original: Bytes = if content_type == FORM { form::encode(&json) } else { json }.into();
        let delivery = self.delivery(&headers, &original);
        let content = body.content(&delivery, &Method::POST, original).unwrap();
        request(&delivery, content, &headers, &ForwardHeaders::default())
    }
}

/// Puts a request together in the order in which it has to be.
fn request(
    delivery: &Delivery,
    content: Content,
    headers: &HeaderMap,
    forward: &ForwardHeaders,
) -> UpstreamRequest {
    let mut headers = rebuild_headers(headers, forward);
    let event = delivery.event();
    let repository = event.and_then(|event| event.repository.as_ref());
    let stamp = Stamp {
        provider: delivery.provider(),
        event: event.map(|event| event.kind.as_str()),
        repository: repository.map(|repository| repository.identity()),
        git_ref: None,
        delivery: Some("72d3162e"),
        key: None,
    };
    stamp.write(&mut headers);
    let body = content.into_body(&mut headers, forward, None);
    let secret = Secret::new(KEY);
    let values = Values::new(delivery.provider(), event).upstream_key(Some(&secret));
    let path = PathTemplate::parse(TEMPLATE).unwrap().render(&values).unwrap();
    UpstreamRequest {
        path_and_query: path.into_inner(),
        headers,
        body,
        delivery: "72d3162e".into(),
    }
}

/// What a service that knows the repository by `origin` makes of it.
fn received<'a>(request: &UpstreamRequest, origin: &'a str) -> Result<&'a str, Complaint> {
    let origins = ["https://git.example.com/other/one.git", origin];
    let target = request.path_and_query.as_str();
    let gij = Gij { base: "", key: KEY, origins: &origins };
    let found = gij.receive(&Method::POST, target, &request.headers, &request.body)?;
    assert_eq!(found, origin);
    Ok(origin)
}

#[test]
fn every_push_becomes_a_reindex_of_its_repository_by_each_of_its_addresses() {
    let samples = samples();
    for provider in Provider::ALL {
        assert!(samples.iter().any(|sample| sample.provider == provider), "{provider}");
    }
    for sample in &samples {
        let request = sample.sent(JSON, UpstreamBody::Reindex);
        for origin in sample.origins {
            assert_eq!(received(&request, origin), Ok(*origin), "{}", sample.provider);
        }
        // An origin is compared letter by letter, so another form of the address is another one.
        for other in [format!("{}/", sample.origins[0]), sample.origins[0].to_uppercase()] {
            let refused = received(&request, &other);
            assert_eq!(refused, Err(Complaint::Unmatched), "{}", sample.provider);
        }
    }
}

#[test]
fn a_body_that_is_kept_reindexes_where_the_documentation_has_it_and_nowhere_else() {
    for sample in samples() {
        for body in [UpstreamBody::Original, UpstreamBody::Json] {
            let request = sample.sent(JSON, body);
            for origin in sample.origins {
                let found = received(&request, origin).map(drop);
                assert_eq!(found, sample.documented, "{} {body:?}", sample.provider);
            }
        }
    }
}

#[test]
fn a_form_reindexes_once_it_is_unwrapped_and_not_before() {
    for sample in samples() {
        let by = |body| {
            let request = sample.sent(FORM, body);
            received(&request, sample.origins[0]).map(drop)
        };
        assert_eq!(by(UpstreamBody::Json), sample.documented, "{}", sample.provider);
        assert_eq!(by(UpstreamBody::Reindex), Ok(()), "{}", sample.provider);
        let expected = match sample.provider {
            // Its secret is blanked, so it cannot stay as it is.
            Provider::Gitee => Ok(()),
            _ => Err(Complaint::ContentType),
        };
        assert_eq!(by(UpstreamBody::Original), expected, "{}", sample.provider);
    }
}

#[test]
fn a_merge_request_that_has_no_addresses_where_they_are_looked_for_reindexes_too() {
    let body = r#"{"object_kind":"merge_request","object_attributes":{"action":"merge"},
        "project":{"path_with_namespace":"acme/widget","git_http_url":"https://gitlab.com/acme/widget.git"},
        "repository":{"name":"widget","url":"git@gitlab.com:acme/widget.git"}}"#;
    let headers: HeaderMap = [("x-gitlab-event", "Merge Request Hook"), ("content-type", JSON)]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    let event = parse(Provider::Gitlab, &headers, body.as_bytes(), &ParseOptions::default());
    let delivery = Delivery::builder(Provider::Gitlab, None, true)
        .payload(body.into())
        .event(event.unwrap().into_owned())
        .build();
    let origin = "https://gitlab.com/acme/widget.git";
    for (body, expected) in [
        (UpstreamBody::Reindex, Ok(origin)),
        (UpstreamBody::Original, Err(Complaint::NoRepository)),
    ] {
        let content = body.content(&delivery, &Method::POST, delivery.payload().clone()).unwrap();
        let request = request(&delivery, content, &headers, &ForwardHeaders::default());
        assert_eq!(received(&request, origin), expected);
    }
}

#[test]
fn what_has_no_address_is_an_error_and_never_a_request_without_a_repository() {
    let gerrit = r#"{"type":"ref-updated","refUpdate":{"project":"widget","refName":"refs/heads/a",
        "oldRev":"1111111","newRev":"2222222"}}"#;
    let ping = r#"{"zen":"Keep it simple","hook_id":1}"#;
    let named = HeaderMap::from_iter([(
        HeaderName::from_static("x-github-event"),
        "ping".parse().unwrap(),
    )]);
    for (provider, headers, body, expected) in [
        (Provider::Gerrit, HeaderMap::new(), gerrit, ContentError::NoAddress),
        (Provider::Github, named, ping, ContentError::NoRepository),
    ] {
        let event = parse(provider, &headers, body.as_bytes(), &ParseOptions::default()).unwrap();
        let delivery = Delivery::builder(provider, None, true)
            .payload(body.into())
            .event(event.into_owned())
            .build();
        let content = |kind: UpstreamBody| kind.content(&delivery, &Method::POST, body.into());
        assert_eq!(content(UpstreamBody::Reindex).unwrap_err(), expected);
        assert!(content(UpstreamBody::Original).is_ok() && content(UpstreamBody::Json).is_ok());
    }
    let unread = Delivery::builder(Provider::Github, None, true).build();
    let content = UpstreamBody::Reindex.content(&unread, &Method::POST, Bytes::new());
    assert_eq!(content.unwrap_err(), ContentError::NoRepository);
}

#[tokio::test]
async fn it_arrives_over_a_connection_as_it_was_made() {
    let double = Double::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    ))
    .await;
    let upstream = double.upstream(PATIENCE);
    for sample in samples() {
        let answer = upstream.send(sample.sent(FORM, UpstreamBody::Reindex)).await.unwrap();
        assert_eq!(&answer.body[..], ANSWER.as_bytes());
        let raw = double.requests().pop().unwrap();
        let (head, body) = raw.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n");
        let target = lines.next().unwrap().strip_prefix("POST ").unwrap();
        let target = target.strip_suffix(" HTTP/1.1").unwrap();
        let headers: HeaderMap = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let gij = Gij { base: "/base", key: KEY, origins: sample.origins };
        let received = gij.receive(&Method::POST, target, &headers, body.as_bytes());
        assert_eq!(received, Ok(sample.origins[0]), "{}", sample.provider);
        assert!(
            !raw.contains("s3cret") && headers["hookgate-provider"] == sample.provider.as_str()
        );
        let wrong = Gij { key: &KEY.to_lowercase(), ..gij };
        let refused = wrong.receive(&Method::POST, target, &headers, body.as_bytes());
        assert_eq!(refused, Err(Complaint::Url));
    }
}

#[test]
fn the_double_complains_of_each_thing_that_is_not_as_documented() {
    let gij = Gij { base: "/jira", key: KEY, origins: &["https://git.example.com/a/b.git"] };
    let url = format!("/jira/rest/gitplugin/webhook/1.0/reindex/{KEY}");
    let body = r#"{"repository":{"git_http_url":"https://git.example.com/a/b.git"}}"#;
    let json = &[("content-type", JSON)][..];
    let receive = |method: Method, target: &str, headers: &[(&'static str, &str)], body: &str| {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect::<Vec<_>>();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        gij.receive(&method, target, &map, body.as_bytes())
    };
    let good = Ok("https://git.example.com/a/b.git");
    assert_eq!(receive(Method::POST, &url, json, body), good);
    assert_eq!(
        receive(Method::POST, &url, &[("content-type", "application/json; charset=utf-8")], body),
        good
    );
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::HEAD] {
        assert_eq!(receive(method, &url, json, body), Err(Complaint::Method));
    }
    for target in [
        format!("{url}x"),
        format!("{url}/"),
        format!("{url}?a=b"),
        format!("/jira/rest/gitplugin/webhook/1.0/reindex/{}", KEY.to_lowercase()),
        format!("/rest/gitplugin/webhook/1.0/reindex/{KEY}"),
        format!("/jira/x/../rest/gitplugin/webhook/1.0/reindex/{KEY}"),
    ] {
        assert_eq!(receive(Method::POST, &target, json, body), Err(Complaint::Url), "{target}");
    }
    for headers in [
        &[][..],
        &[("content-type", FORM)],
        &[("content-type", "text/plain")],
        &[("content-type", "application/jsonp")],
        &[("content-type", JSON), ("content-type", JSON)],
    ] {
        let refused = receive(Method::POST, &url, headers, body);
        assert_eq!(refused, Err(Complaint::ContentType), "{headers:?}");
    }
    let typed = |name| [("content-type", JSON), name];
    for (headers, body, complaint) in [
        (json, "", Complaint::Body),
        (json, "[]", Complaint::Body),
        (json, "payload=%7B%7D", Complaint::Body),
        (json, "{}", Complaint::NoRepository),
        (json, r#"{"origin":"https://git.example.com/a/b.git"}"#, Complaint::NoRepository),
        (json, r#"{"repository":"https://git.example.com/a/b.git"}"#, Complaint::NoRepository),
        (json, &body.replace(".git", ""), Complaint::Unmatched),
        (&typed(("x-bbb-webhook-type", "push")), body, Complaint::NoRepository),
        (&typed(("x-bbb-webhook-type", "tag")), r#"{"origin":"x"}"#, Complaint::NoRepository),
        (&typed(("x-gij-microsoft-event", "1")), body, Complaint::NoRepository),
    ] {
        let refused = receive(Method::POST, &url, headers, body);
        assert_eq!(refused, Err(complaint), "{headers:?} {body}");
    }
}
