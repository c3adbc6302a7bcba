//! Where in a request the JSON is.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method};

use super::Head;
use crate::form;

/// The JSON payload of a delivery: the body as it is, the `payload` of a form, or that of the query
/// of a GET.
///
/// That it is JSON is not looked at here. A body without a media type counts as JSON.
///
/// # Errors
///
/// [`PayloadError`] for another media type, for an encoded body, or for a form without exactly one
/// payload.
pub fn payload(head: Head<'_>, body: &Bytes) -> Result<Bytes, PayloadError> {
    if head.method == Method::GET {
        let query = head.uri.query().unwrap_or_default();
        return Ok(form::payload(query.as_bytes()).map_err(PayloadError::Form)?.into());
    }
    in_body(head, body)
}

/// The JSON payload that the body holds, whatever the method: what a signature over the raw body
/// vouches for.
pub(super) fn in_body(head: Head<'_>, body: &Bytes) -> Result<Bytes, PayloadError> {
    // What is signed is what is read: nothing is decompressed in between.
    if head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(PayloadError::ContentEncoding);
    }
    match media_type(head.headers).as_deref() {
        None | Some("application/json") => Ok(body.clone()),
        Some("application/x-www-form-urlencoded") => {
            Ok(form::payload(body).map_err(PayloadError::Form)?.into())
        }
        Some(other) if other.starts_with("application/") && other.ends_with("+json") => {
            Ok(body.clone())
        }
        Some(_) => Err(PayloadError::MediaType),
    }
}

/// Whether the payload is the raw body, and may be hashed as it arrives.
pub(super) fn is_raw(head: Head<'_>) -> bool {
    head.method != Method::GET && !is_form(head.headers)
}

/// Whether the body is a form.
pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    media_type(headers).as_deref() == Some("application/x-www-form-urlencoded")
}

/// The media type without parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let value = headers.get(CONTENT_TYPE)?.to_str().unwrap_or("?");
    let essence = value.split(';').next().unwrap_or_default().trim();
    Some(if essence.bytes().any(|byte| byte.is_ascii_uppercase()) {
        essence.to_ascii_lowercase().into()
    } else {
        essence.into()
    })
}

/// Why a delivery has no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadError {
    /// The media type is neither JSON nor a form.
    MediaType,
    /// The body is compressed or otherwise encoded.
    ContentEncoding,
    /// The form or query has not exactly one payload.
    Form(form::FormError),
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MediaType => f.write_str("the media type is neither JSON nor a form"),
            Self::ContentEncoding => f.write_str("the body has a content encoding"),
            Self::Form(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PayloadError {}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::super::testing::headers;
    use super::*;
    use crate::form::FormError;

    fn read(
        method: Method,
        uri: &str,
        pairs: &[(&'static str, &str)],
        body: &'static str,
    ) -> Result<Bytes, PayloadError> {
        let (uri, headers): (Uri, _) = (uri.parse().unwrap(), headers(pairs));
        payload(
            Head { method: &method, uri: &uri, headers: &headers },
            &Bytes::from_static(body.as_bytes()),
        )
    }

    #[test]
    fn json_forms_and_queries_give_their_payload() {
        let post = |media: &str, body| read(Method::POST, "/", &[("content-type", media)], body);
        for media in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/vnd.x+json",
        ] {
            assert_eq!(post(media, "{}").unwrap(), "{}", "{media}");
        }
        assert_eq!(
            post("application/x-www-form-urlencoded;charset=utf-8", "payload=%7B%7D").unwrap(),
            "{}"
        );
        assert_eq!(read(Method::POST, "/", &[], "{}").unwrap(), "{}");
        assert_eq!(read(Method::GET, "/?payload=%7B%7D", &[], "").unwrap(), "{}");
    }

    #[test]
    fn what_is_neither_is_refused() {
        let post = |media: &str, body| read(Method::POST, "/", &[("content-type", media)], body);
        for media in
            ["text/plain", "", "application/jsonx", "multipart/form-data", "text/x+json", "\u{e9}"]
        {
            assert_eq!(post(media, "{}"), Err(PayloadError::MediaType), "{media}");
        }
        assert_eq!(
            post("application/x-www-form-urlencoded", "{}"),
            Err(PayloadError::Form(FormError::Json))
        );
        assert_eq!(
            read(Method::GET, "/", &[], "payload=x"),
            Err(PayloadError::Form(FormError::Missing))
        );
        assert_eq!(
            read(Method::POST, "/", &[("content-encoding", "gzip")], "{}"),
            Err(PayloadError::ContentEncoding)
        );
        assert!(read(Method::POST, "/", &[("content-encoding", "identity")], "{}").is_ok());
    }
}
