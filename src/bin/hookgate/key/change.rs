//! `hookgate key list`, `rotate` and `revoke`: what is in a key file, and changes of it.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use data_encoding::BASE64;
use hookgate::clock::{Clock, SystemClock};
use hookgate::key::{self, Key, KeyKind, KeyState, Keyring, Use};
use hookgate::keystore::{ChangeError, change_key_file};
use hookgate::proxy::control::{ControlClient, KeyStatus, SOCKET_NAME};
use hookgate::time::Timestamp;
use serde_json::{Value, json};

use super::fail;
use crate::args::{KeyListArgs, KeyRevokeArgs, KeyRotateArgs};
use crate::check::warn;
use crate::hook::read_keys;
use crate::live::{ask, short};
use crate::output::{Failure, table};

pub(crate) fn list(args: &KeyListArgs) -> ExitCode {
    let read = args.choice.load().and_then(|config| {
        let state_dir = config.state_dir.clone();
        let path = args.choice.resolve_in(config)?.key_file;
        Ok((read_keys(&path)?.0, path, state_dir))
    });
    let (ring, path, state_dir) = match read {
        Ok(read) => read,
        Err(message) => return fail(&message),
    };
    // The file does not know of it.
    let uses = match uses(&path, &state_dir) {
        Ok(uses) => uses,
        Err(why) => {
            eprintln!("uses are not known: {why}");
            Vec::new()
        }
    };
    let uses_of = |key: &Key| uses.iter().find(|known| known.name == key.name());
    let now = SystemClock.now();
    if args.json {
        let listed: Vec<_> = ring.keys().map(|key| listed(key, uses_of(key), &ring, now)).collect();
        println!("{}", Value::from(listed));
        return ExitCode::SUCCESS;
    }
    let mut table = table();
    table.set_header(["NAME", "STATE", "FOR", "FROM", "UNTIL", "ONLY", "USED", "LAST USED"]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for key in ring.keys() {
        let used = uses_of(key);
        table.add_row([
            key.name().into(),
            state(key, now).into(),
            key.uses().to_string(),
            or_dash(key.from().map(|from| from.to_string())),
            or_dash(key.until().map(|until| until.to_string())),
            or_dash(key.repositories().map(ToString::to_string)),
            or_dash(used.map(|used| used.used.to_string())),
            or_dash(used.and_then(|used| used.last_used.as_deref()).map(short)),
        ]);
    }
    for line in table.lines() {
        println!("{}", line.trim());
    }
    ExitCode::SUCCESS
}

/// How often the keys of a file were used, by the gate that runs with this state folder.
fn uses(path: &Path, state_dir: &Path) -> Result<Vec<KeyStatus>, String> {
    let client = ControlClient::new(state_dir.join(SOCKET_NAME));
    let status = ask(client.gate_status()).map_err(|failure| match failure {
        Failure::Control(error) => crate::chain(&error),
        _ => "the gate cannot be asked".into(),
    })?;
    let whole = |path: &Path| std::fs::canonicalize(path).ok();
    let path = whole(path);
    let file = status.key_files.into_iter().find(|file| whole(Path::new(&file.path)) == path);
    Ok(file.ok_or("the gate that runs does not take keys of this file")?.keys)
}

fn state(key: &Key, now: Timestamp) -> &'static str {
    match key.state(now) {
        KeyState::Pending => "pending",
        KeyState::Active => "active",
        KeyState::Expired => "expired",
    }
}

fn listed(key: &Key, used: Option<&KeyStatus>, ring: &Keyring, now: Timestamp) -> Value {
    let kind = match key.kind() {
        KeyKind::SigningToken => "whsec",
        KeyKind::Encoded => "base64",
        _ => "plain",
    };
    let primary = Use::ALL.into_iter().filter(|&one| {
        let first = match key.kind() {
            KeyKind::SigningToken if one == Use::Sign => ring.signing_tokens(now).next(),
            _ => ring.primary(one, now),
        };
        first.is_some_and(|first| first.name() == key.name())
    });
    let words = |uses: &mut dyn Iterator<Item = Use>| -> Vec<_> { uses.map(Use::as_str).collect() };
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "name": key.name(), "state": state(key, now), "kind": kind, "uses": words(&mut key.uses().iter()),
        "primary_for": words(&mut { primary }), "from": time(key.from()), "until": time(key.until()),
        "repositories": key.repositories().map(ToString::to_string), "weak": key.is_weak(),
        "used": used.map(|used| used.used), "last_used": used.and_then(|used| used.last_used.as_ref()),
    })
}

pub(crate) fn rotate(args: &KeyRotateArgs) -> ExitCode {
    let path = match args.choice.resolve() {
        Ok(hook) => hook.key_file,
        Err(message) => return fail(&message),
    };
    let now = SystemClock.now();
    // Whole seconds, so that the file says what is meant and no more.
    let until = now.saturating_add(args.overlap);
    let until = Timestamp::from_seconds(until.as_seconds()).unwrap_or(until);
    let changed = change_key_file(&path, |text| {
        let rotated = key::rotate(text, args.replace.as_deref(), args.name.as_deref(), now, until)?;
        Ok((rotated.text.clone(), rotated))
    });
    let rotated = match changed {
        Ok(rotated) => rotated,
        Err(error) => return refused(&path, &error),
    };
    let (new, old, until) = (&rotated.new, &rotated.old, rotated.until);
    let shown = (args.show_key || std::io::stdout().is_terminal())
        .then(|| secret_of(rotated.text.expose(), new))
        .flatten();
    if args.json {
        let report = json!({"new": new, "old": old, "until": until.to_string(), "key": shown});
        println!("{report}");
    } else {
        println!("{}: new key {new}, and {old} ends at {until}", path.display());
        match shown {
            Some(key) => println!("{key}"),
            None => println!("`hookgate url --show-key` shows it, and where to put it"),
        }
        println!("until then both hold; change the secret at the host now");
    }
    ExitCode::SUCCESS
}

/// The key of this name as it stands in the file.
fn secret_of(text: &[u8], name: &str) -> Option<String> {
    let ring = Keyring::parse(text).ok()?;
    let key = ring.keys().find(|key| key.name() == name)?;
    let bytes = key.secret().expose();
    Some(match key.kind() {
        KeyKind::SigningToken => format!("whsec_{}", BASE64.encode(bytes)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    })
}

pub(crate) fn revoke(args: &KeyRevokeArgs) -> ExitCode {
    let path = match args.choice.resolve() {
        Ok(hook) => hook.key_file,
        Err(message) => return fail(&message),
    };
    let now = SystemClock.now();
    let day = Timestamp::from_seconds(now.as_seconds()).unwrap_or(now);
    let changed = change_key_file(&path, |text| {
        let text = key::revoke(text, &args.name, day)?;
        let ring = Keyring::parse(text.expose()).map_err(key::EditError::After)?;
        Ok((text, ring))
    });
    match changed {
        Ok(ring) => {
            println!(
                "{}: key {} is gone; a running gate refuses it within two seconds",
                path.display(),
                args.name
            );
            let none = ring.keys().all(|key| key.state(now) != KeyState::Active);
            if none {
                warn("no key is active: every delivery is refused");
            }
            ExitCode::SUCCESS
        }
        Err(error) => refused(&path, &error),
    }
}

fn refused(path: &Path, error: &ChangeError) -> ExitCode {
    fail(&format!("{}: {error}", path.display()))
}
