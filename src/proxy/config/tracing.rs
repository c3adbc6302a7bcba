//! `[tracing]`: which trace a request belongs to, and who is told.

use super::raw::RawTracing;
use super::value::Reader;
#[cfg(feature = "otlp")]
use crate::proxy::otlp::OtlpConfig;
use crate::proxy::telemetry::Sampling;

/// How requests are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracingConfig {
    /// Whether the service behind the gate is told. Default: yes.
    pub propagate: bool,
    /// What part of the traces that begin here is recorded. Default: all.
    pub sampling: Sampling,
    /// The collector that gets the spans; `None` for none, which is the default.
    #[cfg(feature = "otlp")]
    pub export: Option<OtlpConfig>,
}

pub(super) fn check(raw: RawTracing, reader: &mut Reader<'_>) -> TracingConfig {
    const EXPECTED: &str = "expected a part from 0.0 to 1.0";
    let sampling = raw.sample.and_then(|sample| {
        let at = Some(sample.span());
        reader.keep(at, Sampling::new(sample.into_inner()).ok_or(EXPECTED))
    });
    #[cfg(feature = "otlp")]
    let export = export(raw.endpoint, reader);
    #[cfg(not(feature = "otlp"))]
    if let Some(endpoint) = raw.endpoint {
        let text = "this program cannot export spans; build it with `--features otlp`";
        reader.problem(Some(endpoint.span()), text.into());
    }
    TracingConfig {
        propagate: raw.propagate.unwrap_or(true),
        sampling: sampling.unwrap_or_default(),
        #[cfg(feature = "otlp")]
        export,
    }
}

#[cfg(feature = "otlp")]
fn export(
    endpoint: Option<super::spanned::Spanned<String>>,
    reader: &mut Reader<'_>,
) -> Option<OtlpConfig> {
    let at = endpoint.as_ref().map(super::spanned::Spanned::span);
    let endpoint = endpoint.as_ref().map(|endpoint| endpoint.get_ref().as_str());
    match OtlpConfig::new(endpoint, |name| std::env::var(name).ok()) {
        Ok(export) => export,
        Err(error) if error.variable().is_empty() => reader.keep(at, Err(error)),
        Err(error) => {
            let variable = error.variable().to_owned();
            reader.flag(&variable, "", |_| Err(error))
        }
    }
}
