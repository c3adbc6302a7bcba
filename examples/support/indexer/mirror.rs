//! Bare repositories that hold the newest commit of their default branch.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use hookgate::repository::RepositoryUrl;
use tokio::time::timeout;

use super::BoxError;

const FETCH_TIMEOUT: Duration = Duration::from_secs(300);
/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
const BRANCH: &str = "refs/heads/indexed";

pub(super) struct Mirrors {
    pub(super) folder: PathBuf,
    pub(super) remotes: Vec<(String, String)>,
}

/// The bare repository of one.
pub(super) struct Mirror(PathBuf);

impl Mirrors {
    /// Fetches the default branch into the folder with this number: nothing that a push says becomes
    /// a path here. `None` if that branch has no commit yet.
    pub(super) async fn fetch(
        &self,
        number: i64,
        repository: &RepositoryUrl,
        address: &str,
    ) -> Result<Option<Mirror>, BoxError> {
        let mirror = Mirror(self.folder.join(format!("{number}.git")));
        let (remote, protocols) = match self.remote(repository) {
            // The operator's own word.
            Some(remote) => (remote, "file:https:http:ssh"),
            None => (address.to_owned(), "https:ssh"),
        };
        let mut init = mirror.git();
        init.args(["init", "--quiet", "--bare"]);
        checked(run(init).await?, &remote)?;
        let mut fetch = mirror.git();
        fetch.args(["fetch", "--quiet", "--force", "--no-tags", "--depth=1", "--", &remote]);
        fetch.arg(format!("HEAD:{BRANCH}")).env("GIT_ALLOW_PROTOCOL", protocols);
        let fetched = run(fetch).await?;
        if String::from_utf8_lossy(&fetched.stderr).contains("find remote ref HEAD") {
            return Ok(None);
        }
        checked(fetched, &remote)?;
        Ok(Some(mirror))
    }

    /// Where the operator says that it is to be fetched from.
    fn remote(&self, repository: &RepositoryUrl) -> Option<String> {
        self.remotes.iter().find_map(|(prefix, base)| {
            // Whole segments, and no `..`: a name has none.
            let rest = repository.as_str().strip_prefix(prefix.as_str())?.strip_prefix('/')?;
            Some(format!("{base}/{rest}.git"))
        })
    }
}

impl Mirror {
    /// Gives path and text of every file that is text.
    pub(super) fn each_file(
        &self,
        mut give: impl FnMut(&str, &str) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let listing = self.git().args(["ls-tree", "-r", "-z", "--long", BRANCH]).output()?;
        let listing = checked(listing, BRANCH)?.stdout;
        let mut cat = self.git();
        cat.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut cat = cat.spawn()?;
        let (Some(mut ask), Some(answers)) = (cat.stdin.take(), cat.stdout.take()) else {
            return Err("no pipe".into());
        };
        let mut answers = BufReader::new(answers);
        let mut files = listing.split(|&byte| byte == 0).filter_map(regular_file);
        let given = files.try_for_each(|(object, path)| {
            let text = read_text(object, &mut ask, &mut answers)?;
            text.map_or(Ok(()), |text| give(path, &text))
        });
        // It ends when nobody asks and nobody listens.
        drop((ask, answers));
        cat.wait()?;
        given
    }

    /// Git in this folder, which asks nobody for a password and leaves nothing running.
    fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.args(["-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false"]);
        git.arg("--git-dir").arg(&self.0).stdin(Stdio::null());
        git.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "");
        git.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=10");
        git
    }
}

async fn run(command: Command) -> Result<Output, BoxError> {
    let mut command = tokio::process::Command::from(command);
    Ok(timeout(FETCH_TIMEOUT, command.kill_on_drop(true).output()).await??)
}

/// An error if git failed. An address may hold a password, so it is not shown.
fn checked(output: Output, address: &str) -> Result<Output, BoxError> {
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).replace(address, "<address>");
    Err(format!("git failed: {}", said.trim()).into())
}

/// Object and path of a line of `ls-tree --long`, if it is a file that is not too large.
fn regular_file(line: &[u8]) -> Option<(&str, &str)> {
    let (about, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    let mut about = about.split_ascii_whitespace();
    let (mode, _, object, size) = (about.next()?, about.next()?, about.next()?, about.next()?);
    // No link, and no other repository.
    (mode.starts_with("100") && size.parse::<u64>().ok()? <= MAX_FILE).then_some((object, path))
}

/// What is in the object, if it is text.
fn read_text(
    object: &str,
    ask: &mut impl Write,
    answers: &mut impl BufRead,
) -> Result<Option<String>, BoxError> {
    writeln!(ask, "{object}")?;
    let mut head = String::new();
    answers.read_line(&mut head)?;
    let size = head.trim_end().rsplit(' ').next().and_then(|size| size.parse::<u64>().ok());
    let mut bytes = Vec::new();
    // And the line break after it.
    answers.take(size.ok_or("git has lost an object")? + 1).read_to_end(&mut bytes)?;
    bytes.pop();
    Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
}
