//! The whole configuration: each setting, each sentence of refusal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use nix::unistd::geteuid;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

/// Enough to start with.
const KEYS: &str = "endpoint = \"https://cloud.example/client/api\"\napi_key = \"key\"\nsecret_key = \"s3cr3t\"\n";

/// A directory with a configuration file, and an environment.
struct Case {
    dir: TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl Case {
    fn new(text: &str) -> Self {
        let case = Self { dir: tempfile::tempdir().unwrap(), variables: Vec::new() };
        case.write("config.toml", text, 0o600);
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn set(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn environment(&self) -> Environment {
        Environment::new(geteuid().as_raw(), self.variables.clone())
    }

    fn load(&self) -> Result<Config> {
        Config::load(Some(&self.path("config.toml")), &self.environment())
    }

    /// The sentence of the refusal, with `FILE` and `DIR` for the paths.
    fn refusal(&self) -> String {
        let error = self.load().unwrap_err();
        assert_eq!(error.kind, Kind::Config);
        let text = format!("{}\n{}", error.message, error.hint.unwrap_or_default());
        assert!(!text.contains("s3cr3t"), "{text}");
        let dir = self.dir.path().display().to_string();
        text.trim_end().replace(&format!("{dir}/config.toml"), "FILE").replace(&dir, "DIR")
    }
}

fn refusal(text: &str) -> String {
    Case::new(text).refusal()
}

/// The refusal of a setting under `[cloudstack]`, which are on line 5 after the keys.
fn refusal_beside_keys(setting: &str) -> String {
    refusal(&format!("[cloudstack]\n{KEYS}{setting}\n"))
}

/// The refusal of settings in another section, from line 5 on.
fn refusal_in(section: &str, settings: &str) -> String {
    refusal(&format!("[{section}]\n{settings}\n[cloudstack]\n{KEYS}"))
}

fn secret(config: &Config) -> String {
    config.cloudstack.secret_key.read().unwrap().expose_secret().to_owned()
}

#[test]
fn the_defaults() {
    let config = Case::new(&format!("[cloudstack]\n{KEYS}")).load().unwrap();
    assert_eq!(config.cloudstack.endpoint, "https://cloud.example/client/api");
    assert_eq!(config.cloudstack.api_key, "key");
    assert_eq!(secret(&config), "s3cr3t");
    assert_eq!(config.cloudstack.timeout, Duration::from_secs(30));
    assert_eq!(config.device.by_id_dir, Path::new("/dev/disk/by-id"));
    assert_eq!(config.device.timeout, Duration::from_secs(60));
    assert_eq!(config.device.max_disks, 32);
    assert_eq!(config.nbd.listen, []);
    assert_eq!(config.daemon.idle_timeout, Duration::from_secs(300));
    assert_eq!(config.daemon.history, Duration::from_secs(400 * 86_400));
}

#[test]
fn every_setting() {
    let case = Case::new(
        r#"
        [cloudstack]
        endpoint = "http://10.0.0.1:8080/client/api"
        api_key = "key"
        secret_key_file = "SECRET"
        zone = "z1"
        disk_offering = "Custom"
        project = "migration"
        vm_id = "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6"
        ca_file = "/etc/ssl/private-ca.pem"
        allow_plain_http = true
        timeout = "90s"
        [device]
        by_id_dir = "/tmp/disks"
        timeout = 5
        max_disks = 4
        [nbd]
        listen = ["0.0.0.0:10809", "[::1]:0"]
        unix_socket = "/tmp/nbd.sock"
        advertise = "appliance.example:10809"
        plain_public = true
        allow = ["192.0.2.0/24", "2001:db8::1"]
        [daemon]
        idle_timeout = "1h"
        history = "2d"
        "#,
    );
    let secret_file = case.write("secret", "s3cr3t\n", 0o400);
    let text = fs::read_to_string(case.path("config.toml")).unwrap();
    case.write("config.toml", text.replace("SECRET", &secret_file.display().to_string()), 0o644);
    let config = case.load().unwrap();
    assert_eq!(config.cloudstack.endpoint, "http://10.0.0.1:8080/client/api");
    assert!(matches!(&config.cloudstack.secret_key, SecretKey::File(path) if *path == secret_file));
    assert_eq!(secret(&config), "s3cr3t");
    assert_eq!(config.cloudstack.zone.as_deref(), Some("z1"));
    assert_eq!(config.cloudstack.disk_offering.as_deref(), Some("Custom"));
    assert_eq!(config.cloudstack.project.as_deref(), Some("migration"));
    assert_eq!(config.cloudstack.vm_id.unwrap().to_string(), "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6");
    assert_eq!(config.cloudstack.ca_file.as_deref(), Some(Path::new("/etc/ssl/private-ca.pem")));
    assert_eq!(config.cloudstack.timeout, Duration::from_secs(90));
    assert_eq!(config.device.by_id_dir, Path::new("/tmp/disks"));
    assert_eq!(config.device.timeout, Duration::from_secs(5));
    assert_eq!(config.device.max_disks, 4);
    assert_eq!(config.nbd.listen, ["0.0.0.0:10809".parse().unwrap(), "[::1]:0".parse().unwrap()]);
    assert_eq!(config.nbd.unix_socket, Path::new("/tmp/nbd.sock"));
    assert_eq!(config.nbd.advertise.as_deref(), Some("appliance.example:10809"));
    assert_eq!(config.nbd.allow, ["192.0.2.0/24".parse().unwrap(), "2001:db8::1/128".parse().unwrap()]);
    assert_eq!(config.daemon.idle_timeout, Duration::from_secs(3600));
    assert_eq!(config.daemon.history, Duration::from_secs(2 * 86_400));
}

#[test]
fn the_environment_overrides_and_suffices() {
    let case = Case::new(&format!("[cloudstack]\n{KEYS}zone = \"z1\"\n"))
        .set("CLOUDSTACK_ENDPOINT", "http://localhost:8080/client/api")
        .set("CLOUDSTACK_KEY", "other\n")
        .set("CLOUDSTACK_SECRET", "0ther\n");
    let config = case.load().unwrap();
    assert_eq!(config.cloudstack.endpoint, "http://localhost:8080/client/api");
    assert_eq!((config.cloudstack.api_key.as_str(), secret(&config).as_str()), ("other", "0ther"));
    assert_eq!(config.cloudstack.zone.as_deref(), Some("z1"));

    let home = tempfile::tempdir().unwrap();
    let mut variables = case.variables.clone();
    variables.push(("XDG_CONFIG_HOME".into(), home.path().into()));
    let config = Config::load(None, &Environment::new(1000, variables)).unwrap();
    assert_eq!((config.cloudstack.api_key.as_str(), config.cloudstack.zone), ("other", None));
}

#[test]
fn the_file_at_the_default_path_is_read() {
    let case = Case::new("");
    fs::create_dir(case.path("volctl")).unwrap();
    case.write("volctl/config.toml", "[daemon]\nidle = \"1h\"\n", 0o644);
    let environment = Environment::new(1000, [("XDG_CONFIG_HOME".into(), case.dir.path().into())]);
    let message = Config::load(None, &environment).unwrap_err().message;
    assert!(message.contains("unknown key \"idle\" in [daemon]"), "{message}");
}

#[test]
fn what_is_missing_is_named_with_both_ways_to_give_it() {
    assert_eq!(
        refusal(""),
        "FILE has no [cloudstack] endpoint, and CLOUDSTACK_ENDPOINT is not set in the environment\n\
         set endpoint under [cloudstack] in FILE, or CLOUDSTACK_ENDPOINT"
    );
    assert!(
        refusal("[cloudstack]\nendpoint = \"https://a.example/\"").starts_with("FILE has no [cloudstack] api_key, ")
    );
    assert!(
        refusal("[cloudstack]\nendpoint = \"https://a.example/\"\napi_key = \"k\"")
            .starts_with("FILE has no [cloudstack] secret_key_file, and CLOUDSTACK_SECRET ")
    );
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment::new(1000, [("XDG_CONFIG_HOME".into(), dir.path().into())]);
    let path = dir.path().join("volctl/config.toml");
    assert_eq!(
        Config::load(None, &environment).unwrap_err().message,
        format!("{} does not exist, and CLOUDSTACK_ENDPOINT is not set in the environment", path.display())
    );
    let error = Config::load(Some(&path), &environment).unwrap_err();
    assert!(error.message.starts_with(&format!("cannot read the configuration {}: No such file", path.display())));
    let case = Case::new("").set("CLOUDSTACK_ENDPOINT", "");
    assert_eq!(case.refusal(), "CLOUDSTACK_ENDPOINT in the environment is empty\ngive it a value, or unset it");
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    assert_eq!(
        refusal("[cloudstack]\nendpont = \"https://a.example/\"\n"),
        "FILE, line 2: unknown key \"endpont\" in [cloudstack]; the nearest known one is \"endpoint\"\n\
         known here: endpoint, api_key, secret_key_file, secret_key, zone, disk_offering, project, vm_id, ca_file, \
         allow_plain_http, timeout"
    );
    assert_eq!(
        refusal("\n[cloudstak]\nendpoint = 1\n"),
        "FILE, line 2: unknown section [cloudstak]; the nearest known one is \"cloudstack\"\n\
         known here: cloudstack, device, nbd, daemon"
    );
    assert!(refusal("endpoint = 1\n").starts_with("FILE, line 1: key \"endpoint\" outside of any section; "));
    assert!(refusal_in("device", "by_id = 1").starts_with("FILE, line 2: unknown key \"by_id\" in [device]; "));
    assert!(refusal_in("nbd", "Listen = 1").contains("\"Listen\" in [nbd]; the nearest known one is \"listen\""));
    assert!(refusal_in("daemon", "idle-timeout = 1").contains("the nearest known one is \"idle_timeout\""));
    assert!(refusal_in("daemon", "\"a\\u001b[2J\" = 1").contains("unknown key \"a\\u{1b}[2J\""));
}

#[test]
fn wrong_types_are_refused_without_the_value() {
    for (settings, sentence) in [
        ("zone = 7", "FILE, line 5: [cloudstack] zone must be a string, not an integer"),
        ("zone = \" \"", "FILE, line 5: [cloudstack] zone must not be empty"),
        ("timeout = true", "FILE, line 5: [cloudstack] timeout must be a duration such as \"30s\", not a boolean"),
        ("allow_plain_http = 1", "FILE, line 5: [cloudstack] allow_plain_http must be true or false, not an integer"),
        ("vm_id = \"17\"", "FILE, line 5: [cloudstack] vm_id must be a VM's UUID"),
        ("ca_file = \"ca.pem\"", "FILE, line 5: [cloudstack] ca_file must be an absolute path"),
    ] {
        assert_eq!(refusal_beside_keys(settings), sentence);
    }
    assert_eq!(refusal("nbd = 1\n"), "FILE, line 1: nbd must be a section, not an integer");
    assert_eq!(
        refusal_in("nbd", "listen = \"127.0.0.1:1\""),
        "FILE, line 2: [nbd] listen must be an array of strings, not a string"
    );
    assert_eq!(refusal_in("nbd", "listen = [1]"), "FILE, line 2: [nbd] listen must be a string, not an integer");
    assert_eq!(
        refusal("[cloudstack]\nsecret_key = [\"s3cr3t\"]\n"),
        "FILE, line 2: [cloudstack] secret_key must be a string, not an array"
    );
    assert!(refusal("[cloudstack]\nsecret_key = s3cr3t\n").starts_with("FILE, line 2: not TOML: "));
    assert!(refusal("[cloudstack]\nsecret_key = \"s3cr3t\n").starts_with("FILE, line 2: not TOML: "));
    assert!(refusal("[cloudstack]\nzone = \"a\"\nzone = \"b\"\n").starts_with("FILE, line 3: not TOML: duplicate key"));
}

#[test]
fn numbers_and_durations_have_bounds() {
    for (section, setting, sentence) in [
        ("device", "timeout = 0", "timeout must be more than 0"),
        ("device", "timeout = \"0s\"", "timeout must be more than 0"),
        ("device", "timeout = \"2d\"", "timeout must be at most 1d"),
        ("device", "max_disks = 0", "max_disks must be from 1 to 256"),
        ("device", "max_disks = -1", "max_disks must be from 1 to 256"),
        ("device", "max_disks = 9999999999", "max_disks must be from 1 to 256"),
        ("daemon", "history = \"200000d\"", "history must be at most 36600d"),
    ] {
        assert_eq!(refusal_in(section, setting), format!("FILE, line 2: [{section}] {sentence}"));
    }
    for setting in ["idle_timeout = -5", "idle_timeout = \"-5m\"", "idle_timeout = \"soon\""] {
        let refusal = refusal_in("daemon", setting);
        assert!(refusal.starts_with("FILE, line 2: [daemon] idle_timeout: \""), "{refusal}");
        assert!(refusal.contains("is not a duration: write a number and s, m, h or d"), "{refusal}");
    }
}

#[test]
fn endpoints() {
    let endpoint = |url: &str, more: &str| {
        let keys = KEYS.replace("https://cloud.example/client/api", url);
        Case::new(&format!("[cloudstack]\n{keys}{more}\n"))
    };
    for url in
        ["http://127.0.0.1:8080/client/api", "http://[::1]/client/api", "http://localhost/api", "https://a.example/"]
    {
        assert_eq!(endpoint(url, "").load().unwrap().cloudstack.endpoint, url);
    }
    let plain = "FILE, line 2: [cloudstack] endpoint is plain http to another machine, where anybody on the way can read \
                 and change what is sent\nuse https, or set allow_plain_http = true under [cloudstack]";
    for url in
        ["http://cloud.example/client/api", "http://10.0.0.1/", "http://localhost.example/", "http://127.example/"]
    {
        assert_eq!(endpoint(url, "").refusal(), plain, "{url}");
        assert!(endpoint(url, "allow_plain_http = true").load().is_ok());
    }
    for url in ["cloud.example/client/api", "ftp://cloud.example/", "https://", "nonsense", "file:///etc/passwd"] {
        assert_eq!(
            endpoint(url, "").refusal(),
            "FILE, line 2: [cloudstack] endpoint must be a URL such as https://cloud.example/client/api"
        );
    }
    assert!(
        endpoint("https://admin:s3cr3t@cloud.example/", "").refusal().contains("must not hold a user or a password")
    );
    assert!(
        endpoint("https://cloud.example/?apikey=s3cr3t", "")
            .refusal()
            .contains("must end with its path, without ? or #")
    );
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let case = Case::new(&format!("[cloudstack]\n{KEYS}"));
    for (mode, bits) in [
        (0o644, "group read, others read"),
        (0o640, "group read"),
        (0o602, "others write"),
        (0o666, "group read, group write, others read, others write"),
    ] {
        case.write("config.toml", format!("[cloudstack]\n{KEYS}"), mode);
        assert_eq!(
            case.refusal(),
            format!("FILE holds the secret key and its mode {mode:04o} lets others in: {bits}\nchmod go= FILE")
        );
    }
    let keys =
        KEYS.replace("secret_key = \"s3cr3t\"", &format!("secret_key_file = \"{}\"", case.path("key").display()));
    case.write("config.toml", format!("[cloudstack]\n{keys}"), 0o644);
    case.write("key", "s3cr3t", 0o604);
    assert_eq!(
        case.refusal(),
        "DIR/key holds the secret key and its mode 0604 lets others in: others read\nchmod go= DIR/key"
    );
    case.write("key", "\n", 0o600);
    assert_eq!(case.refusal(), "the secret key file DIR/key is empty");
    fs::remove_file(case.path("key")).unwrap();
    assert_eq!(case.refusal(), "cannot read the secret key file DIR/key: No such file or directory (os error 2)");
    case.write("key", vec![b'x'; 2 << 20], 0o600);
    assert_eq!(case.refusal(), "cannot read the secret key file DIR/key: larger than 1 MiB");
    nix::unistd::mkfifo(&case.path("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    case.write("config.toml", format!("[cloudstack]\n{}", keys.replace("/key\"", "/pipe\"")), 0o644);
    assert_eq!(case.refusal(), "the secret key file DIR/pipe is empty");
}

#[test]
fn a_secret_of_another_user_is_refused() {
    assert!(geteuid().is_root(), "needs root: only root may give a file away");
    let case = Case::new(&format!("[cloudstack]\n{KEYS}"));
    std::os::unix::fs::chown(case.path("config.toml"), Some(4711), None).unwrap();
    assert_eq!(case.refusal(), "FILE holds the secret key and belongs to uid 4711, not to uid 0 or root\nchown 0 FILE");
    let owner = Environment::new(4711, []);
    assert!(Config::load(Some(&case.path("config.toml")), &owner).is_ok());
}

#[test]
fn one_place_for_the_secret() {
    let refusal = refusal_beside_keys("secret_key_file = \"/etc/volctl/key\"");
    assert_eq!(refusal, "FILE, line 4: [cloudstack] secret_key and secret_key_file are both set: keep one of them");
}

#[test]
fn a_systemd_credential_is_the_secret_where_no_other_is_given() {
    let keys = KEYS.lines().take(2).collect::<Vec<_>>().join("\n");
    let case = Case::new(&format!("[cloudstack]\n{keys}\n"));
    let directory = case.dir.path().as_os_str().to_owned();
    let case = case.set("CREDENTIALS_DIRECTORY", directory);
    assert!(case.refusal().contains("CLOUDSTACK_SECRET is not set"));
    case.write("secret", "cr3dential\n", 0o440);
    assert_eq!(secret(&case.load().unwrap()), "cr3dential");
}

#[test]
fn a_secret_is_in_no_debug_output() {
    let config = Case::new(&format!("[cloudstack]\n{KEYS}")).load().unwrap();
    assert!(!format!("{config:?}").contains("s3cr3t"));
}

#[test]
fn a_public_listen_address_needs_two_words() {
    let sentence = "FILE, line 2: [nbd] listen 0.0.0.0:10809: a listen address beyond loopback needs tls_certificates, \
                    or plain_public = true and allow = [networks]";
    for settings in ["", "plain_public = true", "allow = [\"192.0.2.0/24\"]", "plain_public = true\nallow = []"] {
        let refusal = refusal_in("nbd", &format!("listen = [\"0.0.0.0:10809\"]\n{settings}"));
        assert_eq!(refusal.lines().next().unwrap(), sentence);
    }
    for address in ["[::]:0", "192.0.2.1:10809", "[::ffff:192.0.2.1]:1"] {
        let refusal = refusal_in("nbd", &format!("listen = [\"127.0.0.1:0\", \"{address}\"]"));
        assert!(refusal.contains("a listen address beyond loopback needs"), "{refusal}");
    }
    for address in ["127.0.0.1:0", "127.1.2.3:10809", "[::1]:10809"] {
        let text = format!("[nbd]\nlisten = [\"{address}\"]\n[cloudstack]\n{KEYS}");
        assert_eq!(Case::new(&text).load().unwrap().nbd.listen, [address.parse().unwrap()]);
    }
    let text = format!("[nbd]\nlisten = [\"0.0.0.0:1\"]\ntls_certificates = \"/tls\"\n[cloudstack]\n{KEYS}");
    let nbd = Case::new(&text).load().unwrap().nbd;
    assert!(!nbd.plain_public && nbd.tls_certificates.as_deref() == Some(Path::new("/tls")));
}

#[test]
fn nbd_settings_are_checked() {
    for (setting, sentence) in [
        ("listen = [\"localhost:1\"]", "[nbd] listen must be addresses with ports, such as \"127.0.0.1:10809\""),
        ("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "[nbd] listen has 127.0.0.1:1 twice"),
        ("allow = [\"nowhere\"]", "[nbd] allow: \"nowhere\" is not a network such as 192.0.2.0/24"),
        ("tls = \"on\"", "[nbd] tls must be \"allowed\" or \"required\""),
        ("tls = \"required\"", "[nbd] tls is \"required\", and tls_certificates is not set"),
        ("max_connections = 0", "[nbd] max_connections must be from 1 to 10000"),
        ("max_requests_in_flight = 0", "[nbd] max_requests_in_flight must be from 1 to 1000000"),
        ("max_bytes_in_flight = \"3M\"", "[nbd] max_bytes_in_flight must be from 4M to 1T"),
        ("keepalive_timeout = \"19h\"", "[nbd] keepalive_timeout must be at most 18h"),
        ("unix_socket = \"nbd.sock\"", "[nbd] unix_socket must be an absolute path"),
    ] {
        assert_eq!(refusal_in("nbd", setting), format!("FILE, line 2: {sentence}"));
    }
    let long = format!("unix_socket = \"/{}\"", "x".repeat(107));
    assert_eq!(
        refusal_in("nbd", &long),
        "FILE, line 2: [nbd] unix_socket is 108 bytes long; a socket's path has at most 107"
    );
    for advertise in
        ["a b", "host/path", "nbd://host", "user@host", ":10809", "host:port", "host?x", "::1", "host:99999"]
    {
        let refusal = refusal_in("nbd", &format!("advertise = \"{advertise}\""));
        assert!(refusal.contains("[nbd] advertise must be a host or host:port"), "{advertise}: {refusal}");
    }
    for advertise in ["appliance.example", "192.0.2.1:10809", "[2001:db8::1]:10809"] {
        let text = format!("[nbd]\nadvertise = \"{advertise}\"\n[cloudstack]\n{KEYS}");
        assert_eq!(Case::new(&text).load().unwrap().nbd.advertise.as_deref(), Some(advertise));
    }
}

#[test]
fn paths_of_root_and_of_others() {
    let variables = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<Vec<_>>();
    let xdg = variables(&[
        ("XDG_RUNTIME_DIR", "/run/user/7"),
        ("XDG_STATE_HOME", "/s"),
        ("XDG_CONFIG_HOME", "/c"),
        ("HOME", "/h"),
    ]);
    let system = Paths {
        config: "/etc/volctl/config.toml".into(),
        socket: SYSTEM_SOCKET.into(),
        nbd_socket: "/run/volctl/nbd.sock".into(),
        state_dir: "/var/lib/volctl".into(),
    };
    assert_eq!(Paths::of(&Environment::new(0, xdg.clone())), system);
    assert_eq!(Paths::of(&Environment::new(7, [])), system);
    let own = Paths {
        config: "/c/volctl/config.toml".into(),
        socket: "/run/user/7/volctl/volctld.sock".into(),
        nbd_socket: "/run/user/7/volctl/nbd.sock".into(),
        state_dir: "/s/volctl".into(),
    };
    assert_eq!(Paths::of(&Environment::new(7, xdg)), own);
    let home = Paths::of(&Environment::new(7, variables(&[("HOME", "/h"), ("XDG_STATE_HOME", "relative")])));
    assert_eq!(home.config, Path::new("/h/.config/volctl/config.toml"));
    assert_eq!(home.state_dir, Path::new("/h/.local/state/volctl"));
    assert_eq!(home.socket, Path::new(SYSTEM_SOCKET));
}

/// The mistakes of a configuration of this text in one section, beside the keys that are needed.
fn mistakes_in(section: &str, key: &str, line: &str) -> (Option<Config>, Vec<Error>) {
    let keys: String = KEYS
        .lines()
        .filter(|other| !other.starts_with(&format!("{key} =")))
        .map(|other| format!("{other}\n"))
        .collect();
    let text = match section {
        "cloudstack" => format!("[cloudstack]\n{keys}{line}\n"),
        _ => format!("[cloudstack]\n{KEYS}[{section}]\n{line}\n"),
    };
    let case = Case::new(&text);
    match Config::check(Some(&case.path("config.toml")), &case.environment()) {
        Ok(config) => (Some(config), Vec::new()),
        Err(mistakes) => (None, mistakes),
    }
}

#[test]
fn the_loader_knows_the_settings_of_the_manual_and_no_others() {
    for (section, settings) in SETTINGS {
        let (_, mistakes) = mistakes_in(section, "", "surely_unknown = 1");
        let hint = mistakes[0].hint.as_deref().unwrap();
        let mut known: Vec<&str> = hint.trim_start_matches("known here: ").split(", ").collect();
        let mut written: Vec<&str> = settings.iter().map(|setting| setting.key).collect();
        known.sort_unstable();
        written.sort_unstable();
        assert_eq!(known, written, "[{section}]");
    }
    let sections: Vec<&str> = SETTINGS.iter().map(|(section, _)| *section).collect();
    let (_, mistakes) = mistakes_in("surely_unknown", "", "");
    assert_eq!(mistakes[0].hint.as_deref(), Some(&*format!("known here: {}", sections.join(", "))));
}

#[test]
fn the_settings_take_what_the_manual_says() {
    for (section, setting) in manual() {
        let (_, mistakes) = mistakes_in(section, setting.key, &format!("{} = {{}}", setting.key));
        let wanted = match setting.kind {
            SettingKind::Text | SettingKind::Path => "must be a string,",
            SettingKind::Boolean => "must be true or false,",
            SettingKind::Count => "must be an integer,",
            SettingKind::Duration => "must be a duration such as \"30s\",",
            SettingKind::Size => "must be a size such as \"64M\",",
            SettingKind::Texts => "must be an array of strings,",
        };
        let refused = |wanted: &str, mistakes: &[Error]| mistakes.iter().any(|error| error.message.contains(wanted));
        assert!(refused(wanted, &mistakes), "[{section}] {}: {mistakes:?}", setting.key);
        let (_, mistakes) = mistakes_in(section, setting.key, &format!("{} = \"relative\"", setting.key));
        let is_path = setting.kind == SettingKind::Path;
        assert_eq!(refused("must be an absolute path", &mistakes), is_path, "[{section}] {}", setting.key);
    }
}

#[test]
fn the_settings_default_to_what_the_manual_says() {
    let without = format!("{:?}", mistakes_in("device", "", "").0.unwrap());
    // That file is not there, and the key is needed in one place only.
    for (section, setting) in manual().filter(|(_, setting)| setting.key != "secret_key_file") {
        let line = format!("{} = {}", setting.key, setting.value.toml());
        let (config, mistakes) = mistakes_in(section, setting.key, &line);
        let config = config.unwrap_or_else(|| panic!("[{section}] {line}: {mistakes:?}"));
        if let SettingValue::Default(_) = setting.value {
            assert_eq!(format!("{config:?}"), without, "[{section}] {line}");
        }
    }
}

fn manual() -> impl Iterator<Item = (&'static str, &'static Setting)> {
    SETTINGS.iter().flat_map(|(section, settings)| settings.iter().map(move |setting| (*section, setting)))
}
