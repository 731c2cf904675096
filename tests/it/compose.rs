//! `docker-compose.yml` and what it mounts, as far as that can be checked without an engine.

use std::path::Path;

use serde_json::Value;

use crate::support::command::Bench;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn services() -> serde_json::Map<String, Value> {
    let compose: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).unwrap();
    compose["services"].as_object().unwrap().clone()
}

/// What a service mounts from the checkout, with where it finds it.
fn mounts(service: &Value) -> Vec<(String, String)> {
    let volumes = service["volumes"].as_array().cloned().unwrap_or_default();
    volumes
        .iter()
        .map(|volume| volume.as_str().unwrap().split(':'))
        .filter_map(|mut parts| Some((parts.next()?.to_owned(), parts.next()?.to_owned())))
        .filter(|(from, _)| from.starts_with('.'))
        .collect()
}

#[test]
fn what_is_mounted_and_built_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut mounted = Vec::new();
    for (name, service) in services() {
        for (from, _) in mounts(&service) {
            assert!(root.join(&from).is_file(), "{name} mounts {from}");
            mounted.push(from);
        }
        if let Some(folder) = service["build"].as_str() {
            assert!(root.join(folder).join("Dockerfile").is_file(), "{name}");
        }
        for needed in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services().contains_key(needed.0), "{name} needs {needed:?}");
        }
    }
    assert_eq!(mounted.len(), 3, "{mounted:?}");
    let dockerfile = read("Dockerfile");
    let toolchain = dockerfile.split("FROM rust:").nth(1).unwrap();
    let toolchain = toolchain.split('-').next().unwrap();
    let cargo = read("Cargo.toml");
    let needs = cargo.split("rust-version = \"").nth(1).unwrap();
    let needs = needs.split('"').next().unwrap();
    let version =
        |text: &str| -> Vec<u32> { text.split('.').map(|n| n.parse().unwrap()).collect() };
    assert!(
        version(toolchain) >= version(needs),
        "{toolchain} of {needs}"
    );
}

#[test]
fn sluice_takes_its_settings_and_its_workspace() {
    let sluice = services()["sluice"].clone();
    let mounts = mounts(&sluice);
    let file_at = |path: &str| {
        let found = mounts.iter().find(|(_, at)| at == path);
        read(
            &found
                .unwrap_or_else(|| panic!("nothing is mounted at {path}"))
                .0,
        )
    };
    let command: Vec<&str> = sluice["command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    let ["all", "--config", settings] = command[..] else {
        panic!("{command:?}");
    };
    let settings = file_at(settings);
    let config = sluice::config::parse("dev/compose/sluice.yaml", &settings, std::iter::empty());
    let config = config.unwrap();
    config.validate().unwrap();

    // The paths of the image are not those of this machine.
    let workspace = config.workspace.file.unwrap();
    let workspace = workspace.to_str().unwrap();
    let here = settings.replace(workspace, "workspace.yaml");
    let bench = Bench::new(&here);
    bench.write("workspace.yaml", &file_at(workspace));
    let ran = bench.run(&["config", "check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let parsed = sluice::control::parse_workspace("workspace", &file_at(workspace), 1).unwrap();
    assert!(
        parsed
            .sources()
            .all(|source| parsed.connected(source).count() == 2)
    );
}

/// Whatever a setting or a destination names by host is a service, at a port that it listens on as far as the file says.
#[test]
fn the_hosts_that_are_named_are_services() {
    let services = services();
    let texts = [
        read("dev/compose/sluice.yaml"),
        read("dev/compose/workspace.yaml"),
    ]
    .concat();
    let hosts = [
        ("bootstrap: ", ':'),
        ("url: http://", ':'),
        ("endpoint: http://", ':'),
        ("webhookUrl: http://", ':'),
        ("host: ", '\n'),
    ];
    for (before, end) in hosts {
        let named: Vec<&str> = texts
            .split(before)
            .skip(1)
            .map(|rest| rest.split(end).next().unwrap())
            .collect();
        assert!(!named.is_empty(), "{before}");
        for host in named {
            assert!(services.contains_key(host), "{before}{host}");
        }
    }
}

#[test]
fn kafka_is_the_one_that_the_tests_run() {
    let image = services()["kafka"]["image"].as_str().unwrap().to_owned();
    let pom = read("dev/kafka/pom.xml");
    let version = pom.split("<kafka.version>").nth(1).unwrap();
    let version = version.split('<').next().unwrap();
    assert_eq!(image, format!("apache/kafka:{version}"));
}
