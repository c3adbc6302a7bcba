//! The JSON Schema (2020-12) of the configuration file, for editors and for programs that write one.
//!
//! Which keys there are, which of them must be there and of which type they are comes from the types that
//! the file is read into. What a key means, its default and how its text looks stands in a table here; a
//! test finds a key that is missing in it.
//!
//! The schema is not the reader: it knows neither files nor what several keys mean together, and of a length
//! of time it takes the usual form and not all that the reader takes (`PT1H`).

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::raw::RawConfig;
use crate::provider::Provider;

/// The JSON Schema of the configuration file.
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let settings = settings.with_transform(without_null);
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<RawConfig>().to_value();
    schema["title"] = "Configuration of hookgate".into();
    for (path, description, more) in keys() {
        if let Some(key) = find(&mut schema, path) {
            key.insert("description".into(), description.into());
            // The default of a whole table is what its keys say.
            key.remove("default");
            if let Value::Object(more) = more {
                key.extend(more);
            }
        }
    }
    schema
}

/// What a key means, and what of JSON Schema its type does not say.
type Key = (&'static str, &'static str, Value);

fn keys() -> Vec<Key> {
    let mut keys = server_keys();
    keys.extend(hook_keys());
    keys
}

fn server_keys() -> Vec<Key> {
    let none = Value::Null;
    vec![
        (
            "listen",
            "Where deliveries are taken.",
            json!({"default": "127.0.0.1:8080", "examples": ["0.0.0.0:8080", "unix:/run/hookgate/gate.sock", "systemd:gate"]}),
        ),
        (
            "health",
            "Where /live, /ready and /metrics are answered; \"off\" for nowhere.",
            json!({"default": "127.0.0.1:8081"}),
        ),
        (
            "socket_mode",
            "The permissions of Unix sockets that are made.",
            json!({"pattern": "^0?[0-7]{3}$", "default": "0660"}),
        ),
        (
            "proxy_protocol",
            "\"require\": every connection for deliveries begins with a PROXY header.",
            words(&["off", "require"]),
        ),
        (
            "proxy_protocol_from",
            "The only peers then: addresses and networks. Default: this machine.",
            json!({"examples": [["10.0.0.0/8"]]}),
        ),
        (
            "state_dir",
            "The folder of key file, spool, switch and lock; one process at a time.",
            json!({"default": "hookgate-state"}),
        ),
        (
            "allow_from",
            "Who may call, for hooks that say nothing of their own: addresses and networks. Default: everybody.",
            json!({"minItems": 1, "examples": [["192.0.2.0/24", "2001:db8::/32"]]}),
        ),
        ("allow_from_files", "Files with more of them, one a line; followed.", none.clone()),
        (
            "trusted_proxies",
            "Whose word counts for who the client is: addresses, networks, \"unix\" for Unix sockets. Default: nobody's.",
            json!({"examples": [["127.0.0.1", "::1"], ["unix"]]}),
        ),
        ("client_header", "In which header they say it.", words(&["x-forwarded-for", "forwarded"])),
        ("tls", "TLS on the listener for deliveries. Without it: plain HTTP.", none.clone()),
        ("tls.certificate_file", "The certificate chain, PEM; followed.", none.clone()),
        ("tls.key_file", "The private key, PEM; followed.", none.clone()),
        ("limits", "How much is taken in, and how long it may take.", none.clone()),
        (
            "limits.max_body",
            "The largest body of JSON; a form may have three times that.",
            size("25MiB"),
        ),
        ("limits.body_deadline", "The time in which a body must be there.", duration("10s")),
        ("limits.unverified_bytes", "The room for all bodies in memory.", size("64MiB")),
        (
            "limits.per_source",
            "One address's part of the connections and of that room.",
            json!({"pattern": "^([1-9][0-9]?|100) *%$", "default": "25%"}),
        ),
        (
            "limits.unauthenticated_per_source",
            "What one address may have refused before it is told 429.",
            rate("60/1m"),
        ),
        ("limits.in_flight", "Verified deliveries at the same time.", count(1024)),
        ("limits.connections", "Open connections.", count(10_000)),
        ("limits.keep_alive", "How long a connection may be idle.", duration("75s")),
        ("limits.grace_period", "For open requests, when the gate stops.", duration("25s")),
        (
            "limits.shutdown_delay",
            "Not ready, but still listening, before it stops.",
            duration("0s"),
        ),
        ("upstream", "The service behind the gate.", none.clone()),
        (
            "upstream.url",
            "Of hooks that name none. Without one, deliveries are printed.",
            json!({"examples": ["http://127.0.0.1:9000", "unix:/run/service.sock"]}),
        ),
        ("upstream.timeout", "What one call may take.", duration("30s")),
        (
            "upstream.answer_within",
            "With a spool: by then the host hears 202, and the call goes on.",
            duration("3500ms"),
        ),
        ("upstream.concurrency", "Calls to one service at the same time.", count(256)),
        (
            "upstream.ca_file",
            "Authorities (PEM) that are trusted in place of the public ones.",
            none.clone(),
        ),
        ("tracing", "How traces are continued, and where spans go.", none.clone()),
        (
            "tracing.propagate",
            "Whether the service gets traceparent and tracestate.",
            json!({"default": true}),
        ),
        (
            "tracing.sample",
            "What part of the traces that begin here is recorded.",
            json!({"minimum": 0, "maximum": 1, "default": 1.0}),
        ),
        (
            "tracing.endpoint",
            "Where spans go (OTLP); only in a program with the feature otlp.",
            json!({"examples": ["http://127.0.0.1:4318"]}),
        ),
        ("spool", "Where deliveries wait that the service does not take.", none),
        ("spool.enabled", "Whether there is one.", json!({"default": true})),
        ("spool.max_bytes", "Of what waits or was set aside.", size("1GiB")),
        ("spool.min_free", "Of the disk; with less, nothing more is stored.", size("256MiB")),
        (
            "spool.max_age",
            "After that a delivery is set aside that does not arrive.",
            duration("7d"),
        ),
        ("spool.history", "How long what arrived is kept; \"0s\" for not at all.", duration("3d")),
        ("spool.history_bytes", "The most that is kept of what arrived.", size("256MiB")),
    ]
}

