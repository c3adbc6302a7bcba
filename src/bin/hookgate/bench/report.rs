//! What is told at the end, for people and for programs.

use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use hdrhistogram::Histogram;
use hookgate::provider::Provider;
use serde_json::{Map, Value, json};

use super::load::Loop;
use super::tally::{LATE, Tally, corrected};

/// What is shown of a histogram.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

pub(super) struct Report {
    /// Scheme and authority; the path can hold a key.
    pub(super) origin: String,
    pub(super) provider: Provider,
    pub(super) load: Loop,
    pub(super) body_bytes: usize,
    pub(super) repositories: usize,
    /// Without the warm-up, and up to the interrupt if there was one.
    pub(super) duration: Duration,
    pub(super) is_interrupted: bool,
    pub(super) tally: Tally,
}

impl Report {
    pub(super) fn print(&self, as_json: bool) -> ExitCode {
        if as_json {
            println!("{}", self.json());
        } else {
            print!("{}", self.text());
        }
        if self.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Whether all that was due, up to an interrupt, was answered 2xx.
    fn is_good(&self) -> bool {
        let tally = &self.tally;
        let all_taken = tally.statuses.keys().all(|status| (200..300).contains(status));
        tally.answered > 0 && all_taken && tally.errors() == 0 && tally.not_sent == 0
    }

    fn per_second(&self) -> f64 {
        let seconds = self.duration.as_secs_f64();
        if seconds > 0.0 { self.tally.answered_in_time as f64 / seconds } else { 0.0 }
    }

    /// In the closed loop, what the connections would have measured had they not waited.
    fn latency(&self) -> Histogram<u64> {
        match self.load {
            Loop::Open { .. } => self.tally.latency.clone(),
            Loop::Closed { .. } => corrected(&self.tally.latency),
        }
    }

    /// Begun, and neither answered nor failed: what an interrupt found under way.
    fn abandoned(&self) -> u64 {
        self.tally.begun - self.tally.answered - self.tally.errors()
    }

    fn text(&self) -> String {
        let tally = &self.tally;
        let mut rows = vec![("target", self.origin.clone())];
        let load = match self.load {
            Loop::Open { rate, .. } => format!("{rate}/s"),
            Loop::Closed { connections } => format!("{connections} connections"),
        };
        rows.push((
            "load",
            format!(
                "{load} for {}, as {}, {} each, {} repositories",
                seconds(self.duration),
                self.provider,
                bytes(self.body_bytes),
                self.repositories
            ),
        ));
        rows.push(("sent", format!("{} over {} connections", tally.begun, tally.connections)));
        let while_sending = tally.begun - tally.signed_before;
        if while_sending > 0 {
            rows.push(("signed", format!("{while_sending} of them while sending")));
        }
        if tally.warm_up > 0 {
            rows.push(("warm-up", format!("{} more, which do not count", tally.warm_up)));
        }
        rows.push(("answered", counts(&tally.statuses).unwrap_or_else(|| "none".into())));
        rows.extend(counts(&tally.outcomes).map(|counts| ("outcome", counts)));
        for (kind, (count, text)) in &tally.errors {
            rows.push(("error", format!("{} {count}, the first: {text}", kind.as_str())));
        }
        if self.is_interrupted {
            rows.push(("interrupted", format!("{} were under way", self.abandoned())));
        }
        let rate = self.per_second();
        let megabytes = rate * self.body_bytes as f64 / 1e6;
        rows.push(("throughput", format!("{rate:.1} requests/s, {megabytes:.2} MB/s of bodies")));
        rows.push(("", QUANTILES.map(|(name, _)| format!("{name:>10}")).concat()));
        rows.push(("latency", times(&self.latency())));
        rows.push(("from sending", times(&tally.service_time)));
        if let Loop::Open { connections, .. } = self.load {
            rows.push(("schedule", self.schedule(connections)));
        }
        rows.iter().map(|(name, text)| format!("{name:<14}{text}\n")).collect()
    }

    fn schedule(&self, connections: usize) -> String {
        let tally = &self.tally;
        if tally.late == 0 && tally.not_sent == 0 {
            return "kept".into();
        }
        let mut text = format!(
            "NOT kept: {} began more than {} ms late, the latest {}",
            tally.late,
            LATE.as_millis(),
            millis(tally.latest.as_secs_f64() * 1e3)
        );
        if tally.not_sent > 0 {
            text.push_str(&format!("; {} were never sent", tally.not_sent));
        }
        if tally.connections >= connections as u64 {
            text.push_str(&format!("; all {connections} connections were in use"));
        }
        text
    }

    fn json(&self) -> Value {
        let tally = &self.tally;
        let (mode, rate, connections) = match self.load {
            Loop::Open { rate, .. } => ("open", Some(rate), None),
            Loop::Closed { connections } => ("closed", None, Some(connections)),
        };
        let statuses: Map<_, _> = tally
            .statuses
            .iter()
            .map(|(status, count)| (status.to_string(), Value::from(*count)))
            .collect();
        let errors: Map<_, _> = tally
            .errors
            .iter()
            .map(|(kind, (count, text))| {
                (kind.as_str().to_owned(), json!({"count": count, "first": text}))
            })
            .collect();
        let rate_seen = self.per_second();
        json!({
            "target": self.origin, "provider": self.provider.as_str(), "loop": mode, "rate": rate,
            "connections": connections, "body_bytes": self.body_bytes, "repositories": self.repositories,
            "duration_seconds": self.duration.as_secs_f64(), "interrupted": self.is_interrupted,
            "sent": tally.begun, "signed_before": tally.signed_before, "warm_up": tally.warm_up, "answered": tally.answered, "abandoned": self.abandoned(),
            "connections_opened": tally.connections, "statuses": statuses, "outcomes": tally.outcomes,
            "errors": errors, "requests_per_second": rate_seen,
            "body_bytes_per_second": rate_seen * self.body_bytes as f64,
            "latency": distribution(&self.latency()),
            "from_sending": distribution(&tally.service_time),
            "schedule": {
                "kept": tally.late == 0 && tally.not_sent == 0, "late": tally.late,
                "latest_ms": tally.latest.as_secs_f64() * 1e3, "not_sent": tally.not_sent,
            },
            "good": self.is_good(),
        })
    }
}

/// How far it is.
pub(super) fn line(tally: &Tally, measured: Duration, whole: Duration) -> String {
    let passed = measured.min(whole);
    let at = |quantile| millis(tally.service_time.value_at_quantile(quantile) as f64 / 1e3);
    let taken = tally.statuses.range(200..300).map(|(_, count)| count).sum::<u64>();
    format!(
        "{:.0}/{:.0} s  {:.0}/s  p50 {}  p99 {}  2xx {taken}  other {}  errors {}",
        passed.as_secs_f64(),
        whole.as_secs_f64(),
        tally.answered as f64 / measured.as_secs_f64(),
        at(0.5),
        at(0.99),
        tally.answered - taken,
        tally.errors()
    )
}

fn counts<K: ToString>(counts: &std::collections::BTreeMap<K, u64>) -> Option<String> {
    let each: Vec<_> =
        counts.iter().map(|(what, count)| format!("{} {count}", what.to_string())).collect();
    (!each.is_empty()).then(|| each.join(", "))
}

fn times(histogram: &Histogram<u64>) -> String {
    let at = |quantile| millis(histogram.value_at_quantile(quantile) as f64 / 1e3);
    QUANTILES.map(|(_, quantile)| format!("{:>10}", at(quantile))).concat()
}

/// All of a histogram, the finer the nearer to its end.
fn distribution(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let mut object: Map<_, _> = QUANTILES
        .iter()
        .map(|(name, quantile)| (format!("{name}_ms"), Value::from(at(*quantile))))
        .collect();
    let mut count = 0;
    let percentiles = histogram.iter_quantiles(5).map(|step| {
        count += step.count_since_last_iteration();
        json!({
            "percentile": step.quantile_iterated_to() * 100.0,
            "ms": step.value_iterated_to() as f64 / 1e3, "count": count,
        })
    });
    object.insert("percentiles".into(), percentiles.collect());
    object.into()
}

fn millis(millis: f64) -> String {
    if millis < 10.0 { format!("{millis:.2}ms") } else { format!("{millis:.0}ms") }
}

fn seconds(time: Duration) -> String {
    format!("{} s", (time.as_secs_f64() * 10.0).round() / 10.0)
}

fn bytes(count: usize) -> String {
    ByteSize(count as u64).display().iec().to_string()
}
