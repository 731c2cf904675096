use super::*;

fn found(schema: &str, kind: Option<&str>) -> Found {
    Found {
        id: Some(1),
        schema: schema.to_owned(),
        kind: kind.map(str::to_owned),
    }
}

#[test]
fn a_schema_is_ours_whatever_its_docs_and_layout() {
    for name in SchemaName::ALL {
        let text = name.json();
        assert_eq!(meaning(&found(&text, None)), Meaning::Ours(name));
        assert_eq!(meaning(&found(&text, Some("AVRO"))), Meaning::Ours(name));
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["doc"] = "in other words".into();
        assert_eq!(
            meaning(&found(&value.to_string(), None)),
            Meaning::Ours(name)
        );
    }
}

#[test]
fn a_schema_with_other_fields_or_of_another_kind_is_not_ours() {
    let text = SchemaName::Envelope.json();
    let renamed = text.replace("\"sdk\"", "\"kit\"");
    assert_ne!(text, renamed);
    for (schema, kind, says) in [
        (renamed.as_str(), None, "another schema"),
        ("\"string\"", None, "another schema"),
        ("not JSON", None, "another schema"),
        (text.as_str(), Some("PROTOBUF"), "PROTOBUF"),
    ] {
        match meaning(&found(schema, kind)) {
            Meaning::Foreign(what) => assert!(what.contains(says), "{what}"),
            Meaning::Ours(name) => panic!("{schema} passes for {name:?}"),
        }
    }
}

#[test]
fn without_a_registry_records_name_their_schema_themselves_and_any_id_is_taken() {
    let schemas = Schemas::default();
    for name in SchemaName::ALL {
        assert_eq!(schemas.framing(name), Framing::SingleObject);
        schemas.admit(name, &[0, 0, 0, 0, 9, 1]).unwrap().unwrap();
        schemas.check(name, &[0, 0, 0, 0, 9, 1]).unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_is_away_is_waited_for_in_bounds_and_named() {
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let config = SchemaRegistryConfig {
        start_timeout_ms: 300,
        ..SchemaRegistryConfig::at(format!("http://{nobody}"))
    };
    let shutdown = Shutdown::new(Duration::from_secs(1));
    let error = Schemas::open(Some(&config), [SchemaName::Envelope], &shutdown)
        .await
        .unwrap_err();
    assert!(error.fault().is_transient());
    let text = error.to_string();
    for says in [
        nobody.to_string().as_str(),
        "start_timeout_ms",
        "kafka.schema_registry.url",
    ] {
        assert!(text.contains(says), "{text}");
    }
}