fn hook_keys() -> Vec<Key> {
    let none = Value::Null;
    let providers: Vec<_> = Provider::ALL.iter().map(|provider| provider.as_str()).collect();
    vec![
        ("hook", "The hooks. Without one: a hook with all defaults.", none.clone()),
        (
            "hook.name",
            "Its name in logs and metrics.",
            json!({"pattern": "^[A-Za-z0-9._-]{1,64}$"}),
        ),
        ("hook.enabled", "Whether it lets anything in.", json!({"default": true})),
        (
            "hook.disabled_status",
            "What is answered while it does not; 200 drops silently.",
            json!({"minimum": 200, "maximum": 599, "not": {"const": 410}, "default": 403}),
        ),
        (
            "hook.path",
            "The path of the URL; behind it a key may stand.",
            json!({"pattern": "^/[^?#\\s]*$", "default": "/webhook"}),
        ),
        (
            "hook.providers",
            "The hosts that it takes. Default: all.",
            json!({"minItems": 1, "items": {"type": "string", "enum": providers}}),
        ),
        ("hook.key_file", "Its keys. Default: webhook.key in the state folder.", none.clone()),
        (
            "hook.url_key",
            "Whether a key may stand in the URL.",
            words(&["accept", "require", "refuse"]),
        ),
        (
            "hook.require",
            "\"signature\" takes nothing less than one over the body.",
            words(&["any", "signature"]),
        ),
        ("hook.upstream", "The service behind it. Default: that of [upstream].", none.clone()),
        (
            "hook.events",
            "Which events come through.",
            json!({"items": {"type": "string", "enum": ["push", "pull_request"]}, "default": ["push"]}),
        ),
        (
            "hook.repositories",
            "Patterns for host/owner/name: * within a segment, ** across, ! excludes. Default: all.",
            json!({"examples": [["github.com/acme/*", "!github.com/acme/secret"]]}),
        ),
        (
            "hook.repositories_file",
            "A file with such patterns, one a line, in place of repositories; followed.",
            none.clone(),
        ),
        (
            "hook.refs",
            "Patterns for refs in full. Default: all.",
            json!({"examples": [["refs/heads/*", "refs/tags/v*"]]}),
        ),
        (
            "hook.allow_from",
            "Who may call, in place of the list for all hooks.",
            json!({"minItems": 1, "examples": [["192.0.2.0/24"]]}),
        ),
        ("hook.allow_from_files", "Files with more of them, one a line; followed.", none.clone()),
        ("hook.rate", "What comes faster waits in the spool.", rate("600/1m")),
        ("hook.repository_rate", "The same for each repository.", rate("10/1m burst 5")),
        (
            "hook.min_reindex_interval",
            "Of two pushes of one ref, the second waits so long.",
            duration("0s"),
        ),
        (
            "hook.coalesce_by",
            "Which pushes are brought together by that.",
            words(&["ref", "repository"]),
        ),
        ("hook.max_wait", "The longest that a push is held back by that.", duration("60s")),
        ("hook.delay", "How old a push must be, for mirrors that lag behind.", duration("0s")),
        (
            "hook.dedupe_window",
            "How long a delivery is remembered; \"0s\" for not at all.",
            duration("1h"),
        ),
        (
            "hook.reindex_all",
            "Whether a request with a URL key and without a repository goes on, and means all of them.",
            json!({"default": false}),
        ),
        (
            "hook.delivery",
            "\"spool\": the host hears 202 at once, and all is sent from the spool.",
            words(&["direct", "spool"]),
        ),
        (
            "hook.upstream_path",
            "The path at the service, with {repository}, {owner}, {name}, {host}, {ref}, {provider}, {event} and \
             {upstream_key}. Default: the path of the hook.",
            json!({"examples": ["/index/{owner}/{name}"]}),
        ),
        ("hook.upstream_key_file", "The key for {upstream_key} in that path.", none.clone()),
        (
            "hook.upstream_body",
            "What the service gets: the body as it came, its JSON, or what Git Integration for Jira takes.",
            words(&["original", "json", "reindex"]),
        ),
        (
            "hook.upstream_sign_key_file",
            "Keys (whsec_) that sign what is sent. Default: nothing is signed.",
            none.clone(),
        ),
        (
            "hook.forward_headers",
            "Headers that go on beside the usual ones.",
            json!({"default": []}),
        ),
        ("hook.azure_devops", "What is particular to Azure DevOps.", none.clone()),
        ("hook.azure_devops.user", "The user of Basic credentials. Default: any.", none.clone()),
        (
            "hook.azure_devops.header",
            "A header with the key, in place of Basic credentials.",
            json!({"pattern": HEADER}),
        ),
        (
            "hook.azure_devops.mark_upstream",
            "Whether x-gij-microsoft-event: 1 is sent on.",
            json!({"default": false}),
        ),
        ("hook.gitee", "What is particular to Gitee.", none.clone()),
        ("hook.gitee.mode", "Which of its proofs is taken.", words(&["sign", "password"])),
        ("hook.generic", "How a sender signs that is none of the others.", none.clone()),
        ("hook.generic.header", "The header with the signature.", json!({"pattern": HEADER})),
        ("hook.generic.algorithm", "The hash of the HMAC.", words(&["sha256", "sha512"])),
        ("hook.generic.encoding", "How the HMAC is written.", words(&["hex", "base64"])),
        (
            "hook.generic.prefix",
            "What stands before it.",
            json!({"default": "", "examples": ["sha256="]}),
        ),
        (
            "hook.generic.event_header",
            "The header that names the event. Default: none, the body is asked.",
            json!({"pattern": HEADER}),
        ),
        ("hook.generic.push_events", "Which of its events are pushes.", none),
    ]
}

