//! The command line and the files that it is given: what is taken, what is refused, and in which words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::support::gate::{self, Setup, write_private};
use crate::support::host::{self, KEY, OTHER_KEY, github_push};
use crate::support::key_of;

#[test]
fn a_configuration_that_is_wrong_is_refused_with_line_and_column() {
    let cases = [
        (
            "listen = \"localhost\"\n",
            "1:10: expected an address and a port such as 127.0.0.1:8080 or [::1]:8080",
        ),
        ("listen = \"127.0.0.1:0\n", "1:22: "),
        ("listen = \"127.0.0.1:0\"\nlisten = \"127.0.0.1:1\"\n", "2:1: duplicate key"),
        ("health = 8081\n", "1:10: invalid type"),
        (
            "[limits]\nmax_body = \"lots\"\n",
            "2:12: expected a size such as \"25MiB\", \"64KiB\" or \"1000000B\"",
        ),
        ("[limits]\nmax_body = \"0B\"\n", "2:12: expected a size"),
        ("[limits]\nmax_body = 25\n", "2:12: invalid type"),
        ("[limits]\nbody_deadline = \"0s\"\n", "2:17: must be longer than nothing"),
        ("[limits]\nbody_deadline = \"-1s\"\n", "2:17: expected a length of time"),
        ("[limits]\nbody_deadline = \"soon\"\n", "2:17: expected a length of time"),
        ("[limits]\nper_source = \"0%\"\n", "2:14: expected a share from \"1%\" to \"100%\""),
        ("[limits]\nper_source = \"101%\"\n", "2:14: expected a share"),
        ("[limits]\nin_flight = 0\n", "2:13: must be at least 1"),
        ("[limits]\nin_flight = -1\n", "2:13: "),
        ("[limits]\nconnections = \"many\"\n", "2:15: invalid type"),
        (
            "[upstream]\nurl = \"127.0.0.1:9000\"\n",
            "2:7: the upstream URL must begin with http://, https:// or unix:/",
        ),
        ("[upstream]\nurl = \"ftp://h/\"\n", "2:7: the upstream URL must begin with"),
        (
            "[upstream]\nurl = \"http://u:p@h/\"\n",
            "2:7: the upstream URL must not have a user or password",
        ),
        ("[upstream]\nurl = \"http://h/?key=x\"\n", "2:7: the upstream URL must not have a query"),
        ("[upstream]\nurl = \"http://h/#x\"\n", "2:7: the upstream URL must not have a fragment"),
        (
            "[upstream]\nurl = \"http://h:70000/\"\n",
            "2:7: the port of the upstream URL must be a number from 1 to 65535",
        ),
        ("[upstream]\nca_file = \"none.pem\"\n", "2:11: "),
        ("[[hook]]\npath = \"/x\"\n", "1:1: missing field `name`"),
        ("[[hook]]\nname = \"a b\"\n", "2:8: a hook's name is 1 to 64 of A-Z a-z 0-9 . _ -"),
        (
            "[[hook]]\nname = \"a\"\npath = \"webhook\"\n",
            "3:8: expected a path such as \"/webhook\"",
        ),
        ("[[hook]]\nname = \"a\"\npath = \"/a?b\"\n", "3:8: expected a path"),
        ("[[hook]]\nname = \"a\"\npath = \"/a b\"\n", "3:8: expected a path"),
        (
            "[[hook]]\nname = \"a\"\nproviders = [\"github\", \"githb\"]\n",
            "3:24: unknown provider, expected one of",
        ),
        ("[[hook]]\nname = \"a\"\nproviders = []\n", "3:13: a hook takes at least one provider"),
        (
            "[[hook]]\nname = \"a\"\nurl_key = \"maybe\"\n",
            "3:11: expected one of \"accept\", \"require\", \"refuse\"",
        ),
        (
            "[[hook]]\nname = \"a\"\nrequire = \"all\"\n",
            "3:11: expected one of \"any\", \"signature\"",
        ),
        ("[[hook]]\nname = \"a\"\nenabled = \"yes\"\n", "3:11: invalid type"),
        (
            "[[hook]]\nname = \"a\"\ndisabled_status = 410\n",
            "3:19: 410 makes hosts end a hook for good; 403 or 200 do not",
        ),
        (
            "[[hook]]\nname = \"a\"\ndisabled_status = 302\n",
            "3:19: expected a final status such as 403 or 200",
        ),
        (
            "[[hook]]\nname = \"a\"\nforward_headers = [\"Authorization\"]\n",
            "3:19: header \"Authorization\" cannot be forwarded",
        ),
        (
            "[[hook]]\nname = \"a\"\nforward_headers = [\"X_Token\"]\n",
            "3:19: header \"X_Token\" cannot be forwarded",
        ),
        (
            "[[hook]]\nname = \"a\"\nevents = [\"pushes\"]\n",
            "3:11: unknown event, expected push or pull_request",
        ),
        ("[[hook]]\nname = \"a\"\nrefs = [\"\"]\n", "3:8: an empty pattern"),
        (
            "[[hook]]\nname = \"a\"\nrefs = [\"main\"]\n",
            "3:8: a pattern for refs begins with refs/ or **",
        ),
        ("[[hook]]\nname = \"a\"\nrepositories = [\"acme/*\", \"\"]\n", "3:27: an empty pattern"),
        (
            "[[hook]]\nname = \"a\"\n[hook.gitee]\nmode = \"both\"\n",
            "4:8: expected one of \"sign\", \"password\"",
        ),
        ("[[hook]]\nname = \"a\"\n[hook.generic]\nprefix = \"x\"\n", "3:1: missing field `header`"),
        (
            "[[hook]]\nname = \"a\"\n[hook.generic]\nheader = \"x y\"\n",
            "4:10: expected the name of a header",
        ),
        (
            "[[hook]]\nname = \"a\"\n[hook.generic]\nheader = \"x\"\nalgorithm = \"sha1\"\n",
            "5:13: expected one of \"sha256\", \"sha512\"",
        ),
        (
            "[[hook]]\nname = \"a\"\n[[hook]]\nname = \"a\"\npath = \"/b\"\n",
            "4:8: two hooks have the name a",
        ),
        (
            "[[hook]]\nname = \"a\"\n[[hook]]\nname = \"b\"\n",
            "4:8: hooks a and b have the same path",
        ),
        (
            "[[hook]]\nname = \"a\"\n[[hook]]\nname = \"b\"\npath = \"/webhook/b\"\n",
            "4:8: the path of one of the hooks",
        ),
        // In the second of two, also where an array of tables follows another table.
        (
            "[[hook]]\nname = \"a\"\n\n[[hook]]\nname = \"b\"\npath = \"/b\"\nurl_key = 1\n",
            "7:11: invalid type",
        ),
    ];
    for (text, wanted) in cases {
        wrong(text, &format!("error: hookgate.toml:{wanted}"));
    }
    // All that is wrong is told at once, in the order of the file.
    let text = "listen = \"x\"\n[limits]\nmax_body = \"x\"\n[[hook]]\nname = \"a b\"\n";
    let finished = Setup::bare(&["check"]).config(text).run();
    let places: Vec<_> = finished.stderr.lines().map(|line| line.split(' ').nth(1)).collect();
    let place = |place| Some(place);
    assert_eq!(
        places,
        ["hookgate.toml:1:10:", "hookgate.toml:3:12:", "hookgate.toml:5:8:"].map(place)
    );
}

