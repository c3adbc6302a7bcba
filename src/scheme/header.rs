//! Reading credentials from headers.

use data_encoding::{BASE64, Encoding};
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::{Refusal, SignError};
use crate::secret::Secret;

/// The value of a credential header; `None` if it is absent or empty.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::Repeated);
    }
    Ok(value.map(HeaderValue::as_bytes).filter(|value| !value.is_empty()))
}

/// A MAC of `N` bytes in hex after `prefix`; `None` if the header is absent or has no MAC in it.
pub(super) fn hex_mac<const N: usize>(
    headers: &HeaderMap,
    name: &HeaderName,
    prefix: &str,
) -> Result<Option<[u8; N]>, Refusal> {
    let text = after_prefix(headers, name, prefix)?;
    text.map(|text| decode_hex(text).ok_or(Refusal::Malformed)).transpose()
}

pub(super) fn encoded_mac<const N: usize>(
    headers: &HeaderMap,
    name: &HeaderName,
    prefix: &str,
    encoding: &Encoding,
) -> Result<Option<[u8; N]>, Refusal> {
    let text = after_prefix(headers, name, prefix)?;
    text.map(|text| decode(text, encoding)).transpose()
}

fn after_prefix<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    prefix: &str,
) -> Result<Option<&'a [u8]>, Refusal> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    let text = value.strip_prefix(prefix.as_bytes()).ok_or(Refusal::Malformed)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Two digits a byte, in either case. By a table, since nearly every delivery has 64 of them.
fn decode_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    const NONE: u8 = 0xff;
    static DIGITS: [u8; 256] = {
        let mut digits = [NONE; 256];
        let mut value = 0;
        while value < 16 {
            digits[b"0123456789abcdef"[value] as usize] = value as u8;
            digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
            value += 1;
        }
        digits
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| DIGITS[usize::from(digit)]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < 16).then_some(bytes)
}

/// Exactly `N` bytes, without allocating by what the sender wrote.
pub(super) fn decode<const N: usize>(text: &[u8], encoding: &Encoding) -> Result<[u8; N], Refusal> {
    // The largest MAC is 64 bytes; base64 claims up to two bytes more before it looks at the padding.
    let mut buffer = [0; 66];
    let length = encoding.decode_len(text.len()).map_err(|_| Refusal::Malformed)?;
    let buffer = buffer.get_mut(..length).ok_or(Refusal::Malformed)?;
    let length = encoding.decode_mut(text, buffer).map_err(|_| Refusal::Malformed)?;
    buffer[..length].try_into().map_err(|_| Refusal::Malformed)
}

/// User and password of `Authorization: Basic`, [RFC 7617 section 2]; `None` if there are no such
/// credentials (another scheme's are none of ours).
///
/// [RFC 7617 section 2]: https://www.rfc-editor.org/rfc/rfc7617#section-2
pub(super) fn basic(headers: &HeaderMap) -> Result<Option<Basic>, Refusal> {
    let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
    let Some((scheme, rest)) = value.split_at_checked(6) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Ok(None);
    }
    let mut pair = BASE64.decode(rest.trim_ascii()).map_err(|_| Refusal::Malformed)?;
    let colon = pair.iter().position(|&byte| byte == b':').ok_or(Refusal::Malformed)?;
    let password = pair.split_off(colon + 1);
    pair.pop();
    Ok(Some(Basic { user: pair, password: Secret::new(password) }))
}

pub(super) struct Basic {
    pub(super) user: Vec<u8>,
    pub(super) password: Secret,
}

/// A header for what [`single`] and [`hex_mac`] read.
pub(super) fn value(text: impl AsRef<[u8]>) -> Result<HeaderValue, SignError> {
    let mut value = HeaderValue::from_bytes(text.as_ref()).map_err(|_| SignError::UnfitValue)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: HeaderName = HeaderName::from_static("x-signature");

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (NAME, value.parse().unwrap())).collect()
    }

    #[test]
    fn a_mac_is_read_in_either_case() {
        let lower = format!("sha256={}", "ab".repeat(32));
        for text in [lower.clone(), lower.replace("ab", "AB"), lower.replace("ab", "aB")] {
            assert_eq!(hex_mac(&headers(&[&text]), &NAME, "sha256="), Ok(Some([0xab; 32])));
        }
    }

    #[test]
    fn an_empty_one_is_absent_and_anything_else_is_refused() {
        for absent in [&[][..], &[""], &["sha256="]] {
            assert_eq!(hex_mac::<32>(&headers(absent), &NAME, "sha256="), Ok(None), "{absent:?}");
        }
        let good = format!("sha256={}", "ab".repeat(32));
        for malformed in [
            "yo".into(),
            "ab".repeat(32),
            "sha256".into(),
            "sha256=yo".into(),
            "sha256=0".into(),
            "sha256=00".into(),
            "sha1=".to_owned() + &"ab".repeat(32),
            "SHA256=".to_owned() + &"ab".repeat(32),
            good.clone() + "ab",
            good[..good.len() - 2].into(),
            good.clone() + ", " + &good,
            good.clone() + " ",
            format!("sha256={}", "zz".repeat(32)),
            format!("sha256={}", "ab".repeat(2000)),
        ] {
            let read = hex_mac::<32>(&headers(&[&malformed]), &NAME, "sha256=");
            assert_eq!(read, Err(Refusal::Malformed), "{malformed}");
        }
        for repeated in [[&good[..], &good], ["", &good], ["", ""]] {
            let read = hex_mac::<32>(&headers(&repeated), &NAME, "sha256=");
            assert_eq!(read, Err(Refusal::Repeated));
        }
    }

    #[test]
    fn base64_is_read_with_its_padding_only() {
        let text = BASE64.encode(&[7; 32]);
        assert_eq!(decode(text.as_bytes(), &BASE64), Ok([7; 32]));
        assert_eq!(decode(BASE64.encode(&[7; 64]).as_bytes(), &BASE64), Ok([7; 64]));
        for wrong in [&text[..43], "", "====", &BASE64.encode(&[7; 31]), &BASE64.encode(&[7; 33])] {
            assert_eq!(decode::<32>(wrong.as_bytes(), &BASE64), Err(Refusal::Malformed), "{wrong}");
        }
    }

    #[test]
    fn basic_credentials_are_split_at_the_first_colon() {
        let read =
            |value: &str| basic(&[(AUTHORIZATION, value.parse().unwrap())].into_iter().collect());
        let pair = |value| {
            let read = read(value)?;
            Ok(read.map(|basic| (basic.user, basic.password.expose().to_vec())))
        };
        let user = |user: &str, password: &str| Ok(Some((user.into(), password.into())));
        assert_eq!(pair("Basic d2ViaG9vazpzM2NyZXQ="), user("webhook", "s3cret"));
        assert_eq!(pair("basic OmE6Yg=="), user("", "a:b"));
        assert_eq!(pair("Bearer d2ViaG9vazpzM2NyZXQ="), Ok(None));
        assert_eq!(pair("Basic"), Ok(None));
        assert_eq!(pair("Basic d2ViaG9vaw=="), Err(Refusal::Malformed));
        assert_eq!(pair("Basic ???"), Err(Refusal::Malformed));
    }
}
