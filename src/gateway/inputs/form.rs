//! Forms as JSON, in the shape that RudderStack gives them (which is that of Go's `url.Values` and `multipart.Form`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::Serialize;

use super::super::arrival;
use super::super::refusal::Refusal;
use super::super::transformer::contract::go_headers;

/// What a body is, by its content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Content {
    /// `a=1&b=2`.
    UrlEncoded,
    /// Parts between boundaries.
    Multipart(String),
    /// Anything else, taken as it is.
    Text,
}

impl Content {
    pub(in super::super) fn of(headers: &HeaderMap) -> Self {
        let value = arrival::text(headers, header::CONTENT_TYPE.as_str());
        let lower = value.to_ascii_lowercase();
        if lower.contains("application/x-www-form-urlencoded") {
            Self::UrlEncoded
        } else if lower.contains("multipart/form-data") {
            Self::Multipart(value.to_owned())
        } else {
            Self::Text
        }
    }
}

type Fields = BTreeMap<String, Vec<String>>;

/// `{"a":["1","2"]}` for `a=1&a=2`. `None` for a body that is JSON whatever its label says: `curl -d` labels everything
/// so, and no form begins with a brace or a bracket.
///
/// # Errors
/// [`Refusal::BadForm`] where Go finds it malformed.
pub(super) fn url_encoded(body: &[u8]) -> Result<Option<String>, Refusal> {
    let body = body.trim_ascii();
    if matches!(body.first(), Some(b'{' | b'[')) {
        return Ok(None);
    }
    let is_hex = |at: usize| body.get(at).is_some_and(u8::is_ascii_hexdigit);
    let broken = |(at, byte): (usize, &u8)| match byte {
        b'%' => !(is_hex(at + 1) && is_hex(at + 2)),
        byte => *byte == b';',
    };
    if body.iter().enumerate().any(broken) {
        return Err(Refusal::BadForm);
    }
    let mut fields = Fields::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        fields
            .entry(name.into_owned())
            .or_default()
            .push(value.into_owned());
    }
    if fields.is_empty() {
        return Ok(Some("{}".to_owned()));
    }
    json(&fields).map(Some)
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Form {
    value: Fields,
    file: BTreeMap<String, Vec<File>>,
}

/// As in RudderStack a file is told of, and what is in it is not taken.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    filename: String,
    header: Fields,
    size: usize,
}

/// `{"Value":{"a":["1"]},"File":{"f":[{"Filename":"a.png","Header":{…},"Size":7}]}}`.
///
/// # Errors
/// [`Refusal::BadMultipart`].
pub(super) async fn multipart(content_type: &str, body: Bytes) -> Result<String, Refusal> {
    let bad = |_| Refusal::BadMultipart;
    let boundary = multer::parse_boundary(content_type).map_err(bad)?;
    let body = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut parts = multer::Multipart::new(body, boundary);
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(bad)? {
        // Go leaves out what has no name.
        let Some(name) = part.name().map(str::to_owned).filter(|n| !n.is_empty()) else {
            continue;
        };
        let filename = part.file_name().unwrap_or_default().to_owned();
        let headers = part.headers().clone();
        let content = part.bytes().await.map_err(bad)?;
        match filename.as_str() {
            "" => {
                let text = String::from_utf8_lossy(&content).into_owned();
                form.value.entry(name).or_default().push(text);
            }
            _ => {
                let owned = |values: Vec<Cow<'_, str>>| {
                    values.into_iter().map(Cow::into_owned).collect::<Vec<_>>()
                };
                form.file.entry(name).or_default().push(File {
                    filename,
                    header: go_headers(&headers)
                        .into_iter()
                        .map(|(name, values)| (name, owned(values)))
                        .collect(),
                    size: content.len(),
                });
            }
        }
    }
    json(&form)
}

fn json(form: &impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(form).map_err(|_| Refusal::Unencodable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_is_an_object_of_lists() {
        let of = |body: &str| url_encoded(body.as_bytes());
        assert_eq!(
            of("b=x+y&a=%C3%B6&b=2&c").unwrap().unwrap(),
            r#"{"a":["ö"],"b":["x y","2"],"c":[""]}"#
        );
        assert_eq!(of("").unwrap().unwrap(), "{}");
        assert_eq!(of(" {\"a\":1}").unwrap(), None);
        for body in ["a=%", "a=%2", "%zz=1", "a=1;b=2"] {
            assert_eq!(of(body), Err(Refusal::BadForm), "{body}");
        }
    }

    #[tokio::test]
    async fn a_file_is_told_of_and_a_value_is_taken() {
        let body = "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
            --X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"p.png\"\r\nContent-Type: image/png\r\n\r\nabc\r\n\
            --X--\r\n";
        let made = async |content_type: &str, body: &str| {
            multipart(content_type, Bytes::copy_from_slice(body.as_bytes())).await
        };
        assert_eq!(
            made("multipart/form-data; boundary=X", body).await.unwrap(),
            "{\"Value\":{\"a\":[\"1\"]},\"File\":{\"f\":[{\"Filename\":\"p.png\",\"Header\":{\
             \"Content-Disposition\":[\"form-data; name=\\\"f\\\"; filename=\\\"p.png\\\"\"],\
             \"Content-Type\":[\"image/png\"]},\"Size\":3}]}}"
        );
        for (content_type, body) in [
            ("multipart/form-data", body),
            ("multipart/form-data; boundary=Y", body),
            ("multipart/form-data; boundary=X", &body[..60]),
        ] {
            assert_eq!(made(content_type, body).await, Err(Refusal::BadMultipart));
        }
    }

    proptest! {
        #[test]
        fn any_body_is_json_afterwards_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(form)) = url_encoded(&body) {
                prop_assert!(serde_json::from_str::<Fields>(&form).is_ok(), "{form}");
            }
        }

        #[test]
        fn a_damaged_form_is_json_afterwards_or_refused(at in 0..160usize, byte: u8, cut in 0..160usize) {
            let mut body = b"--X\r\nContent-Disposition: form-data; name=\"a\"; filename=\"b\"\r\n\r\n1\r\n\
                --X\r\nContent-Disposition: form-data; name=\"c\"\r\n\r\n2\r\n--X--\r\n".to_vec();
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
            body.truncate(body.len().saturating_sub(cut % 40));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let made = runtime.block_on(multipart("multipart/form-data; boundary=X", body.into()));
            if let Ok(form) = made {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&form).is_ok(), "{form}");
            }
        }
    }
}
