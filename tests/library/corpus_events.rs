//! What each delivery of a corpus is, by the documentation of its host.
//!
//! The corpus is a folder with `<host>/<event>.json` and, beside it, `<event>.headers`. It holds
//! data of others, so it is no part of the project; `HOOKGATE_CORPUS` names it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hookgate::event::{Kind, ParseOptions, parse};
use hookgate::provider::Provider;
use http::{HeaderMap, HeaderName};

/// The file; what the event is; what it is called; the key of its repository and the addresses to
/// clone it from, `-` where there is none; and each ref with its change and the beginnings of the
/// ids.
type Row = (&'static str, Kind, &'static str, [&'static str; 3], &'static [&'static str]);

/// The hosts that there is no parser for.
const UNREAD: [&str; 1] = ["codecommit-sns"];

const NONE: [&str; 3] = ["-", "-", "-"];

const CODERTOCAT: [&str; 3] = [
    "github.com/codertocat/hello-world",
    "https://github.com/Codertocat/Hello-World.git",
    "git@github.com:Codertocat/Hello-World.git",
];

const DRONE_TEST: [&str; 3] = [
    "github.com/bradrydzewski/drone-test-go",
    "https://github.com/bradrydzewski/drone-test-go.git",
    "git@github.com:bradrydzewski/drone-test-go.git",
];

const GITLAB: [&str; 3] = [
    "gitlab.com/gitlab-org/hello-world",
    "https://gitlab.com/gitlab-org/hello-world.git",
    "git@gitlab.com:gitlab-org/hello-world.git",
];

const CLOUD: [&str; 3] = [
    "bitbucket.org/amuniz/test-repos",
    "https://bitbucket.org/amuniz/test-repos.git",
    "git@bitbucket.org:amuniz/test-repos.git",
];

const SERVER: [&str; 3] = [
    "localhost:7990/amuniz/test-repos",
    "http://localhost:7990/scm/amuniz/test-repos.git",
    "ssh://git@localhost:7999/amuniz/test-repos.git",
];

const SERVER_BELOW_A_PATH: [&str; 3] = [
    "localhost:7990/amuniz/test-repos",
    "http://localhost:7990/bitbucket/scm/amuniz/test-repos.git",
    "ssh://git@localhost:7999/amuniz/test-repos.git",
];

const GITEA: [&str; 3] = [
    "try.gitea.io/gogits/hello-world",
    "http://try.gitea.io/gogits/hello-world.git",
    "git@localhost:gogits/hello-world.git",
];

const GOGS: [&str; 3] = [
    "try.gogs.io/gogits/hello-world",
    "http://try.gogs.io/gogits/hello-world.git",
    "git@localhost:gogits/hello-world.git",
];

const GITEE: [&str; 3] = [
    "gitee.com/kit101/drone-yml-test",
    "https://gitee.com/kit101/drone-yml-test.git",
    "git@gitee.com:kit101/drone-yml-test.git",
];

const TABLE: &[Row] = &[
    (
        "azure-devops/git.push",
        Kind::Push,
        "git.push",
        [
            "dev.azure.com/fabrikam-fiber-inc/fabrikam-fiber-git/fabrikam-fiber-git",
            "https://dev.azure.com/fabrikam-fiber-inc/DefaultCollection/_git/Fabrikam-Fiber-Git",
            "-",
        ],
        &["refs/heads/main Updated aad331d8 33b55f7c"],
    ),
    (
        "azure-devops/git.pullrequest.created",
        Kind::PullRequest,
        "git.pullrequest.created",
        [
            "dev.azure.com/fabrikam/fabrikam/fabrikam",
            "https://dev.azure.com/fabrikam/DefaultCollection/_git/Fabrikam",
            "-",
        ],
        &[],
    ),
    (
        "bitbucket-cloud/push",
        Kind::Push,
        "repo:push",
        CLOUD,
        &["refs/heads/feature/issue-819 Forced a1019927 5ecffa38"],
    ),
    (
        "bitbucket-cloud/push_branch_delete",
        Kind::Push,
        "repo:push",
        CLOUD,
        &["refs/heads/feature/test Deleted 174561d6 -"],
    ),
    (
        "bitbucket-cloud/push_tag_create",
        Kind::Push,
        "repo:push",
        CLOUD,
        &["refs/tags/simple-tag Created - 7ef5981d"],
    ),
    ("bitbucket-cloud/pullrequest_created", Kind::PullRequest, "pullrequest:created", CLOUD, &[]),
    ("bitbucket-server/ping", Kind::Ping, "diagnostics:ping", NONE, &[]),
    (
        "bitbucket-server/push",
        Kind::Push,
        "repo:refs_changed",
        SERVER,
        &["refs/heads/main Updated a8c13e88 9fdd7b96"],
    ),
    (
        "bitbucket-server/push_branch_delete",
        Kind::Push,
        "repo:refs_changed",
        SERVER_BELOW_A_PATH,
        &["refs/heads/feature/BB-1 Deleted fb522a6f -"],
    ),
    (
        "bitbucket-server/mirror_synchronized_reflimit",
        Kind::Push,
        "mirror:repo_synchronized",
        SERVER,
        &[],
    ),
    // An old server, which sends no links at all.
    ("bitbucket-server/pr_opened", Kind::PullRequest, "pr:opened", NONE, &[]),
    ("forgejo/push", Kind::Push, "push", GITEA, &["refs/heads/master Updated 9836a96a 4522cbce"]),
    ("forgejo/tag_create", Kind::Push, "create", GITEA, &["refs/tags/v1.0.0 Created - 599d25c6"]),
    (
        "gerrit/ref-updated",
        Kind::Push,
        "ref-updated",
        ["gerrit.example.com/MyTestRepo", "https://gerrit.example.com/MyTestRepo", "-"],
        &["refs/heads/master Updated 5dc2d37f c0ffee37"],
    ),
    // The documentation's placeholder for an origin is no address.
    ("gij/manual_push", Kind::Push, "push", ["-", "repository-origin", "-"], &[]),
    // The documentation's sample has addresses of two repositories; the web's comes first.
    (
        "gij/reindex_single_github_form",
        Kind::Push,
        "",
        [
            "github.com/testuser01/public-repo",
            "https://github.com/testuser01/public-repo.git",
            "git@github.com:testuser01/test-repo.git",
        ],
        &[],
    ),
    (
        "gij/reindex_single_gitlab_form",
        Kind::Push,
        "",
        ["gitlab.com/bbb-dev/bbb-testrepo", "https://gitlab.com/bbb-dev/bbb-testrepo.git", "-"],
        &[],
    ),
    ("gitea/push", Kind::Push, "push", GITEA, &["refs/heads/master Updated 9836a96a 4522cbce"]),
    (
        "gitea/push_no_secret",
        Kind::Push,
        "push",
        GITEA,
        &["refs/heads/master Updated 9836a96a 4522cbce"],
    ),
    ("gitea/branch_create", Kind::Push, "create", GITEA, &["refs/heads/feature Created - -"]),
    ("gitea/branch_delete", Kind::Push, "delete", GITEA, &["refs/heads/feature Deleted - -"]),
    ("gitea/tag_create", Kind::Push, "create", GITEA, &["refs/tags/v1.0.0 Created - 599d25c6"]),
    (
        "gitea/pull_request_opened",
        Kind::PullRequest,
        "pull_request",
        [
            "try.gitea.io/jcitizen/my-repo",
            "https://try.gitea.io/jcitizen/my-repo.git",
            "git@try.gitea.io:jcitizen/my-repo.git",
        ],
        &[],
    ),
    (
        "gitee/push",
        Kind::Push,
        "Push Hook",
        GITEE,
        &["refs/heads/feat-2-1 Updated 6168d9da 9921e45e"],
    ),
    (
        "gitee/push_branch_delete",
        Kind::Push,
        "Push Hook",
        GITEE,
        &["refs/heads/feat-3 Deleted dc8fa2eb -"],
    ),
    ("gitee/merge_request_open", Kind::PullRequest, "Merge Request Hook", GITEE, &[]),
    (
        "github/ping",
        Kind::Ping,
        "ping",
        [
            "github.com/octocoders/hello-world",
            "https://github.com/Octocoders/Hello-World.git",
            "git@github.com:Octocoders/Hello-World.git",
        ],
        &[],
    ),
    // They come beside a push of the same ref.
    ("github/create_tag", Kind::Other, "create", CODERTOCAT, &[]),
    ("github/delete", Kind::Other, "delete", CODERTOCAT, &[]),
    ("github/pull_request_opened", Kind::PullRequest, "pull_request", CODERTOCAT, &[]),
    ("github/pull_request_closed", Kind::PullRequest, "pull_request", CODERTOCAT, &[]),
    (
        "github/push",
        Kind::Push,
        "push",
        CODERTOCAT,
        &["refs/heads/master Updated a10867b1 199eddf4"],
    ),
    (
        "github/push_branch_create",
        Kind::Push,
        "push",
        DRONE_TEST,
        &["refs/heads/feature-branch Created - d2b75aa7"],
    ),
    (
        "github/push_branch_delete",
        Kind::Push,
        "push",
        DRONE_TEST,
        &["refs/heads/feature-branch Deleted d2b75aa7 -"],
    ),
    ("github/push_tag", Kind::Push, "push", DRONE_TEST, &["refs/tags/v0.0.1 Created - d2b75aa7"]),
    (
        "github/push_tag_delete",
        Kind::Push,
        "push",
        DRONE_TEST,
        &["refs/tags/v0.0.1 Deleted d2b75aa7 -"],
    ),
    (
        "gitlab/push",
        Kind::Push,
        "Push Hook",
        GITLAB,
        &["refs/heads/master Updated 9217710c 2adc9465"],
    ),
    (
        "gitlab/push_signed",
        Kind::Push,
        "Push Hook",
        GITLAB,
        &["refs/heads/master Updated 9217710c 2adc9465"],
    ),
    (
        "gitlab/push_branch_create",
        Kind::Push,
        "Push Hook",
        GITLAB,
        &["refs/heads/feature Created - c4c79227"],
    ),
    (
        "gitlab/push_branch_delete",
        Kind::Push,
        "Push Hook",
        GITLAB,
        &["refs/heads/feature Deleted c4c79227 -"],
    ),
    (
        "gitlab/tag_push",
        Kind::Push,
        "Tag Push Hook",
        GITLAB,
        &["refs/tags/v1.0.0 Created - 2adc9465"],
    ),
    ("gitlab/merge_request_open", Kind::PullRequest, "Merge Request Hook", GITLAB, &[]),
    ("gogs/push", Kind::Push, "push", GOGS, &["refs/heads/master Updated 9836a96a 4522cbce"]),
    ("gogs/branch_delete", Kind::Push, "delete", GOGS, &["refs/heads/feature Deleted - -"]),
    ("gogs/tag_create", Kind::Push, "create", GOGS, &["refs/tags/v1.0.0 Created - 599d25c6"]),
    ("gogs/tag_delete", Kind::Push, "delete", GOGS, &["refs/tags/v1.0.0 Deleted - -"]),
    ("gogs/pull_request_opened", Kind::PullRequest, "pull_request", GOGS, &[]),
];

#[test]
#[ignore = "needs HOOKGATE_CORPUS"]
fn every_delivery_of_the_corpus_is_the_event_that_its_host_documents() {
    let dir = std::env::var_os("HOOKGATE_CORPUS").expect("HOOKGATE_CORPUS names the folder");
    let wrong = differences(Path::new(&dir));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_delivery_without_a_row_and_a_row_without_a_delivery_are_told() {
    let dir = tempfile::tempdir().unwrap();
    for (host, event) in [("github", "push"), ("github", "star"), ("gitthub", "push")] {
        fs::create_dir_all(dir.path().join(host)).unwrap();
        fs::write(dir.path().join(host).join(format!("{event}.json")), "{}").unwrap();
    }
    let wrong = differences(dir.path());
    let is_told = |start: &str| wrong.iter().any(|line| line.starts_with(start));
    assert!(is_told("github/star stands in no row"));
    assert!(is_told("gitthub/push stands in no row"));
    assert!(is_told("github/push\n    found    no headers"));
    assert!(is_told("gitlab/push\n    found    no body"));
    assert_eq!(wrong.len(), TABLE.len() + 2);
}

/// What is other than the table says. Every file of a corpus stands in it, and every row has its
/// file.
fn differences(dir: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in TABLE {
        let found = describe(dir, row.0);
        let (_, kind, name, [key, http_url, ssh_url], refs) = row;
        let expected = format!("{kind} `{name}` {key} {http_url} {ssh_url} {refs:?}");
        if found != expected {
            wrong.push(format!("{}\n    found    {found}\n    expected {expected}", row.0));
        }
    }
    let known: BTreeSet<String> = TABLE.iter().map(|row| row.0.to_owned()).collect();
    wrong.extend(files(dir).difference(&known).map(|file| format!("{file} stands in no row")));
    wrong
}

/// The deliveries of all hosts but those that there is no parser for.
fn files(dir: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for host in fs::read_dir(dir).unwrap().map(|host| host.unwrap()) {
        let name = host.file_name().into_string().unwrap();
        if !host.path().is_dir() || UNREAD.contains(&&*name) {
            continue;
        }
        for file in fs::read_dir(host.path()).unwrap().map(|file| file.unwrap().file_name()) {
            if let Some(event) = file.to_str().unwrap().strip_suffix(".json") {
                files.insert(format!("{name}/{event}"));
            }
        }
    }
    files
}

fn provider(host: &str) -> Option<Provider> {
    match host {
        "gij" => Some(Provider::Manual),
        _ => host.parse().ok(),
    }
}

fn describe(dir: &Path, file: &str) -> String {
    let Ok(body) = fs::read(dir.join(format!("{file}.json"))) else { return "no body".into() };
    let Ok(headers) = fs::read_to_string(dir.join(format!("{file}.headers"))) else {
        return "no headers".into();
    };
    let headers = headers_of(&headers);
    let provider = file.split('/').next().and_then(provider).expect(file);
    let event = match parse(provider, &headers, &body, &ParseOptions::default()) {
        Ok(event) => event,
        Err(error) => return error.to_string(),
    };
    let repository = event.repository.as_ref();
    let key = repository.and_then(|r| r.key()).map_or("-", |key| key.as_str());
    let http_url = repository.and_then(|r| r.http_url.as_deref()).unwrap_or("-");
    let ssh_url = repository.and_then(|r| r.ssh_url.as_deref()).unwrap_or("-");
    let refs: Vec<String> = event
        .refs
        .iter()
        .map(|change| {
            let old = change.old.as_deref().map_or("-", |id| &id[..8]);
            let new = change.new.as_deref().map_or("-", |id| &id[..8]);
            format!("{} {:?} {old} {new}", change.name, change.change)
        })
        .collect();
    format!("{} `{}` {key} {http_url} {ssh_url} {refs:?}", event.kind, event.name)
}

fn headers_of(text: &str) -> HeaderMap {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            (HeaderName::try_from(name).unwrap(), value.trim().parse().unwrap())
        })
        .collect()
}
