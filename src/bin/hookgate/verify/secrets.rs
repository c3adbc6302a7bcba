//! What may have been typed into the host in place of a key.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use hookgate::key::{Key, KeyKind, KeyState, Keyring, Use};
use hookgate::secret::Secret;
use hookgate::time::Timestamp;
use zeroize::Zeroizing;

/// A secret that may have been used, by whose name, and what is wrong with it.
pub(super) struct Candidate {
    pub(super) key: String,
    pub(super) secret: Secret,
    /// `None` for a key that would have held.
    pub(super) fault: Option<(&'static str, String)>,
}

/// What a proof needs of a key.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Need {
    /// It signs bodies.
    Sign,
    /// It signs as Standard Webhooks does.
    SigningToken,
    /// It is sent along.
    Token,
}

/// Every candidate, those that would have held first. `file` is the text that the ring was read from.
pub(super) fn candidates(
    ring: &Keyring,
    file: &[u8],
    need: Need,
    now: Timestamp,
) -> Vec<Candidate> {
    let mut all: Vec<_> = ring
        .keys()
        .map(|key| Candidate {
            key: key.name().into(),
            secret: key.secret().clone(),
            fault: fault(key, need, now),
        })
        .collect();
    all.sort_by_key(|candidate| candidate.fault.is_some());
    for key in ring.keys() {
        for (secret, code, text) in mistaken(key, file) {
            let key = key.name().into();
            all.push(Candidate { key, secret, fault: Some((code, text.into())) });
        }
    }
    all
}

/// What keeps a key from being the one that holds.
fn fault(key: &Key, need: Need, now: Timestamp) -> Option<(&'static str, String)> {
    let wanted = if need == Need::Token { Use::Token } else { Use::Sign };
    let is_token = key.kind() == KeyKind::SigningToken;
    match (key.state(now), key.from(), key.until()) {
        (KeyState::Expired, _, Some(until)) => Some((
            "key-expired",
            format!("it is signed or shown with a key that ended at {until}; give the host the new one"),
        )),
        (KeyState::Pending, Some(from), _) => {
            Some(("key-not-yet", format!("it is signed or shown with a key that begins at {from} only")))
        }
        _ if is_token != (need == Need::SigningToken) => Some((
            "key-kind",
            if is_token {
                "the host uses the bytes of a whsec_ key, which serves Standard Webhooks alone; for this host, \
                 write the key as base64:…"
            } else {
                "the host signs as Standard Webhooks does, with a key that the key file does not have as whsec_…"
            }
            .into(),
        )),
        _ if !key.uses().contains(wanted) => Some((
            "key-use",
            format!("the key may be used for {} and not for {}: see its use=", key.uses(), wanted.as_str()),
        )),
        _ => None,
    }
}

/// Secrets that somebody typed who meant this key.
fn mistaken(key: &Key, file: &[u8]) -> Vec<(Secret, &'static str, &'static str)> {
    let bytes = key.secret().expose();
    let mut all = Vec::new();
    let with = |before: &[u8], after: &[u8]| Secret::new([before, bytes, after].concat());
    for end in [&b"\n"[..], b"\r\n"] {
        all.push((
            with(b"", end),
            "key-newline",
            "the host's secret has a line end behind the key",
        ));
    }
    for (before, after) in [(&b""[..], &b" "[..]), (b" ", b""), (b"", b"\t")] {
        let text = "the host's secret has white space around the key";
        all.push((with(before, after), "key-space", text));
    }
    for quote in [&b"\""[..], b"'"] {
        all.push((
            with(quote, quote),
            "key-quoted",
            "the host's secret has quotation marks around the key",
        ));
    }
    if bytes.trim_ascii() != bytes {
        let text = "the base64: key ends or begins with white space that the host's secret does not have: it was \
             made with a line end (echo), use printf %s";
        all.push((Secret::new(bytes.trim_ascii()), "key-file-newline", text));
    }
    let decoders = [&BASE64, &BASE64_NOPAD, &BASE64URL, &BASE64URL_NOPAD];
    for decoded in decoders.into_iter().filter_map(|decoder| decoder.decode(bytes).ok()) {
        let text = "the host decodes the key as base64; write it as base64:… in the key file";
        all.push((Secret::new(decoded), "key-base64", text));
    }
    if let Ok(decoded) = HEXLOWER_PERMISSIVE.decode(bytes) {
        all.push((
            Secret::new(decoded),
            "key-hex",
            "the host decodes the key as hexadecimal digits",
        ));
    }
    let encoded = Zeroizing::new(BASE64.encode(bytes));
    let text = |prefix: &str| Secret::new([prefix, encoded.as_str()].concat());
    match key.kind() {
        KeyKind::Encoded => {
            let told =
                "the host uses the text of the base64: line and not the bytes that it stands for";
            all.push((text(""), "key-text", told));
            all.push((text("base64:"), "key-text", told));
        }
        KeyKind::SigningToken => {
            let told = "the host uses the text of the whsec_ key as its secret, and not the bytes behind whsec_";
            all.push((text("whsec_"), "key-text", told));
            all.push((text(""), "key-text", told));
        }
        _ => {}
    }
    if key.kind() == KeyKind::Plain {
        let line = file.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        for line in
            line.filter(|line| line.strip_prefix(bytes).is_some_and(|rest| !rest.is_empty()))
        {
            let text =
                "the host's secret is the whole line of the key file, with the key's options";
            all.push((Secret::new(line), "key-line", text));
        }
    }
    for changed in [bytes.to_ascii_lowercase(), bytes.to_ascii_uppercase()] {
        all.push((
            Secret::new(changed),
            "key-case",
            "the host's secret is the key in other capitals",
        ));
    }
    all.retain(|(secret, ..)| !secret.matches(bytes));
    all
}
