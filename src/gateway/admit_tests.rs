use super::*;
use crate::gateway::json::Bounds;
use crate::gateway::payload::{PayloadBounds, single};

const BOUNDS: PayloadBounds = PayloadBounds {
    event: Bounds {
        depth: 100,
        values: 1000,
    },
    events: 10,
};
const RULES: Rules = Rules {
    allow_anonymous: false,
};

fn admitted(json: &str, kind: Option<&'static str>) -> Result<Envelope<'static>, Refusal> {
    let payload = single(json, BOUNDS).unwrap();
    admit(&payload.events[0], kind, &Arrival::default(), RULES).map(Envelope::into_owned)
}

#[test]
fn the_path_decides_the_type_of_a_single_event_and_the_event_that_of_a_batch_element() {
    let json = r#"{"userId":"u","type":"page","event":"Order"}"#;
    let single = admitted(json, Some("track")).unwrap();
    assert_eq!(
        (&*single.event_type, &*single.event_name),
        ("track", "Order")
    );
    let element = admitted(json, None).unwrap();
    assert_eq!((&*element.event_type, &*element.event_name), ("page", ""));
    assert_eq!(&*element.event, json.as_bytes());
}

#[test]
fn ids_of_any_scalar_type_are_their_text() {
    for (json, user) in [
        (r#"{"userId":" u1\u200b "}"#, "u1"),
        (r#"{"userId":7}"#, "7"),
        (r#"{"userId":12345678901234567890}"#, "12345678901234567890"),
        (r#"{"userId":1.50}"#, "1.5"),
        (r#"{"userId":1e3}"#, "1000"),
        (r#"{"userId":true}"#, "true"),
        (r#"{"userId":{"e":1}}"#, r#"{"e":1}"#),
    ] {
        assert_eq!(admitted(json, None).unwrap().user_id, user, "{json}");
    }
}

#[test]
fn an_event_that_names_nobody_is_refused_unless_its_type_names_nobody() {
    for json in [
        "{}",
        r#"{"userId":null,"anonymousId":""}"#,
        r#"{"userId":" \u200b","type":"track"}"#,
    ] {
        assert_eq!(
            admitted(json, None).unwrap_err(),
            Refusal::NoIdentity,
            "{json}"
        );
    }
    assert!(admitted(r#"{"anonymousId":"a"}"#, None).is_ok());
    assert!(admitted(r#"{"type":"record"}"#, None).is_ok());
    assert!(admitted(r#"{"type":"track"}"#, Some("extract")).is_ok());
    assert_eq!(admitted("[]", None).unwrap_err(), Refusal::NotAnEvent);
}

#[test]
fn two_equal_events_without_an_id_are_two_events() {
    let a = admitted(r#"{"userId":"u","messageId":" "}"#, None).unwrap();
    let b = admitted(r#"{"userId":"u","messageId":" "}"#, None).unwrap();
    assert_ne!(a.message_id, b.message_id);
    assert_eq!(Uuid::parse_str(&a.message_id).unwrap().get_version_num(), 4);
    assert_eq!(
        admitted(r#"{"userId":"u","messageId":"m\u0000 "}"#, None)
            .unwrap()
            .message_id,
        "m"
    );
}

#[test]
fn the_sdk_is_name_and_version() {
    let of = |library: &str| {
        admitted(
            &format!(r#"{{"userId":"u","context":{{"library":{library}}}}}"#),
            None,
        )
        .unwrap()
        .sdk
    };
    assert_eq!(of(r#"{"name":"js","version":"3.1"}"#), "js/3.1");
    assert_eq!(of(r#"{"name":"js"}"#), "js");
    assert_eq!(of(r#"{"version":"1"}"#), "");
}
