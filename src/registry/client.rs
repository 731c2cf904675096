//! Confluent's HTTP API, as much of it as we need. One request is one attempt: who calls knows how long to try.

use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use url::Url;

use super::RegistryError;
use crate::config::{SchemaRegistryConfig, Secret};
use crate::fault::chain;

/// The API's own media type; some registries insist on it.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// Longest answer that is read. Our schemas take a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest message of the registry's that is passed on.
const MESSAGE_CHARS_MAX: usize = 500;

/// The client of one registry.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    login: Option<(String, Option<Secret>)>,
}

/// A schema as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Found {
    /// Its id; not in the answer to a question by id.
    pub(super) id: Option<u32>,
    /// Its text.
    pub(super) schema: String,
    /// `PROTOBUF` or `JSON`; Avro when absent.
    #[serde(rename = "schemaType")]
    pub(super) kind: Option<String>,
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

/// What the registry says when it does not do what it was asked to.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error_code: u32,
    message: String,
}

impl Client {
    pub(super) fn new(config: &SchemaRegistryConfig) -> Result<Self, RegistryError> {
        crate::tls::install();
        let http = reqwest::Client::builder()
            .timeout(config.timeout())
            .connect_timeout(config.timeout())
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(RegistryError::Client)?;
        Ok(Self {
            http,
            base: config.base_url().ok_or(RegistryError::Url)?,
            login: config
                .username
                .clone()
                .map(|user| (user, config.password.clone())),
        })
    }

    /// Registers a schema; one that is there already keeps its id.
    pub(super) async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let path = ["subjects", subject, "versions"];
        let id: Option<Id> = self.call(Method::POST, &path, Some(schema)).await?;
        id.map(|found| found.id)
            .ok_or_else(|| RegistryError::NoRegistry {
                url: self.base.to_string(),
                message: "it does not know the way to register a schema".to_owned(),
            })
    }

    /// The id of a schema that is registered under `subject` with this text.
    pub(super) async fn find(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Option<u32>, RegistryError> {
        let path = ["subjects", subject];
        let id: Option<Id> = self.call(Method::POST, &path, Some(schema)).await?;
        Ok(id.map(|found| found.id))
    }

    /// The versions of a subject, oldest first; none when there is no such subject.
    pub(super) async fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let path = ["subjects", subject, "versions"];
        let versions: Option<Vec<u32>> = self.call(Method::GET, &path, None).await?;
        Ok(versions.unwrap_or_default())
    }

    /// One version of a subject.
    pub(super) async fn version(
        &self,
        subject: &str,
        version: u32,
    ) -> Result<Option<Found>, RegistryError> {
        let version = version.to_string();
        let path = ["subjects", subject, "versions", &version];
        self.call(Method::GET, &path, None).await
    }

    /// The schema with this id.
    pub(super) async fn by_id(&self, id: u32) -> Result<Option<Found>, RegistryError> {
        let id = id.to_string();
        let path = ["schemas", "ids", &id];
        self.call(Method::GET, &path, None).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        schema: Option<&str>,
    ) -> Result<Option<T>, RegistryError> {
        let mut request = self
            .http
            .request(method, route(&self.base, path))
            .header(ACCEPT, format!("{MEDIA_TYPE}, application/json"));
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, password.as_ref().map(Secret::expose));
        }
        if let Some(schema) = schema {
            request = request
                .header(CONTENT_TYPE, MEDIA_TYPE)
                .body(json!({"schema": schema}).to_string());
        }
        let failed = |error: reqwest::Error| RegistryError::Unreachable {
            url: self.base.to_string(),
            reason: chain(&error.without_url()),
        };
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(RegistryError::NoRegistry {
                    url: self.base.to_string(),
                    message: format!("an answer of more than {ANSWER_BYTES_MAX} bytes"),
                });
            }
            body.extend_from_slice(&piece);
        }
        judge(self.base.as_str(), path, status, &body)
    }
}

