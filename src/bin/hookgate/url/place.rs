//! Where each host's form for a webhook is, and what to fill in there.
//!
//! The names of menus and fields are those of the hosts' own pages in English: docs.github.com, docs.gitlab.com,
//! support.atlassian.com, confluence.atlassian.com, docs.gitea.com, forgejo.org, learn.microsoft.com, the plugin `webhooks`
//! of Gerrit.

use hookgate::event::Kind;
use hookgate::key::Use;
use hookgate::proxy::config::HookConfig;
use hookgate::scheme::Message;

use super::{Keys, Provider};

/// A form of a host.
pub(super) struct Place {
    pub(super) provider: Provider,
    pub(super) title: &'static str,
    /// How to get there.
    pub(super) path: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) notes: Vec<String>,
}

/// In which order hosts are shown.
pub(super) const RANK: [Provider; 13] = [
    Provider::Github,
    Provider::Gitlab,
    Provider::BitbucketCloud,
    Provider::BitbucketServer,
    Provider::Gitea,
    Provider::Forgejo,
    Provider::Gogs,
    Provider::AzureDevops,
    Provider::Gerrit,
    Provider::Gitee,
    Provider::StandardWebhooks,
    Provider::Generic,
    Provider::Manual,
];

const JSON: &str = "application/json";

