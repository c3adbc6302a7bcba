//! Where the sidecar listens, and who may connect.

use std::path::Path;

use super::spanned::Spanned;

use super::value::{self, Reader};
use crate::proxy::socket::{AddressError, ListenAddress};
use crate::source::Networks;

/// `off` for nowhere.
pub(super) fn optional_address(
    text: &str,
    folder: Option<&Path>,
) -> Result<Option<ListenAddress>, AddressError> {
    if text == "off" { Ok(None) } else { ListenAddress::parse(text, folder).map(Some) }
}

/// Permissions as `chmod` takes them. A socket that nobody may open, or that its owner may not, is a mistake.
pub(super) fn socket_mode(text: &str) -> Result<u32, &'static str> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = if is_octal { u32::from_str_radix(text, 8).ok() } else { None };
    mode.filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600).ok_or(
        "expected permissions in octal such as \"0660\", with which the owner can read and write",
    )
}

/// Those from which the PROXY protocol is required; `None` if it is off.
pub(super) fn check_proxies(
    mode: Option<Spanned<String>>,
    from: Option<Spanned<Vec<Spanned<String>>>>,
    listen: &ListenAddress,
    reader: &mut Reader<'_>,
) -> Option<Networks> {
    let at = mode.as_ref().map(Spanned::span);
    let modes = [("off", false), ("require", true)];
    let is_required = reader.value(mode, value::word(&modes)).unwrap_or_default();
    match from {
        Some(from) => {
            let at = Some(from.span());
            if !is_required {
                let text = "has no effect without proxy_protocol = \"require\"";
                reader.problem(at.clone(), text.into());
            }
            let from = from.into_inner();
            if from.is_empty() {
                reader.problem(at, "nobody could connect; name the proxies".into());
            }
            let networks = reader.all(Some(from), Networks::parse).unwrap_or_default();
            is_required.then(|| networks.into_iter().collect())
        }
        None if is_required => {
            if listen.as_ip().is_some() && !listen.is_local() {
                let text = "proxy_protocol_from is missing: the proxies that may connect from other machines, \
                            such as [\"10.0.0.0/8\"]";
                reader.problem(at, text.into());
            }
            Some(Networks::loopback())
        }
        None => None,
    }
}