/// What an answer means: `None` when the registry has no such thing. Pure.
fn judge<T: DeserializeOwned>(
    url: &str,
    path: &[&str],
    status: u16,
    body: &[u8],
) -> Result<Option<T>, RegistryError> {
    let url = url.to_owned();
    // `subjects/{subject}/…` and `schemas/ids/{id}`.
    let subject = path.get(1).copied().unwrap_or_default().to_owned();
    if (200..300).contains(&status) {
        return serde_json::from_slice(body)
            .map(Some)
            .map_err(|error| RegistryError::NoRegistry {
                url,
                message: format!("its answer is not a registry's ({error})"),
            });
    }
    let refusal: Option<Refusal> = serde_json::from_slice(body).ok();
    let code = refusal.as_ref().map_or(0, |refusal| refusal.error_code);
    let message = refusal
        .map(|refusal| refusal.message)
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| "no message".to_owned())
        .chars()
        .take(MESSAGE_CHARS_MAX)
        .collect();
    Err(match status {
        // No subject, no version, no schema: what a registry says. Any other server's 404 has no such code.
        404 if (40_400..40_500).contains(&code) => return Ok(None),
        404 => RegistryError::NoRegistry {
            url,
            message: "it answered 404".to_owned(),
        },
        401 | 403 => RegistryError::Denied {
            url,
            status,
            message,
        },
        409 => RegistryError::Incompatible { subject, message },
        408 | 429 | 500..=599 => RegistryError::Busy {
            url,
            status,
            message,
        },
        _ => RegistryError::Refused {
            subject,
            status,
            message,
        },
    })
}

/// `{base}/{path}`.
fn route(base: &Url, path: &[&str]) -> Url {
    let mut route = base.clone();
    // Settings take only URLs that have a path.
    if let Ok(mut segments) = route.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    route
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Classify, Fault};

    fn answered(status: u16, body: &str) -> Result<Option<u32>, RegistryError> {
        let path = ["subjects", "sluice.Envelope", "versions"];
        let id: Option<Id> = judge("http://r/", &path, status, body.as_bytes())?;
        Ok(id.map(|found| found.id))
    }

    #[test]
    fn an_answer_is_an_id_or_nothing_or_an_error_that_says_what_now() {
        assert_eq!(answered(200, r#"{"id":7,"version":1}"#).unwrap(), Some(7));
        for code in [40_401, 40_402, 40_403] {
            let body = format!(r#"{{"error_code":{code},"message":"not found"}}"#);
            assert_eq!(answered(404, &body).unwrap(), None);
        }
        let table = [
            (
                404,
                "<html>not found</html>",
                Fault::Fatal,
                "registry_not_there",
            ),
            (
                404,
                r#"{"error_code":404,"message":"HTTP 404"}"#,
                Fault::Fatal,
                "registry_not_there",
            ),
            (
                200,
                "<html>hello</html>",
                Fault::Fatal,
                "registry_not_there",
            ),
            (401, "", Fault::Fatal, "registry_denied"),
            (403, "{}", Fault::Fatal, "registry_denied"),
            (
                409,
                r#"{"error_code":409,"message":"READER_FIELD_MISSING"}"#,
                Fault::Fatal,
                "schema_incompatible",
            ),
            (
                422,
                r#"{"error_code":42201,"message":"bad"}"#,
                Fault::Fatal,
                "schema_refused",
            ),
            (301, "", Fault::Fatal, "schema_refused"),
            (429, "", Fault::RETRY, "registry_busy"),
            (
                500,
                r#"{"error_code":50003,"message":"forward"}"#,
                Fault::RETRY,
                "registry_busy",
            ),
            (503, "", Fault::RETRY, "registry_busy"),
        ];
        for (status, body, fault, code) in table {
            let error = answered(status, body).unwrap_err();
            assert_eq!(
                (error.fault(), error.code()),
                (fault, code),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn what_the_registry_says_is_passed_on_in_bounds() {
        let body = json!({"error_code": 409, "message": "x".repeat(10_000)}).to_string();
        let error = answered(409, &body).unwrap_err().to_string();
        assert!(
            error.contains("sluice.Envelope") && error.contains("xxx"),
            "{error}"
        );
        assert!(error.len() < 1_000, "{}", error.len());
    }

    #[test]
    fn the_address_may_have_a_path_and_a_subject_odd_characters() {
        let of = |url: &str, subject: &str| {
            route(&Url::parse(url).unwrap(), &["subjects", subject]).to_string()
        };
        assert_eq!(of("http://r:8081", "a.B"), "http://r:8081/subjects/a.B");
        assert_eq!(
            of("http://r/apis/ccompat/v7/", ":.ctx:a/b"),
            "http://r/apis/ccompat/v7/subjects/:.ctx:a%2Fb"
        );
    }
}