/// RFC 9110, section 5.6.2.
const HEADER: &str = "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$";

fn duration(default: &str) -> Value {
    const PATTERN: &str = r"^([0-9]+ *d|([0-9]+(\.[0-9]+)? *(ns|us|ms|s|m|h) *)+)$";
    json!({"pattern": PATTERN, "default": default})
}

fn size(default: &str) -> Value {
    const PATTERN: &str = r"^[0-9]+(\.[0-9]+)? *([kKmMgGtTpP][iI]?)?[bB]?$";
    json!({"pattern": PATTERN, "default": default})
}

/// There is none unless it is said.
fn rate(example: &str) -> Value {
    const PATTERN: &str = r"^(off|[1-9][0-9]* */ *[0-9].*)$";
    json!({"pattern": PATTERN, "examples": [example]})
}

fn count(default: u32) -> Value {
    json!({"minimum": 1, "default": default})
}

/// The first is the default.
fn words(words: &[&str]) -> Value {
    json!({"enum": words, "default": words[0]})
}

/// TOML has no null: a key that need not be there is left out.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(variants)) = schema.get_mut("anyOf") {
        variants.retain(|variant| variant["type"] != "null");
        if let [Value::Object(only)] = &variants[..] {
            let only = only.clone();
            schema.remove("anyOf");
            schema.ensure_object().extend(only);
        }
    }
    transform_subschemas(&mut without_null, schema);
}

