//! Removes the secrets that some hosts repeat in the body.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{Reader, Shape};
use crate::provider::Provider;

/// The payload with the secrets in it made empty.
///
/// These are, at the top of the body and nowhere else, Gitee's `password` and `sign` and the
/// `secret` of old versions of Gitea, Forgejo and Gogs, in whatever spelling of escapes. Their
/// values become `""`; every other byte stays as it is. Where there is none, nothing is copied; the
/// cost is then that of one pass over the payload, and nothing for other providers. What follows a
/// place that is not JSON stays as it is.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(provider: Provider, text: &str) -> String {
        String::from_utf8(blank_secrets(provider, text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn the_secrets_of_gitee_become_empty_and_all_else_stays() {
        assert_eq!(
            blank(
                Provider::Gitee,
                "{ \"password\" :  \"s3cret\",\n\"sign\":\"c2ln=\",\"ref\": \"x\" }\n"
            ),
            "{ \"password\" :  \"\",\n\"sign\":\"\",\"ref\": \"x\" }\n"
        );
        assert_eq!(
            blank(Provider::Gitee, r#"{"pass\u0077ord":"s3\"cret"}"#),
            r#"{"pass\u0077ord":""}"#
        );
        assert_eq!(
            blank(Provider::Gitee, r#"{"sign":1,"sign":["a"],"sign":"b"}"#),
            r#"{"sign":"","sign":"","sign":""}"#
        );
    }

    #[test]
    fn the_secret_of_old_gitea_and_its_kin_becomes_empty() {
        for provider in [Provider::Gitea, Provider::Forgejo, Provider::Gogs] {
            assert_eq!(
                blank(provider, r#"{"secret":"s3cret","password":"p"}"#),
                r#"{"secret":"","password":"p"}"#
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_not_copied() {
        for (provider, text) in [
            (
                Provider::Gitee,
                r#"{"hook": {"password": "x", "sign": "y"}, "list": [{"password": "x"}]}"#,
            ),
            (Provider::Gitee, r#"{"password": "", "sign": null, "secret": "x", "Password": "x"}"#),
            (Provider::Gitea, r#"{"repository": {"secret": "x"}, "message": "\"secret\": \"x\""}"#),
            (Provider::Github, r#"{"secret": "x", "password": "x"}"#),
            (Provider::Gitee, r#"["password", "x"]"#),
            (Provider::Gitee, "password"),
            (Provider::Gitee, ""),
        ] {
            let blanked = blank_secrets(provider, text.as_bytes());
            assert!(matches!(blanked, Cow::Borrowed(_)), "{text}");
            assert_eq!(&*blanked, text.as_bytes());
        }
    }

    #[test]
    fn a_broken_body_loses_the_secrets_before_the_break() {
        assert_eq!(
            blank(Provider::Gitee, r#"{"password":"s3cret","x":"#),
            r#"{"password":"","x":"#
        );
    }
}
