//! Git Integration for Jira behind the gate: it takes what every host's push becomes, and refuses the rest.

#[path = "../../src/proxy/upstream/tests/gij.rs"]
mod double;

use hookgate::form;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use self::double::{ANSWER, Complaint, Gij};
use crate::support::client::Request;
use crate::support::gate::{Gate, Setup, write_private};
use crate::support::host::{self, HOOK, Host, KEYS, Proof, prove};
use crate::support::until;
use crate::support::upstream::{Received, Reply, Upstream};

/// The secret key of its webhook page.
const JIRA_KEY: &str = "U2VydmljZUtleUZvckppcmE";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// What a host hears whose push was refused.
const REFUSED: (u16, &str) = (202, "set-aside");

/// The providers and the addresses of their repositories: each may be the origin by which Jira has it.
const REPOSITORIES: [(&str, &[&str]); 13] = [
    ("github", &["https://github.com/acme/widgets.git", "git@github.com:acme/widgets.git"]),
    (
        "gitlab",
        &["https://gitlab.example.com/acme/widgets.git", "git@gitlab.example.com:acme/widgets.git"],
    ),
    (
        "bitbucket-cloud",
        &["https://bitbucket.org/acme/widgets.git", "git@bitbucket.org:acme/widgets.git"],
    ),
    (
        "bitbucket-server",
        &[
            "https://bitbucket.example.com/scm/acme/widgets.git",
            "ssh://git@bitbucket.example.com:7999/acme/widgets.git",
        ],
    ),
    (
        "gitea",
        &["https://gitea.example.com/acme/widgets.git", "git@gitea.example.com:acme/widgets.git"],
    ),
    (
        "forgejo",
        &[
            "https://forgejo.example.com/acme/widgets.git",
            "git@forgejo.example.com:acme/widgets.git",
        ],
    ),
    (
        "gogs",
        &["https://gogs.example.com/acme/widgets.git", "git@gogs.example.com:acme/widgets.git"],
    ),
    ("azure-devops", &["https://dev.azure.com/acme/tools/_git/widgets"]),
    ("gerrit", &["https://gerrit.example.com/acme/widgets"]),
    ("gitee", &["https://gitee.com/acme/widgets.git", "git@gitee.com:acme/widgets.git"]),
    ("manual", &["https://git.example.com/acme/widgets.git"]),
    ("standard-webhooks", &["https://git.example.com/acme/widgets.git"]),
    ("generic", &["https://git.example.com/acme/widgets.git"]),
];

/// Those whose own JSON has no address where Jira looks for one.
const UNREADABLE: [&str; 4] =
    ["bitbucket-cloud", "bitbucket-server", "gerrit", "standard-webhooks"];

/// Those that can send a form.
const FORMS: [&str; 4] = ["github", "gitea", "forgejo", "gogs"];

fn origins(host: &Host) -> &'static [&'static str] {
    let found = REPOSITORIES.iter().find(|(provider, _)| *provider == host.provider);
    found.expect("its addresses").1
}

/// Jira with all these repositories and one more.
fn jira() -> Upstream {
    Upstream::with(Reply::By(|received| {
        let all = REPOSITORIES.iter().flat_map(|(_, origins)| origins.iter().copied());
        let all: Vec<_> =
            ["https://git.example.com/other/one.git"].into_iter().chain(all).collect();
        match judge(received, &all) {
            Ok(_) => Reply::Answer(200, &[("content-type", JSON)], ANSWER),
            Err(_) => Reply::Answer(400, &[("content-type", "text/plain")], "refused"),
        }
    }))
}

/// What Jira makes of a request if these are the origins of its repositories.
fn judge<'a>(received: &Received, origins: &[&'a str]) -> Result<&'a str, Complaint> {
    let mut words = received.line.split(' ');
    let method = words.next().expect("a method").parse().expect("a method");
    let target = words.next().expect("a target");
    let headers: HeaderMap = received
        .headers
        .iter()
        .map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        })
        .collect();
    let gij = Gij { base: "/jira", key: JIRA_KEY, origins };
    let found = gij.receive(&method, target, &headers, &received.body)?;
    Ok(origins.iter().find(|origin| **origin == found).expect("one of them"))
}

/// The gate in front of it, with this in the key file for Jira and this said of the hook.
fn gate(jira: &Upstream, key: &str, more: &str) -> Gate {
    let path = "/jira/rest/gitplugin/webhook/1.0/reindex/{upstream_key}";
    let name = "name = \"default\"\n";
    let said =
        format!("{name}upstream_path = \"{path}\"\nupstream_key_file = \"jira.key\"\n{more}\n");
    let setup = Setup::new().keys(KEYS).hooks(&HOOK.replace(name, &said)).upstream(jira);
    write_private(&setup.path("jira.key"), format!("{key}\n"));
    setup.start()
}

