//! A delivery as somebody caught it: the head as text, in one of the forms in which it is shown.
//!
//! Taken are the lines of a request, with its request line or without, as `curl -v` shows it (`> Name: value`),
//! as GitHub's *Recent deliveries* does (`Request URL: …` among the headers), and the JSON of its API.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri};
use serde_json::Value;

/// What was caught.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Capture {
    /// Reads the head.
    ///
    /// An error is a line and what is wrong there, and never a piece of it: headers hold tokens.
    pub(crate) fn read(head: &[u8], body: Bytes) -> Result<Self, String> {
        let head = std::str::from_utf8(head).map_err(|_| "the headers are not UTF-8")?;
        let head = head.trim_start_matches('\u{feff}');
        let mut capture = Self {
            method: Method::POST,
            uri: Uri::from_static("/"),
            headers: HeaderMap::new(),
            body,
        };
        if head.trim_start().starts_with('{') {
            capture.read_json(head)?;
        } else {
            capture.read_lines(head)?;
        }
        if capture.headers.is_empty() {
            return Err("there is no header".into());
        }
        Ok(capture)
    }

    fn read_json(&mut self, text: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("line {}: no headers as JSON", error.line()))?;
        let headers = value.pointer("/request/headers").or_else(|| value.get("headers"));
        let headers = headers.unwrap_or(&value).as_object().ok_or("no headers in this JSON")?;
        for (name, value) in headers {
            let values =
                value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                let value = value.as_str().ok_or("a header in this JSON is no text")?;
                self.header(name, value).map_err(|fault| format!("in this JSON, {fault}"))?;
            }
        }
        Ok(())
    }

    fn read_lines(&mut self, text: &str) -> Result<(), String> {
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let told = |fault: &str| format!("line {}: {fault}", index + 1);
            let line = strip_marks(line);
            if line.is_empty() || self.request_line(line) {
                continue;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| told("expected a header, Name: value"))?;
            let mut value = value.trim();
            // A page may have put the value below its name.
            if value.is_empty()
                && let Some((_, next)) = lines.peek()
                && !next.trim().is_empty()
                && !next.contains(':')
            {
                value = next.trim();
                lines.next();
            }
            match name.trim().to_ascii_lowercase().as_str() {
                "request url" => self.uri = path_of(value).ok_or_else(|| told("this is no URL"))?,
                "request method" => {
                    self.method = value.parse().map_err(|_| told("this is no method"))?;
                }
                name => self.header(name, value).map_err(told)?,
            }
        }
        Ok(())
    }

    /// `POST /webhook HTTP/1.1`; whether it was one.
    fn request_line(&mut self, line: &str) -> bool {
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return false;
        };
        match (method.parse(), path_of(target)) {
            (Ok(method), Some(uri)) if version.starts_with("HTTP/") => {
                (self.method, self.uri) = (method, uri);
                true
            }
            _ => false,
        }
    }

    fn header(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let name: HeaderName = name.trim().parse().map_err(|_| "this is no name of a header")?;
        let value = HeaderValue::from_str(value.trim())
            .or_else(|_| HeaderValue::from_bytes(value.trim().as_bytes()))
            .map_err(|_| "a header cannot have this value")?;
        self.headers.append(name, value);
        Ok(())
    }
}

/// Without what programs put before a line of a head.
fn strip_marks(line: &str) -> &str {
    let line = line.trim();
    line.strip_prefix("> ").unwrap_or(if line == ">" { "" } else { line })
}

/// Of a URL its path and query, which is what a request has.
fn path_of(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    uri.path_and_query().map_or("/", |path| path.as_str()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Capture, String> {
        Capture::read(text.as_bytes(), Bytes::new())
    }

    #[test]
    fn every_way_in_which_a_head_is_shown_is_read_alike() {
        let github = "Request URL: https://gate.example.com/webhook?x=1\nRequest method: POST\n\
             Accept: */*\nX-GitHub-Event:\npush\n";
        let wire = "POST /webhook?x=1 HTTP/1.1\r\nAccept: */*\r\nX-GitHub-Event: push\r\n\r\n";
        let curl = "> POST /webhook?x=1 HTTP/1.1\n> Accept: */*\n> X-GitHub-Event: push\n>\n";
        for text in [github, wire, curl] {
            let capture = read(text).unwrap();
            assert_eq!(
                (capture.method, capture.uri.to_string()),
                (Method::POST, "/webhook?x=1".into())
            );
            assert_eq!(capture.headers["x-github-event"], "push", "{text}");
            assert_eq!(
                (&capture.headers["accept"], capture.headers.len()),
                (&"*/*".parse().unwrap(), 2)
            );
        }
        for text in [
            r#"{"X-GitHub-Event": "push"}"#,
            r#"{"id": 1, "request": {"headers": {"X-GitHub-Event": ["push"]}, "payload": {}}}"#,
        ] {
            assert_eq!(read(text).unwrap().headers["x-github-event"], "push", "{text}");
        }
    }

    #[test]
    fn what_comes_twice_stays_twice_and_what_is_empty_stays_empty() {
        let capture = read("X-A: 1\nX-A: 2\nX-B:\nX-C: 3\n").unwrap();
        assert_eq!(capture.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(capture.headers["x-b"], "");
    }

    #[test]
    fn what_is_no_head_is_refused_without_its_text() {
        for (text, wanted) in [
            ("", "there is no header"),
            ("s3cret\n", "line 1: expected a header, Name: value"),
            ("A: b\ns3 cret: x\n", "line 2: this is no name of a header"),
            ("{\"a\": 1}", "a header in this JSON is no text"),
            ("{\"a\": \n s3cret}", "line 2: no headers as JSON"),
            ("A: s3cret\u{7f}\n", "line 1: a header cannot have this value"),
        ] {
            assert_eq!(read(text).unwrap_err(), wanted, "{text}");
        }
    }
}
