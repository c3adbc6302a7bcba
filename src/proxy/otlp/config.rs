//! Where spans are sent, and how: the configuration, and the variables of
//! [OpenTelemetry](https://opentelemetry.io/docs/specs/otel/protocol/exporter/) above it.

use std::fmt;
use std::fs;
use std::time::Duration;

use http::Uri;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::proxy::upstream::{UpstreamConfig, UpstreamConfigError};

/// A collector, and how it is reached.
///
/// `Debug` shows neither its path nor its headers, which can hold a key.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    pub(super) collector: UpstreamConfig,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// Of one attempt.
    pub(super) timeout: Duration,
    /// How long the first span of a batch waits for others.
    pub(super) delay: Duration,
    /// How many spans may wait.
    pub(super) queue: usize,
    /// What is said of this process.
    pub(super) resource: Vec<(String, String)>,
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// The path below an endpoint that is not for traces alone.
const PATH: &str = "/v1/traces";

impl OtlpConfig {
    /// What `endpoint` and the environment say, of which the environment comes first. `None` if neither names an
    /// endpoint, or the environment says that nothing is to be exported.
    ///
    /// `variable` reads a variable of the environment. Those that are known:
    /// `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER` (`otlp` or `none`), `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
    /// `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_MAX_QUEUE_SIZE`, and with the prefix `OTEL_EXPORTER_OTLP_` or
    /// `OTEL_EXPORTER_OTLP_TRACES_`, of which the second comes first: `ENDPOINT`, `HEADERS`, `TIMEOUT`, `CERTIFICATE`,
    /// `PROTOCOL` (`http/protobuf`). An empty one counts as none.
    ///
    /// # Errors
    ///
    /// The first that cannot be used. It does not repeat the value.
    pub fn new(
        endpoint: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, OtlpConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_off =
            variable("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
        let exporter = variable("OTEL_TRACES_EXPORTER");
        if is_off || exporter.as_deref() == Some("none") {
            return Ok(None);
        }
        let (origin, url) = if let Some(url) = variable(TRACES_ENDPOINT) {
            (TRACES_ENDPOINT, url)
        } else if let Some(base) = variable(ENDPOINT) {
            (ENDPOINT, below(&base))
        } else if let Some(base) = endpoint {
            ("", below(base))
        } else {
            return Ok(None);
        };
        let error = |variable, expected| OtlpConfigError { variable, expected };
        if exporter.is_some_and(|exporter| exporter != "otlp") {
            return Err(error("OTEL_TRACES_EXPORTER".into(), "expected otlp or none"));
        }
        let collector = UpstreamConfig::new(&url).map_err(|reason| {
            error(
                origin.into(),
                match reason {
                    UpstreamConfigError::UserInfo => {
                        "must not have a user or password; OTEL_EXPORTER_OTLP_HEADERS can have one"
                    }
                    UpstreamConfigError::Query | UpstreamConfigError::Fragment => {
                        "must not have a query or fragment"
                    }
                    _ => "expected an http or https URL such as http://127.0.0.1:4318",
                },
            )
        })?;
        let uri = url.parse().map_err(|_| error(origin.into(), "expected a URL"))?;
        let settings = Settings(&variable);
        let collector = match settings.text("CERTIFICATE") {
            None => collector,
            Some((name, path)) => {
                const EXPECTED: &str = "expected the path of a file with certificates (PEM)";
                let pem = fs::read(path).map_err(|_| error(name.clone(), EXPECTED))?;
                collector.certificate_authorities(&pem).map_err(|_| error(name, EXPECTED))?
            }
        };
        if let Some((name, _)) = settings.text("PROTOCOL").filter(|it| it.1 != "http/protobuf") {
            return Err(error(name, "expected http/protobuf, which is all that is spoken"));
        }
        let headers = match settings.text("HEADERS") {
            None => HeaderMap::new(),
            Some((name, text)) => headers(&text)
                .ok_or_else(|| error(name, "expected headers such as api-key=value,other=value"))?,
        };
        let milliseconds = |name: &str, text: &str| {
            let number = text.trim().parse().ok().filter(|number| *number > 0);
            let number =
                number.ok_or_else(|| error(name.into(), "expected milliseconds, at least 1"));
            number.map(Duration::from_millis)
        };
        let timeout = match settings.text("TIMEOUT") {
            None => Duration::from_secs(10),
            Some((name, text)) => milliseconds(&name, &text)?,
        };
        const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
        let delay = match variable(DELAY) {
            None => Duration::from_secs(5),
            Some(text) => milliseconds(DELAY, &text)?,
        };
        const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
        let queue = match variable(QUEUE) {
            None => 2048,
            Some(text) => {
                let number = text.trim().parse().ok().filter(|size| (1..=1 << 20).contains(size));
                number.ok_or_else(|| error(QUEUE.into(), "expected a number from 1 to 1048576"))?
            }
        };
        let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let attributes = pairs(&attributes).ok_or_else(|| {
            error(
                "OTEL_RESOURCE_ATTRIBUTES".into(),
                "expected attributes such as key=value,other=value",
            )
        })?;
        Ok(Some(Self {
            collector,
            uri,
            headers,
            timeout,
            delay,
            queue,
            resource: resource(attributes, variable("OTEL_SERVICE_NAME")),
        }))
    }
}

impl OtlpConfig {
    /// Scheme and authority of the collector: what a log may show.
    pub fn origin(&self) -> String {
        self.collector.origin()
    }
}

impl fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpConfig")
            .field("origin", &self.collector.origin())
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

/// Why spans cannot be exported as it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfigError {
    variable: String,
    expected: &'static str,
}