/// The push in a form; all but GitHub sign the JSON in it.
fn in_a_form(host: &Host) -> Request {
    let Proof::Signature(scheme) = &host.proof else { panic!("{} signs no form", host.provider) };
    let request = host.unproved().with("content-type", FORM).body(form::encode(host.body));
    prove(request, &*scheme(), host::KEY, host.body.as_bytes())
}

/// Sends the push, which Jira must take as one of this repository, by whichever address it has it.
#[track_caller]
fn accepted(gate: &Gate, jira: &Upstream, host: &Host, push: &Request) -> Received {
    let answer = gate.ask(push);
    assert_eq!(answer.told(), (200, "forwarded"), "{}: {answer:?}", host.provider);
    assert_eq!(answer.text(), ANSWER, "{}", host.provider);
    let received = jira.take_one();
    for origin in origins(host) {
        assert_eq!(judge(&received, &[origin]), Ok(*origin), "{}", host.provider);
        let other = origin.replace("widgets", "gadgets");
        assert_eq!(judge(&received, &[&other]), Err(Complaint::Unmatched), "{}", host.provider);
    }
    received
}

/// Sends the push, which Jira must refuse for this reason, and the host must hear of it.
#[track_caller]
fn refused(gate: &Gate, jira: &Upstream, host: &Host, push: &Request, why: Complaint) {
    let failures = "hookgate_upstream_failures_total{hook=\"default\",kind=\"4xx\"}";
    let before = gate.metric(failures);
    let answer = gate.ask(push);
    assert_eq!(answer.told(), REFUSED, "{}: {answer:?}", host.provider);
    let received = jira.take_one();
    assert_eq!(judge(&received, origins(host)), Err(why), "{}: {received:?}", host.provider);
    assert_eq!(gate.metric(failures), before + 1.0, "{}", host.provider);
}

#[test]
fn it_takes_the_push_of_every_provider_as_a_reindex_of_its_repository() {
    let jira = jira();
    let gate = gate(&jira, JIRA_KEY, "upstream_body = \"reindex\"");
    for host in &host::ALL {
        let received = accepted(&gate, &jira, host, &host.push());
        // The repository and nothing else, so nothing of the body can be taken for another one.
        let body: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON");
        let names: Vec<_> = body.as_object().expect("an object").keys().collect();
        let wanted = if host.provider == "manual" { "origin" } else { "repository" };
        assert_eq!(names, [wanted], "{}", host.provider);
        assert_eq!(gate.ask(&host.unproved()).status, 401, "{}", host.provider);
    }
    for provider in FORMS {
        let host = host::host(provider);
        accepted(&gate, &jira, host, &in_a_form(host));
    }
    assert_eq!(jira.count(), host::ALL.len() + FORMS.len());
    assert!(!format!("{:?}", gate.stop()).contains(JIRA_KEY), "the key is in the log");
}

#[test]
fn it_takes_the_json_of_the_hosts_that_it_knows_and_refuses_that_of_the_others() {
    for body in ["original", "json"] {
        let jira = jira();
        let gate = gate(&jira, JIRA_KEY, &format!("upstream_body = \"{body}\""));
        for host in &host::ALL {
            if UNREADABLE.contains(&host.provider) {
                refused(&gate, &jira, host, &host.push(), Complaint::NoRepository);
            } else {
                let received = accepted(&gate, &jira, host, &host.push());
                assert_eq!(received.text(), host.body, "{}", host.provider);
            }
        }
        for provider in FORMS {
            let host = host::host(provider);
            if body == "original" {
                refused(&gate, &jira, host, &in_a_form(host), Complaint::ContentType);
            } else {
                accepted(&gate, &jira, host, &in_a_form(host));
            }
        }
    }
}

#[test]
fn it_knows_a_push_of_azure_devops_by_the_mark_which_the_gate_can_set() {
    let azure = host::host("azure-devops");
    let push = azure.push().without("x-gij-microsoft-event");
    let jira = jira();
    let plain = gate(&jira, JIRA_KEY, "");
    refused(&plain, &jira, azure, &push, Complaint::NoRepository);
    let marking = gate(&jira, JIRA_KEY, "[hook.azure_devops]\nmark_upstream = true");
    accepted(&marking, &jira, azure, &push);
    accepted(&marking, &jira, host::host("github"), &host::host("github").push());
}

#[test]
fn it_refuses_another_key_until_the_file_has_the_right_one() {
    let (jira, github) = (jira(), host::host("github"));
    let wrong = JIRA_KEY.to_lowercase();
    let gate = gate(&jira, &wrong, "upstream_body = \"reindex\"");
    for host in &host::ALL {
        refused(&gate, &jira, host, &host.push(), Complaint::Url);
    }
    write_private(&gate.path("jira.key"), format!("{JIRA_KEY}\n"));
    until("the right key", || (gate.ask(&github.push()).status == 200).then_some(()));
    jira.take();
    accepted(&gate, &jira, github, &github.push());
    let finished = format!("{:?}", gate.stop());
    assert!(!finished.contains(&wrong) && !finished.contains(JIRA_KEY), "a key is in the log");
}