/// The forms of a host, for this hook.
pub(super) fn of(provider: Provider, hook: &HookConfig, url: &str, keys: &Keys<'_>) -> Vec<Place> {
    let wants_requests = hook.rules.events.contains(Kind::PullRequest);
    let pick = |push: &str, both: &str| if wants_requests { both } else { push }.to_owned();
    let place = |title, path, fields| Place { provider, title, path, fields, notes: Vec::new() };
    let plain = keys.without(url);
    let secret = || keys.shown(Use::Sign);
    match provider {
        Provider::Github => {
            let fields = || {
                vec![
                    ("Payload URL", plain.clone()),
                    ("Content type", JSON.into()),
                    ("Secret", secret()),
                    ("SSL verification", "Enable SSL verification".into()),
                    (
                        "Which events",
                        pick(
                            "Just the push event",
                            "Let me select individual events: Pushes, Pull requests",
                        ),
                    ),
                    ("Active", "on".into()),
                ]
            };
            vec![
                place("GitHub, repository", "Settings > Webhooks > Add webhook", fields()),
                place(
                    "GitHub, organization",
                    "organization > Settings > Webhooks > Add webhook",
                    fields(),
                ),
            ]
        }
        Provider::Gitlab => gitlab(&place, &plain, keys, &pick),
        Provider::BitbucketCloud => vec![place(
            "Bitbucket Cloud",
            "Repository settings > Webhooks > Add webhook",
            vec![
                ("Title", "hookgate".into()),
                ("URL", plain),
                ("Secret", secret()),
                ("Status", "Active".into()),
                ("SSL / TLS", "Skip certificate verification: off".into()),
                (
                    "Triggers",
                    pick(
                        "Repository push",
                        "Repository push; Pull request: Created, Updated, Merged",
                    ),
                ),
            ],
        )],
        Provider::BitbucketServer => {
            let mut place = place(
                "Bitbucket Data Center",
                "Repository settings (or Project settings) > Webhooks > Create webhook",
                vec![
                    ("Name", "hookgate".into()),
                    ("URL", plain),
                    ("Secret", secret()),
                    ("Authentication", "None: the secret signs".into()),
                    ("SSL / TLS", "Skip certificate verification: off".into()),
                    (
                        "Events",
                        pick(
                            "Repository: Push",
                            "Repository: Push; Pull request: Opened, Source branch updated, Merged",
                        ),
                    ),
                    ("Active", "on".into()),
                ],
            );
            place.notes.push(
                "\"Test connection\" sends no signature; the gate answers it with pong.".into(),
            );
            vec![place]
        }
        Provider::Gitea | Provider::Forgejo => {
            let title = if provider == Provider::Gitea { "Gitea" } else { "Forgejo" };
            let path = if provider == Provider::Gitea {
                "Settings > Webhooks > Add Webhook > Gitea"
            } else {
                "Settings > Webhooks > Add webhook > Forgejo"
            };
            let events = pick(
                "Custom Events: Create, Delete, Push",
                "Custom Events: Create, Delete, Push, Pull Request",
            );
            let mut place = place(
                title,
                path,
                vec![
                    ("Target URL", plain),
                    ("HTTP Method", "POST".into()),
                    ("POST Content Type", JSON.into()),
                    ("Secret", secret()),
                    ("Trigger On", events),
                    ("Branch filter", "*".into()),
                    ("Active", "on".into()),
                ],
            );
            place.notes.push(
                "A gate on a private address needs ALLOWED_HOST_LIST in [webhook] of its app.ini."
                    .into(),
            );
            vec![place]
        }
        Provider::Gogs => {
            let events = pick(
                "Let me choose: Create, Delete, Push",
                "Let me choose: Create, Delete, Push, Pull Request",
            );
            let mut place = place(
                "Gogs",
                "Settings > Webhooks > Add a new webhook > Gogs",
                vec![
                    ("Payload URL", plain),
                    ("Content Type", JSON.into()),
                    ("Secret", secret()),
                    ("When should this webhook trigger?", events),
                    ("Active", "on".into()),
                ],
            );
            place.notes.push(
                "Tags and deletions come as Create and Delete only. A gate on a private address needs \
                 LOCAL_NETWORK_ALLOWLIST in [security] of its app.ini."
                    .into(),
            );
            vec![place]
        }
        Provider::AzureDevops => vec![azure_devops(hook, &place, plain, keys, wants_requests)],
        Provider::Gerrit => vec![gerrit(url, &place, keys)],
        Provider::Gitee => {
            let mut place = place(
                "Gitee",
                "Repository > Manage > WebHooks > Add",
                vec![
                    ("URL", plain),
                    ("WebHook password / signing key", keys.shown(Use::Token)),
                    ("Events", pick("Push, Tag Push", "Push, Tag Push, Pull Request")),
                    ("Active", "on".into()),
                ],
            );
            place.notes.push("Which of the two it is, is said by mode in [hook.gitee]; the default is the signing key.".into());
            vec![place]
        }
        Provider::StandardWebhooks => {
            let token = keys.signing_token();
            let token =
                token.unwrap_or_else(|| "(put the sender's whsec_… into the key file)".into());
            vec![place(
                "Standard Webhooks sender",
                "its page for endpoints",
                vec![("Endpoint URL", plain), ("Signing secret", token)],
            )]
        }
        Provider::Generic => {
            let Some(header) = &hook.generic_header else { return Vec::new() };
            let mut place = place(
                "Any sender with an HMAC over the body",
                "as [hook.generic] describes it",
                vec![
                    ("URL", plain),
                    ("Header of the signature", header.to_string()),
                    ("Secret", secret()),
                ],
            );
            if let Some(header) = &hook.generic_event_header {
                place.fields.push(("Header of the event", header.to_string()));
            }
            vec![place]
        }
        Provider::Manual => match keys.in_url(url) {
            Ok(url) => {
                let mut place =
                    place("A trigger made by hand", "from any script", vec![("URL", url)]);
                place.notes.push(
                    "curl -H 'Content-Type: application/json' -d '{\"repository\":{\"git_http_url\":\"https://git.example.com/acme/widgets.git\"}}' URL"
                        .into(),
                );
                vec![place]
            }
            // Nobody has asked for it by name of the hook that refuses it.
            Err(_) => Vec::new(),
        },
        _ => Vec::new(),
    }
}

type Make<'a> = dyn Fn(&'static str, &'static str, Vec<(&'static str, String)>) -> Place + 'a;

