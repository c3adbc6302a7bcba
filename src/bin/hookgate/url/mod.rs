//! `hookgate url`: the webhook URL, and what to fill in at each host.

mod place;

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::ExitCode;

use hookgate::clock::{Clock, SystemClock};
use hookgate::key::{KeyKind, Keyring, Use};
use hookgate::provider::Provider;
use hookgate::proxy::config::HookConfig;
use hookgate::scheme::UrlKey;
use hookgate::time::Timestamp;
use http::Uri;
use serde_json::{Value, json};

use crate::args::UrlArgs;
use crate::hook::{listening, read_keys};
use place::Place;

pub(crate) fn run(args: &UrlArgs) -> ExitCode {
    match places(args) {
        Ok(sections) => {
            if args.json {
                let hooks: Vec<_> = sections.iter().map(Section::json).collect();
                println!("{}", Value::from(hooks));
            } else {
                let texts: Vec<_> = sections.iter().map(Section::text).collect();
                print!("{}", texts.join("\n"));
            }
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A hook with its places.
struct Section {
    hook: String,
    url: String,
    places: Vec<Place>,
}

fn places(args: &UrlArgs) -> Result<Vec<Section>, String> {
    let config = args.choice.load()?;
    let base = match &args.base_url {
        Some(url) => base_url(url)?,
        None => {
            crate::check::warn(
                "hosts may reach the gate under another URL than it listens on: --base-url names it",
            );
            listening(&config)
        }
    };
    let hooks: Vec<_> = match &args.choice.hook {
        Some(_) => vec![args.choice.resolve()?],
        None => config.hooks,
    };
    let show = args.show_key || std::io::stdout().is_terminal();
    let mut sections = Vec::new();
    for mut hook in hooks {
        if let Some(file) = &args.choice.key_file {
            hook.key_file.clone_from(file);
        }
        let (ring, _) = read_keys(&hook.key_file)?;
        let now = SystemClock.now();
        let providers = match args.provider {
            Some(provider) if hook.providers.contains(provider) => vec![provider],
            // With several hooks, those that take it are meant.
            Some(_) => continue,
            None => hook.providers.iter().collect(),
        };
        let url = format!("{base}{}", hook.path);
        let keys = Keys { hook: &hook, ring: &ring, now, show };
        let mut places: Vec<_> = providers
            .into_iter()
            .flat_map(|provider| place::of(provider, &hook, &url, &keys))
            .collect();
        // The order of detection means nothing to people.
        places.sort_by_key(|place| {
            place::RANK.iter().position(|provider| *provider == place.provider)
        });
        sections.push(Section { hook: hook.name.clone(), url, places });
    }
    if let (true, Some(provider)) = (sections.is_empty(), args.provider) {
        return Err(format!("the hook does not take {provider}"));
    }
    Ok(sections)
}

fn base_url(url: &str) -> Result<String, String> {
    const EXPECTED: &str = "--base-url: expected a URL such as https://gate.example.com";
    let uri: Uri = url.parse().map_err(|_| EXPECTED)?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
    if !is_web || has_user || uri.query().is_some() || url.contains('#') {
        return Err(EXPECTED.into());
    }
    Ok(url.trim_end_matches('/').into())
}

/// The keys of a hook, as they are shown.
struct Keys<'a> {
    hook: &'a HookConfig,
    ring: &'a Keyring,
    now: Timestamp,
    show: bool,
}

impl Keys<'_> {
    /// The primary key of a use as text, or where it stands.
    fn shown(&self, wanted: Use) -> String {
        match self.ring.primary(wanted, self.now) {
            None => format!(
                "(no active key of {} may be used for {})",
                self.hook.key_file.display(),
                wanted.as_str()
            ),
            // Whoever typed it once knows it; here are only its bytes.
            Some(key) if key.kind() == KeyKind::Encoded => {
                format!(
                    "(what the key {} stands for: what follows base64: in {}, decoded)",
                    key.name(),
                    self.hook.key_file.display()
                )
            }
            Some(key) if self.show => String::from_utf8_lossy(key.secret().expose()).into_owned(),
            Some(key) => self.hidden(key.name()),
        }
    }

    /// The primary signing token, if there is one.
    fn signing_token(&self) -> Option<String> {
        let key = self.ring.signing_tokens(self.now).next()?;
        let encoded = data_encoding::BASE64.encode(key.secret().expose());
        Some(if self.show { format!("whsec_{encoded}") } else { self.hidden(key.name()) })
    }

    fn hidden(&self, name: &str) -> String {
        format!("(key {name} of {}; --show-key shows it)", self.hook.key_file.display())
    }

    /// The URL with a key in it; why not, if the hook takes none.
    fn in_url(&self, url: &str) -> Result<String, String> {
        if self.hook.url_key == UrlKey::Refuse {
            return Err("url_key = \"refuse\": this hook takes no key in its URL, and this host can show none elsewhere".into());
        }
        match self.ring.primary(Use::Url, self.now) {
            // An encoded key is never one for a URL.
            Some(_) if self.show => Ok(format!("{url}/{}", self.shown(Use::Url))),
            Some(key) => Ok(format!("{url}/<key>   {}", self.hidden(key.name()))),
            None => Err(format!(
                "no active key of {} may be used for url",
                self.hook.key_file.display()
            )),
        }
    }

    /// The URL for a host that can prove its deliveries otherwise.
    fn without(&self, url: &str) -> String {
        if self.hook.url_key == UrlKey::Require {
            self.in_url(url).unwrap_or_else(|fault| format!("{url}   ({fault})"))
        } else {
            url.into()
        }
    }
}

impl Section {
    fn text(&self) -> String {
        let mut text = format!("hook {}: {}\n", self.hook, self.url);
        for place in &self.places {
            let _ = write!(text, "\n{}: {}\n", place.title, place.path);
            for (field, value) in &place.fields {
                let _ = writeln!(text, "  {field:34}{value}");
            }
            for note in &place.notes {
                let _ = writeln!(text, "  {note}");
            }
        }
        text
    }

    fn json(&self) -> Value {
        let places: Vec<_> = self
            .places
            .iter()
            .map(|place| {
                let fields: Vec<_> = place
                    .fields
                    .iter()
                    .map(|(name, value)| json!({"name": name, "value": value}))
                    .collect();
                json!({
                    "provider": place.provider.as_str(), "title": place.title, "path": place.path,
                    "fields": fields, "notes": place.notes,
                })
            })
            .collect();
        json!({"hook": self.hook, "url": self.url, "places": places})
    }
}