impl OtlpConfigError {
    /// The variable of the environment that is wrong; empty if the endpoint of the configuration is.
    pub fn variable(&self) -> &str {
        &self.variable
    }
}

impl fmt::Display for OtlpConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }
}

impl std::error::Error for OtlpConfigError {}

/// Those that are for all signals or for traces.
struct Settings<'a, F>(&'a F);

impl<F: Fn(&str) -> Option<String>> Settings<'_, F> {
    /// Name and value.
    fn text(&self, name: &str) -> Option<(String, String)> {
        let names =
            [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
        names.into_iter().find_map(|name| (self.0)(&name).map(|value| (name, value)))
    }
}

fn below(endpoint: &str) -> String {
    // A wrong one stays as wrong as it is.
    let (base, rest) = endpoint.split_at(endpoint.find(['?', '#']).unwrap_or(endpoint.len()));
    format!("{}{PATH}{rest}", base.trim_end_matches('/'))
}

/// [W3C Baggage](https://www.w3.org/TR/baggage/) without properties: what OpenTelemetry's variables have.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            let decode =
                |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
            Some((decode(name)?, decode(value)?)).filter(|(name, _)| !name.is_empty())
        })
        .collect()
}

fn headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(text)? {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        headers.append(name.parse::<HeaderName>().ok()?, value);
    }
    Some(headers)
}

fn resource(mut attributes: Vec<(String, String)>, name: Option<String>) -> Vec<(String, String)> {
    let mut set = |key: &str, value: String, is_default: bool| {
        let known = attributes.iter().position(|(known, _)| known == key);
        match known {
            Some(_) if is_default => {}
            Some(at) => attributes[at].1 = value,
            None => attributes.push((key.to_owned(), value)),
        }
    };
    let is_default = name.is_none();
    set("service.name", name.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned()), is_default);
    set("service.version", env!("CARGO_PKG_VERSION").to_owned(), true);
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(
        endpoint: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<Option<OtlpConfig>, OtlpConfigError> {
        OtlpConfig::new(endpoint, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn uri(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        with(endpoint, variables).unwrap().map(|config| config.uri.to_string())
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert_eq!(with(None, &[]), Ok(None));
        assert_eq!(with(None, &[(ENDPOINT, " "), ("OTEL_SERVICE_NAME", "gate")]), Ok(None));
        for off in [("OTEL_SDK_DISABLED", "True"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(with(Some("http://127.0.0.1:4318"), &[off]), Ok(None));
        }
        assert!(uri(Some("http://127.0.0.1:4318"), &[("OTEL_SDK_DISABLED", "false")]).is_some());
    }

    #[test]
    fn traces_go_below_an_endpoint_for_all_signals_and_to_one_of_their_own() {
        let file = Some("http://file:4318/");
        assert_eq!(uri(file, &[]).as_deref(), Some("http://file:4318/v1/traces"));
        let all = (ENDPOINT, "https://all.example/otlp");
        assert_eq!(uri(file, &[all]).as_deref(), Some("https://all.example/otlp/v1/traces"));
        let own = (TRACES_ENDPOINT, "http://own:4318/in");
        assert_eq!(uri(file, &[all, own]).as_deref(), Some("http://own:4318/in"));
        let own = (TRACES_ENDPOINT, "http://own:4318");
        assert_eq!(uri(None, &[own]).as_deref(), Some("http://own:4318/"));
    }

    #[test]
    fn variables_for_traces_come_before_those_for_all_signals() {
        let config = with(
            Some("http://127.0.0.1:4318"),
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=all"),
                ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=c%40nary%2C, other = 1"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                ("OTEL_BSP_SCHEDULE_DELAY", "100"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "7"),
            ],
        );
        let config = config.unwrap().unwrap();
        assert_eq!(config.headers["api-key"], "c@nary,");
        assert_eq!(config.headers["other"], "1");
        assert!(config.headers.values().all(HeaderValue::is_sensitive));
        assert_eq!(config.timeout, Duration::from_millis(2500));
        assert_eq!((config.delay, config.queue), (Duration::from_millis(100), 7));
        assert!(!format!("{config:?}").contains("nary"));
    }

    #[test]
    fn a_service_has_the_name_that_is_said_first() {
        let resource = |variables: &[(&str, &str)]| {
            with(Some("http://127.0.0.1:4318"), variables).unwrap().unwrap().resource
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let version = pair("service.version", env!("CARGO_PKG_VERSION"));
        assert_eq!(resource(&[]), [pair("service.name", "hookgate"), version.clone()]);
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,k8s.pod=p%20q");
        let pod = pair("k8s.pod", "p q");
        let expected = [pair("service.name", "a"), pod.clone(), version.clone()];
        assert_eq!(resource(&[attributes]), expected);
        let named = resource(&[attributes, ("OTEL_SERVICE_NAME", "b")]);
        assert_eq!(named, [pair("service.name", "b"), pod, version]);
    }

    #[test]
    fn what_cannot_be_used_is_an_error_that_names_the_variable_and_not_its_value() {
        let fine = (ENDPOINT, "http://127.0.0.1:4318");
        for (name, value) in [
            (ENDPOINT, "canary:4318"),
            (ENDPOINT, "http://user:canary@127.0.0.1"),
            (TRACES_ENDPOINT, "http://127.0.0.1/?key=canary"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a b=canary"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "canary"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/canary/missing.pem"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_RESOURCE_ATTRIBUTES", "canary"),
        ] {
            let variables =
                if name == ENDPOINT { vec![(name, value)] } else { vec![fine, (name, value)] };
            let error = with(None, &variables).unwrap_err();
            assert_eq!(error.variable(), name);
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let error = with(Some("ftp://127.0.0.1"), &[]).unwrap_err();
        assert_eq!(error.variable(), "");
    }
}
