//! Completion in the real shells: what is typed, completed with the tab key and entered, arrives as it should.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::appliance::Appliance;
use crate::support::wait_for;

/// Names that need care on a command line, and enough of each to tell it from the others.
const NAMES: [(&str, &str); 7] = [
    ("my disk", "my"),
    ("it's $HOME", "it"),
    ("a:b=c", "a"),
    ("quoted \"x\"", "quo"),
    ("übung-größe", "üb"),
    ("star*[x]", "sta"),
    ("paren(s);&|", "par"),
];

/// An appliance, and a `volctl` in front of the real one that writes down what it is called with.
fn shelf() -> (Appliance, PathBuf) {
    let appliance = Appliance::start();
    for (name, _) in NAMES {
        appliance.cloud.volume(name);
    }
    appliance.ok(&["ls", "--max-age", "0"]);
    let bin = appliance.path("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\ncase $1 in complete) exec {real} \"$@\" ;; esac\n\
         printf '%s\\n' \"$@\" >>{calls}\necho end >>{calls}\n",
        real = env!("CARGO_BIN_EXE_volctl"),
        calls = appliance.path("calls").display(),
    );
    fs::write(bin.join("volctl"), script).unwrap();
    fs::set_permissions(bin.join("volctl"), fs::Permissions::from_mode(0o755)).unwrap();
    (appliance, bin)
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(name)
}

/// A shell with a sealed environment.
fn shell(appliance: &Appliance, bin: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    command.env("VOLCTL_SOCKET", appliance.socket()).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
    command.env("HOME", appliance.path("home"));
    command
}

/// How often a line is typed: on a busy machine the daemon's answer may come after the patience of a completion is over.
const TRIES: usize = 20;