fn gitlab(
    place: &Make<'_>,
    url: &str,
    keys: &Keys<'_>,
    pick: &dyn Fn(&str, &str) -> String,
) -> Vec<Place> {
    let secret = || match keys.signing_token() {
        // The two exclude each other, and what is signed is worth more.
        Some(token) => ("Signing token", token),
        None => ("Secret token", keys.shown(Use::Token)),
    };
    let fields = |trigger: String| {
        vec![
            ("Name", "hookgate".into()),
            ("URL", url.to_owned()),
            secret(),
            ("Trigger", trigger),
            ("SSL verification", "Enable SSL verification".into()),
        ]
    };
    let events = || {
        pick(
            "Push events (All branches), Tag push events",
            "Push events (All branches), Tag push events, Merge request events",
        )
    };
    let system = pick("Repository update events", "Repository update events, Merge request events");
    let note = "From GitLab 19.0 on, a signing token (whsec_…) signs the body; a secret token is only sent along.";
    let mut places = vec![
        place("GitLab, project", "Settings > Webhooks > Add new webhook", fields(events())),
        place("GitLab, group", "group > Settings > Webhooks > Add new webhook", fields(events())),
        place("GitLab, system hook", "Admin > System hooks > Add new webhook", fields(system)),
    ];
    places[0].notes.push(note.into());
    places[0].notes.push("A push of more than three branches or tags sends no webhook, unless push_event_hooks_limit is raised.".into());
    places[2].notes.push("With push events besides, the gate hears of each push twice.".into());
    places
}

fn azure_devops(
    hook: &HookConfig,
    place: &Make<'_>,
    url: String,
    keys: &Keys<'_>,
    wants_requests: bool,
) -> Place {
    let mut fields = vec![
        ("Service", "Web Hooks".to_owned()),
        (
            "Trigger on this type of event",
            if wants_requests {
                "Code pushed; one more each for Pull request created, updated, merge attempted"
            } else {
                "Code pushed"
            }
            .into(),
        ),
        ("URL", url),
    ];
    match azure_devops_credential(hook, keys) {
        Some(Credential::Header(name)) => {
            fields.push(("HTTP headers", format!("{name}:{}", keys.shown(Use::Token))));
        }
        Some(Credential::User(user)) => {
            fields.push(("Basic authentication username", user));
            fields.push(("Basic authentication password", keys.shown(Use::Token)));
        }
        None => fields.push(("Basic authentication password", keys.shown(Use::Token))),
    }
    fields.push(("Resource details to send", "All".into()));
    fields.push(("Messages to send", "None".into()));
    fields.push(("Detailed messages to send", "None".into()));
    let mut place =
        place("Azure DevOps", "Project settings > Service hooks > Create subscription", fields);
    place.notes.push(
        "Azure sends to HTTPS only where it has a password, and to no private address.".into(),
    );
    place
}

enum Credential {
    Header(String),
    User(String),
}

/// What the hook's scheme puts the key into, which only it knows.
fn azure_devops_credential(hook: &HookConfig, keys: &Keys<'_>) -> Option<Credential> {
    let key = keys.ring.primary(Use::Token, keys.now)?;
    let message = Message { body: b"", payload: b"", id: "", now: keys.now };
    let signed = hook.schemes.get(Provider::AzureDevops)?.sign(&message, key).ok()?;
    let (name, value) = signed.iter().next()?;
    if name != http::header::AUTHORIZATION {
        return Some(Credential::Header(name.to_string()));
    }
    let pair = data_encoding::BASE64.decode(value.as_bytes().strip_prefix(b"Basic ")?).ok()?;
    let user = pair.split(|&byte| byte == b':').next()?;
    Some(Credential::User(String::from_utf8_lossy(user).into_owned()))
}

fn gerrit(url: &str, place: &Make<'_>, keys: &Keys<'_>) -> Place {
    let title = "Gerrit";
    let path = "plugin webhooks, by its REST interface, once for each project (All-Projects for all of them)";
    let url = match keys.in_url(url) {
        Ok(url) => url,
        Err(fault) => {
            let mut place = place(title, path, Vec::new());
            place.notes.push(fault);
            return place;
        }
    };
    // What follows the URL says where its key is.
    let bare = url.split(' ').next().unwrap_or_default();
    // A key may have an apostrophe.
    let bare = bare.replace('\'', r"'\''");
    let curl = format!(
        "curl --user USER:HTTP-PASSWORD -X PUT -H 'Content-Type: application/json' \
         -d '{{\"url\":\"{bare}\",\"events\":[\"ref-updated\"],\"sslVerify\":true}}' \
         https://GERRIT/a/config/server/webhooks~projects/PROJECT/remotes/hookgate"
    );
    let mut place = place(
        title,
        path,
        vec![("url", url), ("events", "ref-updated".into()), ("sslVerify", "true".into())],
    );
    place.notes.push(curl);
    place
        .notes
        .push("Gerrit signs nothing, so its URL holds a key: let it be one with use=url.".into());
    place
}
