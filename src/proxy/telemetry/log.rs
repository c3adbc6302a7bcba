//! Logs: text for people or JSON for machines, one line an event, to the standard error.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Subscriber, dispatcher};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::{Layer, MakeWriter, format};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::text::printable;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people. With colours if the standard error is a terminal and `NO_COLOR` is not set.
    #[default]
    Text,
    /// For machines: one object a line, with the fields of the event at its top, under their
    /// dotted names.
    Json,
}

impl LogFormat {
    /// The word for it: `text` or `json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(name: &str) -> Result<Self, LogError> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError { kind: LogErrorKind::Format, detail: None }),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Default: text.
    pub format: LogFormat,
    /// Which events are logged, in the [syntax of `tracing-subscriber`][EnvFilter]: levels, with
    /// exceptions by target, such as `info,hookgate::proxy::upstream=debug`. A target without a
    /// level is an error. Default: `info`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info".to_owned() }
    }
}

/// Starts to log, for the whole process and until its end.
///
/// A line is written by the thread that logs it: if the standard error is a pipe that nobody reads,
/// the process waits.
///
/// # Errors
///
/// If the filter cannot be read, or if the process already logs.
pub fn init(config: &LogConfig) -> Result<LogHandle, LogError> {
    let coloured =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (dispatch, handle) = build(config, io::stderr, coloured)?;
    dispatcher::set_global_default(dispatch)
        .map_err(|_| LogError { kind: LogErrorKind::AlreadySet, detail: None })?;
    Ok(handle)
}

/// Changes what is logged, and how, while the process runs. Clones are the same.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    /// The filter's text; held while it is replaced.
    text: Arc<Mutex<String>>,
    is_json: Arc<AtomicBool>,
}

impl LogHandle {
    /// What is logged now, and how.
    pub fn config(&self) -> LogConfig {
        let format =
            if self.is_json.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Text };
        LogConfig {
            format,
            filter: self.text.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Replaces the filter.
    ///
    /// # Errors
    ///
    /// If the filter cannot be read; then the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        let parsed = parse(filter)?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter.reload(parsed).map_err(|error| LogError {
            kind: LogErrorKind::Gone,
            detail: Some(error.to_string()),
        })?;
        filter.clone_into(&mut text);
        Ok(())
    }

    /// Writes the lines that follow in this format.
    pub fn set_format(&self, format: LogFormat) {
        self.is_json.store(format == LogFormat::Json, Ordering::Relaxed);
    }
}

/// A layer that writes events only while its format is wanted.
///
/// It is told of spans in any case: one that began under the other format must be known when an event is
/// written in this one.
struct Chosen<L> {
    layer: L,
    format: LogFormat,
    is_json: Arc<AtomicBool>,
}

impl<S, L> tracing_subscriber::Layer<S> for Chosen<L>
where
    S: Subscriber,
    L: tracing_subscriber::Layer<S>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.layer.on_new_span(attributes, id, context);
    }

    fn on_record(&self, span: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.layer.on_record(span, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if self.is_json.load(Ordering::Relaxed) == (self.format == LogFormat::Json) {
            self.layer.on_event(event, context);
        }
    }
}

/// The error of setting up or changing the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    kind: LogErrorKind,
    detail: Option<String>,
}

/// What went wrong with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogErrorKind {
    /// The format is neither `text` nor `json`.
    Format,
    /// The filter cannot be read.
    Filter,
    /// The process already logs.
    AlreadySet,
    /// The log that the handle belongs to is no longer there.
    Gone,
}

impl LogError {
    /// What went wrong.
    pub const fn kind(&self) -> LogErrorKind {
        self.kind
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            LogErrorKind::Format => "unknown log format, expected text or json",
            LogErrorKind::Filter => {
                "cannot read the log filter, expected levels such as info or \
                 info,hookgate::audit=off"
            }
            LogErrorKind::AlreadySet => "the process already logs",
            LogErrorKind::Gone => "the log is no longer there",
        })?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for LogError {}

