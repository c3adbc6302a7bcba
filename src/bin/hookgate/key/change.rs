//! `hookgate key list`, `rotate` and `revoke`: what is in a key file, and changes of it.

use std::io::IsTerminal;
use std::process::ExitCode;

use data_encoding::BASE64;
use hookgate::clock::{Clock, SystemClock};
use hookgate::key::{self, Key, KeyKind, KeyState, Keyring, Use};
use hookgate::keystore::{ChangeError, change_key_file};
use hookgate::time::Timestamp;
use serde_json::{Value, json};

use super::fail;
use crate::args::{KeyListArgs, KeyRevokeArgs, KeyRotateArgs};
use crate::check::{keys, warn};
use crate::hook::read_keys;

pub(crate) fn list(args: &KeyListArgs) -> ExitCode {
    let read = args.choice.resolve().and_then(|hook| read_keys(&hook.key_file));
    let ring = match read {
        Ok((ring, _)) => ring,
        Err(message) => return fail(&message),
    };
    let now = SystemClock.now();
    if args.json {
        let listed: Vec<_> = ring.keys().map(|key| listed(key, &ring, now)).collect();
        println!("{}", Value::from(listed));
    } else {
        print!("{}", keys(&ring, now, ""));
    }
    ExitCode::SUCCESS
}

fn listed(key: &Key, ring: &Keyring, now: Timestamp) -> Value {
    let state = match key.state(now) {
        KeyState::Pending => "pending",
        KeyState::Active => "active",
        KeyState::Expired => "expired",
    };
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
        "name": key.name(), "state": state, "kind": kind, "uses": words(&mut key.uses().iter()),
        "primary_for": words(&mut { primary }), "from": time(key.from()), "until": time(key.until()),
        "repositories": key.repositories().map(ToString::to_string), "weak": key.is_weak(),
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

fn refused(path: &std::path::Path, error: &ChangeError) -> ExitCode {
    fail(&format!("{}: {error}", path.display()))
}
