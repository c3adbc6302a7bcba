//! Deliveries that come as a form: `application/x-www-form-urlencoded` with one field, `payload`.
//!
//! GitHub, Gitea, Forgejo, Gogs and GitBucket can send their JSON so, and Gitea and Forgejo can put
//! the same field into the query of a GET. Exactly one `payload` is taken: with two, the gate and
//! the service behind it could each read another one. Other fields are not read and do no harm.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// The decoded value of the only `payload` field of `form`.
///
/// # Errors
///
/// [`FormError`] if there is no such field or more than one, if it is not UTF-8 after decoding, or if
/// `form` begins like JSON: a signature covers a body and not its media type, so JSON with a
/// `&payload=` somewhere in it must not be read as a form. No encoder leaves a bracket as it is.
///
/// The source is the WHATWG URL standard, [section 5.1], but for invalid UTF-8, which that replaces:
/// a replaced byte would change what was signed.
///
/// [section 5.1]: https://url.spec.whatwg.org/#urlencoded-parsing
pub fn payload(form: &[u8]) -> Result<Vec<u8>, FormError> {
    if matches!(form.trim_ascii_start(), [b'{' | b'[', ..]) {
        return Err(FormError::Json);
    }
    let mut fields = form.split(|&byte| byte == b'&').filter_map(|field| {
        let mut parts = field.splitn(2, |&byte| byte == b'=');
        let name = parts.next()?;
        let value = parts.next().unwrap_or_default();
        // A name may be encoded too, and must not be a way to hide a second payload.
        (decode(name) == b"payload").then_some(value)
    });
    let value = fields.next().ok_or(FormError::Missing)?;
    if fields.next().is_some() {
        return Err(FormError::Repeated);
    }
    let value = decode(value);
    if std::str::from_utf8(&value).is_err() {
        return Err(FormError::NotUtf8);
    }
    Ok(value)
}

/// The form of which [`payload`] gives back `payload`.
pub fn encode(payload: &str) -> String {
    /// What the WHATWG serializer leaves as it is.
    const ESCAPED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_').remove(b' ');
    let escaped = utf8_percent_encode(payload, ESCAPED).to_string();
    format!("payload={}", escaped.replace(' ', "+"))
}

fn decode(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&spaced).collect()
}

/// Why a form holds no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormError {
    /// There is no field `payload`.
    Missing,
    /// There is more than one field `payload`.
    Repeated,
    /// The decoded value is not UTF-8.
    NotUtf8,
    /// It is JSON and no form.
    Json,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the form has no field payload",
            Self::Repeated => "the form has more than one field payload",
            Self::NotUtf8 => "the form's payload is not UTF-8",
            Self::Json => "the form is JSON",
        })
    }
}

impl std::error::Error for FormError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_only_payload_is_decoded() {
        assert_eq!(payload(b"payload=%7B%22yo%22%3Atrue%7D").unwrap(), br#"{"yo":true}"#);
        assert_eq!(payload(b"a=1&payload=x+y%2B&b").unwrap(), b"x y+");
        assert_eq!(payload(b"payload=").unwrap(), b"");
        assert_eq!(payload(b"payload=a=b").unwrap(), b"a=b");
        assert_eq!(payload("payload=%F0%9F%A6%80".as_bytes()).unwrap(), "\u{1f980}".as_bytes());
    }

    #[test]
    fn none_two_hidden_ones_and_broken_text_are_refused() {
        assert_eq!(payload(b""), Err(FormError::Missing));
        assert_eq!(payload(b"Payload=x"), Err(FormError::Missing));
        assert_eq!(payload(b"payload=a&payload=b"), Err(FormError::Repeated));
        assert_eq!(payload(b"payload=a&p%61yload=b"), Err(FormError::Repeated));
        assert_eq!(payload(b"payload=a&payload"), Err(FormError::Repeated));
        assert_eq!(payload(b"payload=%ff"), Err(FormError::NotUtf8));
        assert_eq!(payload(b"{\"x\":\"&payload=a&\"}"), Err(FormError::Json));
        assert_eq!(payload(b"\n[\"&payload=a&\"]"), Err(FormError::Json));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text in any::<String>()) {
            let form = encode(&text);
            prop_assert!(form.is_ascii());
            prop_assert_eq!(payload(form.as_bytes()).unwrap(), text.as_bytes());
        }

        #[test]
        fn no_form_makes_it_panic(form in any::<Vec<u8>>()) {
            let _ = payload(&form);
        }
    }
}