fn build<W>(
    config: &LogConfig,
    writer: W,
    coloured: bool,
) -> Result<(Dispatch, LogHandle), LogError>
where
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&config.filter)?);
    let is_json = Arc::new(AtomicBool::new(config.format == LogFormat::Json));
    let text = Chosen {
        layer: Layer::new().with_ansi(coloured).with_writer(writer.clone()),
        format: LogFormat::Text,
        is_json: is_json.clone(),
    };
    let shape = format().json().flatten_event(true).with_span_list(false);
    let fields = format::JsonFields::new();
    let json = Chosen {
        layer: Layer::new().event_format(shape).fmt_fields(fields).with_writer(writer),
        format: LogFormat::Json,
        is_json: is_json.clone(),
    };
    let dispatch = tracing_subscriber::registry().with(filter).with(text).with(json).into();
    let text = Arc::new(Mutex::new(config.filter.clone()));
    Ok((dispatch, LogHandle { filter: handle, text, is_json }))
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    // A bare word would be a target, and a misspelt level a log that says nothing.
    let bare = |part: &&str| !part.contains(['=', '[', ']', '{', '}']) && !part.trim().is_empty();
    if let Some(word) =
        filter.split(',').filter(bare).find(|part| part.trim().parse::<LevelFilter>().is_err())
    {
        let detail = format!("{} is not a level", printable(word.trim()));
        return Err(LogError { kind: LogErrorKind::Filter, detail: Some(detail) });
    }
    // Without regular expressions: a filter compares fields as plain text.
    EnvFilter::builder()
        .with_regex(false)
        .parse(filter)
        .map_err(|error| LogError { kind: LogErrorKind::Filter, detail: Some(error.to_string()) })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `action` logs.
    pub(in super::super) fn captured(
        format: LogFormat,
        filter: &str,
        action: impl FnOnce(),
    ) -> String {
        let sink = Sink::default();
        let (writer, config) = (sink.clone(), LogConfig { format, filter: filter.to_owned() });
        let (dispatch, _handle) = build(&config, move || writer.clone(), false).unwrap();
        dispatcher::with_default(&dispatch, action);
        String::from_utf8(std::mem::take(&mut sink.0.lock().unwrap())).unwrap()
    }

    /// What `action` logs as JSON, line by line.
    pub(in super::super) fn captured_json(
        filter: &str,
        action: impl FnOnce(),
    ) -> Vec<serde_json::Value> {
        let text = captured(LogFormat::Json, filter, action);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_of_json_has_the_fields_at_its_top_and_the_span_beside_them() {
        let lines = captured_json("debug", || {
            let _span = tracing::info_span!("request", request.id = "1-1").entered();
            tracing::debug!(hook.name = "default", "Something happened");
        });
        assert_eq!(lines[0]["message"], "Something happened");
        assert_eq!(lines[0]["hook.name"], "default");
        assert_eq!(lines[0]["span"]["request.id"], "1-1");
    }

    #[test]
    fn the_filter_decides_what_is_logged() {
        let both = || {
            tracing::debug!("quiet");
            tracing::warn!("loud");
        };
        let text = captured(LogFormat::Text, "info", both);
        assert!(text.contains("loud") && !text.contains("quiet"), "{text}");
        assert!(captured(LogFormat::Text, "debug", both).contains("quiet"));
        assert_eq!(captured(LogFormat::Text, "off", both), "");
    }

    #[test]
    fn the_filter_changes_while_the_process_runs_and_a_bad_one_changes_nothing() {
        let sink = Sink::default();
        let writer = sink.clone();
        let (dispatch, handle) =
            build(&LogConfig::default(), move || writer.clone(), false).unwrap();
        let log = || dispatcher::with_default(&dispatch, || tracing::debug!("detail"));
        let lines = || String::from_utf8_lossy(&sink.0.lock().unwrap()).lines().count();
        log();
        assert_eq!(lines(), 0);
        handle.set_filter("debug").unwrap();
        log();
        assert_eq!(lines(), 1);
        assert_eq!(handle.set_filter("hookgate=loud").unwrap_err().kind(), LogErrorKind::Filter);
        log();
        assert_eq!(lines(), 2);
    }

    #[test]
    fn the_format_changes_while_a_span_is_open_and_the_span_goes_with_it() {
        let sink = Sink::default();
        let writer = sink.clone();
        let (dispatch, handle) =
            build(&LogConfig::default(), move || writer.clone(), false).unwrap();
        dispatcher::with_default(&dispatch, || {
            let span =
                tracing::info_span!("request", request.id = "1-1", more = tracing::field::Empty);
            let _entered = span.enter();
            tracing::info!("one");
            handle.set_format(LogFormat::Json);
            span.record("more", 7);
            tracing::info!("two");
            handle.set_format(LogFormat::Text);
            tracing::info!("three");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].ends_with("one") && lines[0].contains("request.id=\"1-1\""), "{text}");
        let json: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&json["message"], &json["span"]["more"]), (&"two".into(), &7.into()), "{text}");
        assert!(lines[2].ends_with("three") && lines[2].contains("more=7"), "{text}");
    }

    #[test]
    fn a_handle_tells_what_is_in_force() {
        let config = LogConfig { format: LogFormat::Json, filter: "warn".into() };
        let (_dispatch, handle) = build(&config, io::sink, false).unwrap();
        assert_eq!(handle.config(), config);
        handle.set_filter("debug").unwrap();
        handle.set_format(LogFormat::Text);
        handle.set_filter("loud").unwrap_err();
        let now = LogConfig { format: LogFormat::Text, filter: "debug".into() };
        assert_eq!(handle.config(), now);
    }

    #[test]
    fn a_handle_that_outlives_its_log_says_so() {
        let (dispatch, handle) = build(&LogConfig::default(), io::sink, false).unwrap();
        drop(dispatch);
        assert_eq!(handle.set_filter("debug").unwrap_err().kind(), LogErrorKind::Gone);
    }

    #[test]
    fn a_filter_or_format_that_cannot_be_read_is_an_error_that_says_what_can() {
        for filter in ["loud", "hookgate", "info,loud", "hookgate=loud", "a=b=c"] {
            let config = LogConfig { filter: filter.to_owned(), ..LogConfig::default() };
            let error = init(&config).expect_err(filter);
            assert_eq!(error.kind(), LogErrorKind::Filter);
            assert!(error.to_string().contains("hookgate::audit=off"), "{error}");
        }
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert_eq!("text".parse(), Ok(LogFormat::Text));
        let error = "yaml".parse::<LogFormat>().unwrap_err();
        assert_eq!(error.to_string(), "unknown log format, expected text or json");
    }

    #[test]
    fn to_set_up_the_log_twice_is_an_error() {
        let config = LogConfig { filter: "off".to_owned(), ..LogConfig::default() };
        init(&config).unwrap();
        assert_eq!(init(&config).unwrap_err().kind(), LogErrorKind::AlreadySet);
    }
}
