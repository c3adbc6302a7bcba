//! The hook that a command is about, and its keys.

use std::env;
use std::path::{Path, PathBuf};

use hookgate::key::{Keyring, MAX_FILE_BYTES};
use hookgate::proxy::config::{Config, HookConfig, Overrides};
use hookgate::proxy::socket::ListenAddress;
use hookgate::watch::{self, FileContent};

use crate::args::HookChoice;

impl HookChoice {
    /// The configuration; what is wrong with it, one problem a line.
    pub(crate) fn load(&self) -> Result<Config, String> {
        let overrides = Overrides {
            config: self.config.clone(),
            state_dir: self.state_dir.clone(),
            // As for `serve`, where the variable stands for hooks that name none of their own.
            key_file: env::var_os("HOOKGATE_KEY_FILE").map(PathBuf::from),
            ..Overrides::default()
        };
        Config::load(&overrides).map_err(|error| {
            let problems: Vec<_> = error.problems().iter().map(ToString::to_string).collect();
            problems.join("\nerror: ")
        })
    }

    /// The hook that is meant, with the key file that is meant.
    pub(crate) fn resolve(&self) -> Result<HookConfig, String> {
        self.resolve_in(self.load()?)
    }

    /// The same, of a configuration that was loaded.
    pub(crate) fn resolve_in(&self, config: Config) -> Result<HookConfig, String> {
        let mut hook = choose(config, self.hook.as_deref())?;
        if let Some(file) = &self.key_file {
            hook.key_file.clone_from(file);
        }
        Ok(hook)
    }
}

fn choose(config: Config, name: Option<&str>) -> Result<HookConfig, String> {
    let names: Vec<_> = config.hooks.iter().map(|hook| hook.name.clone()).collect();
    let names = names.join(", ");
    let mut hooks = config.hooks.into_iter();
    match (name, hooks.len()) {
        (Some(name), _) => hooks
            .find(|hook| hook.name == name)
            .ok_or_else(|| format!("there is no hook of this name; there is {names}")),
        (None, 1) => hooks.next().ok_or_else(String::new),
        (None, _) => Err(format!("there are several hooks, --hook says which: {names}")),
    }
}

/// The URL without a path under which the gate takes deliveries, as far as it knows.
pub(crate) fn listening(config: &Config) -> String {
    let mut listen = config.listen.clone();
    // Whoever calls it may be in another folder.
    if let ListenAddress::Unix(path) = &mut listen
        && let Ok(absolute) = std::path::absolute(&*path)
    {
        *path = absolute;
    }
    listen.origin(config.tls.is_some())
}

/// The keys of a file, with the text that they were read from.
pub(crate) fn read_keys(path: &Path) -> Result<(Keyring, FileContent), String> {
    let shown = path.display();
    let content = watch::read(path, MAX_FILE_BYTES as u64)
        .map_err(|error| format!("{shown}: {}", crate::chain(&error)))?;
    let ring = Keyring::parse(content.bytes()).map_err(|error| {
        format!("{shown}:{}:{}: {}", error.line(), error.column(), error.kind())
    })?;
    Ok((ring, content))
}

/// A file, or the standard input for `-`, of at most so many bytes.
pub(crate) fn read_input(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let taken = if path == Path::new("-") {
        std::io::stdin().lock().take(max_bytes + 1).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(max_bytes + 1).read_to_end(&mut bytes)
    };
    if taken.map_err(fail)? as u64 > max_bytes {
        return Err(format!("{}: larger than {} MiB", path.display(), max_bytes >> 20));
    }
    Ok(bytes)
}
