//! Who may call, and whose word counts for who calls.

use std::path::PathBuf;

use super::spanned::Spanned;

use super::value::{self, Reader};
use crate::pace::Rate;
use crate::source::{ClientHeader, NetworkError, Networks, TrustedProxies};

/// From where a hook takes requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowFrom {
    /// The networks that are named.
    pub networks: Networks,
    /// Files with more of them, which are followed. Whether they can be read is not looked at here.
    pub files: Vec<PathBuf>,
}

/// A list of values, with its place and theirs.
pub(super) type List = Option<Spanned<Vec<Spanned<String>>>>;

/// `None` where nothing is said.
pub(super) fn check_allow_from(
    networks: List,
    files: Option<Spanned<Vec<PathBuf>>>,
    reader: &mut Reader<'_>,
) -> Option<AllowFrom> {
    let at = networks.as_ref().map(Spanned::span).or_else(|| files.as_ref().map(Spanned::span))?;
    let named = networks.map(Spanned::into_inner).unwrap_or_default();
    let files = files.map(Spanned::into_inner).unwrap_or_default();
    if named.is_empty() && files.is_empty() {
        let text = "an empty list would let nobody in; leave this out for everybody";
        reader.problem(Some(at), text.into());
    }
    let networks = reader.all(Some(named), Networks::parse).unwrap_or_default();
    let files = files.into_iter().map(|path| reader.path(path)).collect();
    Some(AllowFrom { networks: networks.into_iter().collect(), files })
}

/// The word for whoever connects over a Unix socket.
const UNIX: &str = "unix";

/// Nobody is trusted unless he is named.
pub(super) fn check_proxies(
    proxies: List,
    header: Option<Spanned<String>>,
    reader: &mut Reader<'_>,
) -> TrustedProxies {
    let proxies = reader.all(proxies.map(Spanned::into_inner), proxy).unwrap_or_default();
    let has_unix = proxies.iter().any(Option::is_none);
    let headers =
        [("x-forwarded-for", ClientHeader::XForwardedFor), ("forwarded", ClientHeader::Forwarded)];
    let header = reader.value(header, value::word(&headers)).unwrap_or_default();
    TrustedProxies::new(proxies.into_iter().flatten().collect(), header).with_unix(has_unix)
}

/// A network, or `None` for Unix sockets.
fn proxy(text: &str) -> Result<Option<Networks>, String> {
    if text == UNIX {
        return Ok(None);
    }
    Networks::parse(text).map(Some).map_err(|error| match error {
        NetworkError::Neither => format!("{error}, or \"{UNIX}\""),
        _ => error.to_string(),
    })
}

/// A rate, or `off`.
pub(super) fn optional_rate(text: &str) -> Result<Option<Rate>, String> {
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| format!("{error}, or \"off\""))
}
