//! Removes the secrets that some hosts repeat in the body.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{Reader, Shape};
use crate::provider::Provider;

/// The payload with the secrets in it made empty.
///
/// These are, at the top of the body and nowhere else, Gitee's `password` and `sign` and the `secret` of old
/// versions of Gitea, Forgejo and Gogs, in whatever spelling of escapes. Their values become `""`; every
/// other byte stays as it is. Where there is none, nothing is copied; the cost is then that of one pass
/// over the payload, and nothing for other providers. What follows a place that is not JSON stays as
/// it is.
pub fn blank_secrets(provider: Provider, payload: &[u8]) -> Cow<'_, [u8]> {
    let names: &[&str] = match provider {
        Provider::Gitee => &["password", "sign"],
        Provider::Gitea | Provider::Forgejo | Provider::Gogs => &["secret"],
        _ => return Cow::Borrowed(payload),
    };
    let spans = find(payload, names);
    if spans.is_empty() {
        return Cow::Borrowed(payload);
    }
    let mut blanked = Vec::with_capacity(payload.len());
    let mut from = 0;
    for span in spans {
        blanked.extend_from_slice(&payload[from..span.start]);
        blanked.extend_from_slice(b"\"\"");
        from = span.end;
    }
    blanked.extend_from_slice(&payload[from..]);
    Cow::Owned(blanked)
}

/// Where the values of members with these names stand that are neither null nor empty already.
fn find(payload: &[u8], names: &[&str]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    // An error ends the search; the gate refuses such a body before it is shown to anyone.
    let _ = Reader::new(payload).members(|name, reader| {
        let is_null = reader.shape() == Shape::Null;
        let span = reader.span()?;
        if !is_null
            && payload[span.clone()] != *b"\"\""
            && name.decode().is_some_and(|name| names.contains(&&*name))
        {
            spans.push(span);
        }
        Ok(())
    });
    spans
}
