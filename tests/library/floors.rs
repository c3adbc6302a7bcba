//! The house: a module uses lower floors and itself, never its own floor's neighbour and never a
//! higher floor. So a cycle cannot arise, and a part can be read without what stands upon it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors of `src/`, from the lowest.
const LIBRARY: &[&[&str]] = &[
    // words: plain types
    &["secret", "provider", "repository", "form", "outcome", "source", "time"],
    // keys
    &["key"],
    // rules: pure
    &["scheme", "event", "pace"],
    // what the world outside says: the time, and files
    &["clock", "watch"],
    // live state
    &["keystore", "switch", "delivery", "allow_list"],
    // the product of the library
    &["gate"],
    // the layer behind it
    &["coalesce"],
    // the sidecar
    &["proxy"],
];

/// The floors of `src/proxy/`, from the lowest.
const PROXY: &[&[&str]] = &[
    &["telemetry", "limit", "tls", "head", "unread", "socket", "proxied", "state"],
    &["spool", "upstream", "source", "switch_file"],
    &["otlp"],
    &["config"],
    &["dispatch"],
    &["stack", "admin", "control"],
    &["listen"],
    &["app"],
];

#[test]
fn every_module_looks_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = faults(&src, "crate", LIBRARY);
    faults.extend(self::faults(&src.join("proxy"), "crate::proxy", PROXY));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_program_sees_only_the_public_names_of_the_library() {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/hookgate");
    for file in sources(&bin) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("#[path"), "{} takes a file of the library in", file.display());
    }
}

#[test]
fn a_look_up_sideways_or_from_outside_the_table_is_a_fault() {
    let fault = |module: &str, text: &str| fault_of(module, text, "crate", LIBRARY);
    assert_eq!(fault("key", "use crate::secret::Secret;"), None);
    assert_eq!(fault("gate", "use crate::{key::Key, scheme::{self, Head}};"), None);
    assert_eq!(fault("key", "//! [`crate::gate`] is named\n/// crate::proxy\nfn a() {}"), None);
    assert_eq!(fault("key", "let text = \"crate::gate::Gate\";"), None);
    assert_eq!(fault("scheme", "#[cfg(test)]\nmod tests {\n use crate::gate::Gate;\n}"), None);
    for (module, text) in [
        ("key", "use crate::gate::Gate;"),
        ("key", "fn a(gate: crate::gate::Gate) {}"),
        ("scheme", "use crate::event::Event;"),
        ("scheme", "use crate::{key::Key, event::Event};"),
        ("clock", "use crate::watch::Watcher;"),
        ("secret", "use crate::time::Timestamp;"),
        ("key", "use crate::unheard_of::Thing;"),
        ("attic", "use crate::secret::Secret;"),
    ] {
        assert!(fault(module, text).is_some(), "{module}: {text}");
    }
    let proxy = |module: &str, text: &str| fault_of(module, text, "crate::proxy", PROXY);
    assert_eq!(proxy("dispatch", "use crate::proxy::upstream::Upstream;"), None);
    assert_eq!(proxy("upstream", "use super::failure::FailureKind;"), None);
    assert!(proxy("upstream", "use crate::proxy::dispatch::Dispatch;").is_some());
    assert!(proxy("stack", "use crate::proxy::admin::Admin;").is_some());
}

/// What in a folder of modules breaks the rule.
fn faults(folder: &Path, root: &str, floors: &[&[&str]]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in sources(folder) {
        let inside = file.strip_prefix(folder).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        let is_root = matches!(module, "lib" | "mod" | "bin");
        let is_test = inside
            .iter()
            .any(|part| matches!(part.to_str(), Some("tests" | "tests.rs" | "simulation.rs")));
        if is_root || is_test {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // What leads out of the module: `super` in its own root file, two of them below that.
        let is_module_root = match inside.iter().count() {
            1 => true,
            2 => inside.ends_with("mod.rs"),
            _ => false,
        };
        let out = if is_module_root { "super::" } else { "super::super::" };
        let text = text.replace(out, &format!("{root}::"));
        let fault = fault_of(module, &text, root, floors);
        faults.extend(fault.map(|fault| format!("{}: {fault}", file.display())));
    }
    faults
}

/// The first thing in the text of a module that breaks the rule.
fn fault_of(module: &str, text: &str, root: &str, floors: &[&[&str]]) -> Option<String> {
    let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
    let Some(own) = floor(module) else {
        return Some(format!("{module} stands on no floor of the table"));
    };
    used(&code(text), root).into_iter().find_map(|name| match floor(&name) {
        _ if name == module => None,
        Some(other) if other < own => None,
        Some(other) if other == own => Some(format!("{module} looks sideways at {name}")),
        Some(_) => Some(format!("{module} looks up at {name}")),
        None => Some(format!("{module} uses {name}, which stands on no floor of the table")),
    })
}

/// The modules that stand directly behind `root::`, alone or in a list of braces.
fn used(code: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let prefix = format!("{root}::");
    for (at, _) in code.match_indices(&prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(first_names(list)),
            None => names.extend(word(rest)),
        }
    }
    // `crate::proxy::x` is the proxy's own matter; a macro or type at the root is no module.
    names.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    names
}

/// The first word of each entry of a list of braces.
fn first_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut fresh) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && depth == 0 && !c.is_whitespace() => {
                names.extend(word(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0 && &text[..end] != "self").then(|| text[..end].to_owned())
}

/// The text without comments, strings and test modules.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut code = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        // Every other piece between quotation marks is a string; none here has one escaped and a path.
        code.extend(line.split('"').step_by(2));
        code.push('\n');
    }
    code
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
