//! The git hosts whose deliveries hookgate knows, and the names of the headers that they send.
//!
//! A [`Provider`] says whose *format* a delivery has: which headers prove it, name its event and
//! number it. [`Providers`] is the set of them that a hook takes.
//!
//! # Detection
//!
//! A hook that takes one provider detects nothing: that provider's rules hold, whatever headers
//! come. Where a hook takes several, [`detect`] goes through them in a fixed order, since some
//! hosts also send the headers of others (Forgejo sends Gitea's, Gogs' and GitHub's):
//!
//! 1. Forgejo, Gitea, Gogs, Gitee, GitLab, GitHub: by their own headers
//! 2. Bitbucket Cloud (`X-Hook-UUID`), then Bitbucket Server (`X-Event-Key`)
//! 3. manual (`x-bbb-webhook-type`), Gerrit (`X-Origin-Url`)
//! 4. Standard Webhooks (`webhook-signature` and nothing of the above)
//! 5. Azure DevOps (`Authorization: Basic`, or the header that the hook names for it)
//! 6. generic (the header that the hook names for it)
//!
//! The sender chooses the headers, so detection decides only *which* proof is asked for, never
//! whether one is.

use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

/// A name that is made once and hashed quickly.
macro_rules! header {
    ($name:literal) => {{
        static NAME: HeaderName = HeaderName::from_static($name);
        Some(&NAME)
    }};
}

/// A git host, or another origin of deliveries, whose format hookgate knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Provider {
    /// GitHub, GitHub Enterprise Server and GitBucket.
    Github,
    /// GitLab: project, group and system hooks.
    Gitlab,
    /// Bitbucket Cloud.
    BitbucketCloud,
    /// Bitbucket Server and Data Center.
    BitbucketServer,
    /// Gitea.
    Gitea,
    /// Forgejo.
    Forgejo,
    /// Gogs.
    Gogs,
    /// Azure DevOps Services and Server.
    AzureDevops,
    /// Gerrit with its `webhooks` plugin.
    Gerrit,
    /// Gitee.
    Gitee,
    /// A trigger made by hand, as Git Integration for Jira documents it.
    Manual,
    /// A sender whose signature header a hook describes.
    Generic,
    /// A sender that follows the [Standard Webhooks](https://www.standardwebhooks.com) specification.
    StandardWebhooks,
}

impl Provider {
    /// All providers, in the order of detection.
    pub const ALL: [Self; 13] = [
        Self::Forgejo,
        Self::Gitea,
        Self::Gogs,
        Self::Gitee,
        Self::Gitlab,
        Self::Github,
        Self::BitbucketCloud,
        Self::BitbucketServer,
        Self::Manual,
        Self::Gerrit,
        Self::StandardWebhooks,
        Self::AzureDevops,
        Self::Generic,
    ];

    /// The name in configuration, headers, metrics and logs, such as `azure-devops`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::BitbucketCloud => "bitbucket-cloud",
            Self::BitbucketServer => "bitbucket-server",
            Self::Gitea => "gitea",
            Self::Forgejo => "forgejo",
            Self::Gogs => "gogs",
            Self::AzureDevops => "azure-devops",
            Self::Gerrit => "gerrit",
            Self::Gitee => "gitee",
            Self::Manual => "manual",
            Self::Generic => "generic",
            Self::StandardWebhooks => "standard-webhooks",
        }
    }

    /// The header that names the event, where the provider has one.
    ///
    /// Azure DevOps and Gerrit name it in the body; Standard Webhooks has no rule for it.
    pub fn event_header(self) -> Option<&'static HeaderName> {
        match self {
            Self::Github => header!("x-github-event"),
            Self::Gitlab => header!("x-gitlab-event"),
            Self::BitbucketCloud | Self::BitbucketServer => header!("x-event-key"),
            Self::Gitea => header!("x-gitea-event"),
            Self::Forgejo => header!("x-forgejo-event"),
            Self::Gogs => header!("x-gogs-event"),
            Self::Gitee => header!("x-gitee-event"),
            Self::Manual => header!("x-bbb-webhook-type"),
            Self::AzureDevops | Self::Gerrit | Self::Generic | Self::StandardWebhooks => None,
        }
    }

    /// The header that numbers the delivery, where the provider has one.
    ///
    /// No host signs it (Standard Webhooks' `webhook-id` is the exception), so it serves to find a
    /// delivery in a log and not to tell two apart.
    pub fn delivery_header(self) -> Option<&'static HeaderName> {
        match self {
            Self::Github => header!("x-github-delivery"),
            Self::Gitlab => header!("idempotency-key"),
            Self::BitbucketCloud => header!("x-request-uuid"),
            Self::BitbucketServer => header!("x-request-id"),
            Self::Gitea => header!("x-gitea-delivery"),
            Self::Forgejo => header!("x-forgejo-delivery"),
            Self::Gogs => header!("x-gogs-delivery"),
            Self::Manual => header!("x-bbb-webhook-id"),
            Self::StandardWebhooks => header!("webhook-id"),
            Self::AzureDevops | Self::Gerrit | Self::Generic | Self::Gitee => None,
        }
    }

    /// The provider that a header of this name tells from others, whatever its value.
    fn told_by(header: &str) -> Option<Self> {
        let Some(name) = header.strip_prefix("x-") else {
            return (header == "webhook-signature").then_some(Self::StandardWebhooks);
        };
        Some(match name {
            "github-event" | "hub-signature-256" => Self::Github,
            "gitlab-event" | "gitlab-token" => Self::Gitlab,
            "hook-uuid" => Self::BitbucketCloud,
            "event-key" => Self::BitbucketServer,
            "gitea-event" | "gitea-signature" => Self::Gitea,
            "forgejo-event" | "forgejo-signature" => Self::Forgejo,
            "gogs-event" | "gogs-signature" => Self::Gogs,
            "origin-url" => Self::Gerrit,
            "gitee-event" | "gitee-token" => Self::Gitee,
            "bbb-webhook-type" => Self::Manual,
            _ => return None,
        })
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == name).ok_or(UnknownProvider(()))
    }
}