#[test]
fn a_key_that_nobody_knows_is_refused_in_every_table() {
    let tables = [
        ("", 1, "state_dri"),
        ("[tls]\ncertificate_file = \"a\"\nkey_file = \"b\"\n", 4, "ca"),
        ("[limits]\n", 2, "max_bodi"),
        ("[upstream]\n", 2, "tolerence"),
        ("[[hook]]\nname = \"a\"\n", 3, "provider"),
        ("[[hook]]\nname = \"a\"\n[hook.azure_devops]\n", 4, "password"),
        ("[[hook]]\nname = \"a\"\n[hook.gitee]\n", 4, "modus"),
        ("[[hook]]\nname = \"a\"\n[hook.generic]\nheader = \"x\"\n", 5, "algorithmus"),
        ("[[hook]]\nname = \"a\"\n[hook]\n", 3, ""),
    ];
    for (table, line, key) in tables {
        if key.is_empty() {
            wrong(table, &format!("error: hookgate.toml:{line}:"));
        } else {
            let wanted = format!("error: hookgate.toml:{line}:1: unknown field `{key}`, expected ");
            wrong(&format!("{table}{key} = \"x\"\n"), &wanted);
        }
    }
}

/// `check` and `serve` both refuse this text, with this error first.
#[track_caller]
fn wrong(text: &str, error: &str) {
    for command in ["check", "serve"] {
        let finished = Setup::bare(&[command]).config(text).run();
        assert_eq!(finished.code, Some(1), "{command}: {text}");
        assert!(finished.stderr.starts_with(error), "{command}: {text}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "{command}: {text}");
    }
}

#[test]
fn flags_that_are_wrong_are_named() {
    let cases = [
        (&["serve", "--listen", "8080"][..], 1, "error: --listen: expected an address and a port"),
        (&["serve", "--health", "no"], 1, "error: --health: expected an address and a port"),
        (&["serve", "--upstream", "localhost:9000"], 1, "error: --upstream: "),
        (
            &["check", "--upstream", "http://u:p@h"],
            1,
            "error: --upstream: the upstream URL must not have a user",
        ),
        (
            &["serve", "--log", "loud"],
            1,
            "error: cannot read the log filter, expected levels such as",
        ),
        (&["serve", "--log-format", "yaml"], 1, "error: unknown log format, expected text or json"),
        (&["serve", "--bogus"], 2, "error: unexpected argument '--bogus' found"),
        (&["serve", "here"], 2, "error: unexpected argument 'here' found"),
        (&["srve"], 2, "error: unrecognized subcommand 'srve'"),
        (&["key", "check"], 2, "error: the following required arguments were not provided"),
        (&[], 2, "The gate for git webhooks"),
    ];
    for (args, code, wanted) in cases {
        let finished = gate::run(args);
        assert_eq!(finished.code, Some(code), "{args:?}");
        assert!(finished.stderr.starts_with(wanted), "{args:?}: {}", finished.stderr);
    }
    for args in
        [&["--version"][..], &["--help"], &["serve", "--help"], &["key", "generate", "--help"]]
    {
        let finished = gate::run(args);
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{args:?}");
    }
    assert!(gate::run(&["--version"]).stdout.starts_with("hookgate "));
}

#[test]
fn check_explains_and_changes_nothing() {
    let config = "[[hook]]\nname = \"one\"\nproviders = [\"github\", \"gitlab\"]\nurl_key = \"require\"\n\
         [[hook]]\nname = \"two\"\npath = \"/two\"\nenabled = false\nurl_key = \"refuse\"\n\
         require = \"signature\"\nupstream = \"http://127.0.0.1:9000/s3cret-path\"\nkey_file = \"two.key\"\n";
    let setup = Setup::bare(&["check"]).config(config);
    let folder = Arc::clone(setup.folder());
    write_private(
        &setup.path("two.key"),
        format!("{KEY} name=mixed\n{OTHER_KEY} name=signing use=sign until=2026-01-01T00:00:00Z\n"),
    );
    fs::set_permissions(setup.path("two.key"), fs::Permissions::from_mode(0o644)).expect("ours");
    let finished = setup.run();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for wanted in [
        "deliveries      http://127.0.0.1:8080",
        "hook            one (enabled)",
        "path          /webhook/<key>",
        "providers     gitlab, github",
        "upstream      none: deliveries are printed",
        "key file      hookgate-state/webhook.key: missing, `serve` makes it",
        "hook            two (disabled)",
        "requires      a signature over the body",
        "upstream      http://127.0.0.1:9000\n",
        "mixed    active   sign,token,url",
        "signing  expired  sign  until 2026-01-01T00:00:00Z",
    ] {
        assert!(finished.stdout.contains(wanted), "{wanted}: {}", finished.stdout);
    }
    assert!(finished.stderr.contains("warning: hook two: key mixed serves"), "{}", finished.stderr);
    assert!(finished.stderr.contains("warning: two.key is readable or writable by others"));
    for text in [&finished.stdout, &finished.stderr] {
        assert!(
            !text.contains(KEY) && !text.contains(OTHER_KEY) && !text.contains("s3cret"),
            "{text}"
        );
    }
    let names = |folder: &Path| fs::read_dir(folder).expect("a folder").count();
    assert_eq!(names(folder.path()), 2, "the configuration and the key file");
}

#[test]
fn a_key_that_was_generated_is_one_that_is_taken() {
    let setup = Setup::bare(&["key", "generate", "--name", "2026-12", "--use", "sign,token"]);
    let folder = Arc::clone(setup.folder());
    let first = setup.run();
    assert_eq!((first.code, &*first.stderr), (Some(0), ""));
    let second = gate::run(&["key", "generate"]);
    assert_ne!(key_of(&first.stdout), key_of(&second.stdout));
    write_private(&folder.path().join("webhook.key"), first.stdout.clone() + &second.stdout);
    let check = Setup::bare(&["key", "check", "webhook.key"]).within(&folder).run();
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    let lines: Vec<_> = check.stdout.lines().map(str::trim_end).collect();
    assert_eq!(lines, ["2026-12  active   sign,token", "line-2   active   sign,token,url"]);
    let text = format!("{}{}", check.stdout, check.stderr);
    let keys = [key_of(&first.stdout), key_of(&second.stdout)];
    assert!(keys.iter().all(|key| !text.contains(&**key)), "{text}");

    let gate = Setup::new().within(&folder).hook().args(&["--key-file", "webhook.key"]).start();
    for key in &keys {
        assert_eq!(gate.ask(&github_push(key)).told(), (202, "printed"));
    }
    let url = |key: &str| gate.ask(&host::host("gerrit").signed_with(key)).status;
    assert_eq!((url(&keys[0]), url(&keys[1])), (401, 202));

    for (name, value, wanted) in [
        ("--use", "sing", "error: unknown use, expected sign, token or url, several with commas\n"),
        (
            "--use",
            "sign weak=allow",
            "error: unknown use, expected sign, token or url, several with commas\n",
        ),
        ("--name", "a b", "error: a name is 1 to 64 of A-Z a-z 0-9 . _ -\n"),
        ("--name", "a use=url", "error: a name is 1 to 64 of A-Z a-z 0-9 . _ -\n"),
        (
            "--name",
            "a\nAnotherKeyOnALineOfItsOwn",
            "error: a name is 1 to 64 of A-Z a-z 0-9 . _ -\n",
        ),
        ("--name", "a #", "error: a name is 1 to 64 of A-Z a-z 0-9 . _ -\n"),
        ("--name", "", "error: a name is 1 to 64 of A-Z a-z 0-9 . _ -\n"),
    ] {
        let finished = gate::run(&["key", "generate", name, value]);
        assert_eq!((finished.code, &*finished.stderr), (Some(1), wanted), "{name} {value:?}");
        assert_eq!(finished.stdout, "");
    }
}
