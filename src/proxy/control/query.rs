//! A selection as the query of a URL.

use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::proxy::spool::{Page, RecordId, Selection, State};

/// RFC 3986 *unreserved* and what separates a repository's segments stay as they are.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The query that [`read`] takes.
pub(super) fn write(selection: &Selection, page: Page) -> String {
    let mut parameters = vec![("limit", page.limit.to_string())];
    if let Some(after) = page.after {
        parameters.push(("after", after.to_string()));
    }
    if let Some(ids) = &selection.ids {
        parameters.push(("id", list(ids)));
    }
    if let Some(states) = &selection.states {
        parameters.push(("state", list(states)));
    }
    if let Some(hook) = &selection.hook {
        parameters.push(("hook", hook.clone()));
    }
    if let Some(repository) = &selection.repository {
        parameters.push(("repository", repository.clone()));
    }
    if let Some(before) = selection.received_before {
        parameters.push(("before", before.to_string()));
    }
    let parameters = parameters.iter();
    let parameters = parameters
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ESCAPED)))
        .collect::<Vec<_>>();
    parameters.join("&")
}

/// The selection and page that a query names.
///
/// # Errors
///
/// What is wrong, in the words of the answer. An unknown parameter is wrong: a misspelt one must not mean
/// everything.
pub(super) fn read(query: &str) -> Result<(Selection, Page), String> {
    let (mut selection, mut page) = (Selection::default(), Page::default());
    let mut seen = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| format!("the value of {name:?} is no UTF-8"))?;
        if seen.contains(&name) {
            return Err(format!("{name:?} is there twice"));
        }
        seen.push(name);
        match name {
            "id" => selection.ids = Some(each(&value)?),
            "state" => selection.states = Some(each::<State>(&value)?),
            "hook" => selection.hook = Some(value.into_owned()),
            "repository" => selection.repository = Some(value.into_owned()),
            "before" => selection.received_before = Some(one(&value)?),
            "after" => page.after = Some(one::<RecordId>(&value)?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| *limit > 0);
                page.limit = limit.ok_or("\"limit\" is not a positive number")?;
            }
            _ => return Err(format!("unknown parameter {name:?}")),
        }
    }
    Ok((selection, page))
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn each<T: FromStr<Err: ToString>>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').filter(|item| !item.is_empty()).map(one).collect()
}

fn one<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_selection_is_read_as_it_was_written() {
        let id = |number| RecordId::new(number).unwrap();
        let full = Selection {
            ids: Some(vec![id(3), id(1)]),
            states: Some(vec![State::Dead, State::Pending]),
            hook: Some("a&b=c d+e%20\u{e9}".into()),
            repository: Some("github.com/acme/widgets".into()),
            received_before: Some(Timestamp::from_millis(1_800_000_000_123)),
        };
        let none = Selection { ids: Some(vec![]), states: Some(vec![]), ..Selection::default() };
        for selection in [full, none, Selection::default()] {
            for page in [Page::default(), Page { after: Some(id(7)), limit: 1000 }] {
                let (read, read_page) = read(&write(&selection, page)).unwrap();
                assert_eq!(format!("{read:?}"), format!("{selection:?}"));
                assert_eq!((read_page.after, read_page.limit), (page.after, page.limit));
            }
        }
        let (read, page) = read("").unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", Selection::default()));
        assert_eq!((page.after, page.limit), (None, 100));
    }

    #[test]
    fn what_is_misspelt_is_refused_and_not_left_out() {
        for (query, wanted) in [
            ("states=dead", "unknown parameter"),
            ("state=dad", "unknown state, expected pending, leased, delivered or dead"),
            ("state=dead&state=pending", "twice"),
            ("id=1,x", "not the number of a delivery"),
            ("after=0", "not the number of a delivery"),
            ("limit=0", "not a positive number"),
            ("limit=-1", "not a positive number"),
            ("before=yesterday", "not an RFC 3339 time"),
            ("hook=%ff", "no UTF-8"),
            ("dead", "unknown parameter"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(wanted), "{query}: {error}");
        }
    }
}