/// The schema of a key, by its path.
fn find<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let found = path.split('.').try_fold(schema, |table, key| {
        // The keys of an array of tables are those of a table in it.
        let table = if table["type"] == "array" { &mut table["items"] } else { table };
        table.get_mut("properties")?.get_mut(key)
    });
    found?.as_object_mut()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jsonschema::Validator;

    use super::*;
    use crate::proxy::config::{Config, Overrides};

    const README: &str = include_str!("../../../README.md");
    const TEMPLATE: &str = include_str!("../../bin/hookgate/hookgate.toml");

    fn validator() -> Validator {
        let schema = schema();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        jsonschema::draft202012::meta::validate(&schema).expect("a schema");
        jsonschema::draft202012::new(&schema).expect("a schema")
    }

    /// What the schema says is wrong, by the path of the key.
    fn wrong(validator: &Validator, text: &str) -> Vec<String> {
        let value: Value = toml::from_str(text).expect(text);
        validator
            .iter_errors(&value)
            .map(|error| format!("{} {error}", error.instance_path()))
            .collect()
    }

    fn read(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hookgate.toml");
        std::fs::write(&path, text).unwrap();
        let overrides = Overrides { config: Some(path), ..Overrides::default() };
        Config::load(&overrides).map_err(|error| error.to_string())
    }

    /// The configurations of the README; the first has every key.
    fn of_readme() -> Vec<&'static str> {
        let blocks = README.split("\n```toml config\n").skip(1);
        blocks.map(|rest| rest.split("\n```").next().unwrap()).collect()
    }

    /// With what is commented out as an example.
    fn uncommented(text: &str) -> String {
        let is_key = |line: &str| line.starts_with('[') || line.contains(" = ");
        let lines = text.lines().map(|line| match line.strip_prefix('#').map(str::trim_start) {
            Some(rest) if is_key(rest) => rest,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The paths of all keys below a schema.
    fn paths(schema: &Value, prefix: &str) -> BTreeSet<String> {
        let schema = if schema["type"] == "array" { &schema["items"] } else { schema };
        let Some(keys) = schema["properties"].as_object() else { return BTreeSet::new() };
        let paths = keys.iter().flat_map(|(key, below)| {
            let path = format!("{prefix}{key}");
            let mut paths = paths(below, &format!("{path}."));
            paths.insert(path);
            paths
        });
        paths.collect()
    }

    #[test]
    fn every_key_is_described_and_nothing_else_is() {
        let mut schema = schema();
        let there = paths(&schema, "");
        let told: Vec<_> = keys().into_iter().map(|(path, ..)| path.to_owned()).collect();
        let told_once: BTreeSet<_> = told.iter().cloned().collect();
        assert_eq!(told.len(), told_once.len(), "told twice");
        let lacking: Vec<_> = there.difference(&told_once).collect();
        assert!(lacking.is_empty(), "not described in src/proxy/config/schema.rs: {lacking:?}");
        let gone: Vec<_> = told_once.difference(&there).collect();
        assert!(gone.is_empty(), "described, and no key: {gone:?}");
        for path in &there {
            let key = find(&mut schema, path).unwrap();
            let is_table = key.contains_key("properties");
            assert_eq!(is_table, key["type"] == "object", "{path}: {key:?}");
            assert!(!is_table || key["additionalProperties"] == false, "{path}: {key:?}");
            assert!(!Value::from(key.clone()).to_string().contains("null"), "{path}: {key:?}");
        }
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn the_keys_are_those_that_the_reader_takes() {
        let schema = schema();
        let all = paths(&schema, "");
        for (table, text) in [
            ("", ""),
            ("tls.", "[tls]\ncertificate_file = \"a\"\nkey_file = \"a\"\n"),
            ("limits.", "[limits]\n"),
            ("upstream.", "[upstream]\n"),
            ("spool.", "[spool]\n"),
            ("tracing.", "[tracing]\n"),
            ("hook.", "[[hook]]\nname = \"a\"\n"),
            ("hook.azure_devops.", "[[hook]]\nname = \"a\"\n[hook.azure_devops]\n"),
            ("hook.gitee.", "[[hook]]\nname = \"a\"\n[hook.gitee]\n"),
            ("hook.generic.", "[[hook]]\nname = \"a\"\n[hook.generic]\nheader = \"x\"\n"),
        ] {
            // An unknown key is refused with the names of those that there are.
            let error = read(&format!("{text}nobody_knows = 1\n")).unwrap_err();
            let (_, taken) = error.split_once("expected ").unwrap();
            let taken: BTreeSet<_> = taken.split('`').skip(1).step_by(2).collect();
            let below = all.iter().filter_map(|path| path.strip_prefix(table));
            let told: BTreeSet<_> = below.filter(|path| !path.contains('.')).collect();
            assert_eq!(taken, told, "[{table}]");
        }
        let tables = all.iter().filter_map(|path| path.rsplit_once('.').map(|(table, _)| table));
        assert_eq!(tables.collect::<BTreeSet<_>>().len(), 9, "a table that is not looked at here");
    }

    #[test]
    fn the_readme_has_every_key_and_what_it_shows_is_good() {
        let validator = validator();
        let blocks = of_readme();
        assert!(blocks.len() > 1);
        for text in &blocks {
            assert_eq!(wrong(&validator, &uncommented(text)), Vec::<String>::new(), "{text}");
        }
        let full: Value = toml::from_str(&uncommented(blocks[0])).unwrap();
        for path in paths(&schema(), "") {
            let found = path.split('.').try_fold(&full, |table, key| {
                table.as_array().map_or(table, |tables| &tables[0]).get(key)
            });
            assert!(found.is_some(), "README.md does not show {path}");
        }
        for text in [TEMPLATE, &uncommented(TEMPLATE), ""] {
            assert_eq!(wrong(&validator, text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_reader() {
        let mut schema = schema();
        let mut text = String::new();
        for path in paths(&schema, "") {
            let Some(default) = find(&mut schema, &path).unwrap().get("default").cloned() else {
                continue;
            };
            // Those of a hook, which needs a name, stand in the same table.
            let line = match path.strip_prefix("hook.") {
                Some(key) if !key.starts_with("generic.") => format!("hook.{key} = {default}\n"),
                Some(_) => continue,
                None => format!("{path} = {default}\n"),
            };
            text.push_str(&line);
        }
        let text = text.replace("hook.", "");
        let (server, hook): (Vec<_>, Vec<_>) = text.lines().partition(|line| {
            let key = line.split(" = ").next().unwrap_or_default();
            paths(&schema, "").contains(key)
        });
        let text =
            format!("{}\n[[hook]]\nname = \"default\"\n{}\n", server.join("\n"), hook.join("\n"));
        let (told, without) = (read(&text).expect(&text), read("").unwrap());
        assert_eq!(told.limits, without.limits);
        assert_eq!((&told.listen, &told.health), (&without.listen, &without.health));
        assert_eq!(told.needs_restart(&without), ["state_dir", "spool"], "other folders");
        assert_eq!((told.max_age, told.answer_within), (without.max_age, without.answer_within));
        let [told, without] = [&told.hooks[0], &without.hooks[0]];
        assert_eq!((told.paces.clone(), told.delivery), (without.paces.clone(), without.delivery));
        assert_eq!((&told.path, told.url_key), (&without.path, without.url_key));
        assert_eq!(told.disabled_status, without.disabled_status);
        assert_eq!(told.rules.events, without.rules.events);
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_stands() {
        let validator = validator();
        for (text, at) in [
            ("lisen = \"127.0.0.1:1\"\n", ""),
            ("listen = 8080\n", "/listen"),
            ("[limits]\nmax_body = \"lots\"\n", "/limits/max_body"),
            ("[limits]\nmax_body = 25\n", "/limits/max_body"),
            ("[limits]\nbody_deadline = \"soon\"\n", "/limits/body_deadline"),
            ("[limits]\nbody_deadline = \"-1s\"\n", "/limits/body_deadline"),
            ("[limits]\nper_source = \"101%\"\n", "/limits/per_source"),
            ("[limits]\nin_flight = 0\n", "/limits/in_flight"),
            ("[upstream]\ntolerence = 1\n", "/upstream"),
            ("[tls]\nkey_file = \"a\"\n", "/tls"),
            ("[[hook]]\npath = \"/x\"\n", "/hook/0"),
            ("[[hook]]\nname = \"a b\"\n", "/hook/0/name"),
            ("[[hook]]\nname = \"a\"\nprovider = []\n", "/hook/0"),
            ("[[hook]]\nname = \"a\"\nproviders = []\n", "/hook/0/providers"),
            ("[[hook]]\nname = \"a\"\nproviders = [\"githb\"]\n", "/hook/0/providers/0"),
            ("[[hook]]\nname = \"a\"\npath = \"x\"\n", "/hook/0/path"),
            ("[[hook]]\nname = \"a\"\nurl_key = \"maybe\"\n", "/hook/0/url_key"),
            ("[[hook]]\nname = \"a\"\nenabled = \"yes\"\n", "/hook/0/enabled"),
            ("[[hook]]\nname = \"a\"\ndisabled_status = 410\n", "/hook/0/disabled_status"),
            ("[[hook]]\nname = \"a\"\nevents = [\"pushes\"]\n", "/hook/0/events/0"),
            ("[[hook]]\nname = \"a\"\n[hook.gitee]\nmode = \"both\"\n", "/hook/0/gitee/mode"),
            ("[[hook]]\nname = \"a\"\n[hook.generic]\nprefix = \"x\"\n", "/hook/0/generic"),
            (
                "[[hook]]\nname = \"a\"\n[hook.generic]\nheader = \"x y\"\n",
                "/hook/0/generic/header",
            ),
        ] {
            let wrong = wrong(&validator, text);
            assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
            assert!(wrong[0].starts_with(&format!("{at} ")), "{text}: {wrong:?}");
            // The reader is no more lenient.
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_reader_takes_is_good() {
        let validator = validator();
        for (key, values) in [
            ("limits.body_deadline", &["10s", "3500ms", "1h", "7d", "1h30m", "1.5s"][..]),
            ("limits.max_body", &["25MiB", "64KiB", "1000000B", "1000", "1.5 GB", "2k"]),
            ("limits.per_source", &["1%", "50%", "100%"]),
        ] {
            for value in values {
                let text = format!("{key} = \"{value}\"\n");
                assert_eq!(read(&text).map(drop), Ok(()), "{text}");
                assert_eq!(wrong(&validator, &text), Vec::<String>::new(), "{text}");
            }
        }
    }
}
