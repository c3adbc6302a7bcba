//! What `examples/deploy` says fits together, and the programs that it is for take it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::gate::Setup;

/// The most that `systemd-analyze security` may find, in tenths.
const EXPOSURE: u32 = 11;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deploy")
}

#[track_caller]
fn text(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a program that a test needs, and gives what it said.
#[track_caller]
fn run(program: &str, args: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{program} {args:?}\n{out}\n{err}");
    format!("{out}{err}")
}

/// Checks a configuration as an operator would.
#[track_caller]
fn check(config: &str) -> String {
    let finished = Setup::bare(&["check"]).config(config).run();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

// --- systemd

/// The values of a setting of a unit, in order.
fn settings(unit: &str, name: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_commands_of_the_units_are_ones_that_the_program_takes() {
    let config = text("systemd/hookgate.toml");
    let told = check(&config);
    assert!(told.contains("http://127.0.0.1:8080"), "{told}");
    for (unit, has_credential) in
        [("systemd/hookgate.service", false), ("systemd/optional/credential.conf", true)]
    {
        let unit = text(unit);
        let command = settings(&unit, "ExecStart").pop().expect("a command");
        let setup = Setup::bare(&[]);
        let folder = setup.folder().path().to_str().expect("text").to_owned();
        fs::write(setup.path("hookgate.toml"), &config).expect("a file");
        fs::write(setup.path("webhook.key"), "sdf34tGdfgGDG345g3y0045TYG23te37\n").expect("a file");
        let command = command.replace("/etc/hookgate", &folder).replace("%S", &folder);
        let command = command.replace("%d", &folder);
        let mut words = command.split(' ');
        assert_eq!(words.next(), Some("/usr/local/bin/hookgate"));
        assert_eq!(words.next(), Some("serve"));
        // The same words, which `serve` has too, without its sockets.
        let args: Vec<_> = ["check"].into_iter().chain(words).collect();
        let finished = setup.args(&args).run();
        assert_eq!(finished.code, Some(0), "{args:?}: {}", finished.stderr);
        let key_file = if has_credential {
            format!("{folder}/webhook.key")
        } else {
            format!("{folder}/hookgate/webhook.key: missing")
        };
        assert!(finished.stdout.contains(&key_file), "{}", finished.stdout);
        if has_credential {
            assert_eq!(
                settings(&unit, "LoadCredential"),
                ["webhook.key:/etc/hookgate/webhook.key"]
            );
        }
    }
}

#[test]
fn the_sockets_have_the_names_by_which_the_gate_asks_for_them() {
    let drop_in = text("systemd/optional/socket.conf");
    let environment = settings(&drop_in, "Environment");
    assert_eq!(environment, ["HOOKGATE_LISTEN=systemd:gate", "HOOKGATE_HEALTH=systemd:health"]);
    assert_eq!(settings(&drop_in, "Sockets"), ["hookgate.socket hookgate-health.socket"]);
    for (socket, name) in [("hookgate.socket", "gate"), ("hookgate-health.socket", "health")] {
        let socket = text(&format!("systemd/{socket}"));
        assert_eq!(settings(&socket, "FileDescriptorName"), [name]);
        assert_eq!(settings(&socket, "Service"), ["hookgate.service"]);
    }
    let unit = text("systemd/hookgate.service");
    for (name, value) in [
        ("Type", "notify"),
        // What `serve` ends with when it was called wrongly.
        ("RestartPreventExitStatus", "2"),
        ("User", "hookgate"),
        ("StateDirectory", "hookgate"),
    ] {
        assert_eq!(settings(&unit, name), [value], "{name}");
    }
    assert!(text("systemd/sysusers.conf").contains("\nu hookgate "));
}

#[test]
#[ignore = "needs systemd-analyze"]
fn systemd_takes_the_units_and_finds_little_exposed() {
    let folder = TempDir::with_prefix("hookgate-").expect("a folder");
    let names = ["hookgate.service", "hookgate.socket", "hookgate-health.socket"];
    let put = |name: &str, from: &str| {
        let unit = text(from).replace("/usr/local/bin/hookgate", env!("CARGO_BIN_EXE_hookgate"));
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, unit).expect("a file");
    };
    for name in names {
        put(name, &format!("systemd/{name}"));
    }
    let verify = || {
        let units = names.map(|name| format!("./{name}"));
        let args: Vec<_> = ["verify"].into_iter().chain(units.iter().map(String::as_str)).collect();
        let said = run("systemd-analyze", &args, folder.path());
        assert!(!said.contains("hookgate"), "{said}");
    };
    verify();
    let args = ["security", "--no-pager", "--offline=true", "./hookgate.service"];
    let said = run("systemd-analyze", &args, folder.path());
    let (_, level) = said.split_once("exposure level for hookgate.service: ").expect(&said);
    let level: f64 = level.split(' ').next().expect(&said).parse().expect(&said);
    assert!((level * 10.0).round() as u32 <= EXPOSURE, "{said}");
    println!("exposure level {level}");
    for drop_in in ["credential.conf", "socket.conf"] {
        put(&format!("hookgate.service.d/{drop_in}"), &format!("systemd/optional/{drop_in}"));
    }
    verify();
    // A name that no version knows is told, or this would show nothing.
    let unit = folder.path().join("hookgate.service.d/wrong.conf");
    fs::write(unit, "[Service]\nTyp=notify\n").expect("a file");
    let said = Command::new("systemd-analyze")
        .args(["verify", "./hookgate.service"])
        .current_dir(folder.path())
        .output()
        .expect("a program")
        .stderr;
    assert!(String::from_utf8_lossy(&said).contains("Typ"));
}

// --- containers

/// The words behind an instruction of the last stage of the Containerfile.
#[track_caller]
fn instruction(name: &str) -> String {
    let file = text("Containerfile");
    let (_, stage) = file.rsplit_once("\nFROM scratch\n").expect("a last stage");
    let line = stage.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

#[test]
fn the_image_has_a_user_a_state_folder_and_ports_that_fit() {
    let env = instruction("ENV");
    let env: Vec<_> = env.split(' ').filter_map(|pair| pair.split_once('=')).collect();
    let value = |name: &str| env.iter().find(|(it, _)| *it == name).expect(name).1;
    let port = |name: &str| value(name).strip_prefix("0.0.0.0:").expect(name);
    let ports = format!("{} {}", port("HOOKGATE_LISTEN"), port("HOOKGATE_HEALTH"));
    assert_eq!(instruction("EXPOSE"), ports);
    let volume = instruction("VOLUME");
    assert!(value("HOOKGATE_STATE_DIR").starts_with(&format!("{volume}/")));
    let user = instruction("USER");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    let chown = format!("--chown={user} /image/state/ /var/lib/");
    assert!(text("Containerfile").contains(&chown) && volume == "/var/lib/hookgate");
    assert_eq!(instruction("STOPSIGNAL"), "SIGTERM");
    assert_eq!(instruction("ENTRYPOINT"), r#"["/usr/bin/hookgate"]"#);
    assert!(instruction("HEALTHCHECK").ends_with(r#"CMD ["/usr/bin/hookgate", "ready"]"#));
}

// --- Kubernetes

const MANIFESTS: [&str; 2] = ["kubernetes/standalone.yaml", "kubernetes/sidecar.yaml"];

struct Manifest(Vec<Yaml>);

impl Manifest {
    #[track_caller]
    fn read(name: &str) -> Self {
        Self(
            YamlLoader::load_from_str(&text(name))
                .unwrap_or_else(|error| panic!("{name}: {error}")),
        )
    }

    /// The only one of its kind.
    #[track_caller]
    fn one(&self, kind: &str) -> &Yaml {
        let mut found = self.0.iter().filter(|it| it["kind"].as_str() == Some(kind));
        let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
        assert!(found.next().is_none(), "more than one {kind}");
        one
    }

    fn pod(&self) -> &Yaml {
        &self.one("Deployment")["spec"]["template"]["spec"]
    }

    /// The container of the gate.
    #[track_caller]
    fn gate(&self) -> &Yaml {
        let lists = ["containers", "initContainers"].map(|list| items(&self.pod()[list]));
        let mut gates = lists.into_iter().flatten().filter(|it| named(it) == Some("hookgate"));
        gates.next().expect("a gate")
    }

    fn config(&self) -> &str {
        let config = self.one("ConfigMap")["data"]["hookgate.toml"].as_str();
        config.expect("a configuration")
    }
}

fn items(list: &Yaml) -> &[Yaml] {
    list.as_vec().map(Vec::as_slice).unwrap_or_default()
}

fn named(it: &Yaml) -> Option<&str> {
    it["name"].as_str()
}

#[track_caller]
fn find<'a>(list: &'a Yaml, name: &str) -> &'a Yaml {
    items(list).iter().find(|it| named(it) == Some(name)).unwrap_or_else(|| panic!("no {name}"))
}

/// The port behind an address.
#[track_caller]
fn port(address: &Yaml) -> i64 {
    let port = address.as_str().and_then(|it| it.rsplit_once(':')?.1.parse().ok());
    port.unwrap_or_else(|| panic!("no port: {address:?}"))
}

#[test]
fn a_gate_in_a_cluster_is_probed_where_it_answers_and_reached_where_it_listens() {
    for name in MANIFESTS {
        let manifest = Manifest::read(name);
        let gate = manifest.gate();
        let env = |name: &str| &find(&gate["env"], name)["value"];
        let (webhook, health) = (port(env("HOOKGATE_LISTEN")), port(env("HOOKGATE_HEALTH")));
        for (name, wanted) in [("webhook", webhook), ("health", health)] {
            assert_eq!(find(&gate["ports"], name)["containerPort"].as_i64(), Some(wanted));
        }
        for (probe, path) in
            [("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")]
        {
            let get = &gate[probe]["httpGet"];
            assert_eq!((get["path"].as_str(), get["port"].as_str()), (Some(path), Some("health")));
        }
        let service = &items(&manifest.one("Service")["spec"]["ports"])[0];
        assert_eq!(service["targetPort"].as_str(), Some("webhook"), "{name}");
        let ingress = items(&manifest.one("NetworkPolicy")["spec"]["ingress"]);
        let open = ingress.iter().flat_map(|rule| items(&rule["ports"]));
        let open: Vec<_> = open.filter_map(|rule| rule["port"].as_i64()).collect();
        assert_eq!(open, [webhook, health], "{name}");
        // The same pods everywhere.
        let labels = &manifest.one("Deployment")["spec"]["template"]["metadata"]["labels"];
        for selected in [
            &manifest.one("Deployment")["spec"]["selector"]["matchLabels"],
            &manifest.one("Service")["spec"]["selector"],
            &manifest.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            &manifest.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        ] {
            assert_eq!(selected, labels, "{name}");
        }
    }
}

#[test]
fn a_gate_in_a_cluster_follows_its_files_and_keeps_its_state_for_itself() {
    for name in MANIFESTS {
        let manifest = Manifest::read(name);
        let (gate, pod) = (manifest.gate(), manifest.pod());
        let mount = |name: &str| &find(&gate["volumeMounts"], name)["mountPath"];
        let folder = |name: &str| format!("{}/", mount(name).as_str().expect("a path"));
        for mount in items(&gate["volumeMounts"]) {
            assert!(mount["subPath"].is_badvalue(), "{name}: what is mounted so is never renewed");
        }
        let config = manifest.config();
        let told = check(config);
        // The keys of each hook are in the folder of the Secret, and that is a volume.
        let key_file = format!("key file      {}webhook.key", folder("keys"));
        assert_eq!(told.matches("key file").count(), told.matches(&key_file).count(), "{told}");
        assert!(!find(&pod["volumes"], "keys")["secret"]["secretName"].is_badvalue());
        let map = find(&pod["volumes"], "config")["configMap"]["name"].as_str();
        assert_eq!(map, manifest.one("ConfigMap")["metadata"]["name"].as_str());
        let args: Vec<_> = items(&gate["args"]).iter().filter_map(Yaml::as_str).collect();
        assert_eq!(args, ["serve", "--config", &format!("{}hookgate.toml", folder("config"))]);
        let state = find(&gate["env"], "HOOKGATE_STATE_DIR")["value"].as_str().expect("a folder");
        assert!(state.starts_with(&folder("state")), "{name}");
        let claim = find(&pod["volumes"], "state")["persistentVolumeClaim"]["claimName"].as_str();
        let claimed = manifest.one("PersistentVolumeClaim");
        assert_eq!(claim, claimed["metadata"]["name"].as_str());
        // One process for it, also while there is a new version.
        let deployment = &manifest.one("Deployment")["spec"];
        assert_eq!(deployment["replicas"].as_i64(), Some(1));
        assert_eq!(deployment["strategy"]["type"].as_str(), Some("Recreate"));
        // Longer than it drains.
        let seconds = |key: &str| {
            let line = config.lines().find_map(|line| line.trim().strip_prefix(key));
            line.and_then(|line| line.split('"').nth(1)?.strip_suffix('s')?.parse::<i64>().ok())
        };
        let drain = seconds("grace_period").expect("a grace period")
            + seconds("shutdown_delay").unwrap_or_default();
        let grace = pod["terminationGracePeriodSeconds"].as_i64().expect("a grace period");
        assert!(grace >= drain + 10, "{name}: {grace} s for {drain} s");
    }
}

#[test]
fn a_gate_in_a_cluster_has_no_rights() {
    for name in MANIFESTS {
        let manifest = Manifest::read(name);
        let (own, pod) = (&manifest.gate()["securityContext"], manifest.pod());
        let setting = |key: &str| match &own[key] {
            Yaml::BadValue => &pod["securityContext"][key],
            own => own,
        };
        assert_eq!(setting("runAsNonRoot").as_bool(), Some(true), "{name}");
        let image = instruction("USER");
        let ids = ["runAsUser", "runAsGroup"].map(|key| setting(key).as_i64().unwrap_or_default());
        assert_eq!(format!("{}:{}", ids[0], ids[1]), image, "{name}");
        assert_eq!(pod["securityContext"]["fsGroup"].as_i64(), Some(ids[1]), "{name}");
        assert_eq!(setting("seccompProfile")["type"].as_str(), Some("RuntimeDefault"), "{name}");
        assert_eq!(own["allowPrivilegeEscalation"].as_bool(), Some(false), "{name}");
        assert_eq!(own["readOnlyRootFilesystem"].as_bool(), Some(true), "{name}");
        assert_eq!(items(&own["capabilities"]["drop"])[0].as_str(), Some("ALL"), "{name}");
        assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false), "{name}");
    }
}

#[test]
fn a_native_sidecar_starts_before_the_service_and_sends_to_it_in_the_pod() {
    let manifest = Manifest::read("kubernetes/sidecar.yaml");
    let first = &items(&manifest.pod()["initContainers"])[0];
    assert_eq!((named(first), first["restartPolicy"].as_str()), (Some("hookgate"), Some("Always")));
    assert!(!first["startupProbe"].is_badvalue());
    let service = &items(&manifest.pod()["containers"])[0];
    let address = items(&service["args"]).last().and_then(Yaml::as_str).expect("an address");
    assert!(manifest.config().contains(&format!("url = \"http://{address}\"")));
}

#[test]
#[ignore = "needs kubernetes-validate"]
fn the_schemas_of_kubernetes_take_the_manifests() {
    let args = ["--strict", "--quiet"];
    run("kubernetes-validate", &[&args[..], &MANIFESTS].concat(), &deploy());
    let folder = TempDir::with_prefix("hookgate-").expect("a folder");
    let wrong = text(MANIFESTS[1]).replace("restartPolicy: Always", "restartPolice: Always");
    fs::write(folder.path().join("wrong.yaml"), wrong).expect("a file");
    let output = Command::new("kubernetes-validate")
        .args(["--strict", "--quiet", "wrong.yaml"])
        .current_dir(folder.path())
        .output();
    assert!(!output.expect("a program").status.success(), "it takes anything");
}

// --- proxies

/// Writes a configuration of a proxy with a certificate that is there.
fn with_certificate(name: &str, to: &Path) -> TempDir {
    let folder = TempDir::with_prefix("hookgate-").expect("a folder");
    let made = rcgen::generate_simple_self_signed(["gate.example.com".to_owned()]);
    let made = made.expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let at = folder.path().to_str().expect("text");
    fs::write(folder.path().join("gate.crt"), &certificate).expect("a file");
    // For HAProxy, both in one file.
    fs::write(folder.path().join("gate.pem"), certificate + &key).expect("a file");
    let config = text(name).replace("/etc/nginx", at).replace("/etc/haproxy", at);
    let config = config.replace("/var/log/nginx", at).replace("/var/log/caddy", at);
    fs::write(folder.path().join(to), config).expect("a file");
    folder
}

#[test]
#[ignore = "needs nginx"]
fn nginx_takes_its_configuration() {
    let folder = with_certificate("proxy/nginx.conf", Path::new("hookgate.conf"));
    let at = folder.path().to_str().expect("text");
    let main = format!("pid {at}/pid;\nevents {{}}\nhttp {{ include {at}/hookgate.conf; }}\n");
    fs::write(folder.path().join("nginx.conf"), main).expect("a file");
    run("nginx", &["-t", "-q", "-c", &format!("{at}/nginx.conf")], folder.path());
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_takes_its_configuration() {
    let folder = with_certificate("proxy/haproxy.cfg", Path::new("haproxy.cfg"));
    run("haproxy", &["-c", "-f", "haproxy.cfg"], folder.path());
}

#[test]
#[ignore = "needs caddy"]
fn caddy_takes_its_configuration() {
    let folder = with_certificate("proxy/Caddyfile", Path::new("Caddyfile"));
    run("caddy", &["validate", "--config", "Caddyfile", "--adapter", "caddyfile"], folder.path());
}

#[test]
fn no_proxy_logs_a_path_or_sends_anything_twice() {
    let nginx = text("proxy/nginx.conf");
    let (_, format) = nginx.split_once("log_format hookgate").expect("a format");
    let (format, _) = format.split_once(';').expect("its end");
    for variable in ["$request ", "$request_uri", "$uri", "$args", "$http_"] {
        assert!(!format.contains(variable), "{variable}");
    }
    assert!(nginx.contains("proxy_next_upstream off;") && nginx.contains("emerg;"));
    let haproxy = text("proxy/haproxy.cfg");
    let format = haproxy.lines().find(|line| line.contains("log-format")).expect("a format");
    for variable in ["%HU", "%HP", "%HQ", "%r", "%{+Q}r"] {
        assert!(!format.contains(variable), "{variable}");
    }
    assert!(haproxy.contains("retries 0\n") && !haproxy.contains("option httplog"));
    let caddy = text("proxy/Caddyfile");
    for line in ["request>uri delete", "request>headers delete", "exclude http.log.error"] {
        assert!(caddy.contains(line), "{line}");
    }
}
