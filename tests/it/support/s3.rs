//! A real S3 server: SeaweedFS, whose program is published as a Python package. One per test process, one bucket per test.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

use super::process::{free_address, spawn_bound, wait_for};
use super::python;

const PATIENCE: Duration = Duration::from_secs(90);
const ACCESS_KEY: &str = "sluice-test";
const SECRET_KEY: &str = "sluice-test-secret";

/// A server that the kernel kills with this process.
struct Server {
    _folder: tempfile::TempDir,
    _child: Child,
    endpoint: String,
}

/// A bucket of one test.
#[derive(Debug, Clone)]
pub struct Bucket {
    name: String,
    endpoint: String,
}

/// A new bucket. It holds one object, since the server makes buckets of what an administrator writes to.
pub fn bucket(name: &str) -> Bucket {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(start);
    let bucket = Bucket {
        name: format!("{name}-{:08x}", fastrand::u32(..)),
        endpoint: server.endpoint.clone(),
    };
    bucket.mark().unwrap();
    bucket
}

impl Bucket {
    /// `warehouse.object_store` for a role.
    pub fn settings(&self) -> serde_json::Value {
        json!({
            "url": format!("s3://{}/staging", self.name),
            "endpoint": self.endpoint,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "allow_http": true,
        })
    }

    fn store(&self) -> AmazonS3 {
        sluice::tls::install();
        let builder = AmazonS3Builder::new()
            .with_bucket_name(&self.name)
            .with_endpoint(&self.endpoint)
            .with_region("us-east-1")
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_allow_http(true);
        builder.build().unwrap()
    }

    /// Writes an object that is of no interest to anybody.
    fn mark(&self) -> object_store::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let path = object_store::path::Path::from("mark");
        runtime.block_on(self.store().put(&path, "mark".into()))?;
        Ok(())
    }

    /// Every object, by its key.
    pub async fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let store = self.store();
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for meta in listed {
            let got = store.get(&meta.location).await.unwrap();
            let bytes = got.bytes().await.unwrap();
            objects.insert(meta.location.to_string(), bytes.to_vec());
        }
        objects
    }
}

fn start() -> Server {
    let folder = tempfile::Builder::new()
        .prefix("sluice-test-s3-")
        .tempdir()
        .unwrap();
    let keys = folder.path().join("keys.json");
    let identity = json!({"identities": [{
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }]});
    fs::write(&keys, identity.to_string()).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();

    let s3 = free_address();
    let mut weed = Command::new(program());
    weed.args(["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .args(["-master.volumeSizeLimitMB=64", "-volume.max=100"])
        .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-debug.port=0"])
        .arg(format!("-dir={}", data.display()))
        .arg(format!("-s3.config={}", keys.display()))
        .arg(format!("-s3.port={}", s3.port()));
    for port in [
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port.grpc",
    ] {
        weed.arg(format!("-{port}={}", free_address().port()));
    }
    weed.current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut child = spawn_bound(weed).unwrap();
    let endpoint = format!("http://{s3}");
    let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let probe = Bucket {
        name: "probe".into(),
        endpoint: endpoint.clone(),
    };
    // It listens before it can store anything.
    wait_for("the S3 server to store an object", PATIENCE, || {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the S3 server ended with {status}: {}", said());
        }
        probe.mark().ok()
    });
    Server {
        _folder: folder,
        _child: child,
        endpoint,
    }
}

/// The server's program.
fn program() -> PathBuf {
    python::environment("s3").join("bin/weed")
}
