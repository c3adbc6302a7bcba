//! The git hosts: a push from each, with its headers and its proof.
//!
//! The bodies are in `tests/data/delivery` and made up. What is expected upstream stands beside what is
//! sent, so a header that should go on and one that should not are told apart here and not by a rule.

use hookgate::clock::{Clock, SystemClock};
use hookgate::key::{Key, Keyring};
use hookgate::scheme::{
    AzureDevops, BitbucketCloud, BitbucketServer, Family, Generic, Gitea, Gitee, Github, Gitlab,
    Message, Scheme, StandardWebhooks,
};
use hookgate::time::Timestamp;
use http::HeaderName;

use super::client::Request;

/// A key for every use.
pub(crate) const KEY: &str = "sdf34tGdfgGDG345g3y0045TYG23te37";
/// Another one.
pub(crate) const OTHER_KEY: &str = "Qm9vdHN0cmFwS2V5Rm9yT2xkSG9va3M";
/// The signing token that GitLab's documentation shows.
pub(crate) const TOKEN: &str = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=";
/// A key file with both kinds of key, `plain` and `token` by name.
pub(crate) const KEYS: &str = "sdf34tGdfgGDG345g3y0045TYG23te37 name=plain\n\
     whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q= name=token\n";
/// What [`ALL`] needs said of a hook.
pub(crate) const HOOK: &str = "[[hook]]\nname = \"default\"\n[hook.generic]\nheader = \"x-signature\"\nprefix = \"sha256=\"\n";

/// A push to `refs/heads/main` of a repository.
pub(crate) struct Host {
    pub(crate) provider: &'static str,
    /// The host's headers that the service gets as they are.
    pub(crate) passed: &'static [(&'static str, &'static str)],
    /// The host's headers that it does not get, beside its credentials.
    pub(crate) kept_back: &'static [(&'static str, &'static str)],
    pub(crate) body: &'static str,
    /// The repository's identity.
    pub(crate) repository: &'static str,
    /// The host's id of the delivery, where it has one.
    pub(crate) delivery: Option<&'static str>,
    pub(crate) proof: Proof,
}

