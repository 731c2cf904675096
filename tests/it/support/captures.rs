//! Requests that published SDKs sent, to be sent again byte for byte.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::skipped;

/// The write key of each SDK in the captures, with an id for its source.
pub const SOURCES: [(&str, &str); 5] = [
    ("js", "WRITE_KEY_JS"),
    ("node", "WRITE_KEY_NODE"),
    ("py", "WRITE_KEY_PY"),
    ("rust", "WRITE_KEY_RUST"),
    ("segment", "WRITE_KEY_SEGMENT"),
];

/// Every capture with its file's name, in the order of the names. `None`, said aloud, where there are none.
pub fn captures() -> Option<Vec<(String, Value)>> {
    let root = std::env::var("SLUICE_VECTORS").unwrap_or_else(|_| "../shared/vectors".to_owned());
    let folder = PathBuf::from(root).join("sdk");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        skipped::say(&format!(
            "no captures in {}; set SLUICE_VECTORS",
            folder.display()
        ));
        return None;
    };
    let mut captures: Vec<(String, Value)> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_some_and(|e| e == "json") && !path.ends_with("index.json")
        })
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).unwrap())
        })
        .collect();
    captures.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(captures.len() > 30, "only {} captures", captures.len());
    Some(captures)
}

/// The request as it stood on the wire, but for the host.
pub fn bytes_of(request: &Value, host: SocketAddr) -> Vec<u8> {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let mut target = text("path").to_owned();
    if !text("query").is_empty() {
        target.push('?');
        target.push_str(text("query"));
    }
    let mut bytes =
        format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", text("method")).into_bytes();
    for header in request["headers"].as_array().unwrap() {
        let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
        if ![
            "host",
            "connection",
            "expect",
            "transfer-encoding",
            "content-length",
        ]
        .contains(&name.to_lowercase().as_str())
        {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    let body = STANDARD.decode(text("body_raw_base64")).unwrap();
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The events that a request holds, by what the recorder decoded.
pub fn events_of(request: &Value) -> Vec<Value> {
    let body = &request["body_json"];
    match body["batch"].as_array() {
        Some(batch) => batch.clone(),
        None => vec![body.clone()],
    }
}

/// The write key that a request shows: in its `Authorization`, else in its query.
pub fn write_key_of(request: &Value) -> String {
    let headers = request["headers"].as_array().unwrap();
    let basic = headers.iter().find_map(|header| {
        let (name, value) = (header[0].as_str()?, header[1].as_str()?);
        name.eq_ignore_ascii_case("authorization")
            .then(|| value.strip_prefix("Basic "))?
    });
    if let Some(basic) = basic {
        let pair = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
        return pair.split_once(':').unwrap().0.to_owned();
    }
    let query = request["query"].as_str().unwrap();
    let key = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "writeKey");
    key.unwrap().1.into_owned()
}