/// Types a line on the terminal of a new interactive shell; gives the words with which `volctl` is then called, if it is.
fn typed(appliance: &Appliance, bin: &Path, interactive: &str, first: &str, line: &str) -> Option<Vec<String>> {
    fs::remove_file(appliance.path("calls")).ok();
    let mut terminal = shell(appliance, bin, "script");
    terminal.args(["--quiet", "--return", "--echo", "never", "--command", interactive, "/dev/null"]);
    let mut terminal = Terminal(terminal.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let mut keys = terminal.0.stdin.take().unwrap();
    writeln!(keys, "{first}\n{line}").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let written = fs::read_to_string(appliance.path("calls")).unwrap_or_default();
        if let Some(call) = written.strip_suffix("end\n") {
            return Some(call.lines().map(str::to_owned).collect());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// A terminal with a shell on it; both end with the value.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        // The shell's terminal hangs up with it.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn each_name_arrives(interactive: &str, first: &str) {
    let (appliance, bin) = shelf();
    let names = NAMES.map(|(name, begun)| (format!("volctl show {begun}\t"), vec!["show", name]));
    let others = [
        ("volctl deta\t --dra\t x", vec!["detach", "--drain", "x"]),
        ("volctl show 'my\t", vec!["show", "my disk"]),
        ("volctl show \"quo\t", vec!["show", "quoted \"x\""]),
        ("volctl attach it\\'\t --vm wor\t", vec!["attach", "it's $HOME", "--vm", "worker"]),
        ("volctl attach my\t a\t", vec!["attach", "my disk", "a:b=c"]),
    ];
    for (line, expected) in names.into_iter().chain(others.map(|(line, words)| (line.to_owned(), words))) {
        let mut arrived = Vec::new();
        let arrives = (0..TRIES).any(|_| {
            arrived = typed(&appliance, &bin, interactive, first, &line).unwrap_or_default();
            arrived == expected
        });
        assert!(arrives, "{line:?} did not become {expected:?}, but {arrived:?}");
    }
}

#[test]
fn in_bash_each_name_arrives_as_it_is() {
    each_name_arrives("bash --norc --noprofile -i", &format!("source {}", file("volctl.bash").display()));
}

#[test]
fn in_zsh_each_name_arrives_as_it_is() {
    let first = format!("autoload -Uz compinit && compinit -u -D; source {}", file("_volctl").display());
    each_name_arrives("zsh -f -i", &first);
}

#[test]
fn fish_is_given_each_name_as_it_is() {
    let (appliance, bin) = shelf();
    let ask = |line: &str| {
        let script = format!("source {}; complete -C '{line}'", file("volctl.fish").display());
        let output = shell(&appliance, &bin, "fish").args(["--no-config", "-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, begun) in NAMES {
        let expected = format!("{name}\t1G\n");
        let given = || (ask(&format!("volctl show {begun}")) == expected).then_some(());
        wait_for(&format!("fish to be given {name}"), given);
    }
    assert!(ask("volctl det").starts_with("detach\t"));
    assert!(ask("volctl attach data1 --vm=wor").starts_with("--vm=worker\t"));
}

/// What the shells are told may stand at the end of a line.
fn candidates(appliance: &Appliance, words: &[&str]) -> Vec<String> {
    let told = appliance.run(&[&["complete", "words", "--", "volctl"], words].concat()).success().stdout;
    let mut values: Vec<String> =
        told.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect();
    values.sort();
    values
}

/// The same, where there are some: on a busy machine the daemon's answer may come after the patience is over.
fn some_candidates(appliance: &Appliance, words: &[&str]) -> Vec<String> {
    wait_for(&format!("candidates for {words:?}"), || Some(candidates(appliance, words)).filter(|all| !all.is_empty()))
}

#[test]
fn each_verb_is_offered_what_it_can_take() {
    let appliance = Appliance::start();
    for name in ["free", "here", "there", "gone", "same", "shared"] {
        appliance.ok(&["create", name, "--size", "1G"]);
    }
    let twin = appliance.cloud.volume("same");
    appliance.ok(&["attach", "here"]);
    appliance.ok(&["attach", "shared", "--export"]);
    appliance.ok(&["attach", "there", "--vm", "worker"]);
    appliance.ok(&["attach", "gone"]);
    appliance.ok(&["detach", "gone"]);
    appliance.ok(&["delete", "gone", "--yes"]);
    appliance.ok(&["hold", "free", "--note", "n"]);
    let volumes = appliance.ok(&["ls", "--max-age", "0"])["volumes"].clone();
    let of_name = |name: &str| volumes.as_array().unwrap().iter().filter(|v| v["name"] == name).count();
    assert_eq!(of_name("same"), 2);

    let offered = some_candidates(&appliance, &["attach", ""]);
    assert!(offered.contains(&"free".to_owned()) && offered.contains(&twin), "{offered:?}");
    assert!(!offered.iter().any(|name| ["here", "there", "same", "gone", "ROOT-old"].contains(&name.as_str())));
    assert_eq!(some_candidates(&appliance, &["detach", ""]), ["here", "shared", "there"]);
    assert_eq!(some_candidates(&appliance, &["detach", "here", ""]), ["shared", "there"]);
    assert_eq!(some_candidates(&appliance, &["export", ""]), ["here"]);
    assert_eq!(some_candidates(&appliance, &["unexport", ""]).len(), 1);
    assert_eq!(some_candidates(&appliance, &["recover", ""]), ["gone"]);
    assert_eq!(some_candidates(&appliance, &["release", ""]), ["free"]);
    assert_eq!(candidates(&appliance, &["ops", "retry", ""]), Vec::<String>::new());
    assert!(some_candidates(&appliance, &["ops", "show", ""]).len() >= 10);
    assert!(some_candidates(&appliance, &["show", &twin[..4]]).contains(&twin), "the beginning of an id");
}

#[test]
fn snapshots_and_all_vms_are_offered() {
    let appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G", "--attach"]);
    for name in ["s1", "same", "data-s2"] {
        appliance.ok(&["snapshot", "create", "data1", "--name", name]);
    }
    let volume = appliance.truth("data1").unwrap()["id"].clone();
    let twin = json!({"name": "same", "volumeid": volume, "virtualsize": 1 << 30, "state": "BackingUp"});
    appliance.cloud.admin("POST", "snapshot", twin);
    appliance.cloud.admin("POST", "vm", json!({"name": "bare", "state": "Stopped"}));
    let offered = |words: &[&str], those: &[&str], count: usize| {
        wait_for(&format!("{those:?} for {words:?}"), || {
            let told = candidates(&appliance, words);
            (told.len() == count && those.iter().all(|name| told.iter().any(|told| told == name))).then_some(())
        });
    };
    offered(&["snapshot", "delete", "s1", ""], &["data-s2"], 3);
    offered(&["snapshot", "revert", ""], &["s1", "data-s2"], 3);
    let vms = appliance.ok(&["vm", "ls"])["vms"].as_array().unwrap().len();
    offered(&["vm", "show", ""], &["bare", "worker"], vms);
    offered(&["attach", "data1", "--vm", ""], &["bare"], vms);

    // What CloudStack is too slow for is there the next time.
    appliance.ok(&["snapshot", "delete", "s1", "--yes"]);
    appliance.cloud.fault(json!({"command": "listSnapshots", "mode": "slow", "interval_ms": 1, "times": 100}));
    offered(&["snapshot", "delete", ""], &["data-s2"], 3);
}

#[test]
fn it_is_silent_and_quick_when_the_daemon_or_cloudstack_is_away() {
    let mut appliance = Appliance::start();
    appliance.ok(&["create", "data1", "--size", "1G"]);
    appliance.cloud.fault(json!({"command": "*", "mode": "late", "delay_ms": 600_000, "times": 100}));
    assert!(some_candidates(&appliance, &["show", "d"]).contains(&"data1".to_owned()), "from the store");
    appliance.kill_daemon();
    let begun = Instant::now();
    let ended = appliance.run(&["complete", "words", "--", "volctl", "show", ""]);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
    assert_eq!(
        candidates(&appliance, &["detac"]).len(),
        candidates(&appliance, &[""]).len(),
        "commands need no daemon"
    );
}