/// How the host proves its deliveries.
pub(crate) enum Proof {
    /// A signature over the body.
    Signature(fn() -> Box<dyn Scheme>),
    /// The same, under [`TOKEN`].
    SigningToken(fn() -> Box<dyn Scheme>),
    /// A token in a header, which says nothing of the body.
    Token(fn() -> Box<dyn Scheme>),
    /// Only the key in the URL.
    Url,
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const JSON_UTF_8: (&str, &str) = ("Content-Type", "application/json; charset=utf-8");

/// Every provider, each once for every way in which it proves its deliveries.
pub(crate) static ALL: [Host; 15] = [
    Host {
        provider: "github",
        passed: &[
            JSON,
            ("User-Agent", "GitHub-Hookshot/044aadd"),
            ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Hook-ID", "292430182"),
            ("X-GitHub-Hook-Installation-Target-ID", "79929171"),
            ("X-GitHub-Hook-Installation-Target-Type", "repository"),
            ("X-GitHub-Enterprise-Host", "github.example.com"),
        ],
        kept_back: &[
            ("Accept", "*/*"),
            ("X-Hub-Signature", "sha1=126f2c800419c60137ce748d7672e77b65cf16d6"),
        ],
        body: include_str!("../../data/delivery/github.json"),
        repository: "github.com/acme/widgets",
        delivery: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        proof: Proof::Signature(|| Box::new(Github)),
    },
    Host {
        provider: "gitlab",
        passed: &[
            JSON,
            ("User-Agent", "GitLab/18.4.0"),
            ("Idempotency-Key", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
            ("X-Gitlab-Event", "Push Hook"),
            ("X-Gitlab-Webhook-UUID", "02affd2d-2cba-4033-917d-ec22d5dc4b38"),
            ("X-Gitlab-Instance", "https://gitlab.example.com"),
            ("X-Gitlab-Event-UUID", "13792a34-cac6-4fda-95a8-c58e00a3954e"),
        ],
        kept_back: &[],
        body: include_str!("../../data/delivery/gitlab.json"),
        repository: "gitlab.example.com/acme/widgets",
        delivery: Some("f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
        proof: Proof::Token(|| Box::new(Gitlab)),
    },
    Host {
        provider: "gitlab",
        passed: &[
            JSON,
            ("User-Agent", "GitLab/19.0.0"),
            ("Idempotency-Key", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
            ("X-Gitlab-Event", "Push Hook"),
        ],
        kept_back: &[],
        body: include_str!("../../data/delivery/gitlab.json"),
        repository: "gitlab.example.com/acme/widgets",
        delivery: Some("f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
        proof: Proof::SigningToken(|| Box::new(Gitlab)),
    },
    Host {
        provider: "bitbucket-cloud",
        passed: &[
            JSON,
            ("User-Agent", "Bitbucket-Webhooks/2.0"),
            ("X-Event-Key", "repo:push"),
            ("X-Hook-UUID", "8ba5e4bb-0b9c-4d0e-9a3f-0a7a1f1f0c11"),
            ("X-Request-UUID", "2f3c6b3e-6a27-4f52-9d36-2e0f6f1b9a10"),
            ("X-Attempt-Number", "1"),
        ],
        kept_back: &[],
        body: include_str!("../../data/delivery/bitbucket-cloud.json"),
        repository: "bitbucket.org/acme/widgets",
        delivery: Some("2f3c6b3e-6a27-4f52-9d36-2e0f6f1b9a10"),
        proof: Proof::Signature(|| Box::new(BitbucketCloud)),
    },
    Host {
        provider: "bitbucket-server",
        passed: &[
            JSON_UTF_8,
            ("User-Agent", "Atlassian HttpClient 4.2.0 / Bitbucket-9.5.2 (9005002) / Default"),
            ("X-Event-Key", "repo:refs_changed"),
            ("X-Request-Id", "a3e8c1e7-0c2f-4b8d-9d5b-0e3f4d2a1b00"),
        ],
        kept_back: &[],
        body: include_str!("../../data/delivery/bitbucket-server.json"),
        repository: "bitbucket.example.com/acme/widgets",
        delivery: Some("a3e8c1e7-0c2f-4b8d-9d5b-0e3f4d2a1b00"),
        proof: Proof::Signature(|| Box::new(BitbucketServer)),
    },
    Host {
        provider: "bitbucket-server",
        passed: &[JSON_UTF_8, ("X-Event-Key", "repo:refs_changed")],
        kept_back: &[],
        body: include_str!("../../data/delivery/bitbucket-server.json"),
        repository: "bitbucket.example.com/acme/widgets",
        delivery: None,
        // The same credentials as Azure's: the key as the password.
        proof: Proof::Token(|| Box::new(AzureDevops::default())),
    },
    Host {
        provider: "gitea",
        passed: &[
            JSON,
            ("User-Agent", "Go-http-client/1.1"),
            ("X-Gitea-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
            ("X-Gitea-Event", "push"),
            ("X-Gitea-Event-Type", "push"),
            ("X-Gogs-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
            ("X-Gogs-Event", "push"),
            ("X-Gogs-Event-Type", "push"),
            ("X-GitHub-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
            ("X-GitHub-Event", "push"),
            ("X-GitHub-Event-Type", "push"),
        ],
        kept_back: &[("X-Hub-Signature", "sha1=126f2c800419c60137ce748d7672e77b65cf16d6")],
        body: include_str!("../../data/delivery/gitea.json"),
        repository: "gitea.example.com/acme/widgets",
        delivery: Some("f6266f16-1bf3-46a5-9ea4-602e06ead473"),
        proof: Proof::Signature(|| Box::new(Gitea(Family::Gitea))),
    },
    Host {
        provider: "forgejo",
        passed: &[
            JSON,
            ("X-Forgejo-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
            ("X-Forgejo-Event", "push"),
            ("X-Forgejo-Event-Type", "push"),
            ("X-Gitea-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
            ("X-Gitea-Event", "push"),
            ("X-Gogs-Event", "push"),
            ("X-GitHub-Event", "push"),
        ],
        kept_back: &[("X-Hub-Signature", "sha1=126f2c800419c60137ce748d7672e77b65cf16d6")],
        body: include_str!("../../data/delivery/forgejo.json"),
        repository: "forgejo.example.com/acme/widgets",
        delivery: Some("f6266f16-1bf3-46a5-9ea4-602e06ead473"),
        proof: Proof::Signature(|| Box::new(Gitea(Family::Forgejo))),
    },
    Host {
        provider: "gogs",
        passed: &[
            JSON,
            ("User-Agent", "GogsServer"),
            ("X-Gogs-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
            ("X-Gogs-Event", "push"),
            ("X-Github-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
            ("X-Github-Event", "push"),
        ],
        kept_back: &[],
        body: include_str!("../../data/delivery/gogs.json"),
        repository: "gogs.example.com/acme/widgets",
        delivery: Some("f6266f16-1bf3-46a5-9ea4-602e06ead473"),
        proof: Proof::Signature(|| Box::new(Gitea(Family::Gogs))),
    },
    Host {
        provider: "azure-devops",
        passed: &[
            JSON_UTF_8,
            ("X-GIJ-Microsoft-Event", "1"),
            ("Request-Id", "8f5f2a1e-0000-4c1d-9b5e-0d7a3a1b2c3d"),
            ("X-VSS-ActivityId", "8f5f2a1e-0000-4c1d-9b5e-0d7a3a1b2c3d"),
        ],
        kept_back: &[],
        body: include_str!("../../data/delivery/azure-devops.json"),
        repository: "dev.azure.com/acme/tools/widgets",
        delivery: None,
        proof: Proof::Token(|| Box::new(AzureDevops::default())),
    },
    Host {
        provider: "gerrit",
        passed: &[JSON_UTF_8, ("X-Origin-Url", "https://gerrit.example.com/")],
        kept_back: &[],
        body: include_str!("../../data/delivery/gerrit.json"),
        repository: "gerrit.example.com/acme/widgets",
        delivery: None,
        proof: Proof::Url,
    },
    Host {
        provider: "gitee",
        passed: &[
            JSON,
            ("User-Agent", "git-oschina-hook"),
            ("X-Gitee-Ping", "false"),
            ("X-Gitee-Event", "Push Hook"),
            ("X-Git-Oschina-Event", "Push Hook"),
        ],
        kept_back: &[],
        body: include_str!("../../data/delivery/gitee.json"),
        repository: "gitee.com/acme/widgets",
        delivery: None,
        proof: Proof::Token(|| Box::new(Gitee::default())),
    },
    Host {
        provider: "manual",
        passed: &[JSON, ("x-bbb-webhook-type", "push"), ("x-bbb-webhook-id", "release-7")],
        kept_back: &[],
        body: include_str!("../../data/delivery/manual.json"),
        repository: "git.example.com/acme/widgets",
        delivery: Some("release-7"),
        proof: Proof::Url,
    },
    Host {
        provider: "standard-webhooks",
        passed: &[JSON],
        kept_back: &[],
        body: include_str!("../../data/delivery/standard-webhooks.json"),
        repository: "git.example.com/acme/widgets",
        delivery: Some(SIGNED_ID),
        proof: Proof::SigningToken(|| Box::new(StandardWebhooks)),
    },
    Host {
        provider: "generic",
        passed: &[JSON],
        kept_back: &[("X-Event", "push")],
        body: include_str!("../../data/delivery/generic.json"),
        repository: "git.example.com/acme/widgets",
        delivery: None,
        proof: Proof::Signature(|| {
            let header = HeaderName::from_static("x-signature");
            Box::new(Generic::new(header).prefix("sha256="))
        }),
    },
];

/// The id that [`Host::delivery`] signs where the scheme signs one.
pub(crate) const SIGNED_ID: &str = "f5e5f430-f57b-4e6e-9fac-d9128cd7232f";

/// The first of this provider.
#[track_caller]
pub(crate) fn host(provider: &str) -> &'static Host {
    ALL.iter().find(|host| host.provider == provider).expect("a host")
}

/// GitLab with its classic token.
pub(crate) fn gitlab_token() -> &'static Host {
    host("gitlab")
}

/// GitLab with a signing token.
pub(crate) fn gitlab_signed() -> &'static Host {
    let signed = |host: &&Host| matches!(host.proof, Proof::SigningToken(_));
    ALL.iter().find(signed).expect("a host")
}

/// A push of GitHub, signed with this key.
pub(crate) fn github_push(key: &str) -> Request {
    host("github").signed_with(key)
}

/// A push of GitHub under [`KEY`]: `main` of `github.com/acme/<repository>` goes from one number to another.
/// Its id is `<repository>-<to>`.
pub(crate) fn change(repository: usize, from: usize, to: usize) -> Request {
    large_change(KEY, repository, from, to, 0)
}

/// The same with another key and so many bytes that say nothing.
pub(crate) fn large_change(
    key: &str,
    repository: usize,
    from: usize,
    to: usize,
    padding: usize,
) -> Request {
    let body = format!(
        "{{\"ref\":\"refs/heads/main\",\"before\":\"{from:040x}\",\"after\":\"{to:040x}\",\
         \"repository\":{{\"clone_url\":\"https://github.com/acme/{repository}.git\"}},\
         \"padding\":\"{}\"}}",
        " ".repeat(padding)
    );
    let request = Request::post("/webhook")
        .header("Content-Type", "application/json")
        .header("X-GitHub-Event", "push")
        .header("X-GitHub-Delivery", &format!("{repository}-{to}"))
        .body(body);
    prove(request, &Github, key, b"")
}

impl Host {
    /// The push as the host sends it, with a good proof.
    pub(crate) fn push(&self) -> Request {
        self.signed_with(match self.proof {
            Proof::SigningToken(_) => TOKEN,
            _ => KEY,
        })
    }

    /// The push, proved with this key.
    pub(crate) fn signed_with(&self, key: &str) -> Request {
        let request = self.unproved();
        match &self.proof {
            Proof::Url => request.to(&format!("/webhook/{key}")),
            Proof::Signature(scheme) | Proof::SigningToken(scheme) | Proof::Token(scheme) => {
                prove(request, &*scheme(), key, self.body.as_bytes())
            }
        }
    }

    /// The push without any proof.
    pub(crate) fn unproved(&self) -> Request {
        let headers = self.passed.iter().chain(self.kept_back);
        headers.fold(Request::post("/webhook").body(self.body), |request, (name, value)| {
            request.header(name, value)
        })
    }

    /// The names of the headers in which the proof stands.
    pub(crate) fn credentials(&self) -> Vec<String> {
        let (unproved, push) = (self.unproved(), self.push());
        push.headers[unproved.headers.len()..].iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether the proof covers the body.
    pub(crate) fn covers_body(&self) -> bool {
        matches!(self.proof, Proof::Signature(_) | Proof::SigningToken(_))
    }

    /// The name that [`KEYS`] gives the key of [`push`](Self::push).
    pub(crate) fn key_name(&self) -> &'static str {
        match self.proof {
            Proof::SigningToken(_) => "token",
            _ => "plain",
        }
    }
}

/// Adds the headers with which the key proves the request; the JSON is the body or stands in it.
pub(crate) fn prove(request: Request, scheme: &dyn Scheme, key: &str, payload: &[u8]) -> Request {
    prove_at(request, scheme, key, payload, SystemClock.now())
}

/// The same, as if it were another time.
pub(crate) fn prove_at(
    request: Request,
    scheme: &dyn Scheme,
    key: &str,
    payload: &[u8],
    now: Timestamp,
) -> Request {
    let message = Message { body: &request.body, payload, id: SIGNED_ID, now };
    let headers = scheme.sign(&message, &parse_key(key)).expect("a key that fits");
    headers.iter().fold(request, |request, (name, value)| {
        request.header(name.as_str(), value.to_str().expect("text"))
    })
}

/// The key as a line of a key file would have it.
pub(crate) fn parse_key(line: &str) -> Key {
    let ring = Keyring::parse(line.as_bytes()).expect("a key");
    Key::clone(ring.keys().next().expect("a key"))
}
