//! The schemes of one hook: which one holds for which provider.

use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use super::{
    AzureDevops, BitbucketCloud, BitbucketServer, Family, Generic, Gitea, Gitee, Github, Gitlab,
    Scheme, StandardWebhooks,
};
use crate::provider::{self, Provider, Providers};

/// The scheme of each provider, with what a hook's configuration says of it.
#[derive(Clone, Debug, Default)]
pub struct Schemes {
    azure_devops: AzureDevops,
    gitee: Gitee,
    generic: Option<Custom>,
}

/// The scheme of the generic provider, and the header by which that is told.
#[derive(Clone, Debug)]
struct Custom {
    header: HeaderName,
    scheme: Arc<dyn Scheme>,
}

impl Schemes {
    /// How Azure DevOps proves its deliveries.
    #[must_use]
    pub fn azure_devops(mut self, scheme: AzureDevops) -> Self {
        self.azure_devops = scheme;
        self
    }

    /// How Gitee proves its deliveries.
    #[must_use]
    pub fn gitee(mut self, scheme: Gitee) -> Self {
        self.gitee = scheme;
        self
    }

    /// How the generic provider proves its deliveries. Without this it proves nothing.
    #[must_use]
    pub fn generic(self, scheme: Generic) -> Self {
        let header = scheme.header().clone();
        self.custom(scheme, header)
    }

    /// A scheme of your own in the place of the generic provider's, told by the presence of a header.
    #[must_use]
    pub fn custom(mut self, scheme: impl Scheme + 'static, header: HeaderName) -> Self {
        self.generic = Some(Custom { header, scheme: Arc::new(scheme) });
        self
    }

    /// The scheme of a provider; `None` for those that can only be given a URL key.
    pub fn get(&self, provider: Provider) -> Option<&dyn Scheme> {
        Some(match provider {
            Provider::Github => &Github,
            Provider::Gitlab => &Gitlab,
            Provider::BitbucketCloud => &BitbucketCloud,
            Provider::BitbucketServer => &BitbucketServer,
            Provider::Gitea => &Gitea(Family::Gitea),
            Provider::Forgejo => &Gitea(Family::Forgejo),
            Provider::Gogs => &Gitea(Family::Gogs),
            Provider::AzureDevops => &self.azure_devops,
            Provider::Gitee => &self.gitee,
            Provider::StandardWebhooks => &StandardWebhooks,
            Provider::Generic => &*self.generic.as_ref()?.scheme,
            Provider::Gerrit | Provider::Manual => return None,
        })
    }

    /// The provider whose headers these are, among those that the hook takes.
    pub fn detect(&self, headers: &HeaderMap, providers: Providers) -> Option<Provider> {
        provider::detect(headers, providers, |provider| {
            self.custom_header(provider).is_some_and(|name| headers.contains_key(name))
        })
    }

    /// The header that the configuration names for a provider.
    fn custom_header(&self, provider: Provider) -> Option<&HeaderName> {
        match provider {
            Provider::AzureDevops => self.azure_devops.custom_header(),
            Provider::Generic => self.generic.as_ref().map(|custom| &custom.header),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::headers;
    use super::*;

    #[test]
    fn a_configured_header_is_what_its_provider_is_told_by() {
        let name = HeaderName::from_static("x-signature");
        let token = HeaderName::from_static("x-gate-token");
        let schemes = Schemes::default()
            .generic(Generic::new(name))
            .azure_devops(AzureDevops::default().header(token));
        let detect =
            |pairs: &[(&'static str, &str)]| schemes.detect(&headers(pairs), Providers::ALL);
        assert_eq!(detect(&[("x-signature", "x")]), Some(Provider::Generic));
        assert_eq!(detect(&[("x-gate-token", "x")]), Some(Provider::AzureDevops));
        assert_eq!(detect(&[("x-other", "x")]), None);
        let plain = Schemes::default();
        assert_eq!(plain.detect(&headers(&[("x-signature", "x")]), Providers::ALL), None);
        assert!(plain.get(Provider::Generic).is_none());
    }

    #[test]
    fn only_hosts_that_prove_nothing_have_no_scheme() {
        let schemes = Schemes::default().generic(Generic::new(HeaderName::from_static("x-s")));
        let without: Vec<_> =
            Provider::ALL.into_iter().filter(|&provider| schemes.get(provider).is_none()).collect();
        assert_eq!(without, [Provider::Manual, Provider::Gerrit]);
    }
}
