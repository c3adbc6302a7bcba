//! Pushes of exactly 8 KiB, as the hosts write them.
//!
//! They are made up, and have what the real ones have: as many names and values of each kind for
//! their size, the addresses that nobody reads, and as many commits as there is room for. GitHub,
//! GitLab and Bitbucket Cloud send no white space; Gitea indents.

/// How long each body is, in bytes.
pub(crate) const SIZE: usize = 8 * 1024;

pub(crate) fn github() -> String {
    const API: &str = "https://api.github.com";
    const REPO: &str = "acme-labs/widget-server";
    let commit = |commit: &Commit| {
        let Commit { id, message, name, login, file, .. } = commit;
        let tree = id.chars().rev().collect::<String>();
        let person = format!(
            r#"{{"name":"{name}","email":"{login}@users.noreply.github.com","date":"2026-05-04T09:31:17+02:00","username":"{login}"}}"#
        );
        format!(
            r#"{{"id":"{id}","tree_id":"{tree}","distinct":true,"message":"{message}","timestamp":"2026-05-04T09:31:17+02:00","url":"https://github.com/{REPO}/commit/{id}","author":{person},"committer":{person},"added":[],"removed":[],"modified":["{file}"]}}"#
        )
    };
    let account = |login: &str, kind: &str| {
        let links = [
            ("followers_url", "/followers"),
            ("following_url", "/following{/other_user}"),
            ("gists_url", "/gists{/gist_id}"),
            ("starred_url", "/starred{/owner}{/repo}"),
            ("subscriptions_url", "/subscriptions"),
            ("organizations_url", "/orgs"),
            ("repos_url", "/repos"),
            ("events_url", "/events{/privacy}"),
            ("received_events_url", "/received_events"),
        ];
        let links = list(&links, |(name, path)| format!(r#""{name}":"{API}/users/{login}{path}""#));
        format!(
            r#""login":"{login}","id":73518246,"node_id":"MDQ6VXNlcjczNTE4MjQ2","avatar_url":"https://avatars.githubusercontent.com/u/73518246?v=4","gravatar_id":"","url":"{API}/users/{login}","html_url":"https://github.com/{login}",{links},"type":"{kind}","user_view_type":"public","site_admin":false"#
        )
    };
    let links = [
        ("forks_url", "/forks"),
        ("keys_url", "/keys{/key_id}"),
        ("collaborators_url", "/collaborators{/collaborator}"),
        ("teams_url", "/teams"),
        ("hooks_url", "/hooks"),
        ("issue_events_url", "/issues/events{/number}"),
        ("events_url", "/events"),
        ("assignees_url", "/assignees{/user}"),
        ("branches_url", "/branches{/branch}"),
        ("tags_url", "/tags"),
        ("blobs_url", "/git/blobs{/sha}"),
        ("git_tags_url", "/git/tags{/sha}"),
        ("git_refs_url", "/git/refs{/sha}"),
        ("trees_url", "/git/trees{/sha}"),
        ("statuses_url", "/statuses/{sha}"),
        ("languages_url", "/languages"),
        ("stargazers_url", "/stargazers"),
        ("contributors_url", "/contributors"),
        ("subscribers_url", "/subscribers"),
        ("subscription_url", "/subscription"),
        ("commits_url", "/commits{/sha}"),
        ("git_commits_url", "/git/commits{/sha}"),
        ("comments_url", "/comments{/number}"),
        ("issue_comment_url", "/issues/comments{/number}"),
        ("contents_url", "/contents/{+path}"),
        ("compare_url", "/compare/{base}...{head}"),
        ("merges_url", "/merges"),
        ("archive_url", "/{archive_format}{/ref}"),
        ("downloads_url", "/downloads"),
        ("issues_url", "/issues{/number}"),
        ("pulls_url", "/pulls{/number}"),
        ("milestones_url", "/milestones{/number}"),
        ("notifications_url", "/notifications{?since,all,participating}"),
        ("labels_url", "/labels{/name}"),
        ("releases_url", "/releases{/id}"),
        ("deployments_url", "/deployments"),
    ];
    let links = list(&links, |(name, path)| format!(r#""{name}":"{API}/repos/{REPO}{path}""#));
    let (owner, sender) = (account("acme-labs", "Organization"), account("ada", "User"));
    let (before, after) = (id(998), id(999));
    fill(|commits| {
        let head = commit(&commits[commits.len() - 1]);
        let commits = list(commits, commit);
        format!(
            r#"{{"ref":"refs/heads/main","before":"{before}","after":"{after}","repository":{{"id":581920734,"node_id":"R_kgDOIq9Png","name":"widget-server","full_name":"{REPO}","private":true,"owner":{{"name":"acme-labs","email":null,{owner}}},"html_url":"https://github.com/{REPO}","description":"Serves widgets","fork":false,"url":"{API}/repos/{REPO}",{links},"created_at":1671622114,"updated_at":"2026-05-03T18:20:55Z","pushed_at":1777879881,"git_url":"git://github.com/{REPO}.git","ssh_url":"git@github.com:{REPO}.git","clone_url":"https://github.com/{REPO}.git","svn_url":"https://github.com/{REPO}","homepage":"","size":48213,"stargazers_count":7,"watchers_count":7,"language":"Rust","has_issues":true,"has_projects":true,"has_downloads":true,"has_wiki":false,"has_pages":false,"has_discussions":false,"forks_count":2,"mirror_url":null,"archived":false,"disabled":false,"open_issues_count":31,"license":null,"allow_forking":true,"is_template":false,"web_commit_signoff_required":false,"topics":[],"visibility":"private","forks":2,"open_issues":31,"watchers":7,"default_branch":"main","stargazers":7,"master_branch":"main","organization":"acme-labs","custom_properties":{{}}}},"pusher":{{"name":"ada","email":"ada@users.noreply.github.com"}},"sender":{{{sender}}},"created":false,"deleted":false,"forced":false,"base_ref":null,"compare":"https://github.com/{REPO}/compare/{before:.12}...{after:.12}","commits":[{commits}],"head_commit":{head}}}"#
        )
    })
}

pub(crate) fn gitlab() -> String {
    const REPO: &str = "acme-labs/tools/widget-server";
    let commit = |commit: &Commit| {
        let Commit { id, title, message, name, login, file } = commit;
        format!(
            r#"{{"id":"{id}","message":"{message}\n","title":"{title}","timestamp":"2026-05-04T09:31:17+02:00","url":"https://gitlab.com/{REPO}/-/commit/{id}","author":{{"name":"{name}","email":"{login}@acme.example"}},"added":[],"modified":["{file}"],"removed":[]}}"#
        )
    };
    let (before, after) = (id(998), id(999));
    fill(|commits| {
        let count = commits.len();
        let commits = list(commits, commit);
        format!(
            r#"{{"object_kind":"push","event_name":"push","before":"{before}","after":"{after}","ref":"refs/heads/main","ref_protected":true,"checkout_sha":"{after}","message":null,"user_id":4728113,"user_name":"Ada Ngata","user_username":"ada","user_email":"","user_avatar":"https://secure.gravatar.com/avatar/5d2f1e7c9b8a46d0a3c1e5f7092b4d68?s=80&d=identicon","project_id":28195533,"project":{{"id":28195533,"name":"widget-server","description":"Serves widgets","web_url":"https://gitlab.com/{REPO}","avatar_url":null,"git_ssh_url":"git@gitlab.com:{REPO}.git","git_http_url":"https://gitlab.com/{REPO}.git","namespace":"tools","visibility_level":0,"path_with_namespace":"{REPO}","default_branch":"main","ci_config_path":"","homepage":"https://gitlab.com/{REPO}","url":"git@gitlab.com:{REPO}.git","ssh_url":"git@gitlab.com:{REPO}.git","http_url":"https://gitlab.com/{REPO}.git"}},"commits":[{commits}],"total_commits_count":{count},"push_options":{{}},"repository":{{"name":"widget-server","url":"git@gitlab.com:{REPO}.git","description":"Serves widgets","homepage":"https://gitlab.com/{REPO}","git_http_url":"https://gitlab.com/{REPO}.git","git_ssh_url":"git@gitlab.com:{REPO}.git","visibility_level":0}}}}"#
        )
    })
}

pub(crate) fn bitbucket_cloud() -> String {
    const API: &str = "https://api.bitbucket.org/2.0";
    const WEB: &str = "https://bitbucket.org";
    const REPO: &str = "acme-labs/widget-server";
    let account = |name: &str, id: &str| {
        format!(
            r#"{{"display_name":"{name}","links":{{"self":{{"href":"{API}/users/%7B{id:.32}%7D"}},"avatar":{{"href":"https://secure.gravatar.com/avatar/{id:.32}?d=https%3A%2F%2Favatar-management--avatars.us-west-2.prod.public.atl-paas.net%2Finitials%2FAN-3.png"}},"html":{{"href":"{WEB}/%7B{id:.32}%7D/"}}}},"type":"user","uuid":"{{{id:.32}}}","account_id":"557058:{id:.32}","nickname":"{name}"}}"#
        )
    };
    let ada = account("Ada Ngata", &id(500));
    let links = |id: &str| {
        format!(
            r#""self":{{"href":"{API}/repositories/{REPO}/commit/{id}"}},"html":{{"href":"{WEB}/{REPO}/commits/{id}"}}"#
        )
    };
    let more_links = |id: &str| {
        format!(
            r#"{},"diff":{{"href":"{API}/repositories/{REPO}/diff/{id}"}},"patch":{{"href":"{API}/repositories/{REPO}/patch/{id}"}}"#,
            links(id)
        )
    };
    let target = |commit: &Commit, own: String| {
        let Commit { id, message, name, login, .. } = commit;
        let parent: String = id.chars().rev().collect();
        let parents = links(&parent);
        format!(
            r#"{{"type":"commit","hash":"{id}","date":"2026-05-04T07:31:17+00:00","author":{{"type":"author","raw":"{name} <{login}@acme.example>"}},"message":"{message}\n","summary":{{"type":"rendered","raw":"{message}\n","markup":"markdown","html":"<p>{message}</p>"}},"links":{{{own}}},"parents":[{{"type":"commit","hash":"{parent}","links":{{{parents}}}}}],"rendered":{{}},"properties":{{}}}}"#
        )
    };
    let branch = |commit: &Commit| {
        let target = target(commit, links(&commit.id));
        format!(
            r#"{{"name":"main","target":{target},"links":{{"self":{{"href":"{API}/repositories/{REPO}/refs/branches/main"}},"commits":{{"href":"{API}/repositories/{REPO}/commits/main"}},"html":{{"href":"{WEB}/{REPO}/branch/main"}}}},"type":"branch","merge_strategies":["merge_commit","squash","fast_forward"],"default_merge_strategy":"merge_commit"}}"#
        )
    };
    fill(|commits| {
        let (old, new) = (branch(&commits[commits.len() - 1]), branch(&commits[0]));
        let commits = list(commits, |commit| target(commit, more_links(&commit.id)));
        format!(
            r#"{{"push":{{"changes":[{{"old":{old},"new":{new},"truncated":false,"created":false,"forced":false,"closed":false,"links":{{"commits":{{"href":"{API}/repositories/{REPO}/commits?include=main"}},"html":{{"href":"{WEB}/{REPO}/branches/compare/main"}}}},"commits":[{commits}]}}]}},"repository":{{"type":"repository","full_name":"{REPO}","links":{{"self":{{"href":"{API}/repositories/{REPO}"}},"html":{{"href":"{WEB}/{REPO}"}},"avatar":{{"href":"https://bytebucket.org/ravatar/%7B3deb8c29%7D?ts=rust"}}}},"name":"widget-server","scm":"git","website":null,"owner":{ada},"workspace":{{"type":"workspace","uuid":"{{3deb8c29}}","name":"Acme","slug":"acme-labs","links":{{"avatar":{{"href":"{WEB}/workspaces/acme/avatar/?ts=1737924067"}},"html":{{"href":"{WEB}/acme/"}},"self":{{"href":"{API}/workspaces/acme"}}}}}},"is_private":true,"uuid":"{{3deb8c29}}","parent":null}},"actor":{ada}}}"#
        )
    })
}

pub(crate) fn gitea() -> String {
    const WEB: &str = "https://git.example.com";
    const REPO: &str = "acme-labs/widget-server";
    let commit = |commit: &Commit| {
        let Commit { id, message, name, login, file, .. } = commit;
        let person =
            format!(r#"{{"name":"{name}","email":"{login}@acme.example","username":"{login}"}}"#);
        format!(
            r#"{{"id":"{id}","message":"{message}\n","url":"{WEB}/{REPO}/commit/{id}","author":{person},"committer":{person},"verification":null,"timestamp":"2026-05-04T09:31:17+02:00","added":[],"removed":[],"modified":["{file}"]}}"#
        )
    };
    let account = |id: u32, login: &str| {
        format!(
            r#"{{"id":{id},"login":"{login}","login_name":"","source_id":0,"full_name":"","email":"{login}@noreply.git.example.com","avatar_url":"{WEB}/avatars/5d2f1e7c9b8a46d0a3c1e5f7092b4d68","html_url":"{WEB}/{login}","language":"","is_admin":false,"last_login":"0001-01-01T00:00:00Z","created":"2024-02-11T10:02:45Z","restricted":false,"active":false,"prohibit_login":false,"location":"","website":"","description":"","visibility":"public","followers_count":0,"following_count":0,"starred_repos_count":0,"username":"{login}"}}"#
        )
    };
    let (owner, ada) = (account(7, "acme-labs"), account(12, "ada"));
    let (before, after) = (id(998), id(999));
    fill(|commits| {
        let (count, head) = (commits.len(), commit(&commits[commits.len() - 1]));
        let commits = list(commits, commit);
        indent(&format!(
            r#"{{"ref":"refs/heads/main","before":"{before}","after":"{after}","compare_url":"{WEB}/{REPO}/compare/{before}...{after}","commits":[{commits}],"total_commits":{count},"head_commit":{head},"repository":{{"id":61,"owner":{owner},"name":"widget-server","full_name":"{REPO}","description":"Serves widgets","empty":false,"private":true,"fork":false,"template":false,"mirror":false,"size":24576,"language":"","languages_url":"{WEB}/api/v1/repos/{REPO}/languages","html_url":"{WEB}/{REPO}","url":"{WEB}/api/v1/repos/{REPO}","link":"","ssh_url":"git@git.example.com:{REPO}.git","clone_url":"{WEB}/{REPO}.git","original_url":"","website":"","stars_count":0,"forks_count":0,"watchers_count":2,"open_issues_count":3,"open_pr_counter":1,"release_counter":0,"default_branch":"main","archived":false,"created_at":"2024-02-11T10:30:43Z","updated_at":"2026-05-04T07:33:08Z","permissions":{{"admin":true,"push":true,"pull":true}},"has_issues":true,"internal_tracker":{{"enable_time_tracker":true,"allow_only_contributors_to_track_time":true,"enable_issue_dependencies":true}},"has_wiki":true,"has_pull_requests":true,"has_projects":true,"ignore_whitespace_conflicts":false,"allow_merge_commits":true,"allow_rebase":true,"default_merge_style":"merge","avatar_url":"","internal":false,"mirror_interval":"","object_format_name":"sha1","topics":[],"licenses":null}},"pusher":{ada},"sender":{ada}}}"#
        ))
    })
}

/// The same JSON with two spaces for each level.
fn indent(json: &str) -> String {
    let (mut indented, mut depth, mut is_opened) = (String::new(), 0, false);
    let (mut in_string, mut is_escaped) = (false, false);
    let line = |depth| format!("\n{}", "  ".repeat(depth));
    for c in json.chars() {
        if in_string {
            in_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
            indented.push(c);
            continue;
        }
        let is_closing = matches!(c, '}' | ']');
        depth -= usize::from(is_closing);
        if is_opened != is_closing {
            indented.push_str(&line(depth));
        }
        indented.push(c);
        is_opened = matches!(c, '{' | '[');
        depth += usize::from(is_opened);
        in_string = c == '"';
        match c {
            ',' => indented.push_str(&line(depth)),
            ':' => indented.push(' '),
            _ => {}
        }
    }
    indented
}

/// The body that `write` makes with as many commits as have room, and with a message so long that
/// it is full. A message may stand more than once, so a few blanks can be left for the end.
fn fill(write: impl Fn(&[Commit]) -> String) -> String {
    let mut commits: Vec<_> = (0..64).map(Commit::new).collect();
    while write(&commits).len() > SIZE {
        commits.pop();
    }
    let more = "and what the reviewers asked for, ".chars().cycle();
    let mut body = write(&commits);
    for more in more {
        commits[0].message.push(more);
        let longer = write(&commits);
        if longer.len() > SIZE {
            break;
        }
        body = longer;
    }
    body.extend(std::iter::repeat_n(' ', SIZE - body.len()));
    body
}

struct Commit {
    id: String,
    title: &'static str,
    message: String,
    name: &'static str,
    login: &'static str,
    file: &'static str,
}

impl Commit {
    fn new(n: usize) -> Self {
        const TITLES: [&str; 4] = [
            "Read the index once for each shard",
            "Fix the build",
            "Merge branch 'rename-fields' into 'main'",
            r#"Tell \"not found\" from \"not yet indexed\""#,
        ];
        const AUTHORS: [(&str, &str); 3] =
            [("Ada Ngata", "ada"), ("Björn Sandström", "bjorn-s"), ("Li Wei", "liwei1987")];
        const FILES: [&str; 5] =
            ["README.md", "src/index/shard.rs", "docs/query.md", "Cargo.toml", "src/lib.rs"];
        let (title, (name, login)) = (TITLES[n % TITLES.len()], AUTHORS[n % AUTHORS.len()]);
        let message = if n == 0 {
            format!(r"{title}\n\nIt was read for each query, which made it slow. ")
        } else {
            title.to_owned()
        };
        Self { id: id(n), title, message, name, login, file: FILES[n % FILES.len()] }
    }
}

/// An object id, as good as any.
fn id(n: usize) -> String {
    let word = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) | 1 << 63;
    let n = n as u64 + 1;
    format!("{:016x}{:016x}{:08x}", word(n), word(n + 1000), word(n + 2000) >> 32)
}

fn list<T>(items: &[T], write: impl Fn(&T) -> String) -> String {
    items.iter().map(write).collect::<Vec<_>>().join(",")
}