/// The error of reading a [`Provider`] from a name that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProvider(());

impl fmt::Display for UnknownProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown provider, expected one of ")?;
        for (n, provider) in Provider::ALL.into_iter().enumerate() {
            write!(f, "{}{provider}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownProvider {}

/// The set of providers that a hook takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Providers(u16);

impl Providers {
    /// Every provider.
    pub const ALL: Self = {
        let mut bits = 0;
        let mut n = 0;
        while n < Provider::ALL.len() {
            bits |= Provider::ALL[n].bit();
            n += 1;
        }
        Self(bits)
    };

    /// Whether the set holds `provider`.
    pub const fn contains(self, provider: Provider) -> bool {
        self.0 & provider.bit() != 0
    }

    /// The providers of the set, in the order of detection.
    pub fn iter(self) -> impl Iterator<Item = Provider> {
        Provider::ALL.into_iter().filter(move |provider| self.contains(*provider))
    }

    /// The only provider of the set, if it holds exactly one.
    pub fn only(self) -> Option<Provider> {
        if self.0.count_ones() == 1 { self.iter().next() } else { None }
    }

    /// Whether the set holds nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Provider> for Providers {
    fn from_iter<I: IntoIterator<Item = Provider>>(providers: I) -> Self {
        Self(providers.into_iter().fold(0, |bits, provider| bits | provider.bit()))
    }
}

impl From<Provider> for Providers {
    fn from(provider: Provider) -> Self {
        Self(provider.bit())
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The provider whose headers these are, among those that a hook takes.
///
/// `custom` tells whether the header that a hook's configuration names for a provider
/// (Azure DevOps, generic) is there. `None` where nothing matches: then only the body can tell,
/// and it is looked at only after a credential held.
pub fn detect(
    headers: &HeaderMap,
    providers: Providers,
    custom: impl Fn(Provider) -> bool,
) -> Option<Provider> {
    if let Some(only) = providers.only() {
        return Some(only);
    }
    let told: Providers =
        headers.keys().filter_map(|name| Provider::told_by(name.as_str())).collect();
    providers.iter().find(|&provider| {
        told.contains(provider)
            || provider == Provider::AzureDevops && has_basic_credentials(headers)
            || custom(provider)
    })
}

fn has_basic_credentials(headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).is_some_and(|value| {
        value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| (HeaderName::from_static(name), "x".parse().unwrap())).collect()
    }

    fn detected(names: &[&'static str]) -> Option<Provider> {
        detect(&headers(names), Providers::ALL, |_| false)
    }

    #[test]
    fn every_name_reads_back_and_no_other_does() {
        for provider in Provider::ALL {
            assert_eq!(provider.as_str().parse(), Ok(provider));
            assert!(Providers::ALL.contains(provider));
        }
        assert!("GitHub".parse::<Provider>().is_err());
        assert!(
            "bitbucket".parse::<Provider>().unwrap_err().to_string().contains("bitbucket-cloud")
        );
    }

    #[test]
    fn a_host_that_sends_the_headers_of_others_is_told_apart() {
        let github = ["x-github-event", "x-hub-signature-256"];
        let gogs = [&github[..], &["x-gogs-event"]].concat();
        let gitea = [&gogs[..], &["x-gitea-event"]].concat();
        let forgejo = [&gitea[..], &["x-forgejo-event"]].concat();
        assert_eq!(detected(&github), Some(Provider::Github));
        assert_eq!(detected(&gogs), Some(Provider::Gogs));
        assert_eq!(detected(&gitea), Some(Provider::Gitea));
        assert_eq!(detected(&forgejo), Some(Provider::Forgejo));
    }

    #[test]
    fn the_two_bitbuckets_differ_by_the_hook_uuid() {
        assert_eq!(detected(&["x-event-key", "x-hook-uuid"]), Some(Provider::BitbucketCloud));
        assert_eq!(detected(&["x-event-key"]), Some(Provider::BitbucketServer));
    }

    #[test]
    fn a_hook_with_one_provider_detects_nothing() {
        let only = Providers::from(Provider::Github);
        assert_eq!(detect(&headers(&["x-gitlab-event"]), only, |_| true), Some(Provider::Github));
    }

    #[test]
    fn standard_webhooks_is_what_carries_nothing_but_its_signature() {
        assert_eq!(detected(&["webhook-signature"]), Some(Provider::StandardWebhooks));
        assert_eq!(detected(&["webhook-signature", "x-gitlab-event"]), Some(Provider::Gitlab));
    }

    #[test]
    fn basic_credentials_mean_azure_and_other_ones_do_not() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "bAsIc eDp5".parse().unwrap());
        assert_eq!(detect(&headers, Providers::ALL, |_| false), Some(Provider::AzureDevops));
        headers.insert(AUTHORIZATION, "Bearer eDp5".parse().unwrap());
        assert_eq!(detect(&headers, Providers::ALL, |_| false), None);
    }

    #[test]
    fn a_provider_that_the_hook_does_not_take_is_not_detected() {
        let providers = [Provider::Github, Provider::Gitlab].into_iter().collect();
        assert_eq!(detect(&headers(&["x-gitea-event"]), providers, |_| false), None);
        let gitea_as_github = headers(&["x-gitea-event", "x-github-event"]);
        assert_eq!(detect(&gitea_as_github, providers, |_| false), Some(Provider::Github));
    }
}
