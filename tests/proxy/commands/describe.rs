//! `hookgate completions` and `hookgate man`.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::run_in;
use crate::support::gate::run;

#[test]
fn a_shell_is_told_of_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let finished = run(&["completions", shell]);
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{shell}");
        for word in ["serve", "rotate", "redeliver", "--key-file"] {
            // Each has its own way to write an option.
            let word = word.trim_start_matches('-');
            assert!(finished.stdout.contains(word), "{shell}: {word}");
        }
    }
    // The script is one that a shell takes, and it offers what fits.
    let folder = TempDir::with_prefix("hookgate-").expect("a folder");
    let script = folder.path().join("script");
    fs::write(&script, run(&["completions", "bash"]).stdout).expect("a file");
    let ask = "source ./script; COMP_WORDS=(hookgate key ro); COMP_CWORD=2; _hookgate hookgate ro key; echo ${COMPREPLY[@]}";
    let answer = Command::new("bash")
        .args(["-c", ask])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "rotate\n", "{answer:?}");
    assert_eq!(run(&["completions", "cmd"]).code, Some(2));
}

#[test]
fn every_command_has_a_manual_page() {
    let page = run(&["man", "key", "rotate"]);
    assert_eq!((page.code, &*page.stderr), (Some(0), ""));
    assert!(page.stdout.contains(".TH hookgate-key-rotate 1"), "{}", page.stdout);
    assert!(page.stdout.contains("hookgate key rotate \\-\\-overlap 7d"), "{}", page.stdout);
    assert!(run(&["man"]).stdout.contains(".TH hookgate 1"));
    let folder = Arc::new(TempDir::with_prefix("hookgate-").expect("a folder"));
    assert_eq!(run_in(&folder, &["man", "--output-dir", "man1"]).code, Some(0));
    let written = |name: &str| folder.path().join("man1").join(name).exists();
    assert!(["hookgate.1", "hookgate-serve.1", "hookgate-spool-list.1"].into_iter().all(written));
    for args in
        [&["man", "srve"][..], &["man", "key", "srve"], &["man", "key", "--output-dir", "x"]]
    {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
    fs::write(folder.path().join("file"), "").expect("a file");
    let finished = run_in(&folder, &["man", "--output-dir", "file"]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.starts_with("error: file: "), "{}", finished.stderr);
}
