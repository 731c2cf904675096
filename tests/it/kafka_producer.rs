//! The acknowledged producer against a real broker.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use sluice::fault::{Classify, Fault};
use sluice::kafka::{
    AckProducer, Admin, Batch, Headers, OffsetQuery, ProduceError, RecordRef, TopicPartition,
    deadline,
};

use crate::kafka_support::*;

#[test]
fn what_a_batch_calls_acknowledged_is_in_the_log() {
    let config = config();
    let topic = topic(&config, "ack", 3);
    let producer = AckProducer::open(&config, "test").unwrap();
    let batch = Batch::new();
    for n in numbers(0..500) {
        producer.send(&batch, plain(&topic, &n, &n)).unwrap();
    }
    block_on(batch.wait(deadline(PATIENCE))).unwrap();
    assert!(producer.healthy());
    assert_eq!(producer.in_flight_bytes(), 0);
    assert_eq!(
        sorted(payloads(&read_all(&config, &topic))),
        numbers(0..500)
    );
}

#[test]
fn records_of_one_key_keep_their_order_and_their_partition() {
    let config = config();
    let topic = topic(&config, "order", 6);
    let producer = AckProducer::open(&config, "test").unwrap();
    let batch = Batch::new();
    for n in numbers(0..300) {
        let key = format!("user-{}", &n[5..]);
        producer.send(&batch, plain(&topic, &key, &n)).unwrap();
    }
    block_on(batch.wait(deadline(PATIENCE))).unwrap();
    let all = read_all(&config, &topic);
    for digit in 0..10 {
        let key = format!("user-{digit}");
        let of_key: Vec<_> = all
            .iter()
            .filter(|m| m.key.as_deref() == Some(key.as_bytes()))
            .collect();
        assert_eq!(of_key.len(), 30);
        assert!(
            of_key.iter().all(|m| m.partition == of_key[0].partition),
            "{key} is in two partitions"
        );
        let read = payloads(of_key);
        assert_eq!(read, sorted(read.clone()));
    }
}

#[test]
fn keys_choose_the_partition_that_the_java_clients_choose() {
    // murmur2 of these keys as Kafka's own Utils.murmur2 gives them (its unit test), positive, modulo 7.
    let config = config();
    let topic = topic(&config, "murmur", 7);
    let producer = AckProducer::open(&config, "test").unwrap();
    let batch = Batch::detailed();
    let hashes: [(&str, i32); 4] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
    ];
    for (key, _) in hashes {
        producer.send(&batch, plain(&topic, key, "v")).unwrap();
    }
    let places = block_on(batch.wait_each(deadline(PATIENCE)));
    for ((key, hash), place) in hashes.iter().zip(places) {
        assert_eq!(
            place.unwrap().partition,
            (hash & 0x7fff_ffff) % 7,
            "for {key}"
        );
    }
}

#[test]
fn records_sent_at_once_go_where_single_ones_go_and_in_order() {
    let config = config();
    let topic = topic(&config, "at-once", 5);
    let producer = AckProducer::open(&config, "test").unwrap();
    let keys: Vec<String> = (0..50).map(|n| format!("user-{}", n % 10)).collect();
    let payloads: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let records = keys
        .iter()
        .zip(&payloads)
        .map(|(k, p)| (k.as_bytes(), p.as_bytes()));
    let singly = Batch::detailed();
    for key in &keys {
        producer
            .send(&singly, plain(&topic, key, "single"))
            .unwrap();
    }
    let at_once = Batch::detailed();
    producer.send_all(&at_once, &topic, records).unwrap();
    let singly = block_on(singly.wait_each(deadline(PATIENCE)));
    let at_once = block_on(at_once.wait_each(deadline(PATIENCE)));
    let all = read_all(&config, &topic);
    for (n, (single, place)) in singly.into_iter().zip(at_once).enumerate() {
        let place = place.unwrap();
        assert_eq!(place.partition, single.unwrap().partition, "{}", keys[n]);
        let there = all.iter().find(|m| m.position() == place).unwrap();
        assert_eq!(payload(there), payloads[n]);
        assert_eq!(there.key.as_deref(), Some(keys[n].as_bytes()));
    }
    for key in &keys[..10] {
        let of_key = all
            .iter()
            .filter(|m| m.key.as_deref() == Some(key.as_bytes()) && payload(m) != "single");
        let numbers: Vec<u32> = of_key.map(|m| payload(m).parse().unwrap()).collect();
        assert!(numbers.len() == 5 && numbers.is_sorted(), "{numbers:?}");
    }
    assert_eq!(producer.in_flight_bytes(), 0);
}

#[test]
fn of_records_sent_at_once_the_one_too_large_fails_the_batch_and_gives_its_bytes_back() {
    let config = config();
    let topic = topic(&config, "one-large", 1);
    let producer = AckProducer::open(&config, "test").unwrap();
    let large = "x".repeat(config.producer.message_bytes_max + 1);
    let records = ["before", &large, "after"].map(|p| (b"k".as_slice(), p.as_bytes()));
    let batch = Batch::new();
    let error = producer
        .send_all(&batch, &topic, records.into_iter())
        .unwrap_err();
    assert!(matches!(error, ProduceError::TooLarge { .. }), "{error}");
    assert!(block_on(batch.wait(deadline(PATIENCE))).is_err());
    wait_until("the others are acknowledged", || {
        producer.in_flight_bytes() == 0
    });
    assert_eq!(payloads(&read_all(&config, &topic)), ["before", "after"]);

    let batch = Batch::new();
    let none = std::iter::empty();
    producer.send_all(&batch, &topic, none).unwrap();
    block_on(batch.wait(deadline(PATIENCE))).unwrap();
    let error = producer
        .send_all(&Batch::new(), "no\0name", records[..1].iter().copied())
        .unwrap_err();
    assert_ne!(error.fault(), Fault::RETRY, "{error}");
    assert_eq!(producer.in_flight_bytes(), 0);
}

#[test]
fn a_detailed_batch_names_the_place_of_each_record() {
    let config = config();
    let topic = topic(&config, "places", 2);
    let producer = AckProducer::open(&config, "test").unwrap();
    let batch = Batch::detailed();
    for n in 0..10 {
        let payload = format!("{n}");
        let mut record = plain(&topic, "k", &payload);
        record.partition = Some(n % 2);
        producer.send(&batch, record).unwrap();
    }
    let places = block_on(batch.wait_each(deadline(PATIENCE)));
    let all = read_all(&config, &topic);
    for (n, place) in places.into_iter().enumerate() {
        let place = place.unwrap();
        let there = all.iter().find(|m| m.position() == place).unwrap();
        assert_eq!(payload(there), n.to_string());
    }
}

#[test]
fn key_payload_headers_and_time_arrive_as_they_were_sent() {
    let config = config();
    let topic = topic(&config, "bytes", 1);
    let producer = AckProducer::open(&config, "test").unwrap();
    let batch = Batch::new();
    let sent = [
        (Some(&b"\x00\xff"[..]), Some(&b"payload"[..])),
        (None, Some(&b""[..])),
        (Some(&b""[..]), None),
    ];
    for (key, payload) in sent {
        let record = RecordRef {
            topic: &topic,
            partition: Some(0),
            key,
            payload,
            timestamp: Some(1_700_000_000_123),
            headers: Headers::Borrowed(&[("a", b"1"), ("b", b""), ("a", b"\xff")]),
        };
        producer.send(&batch, record).unwrap();
    }
    block_on(batch.wait(deadline(PATIENCE))).unwrap();
    let all = read_all(&config, &topic);
    assert_eq!(all.len(), 3);
    for (message, (key, payload)) in all.iter().zip(sent) {
        assert_eq!(message.key.as_deref(), key);
        assert_eq!(message.payload.as_deref(), payload);
        assert_eq!(message.timestamp, Some(1_700_000_000_123));
        let names: Vec<_> = message.headers.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["a", "b", "a"]);
        assert_eq!(message.header("a"), Some(&b"\xff"[..]));
    }
}

#[test]
fn a_record_that_is_too_large_is_refused_for_good_and_spoils_no_later_batch() {
    let config = config();
    let topic = topic(&config, "large", 1);
    let producer = AckProducer::open(&config, "test").unwrap();
    let batch = Batch::new();
    let large = "x".repeat(config.producer.message_bytes_max + 1);
    let error = producer
        .send(&batch, plain(&topic, "k", &large))
        .unwrap_err();
    assert!(matches!(error, ProduceError::TooLarge { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Permanent);
    // The caller may overlook the error; the batch does not.
    assert!(block_on(batch.wait(deadline(PATIENCE))).is_err());
    assert_eq!(producer.in_flight_bytes(), 0);

    let batch = Batch::new();
    producer.send(&batch, plain(&topic, "k", "small")).unwrap();
    block_on(batch.wait(deadline(PATIENCE))).unwrap();
}

#[test]
fn beyond_the_budget_sending_fails_at_once_and_recovers() {
    let mut config = config_at("127.0.0.1:1"); // Nobody answers there, so nothing is ever acknowledged.
    config.producer.in_flight_bytes_max = 10_000;
    config.producer.message_bytes_max = 10_000;
    config.producer.delivery_timeout_ms = 1_000;
    let producer = AckProducer::open(&config, "test").unwrap();
    let batch = Batch::new();
    let payload = "x".repeat(999);
    let began = std::time::Instant::now();
    for _ in 0..10 {
        producer.send(&batch, plain("t", "k", &payload)).unwrap();
    }
    let refused = Batch::new();
    let error = producer
        .send(&refused, plain("t", "k", &payload))
        .unwrap_err();
    assert!(matches!(error, ProduceError::QueueFull), "{error}");
    let record = (b"k".as_slice(), payload.as_bytes());
    let error = producer
        .send_all(&Batch::new(), "t", std::iter::repeat_n(record, 2))
        .unwrap_err();
    assert!(matches!(error, ProduceError::QueueFull), "{error}");
    assert!(began.elapsed() < Duration::from_millis(900), "it blocked");
    let error = block_on(batch.wait(deadline(PATIENCE))).unwrap_err();
    assert_eq!(error.fault(), Fault::RETRY, "{error}");
    assert_eq!(producer.in_flight_bytes(), 0);
    assert!(!producer.healthy());
    assert!(producer.ping(Duration::from_millis(200)).is_err());
}

#[test]
fn an_acknowledgement_that_does_not_come_in_time_is_no_acknowledgement() {
    let config = config_at("127.0.0.1:1");
    let producer = AckProducer::open(&config, "test").unwrap();
    let batch = Batch::new();
    producer.send(&batch, plain("t", "k", "v")).unwrap();
    let error = block_on(batch.wait(deadline(Duration::from_millis(50)))).unwrap_err();
    assert!(matches!(error, ProduceError::Timeout), "{error}");
}

#[test]
fn a_topic_that_does_not_exist_is_waited_for_and_not_dead_lettered() {
    let mut config = config();
    config.producer.delivery_timeout_ms = 7_000;
    let producer = AckProducer::open(&config, "test").unwrap();
    producer.ping(PATIENCE).unwrap();
    let name = unique("missing");
    let batch = Batch::new();
    producer.send(&batch, plain(&name, "k", "v")).unwrap();
    let error = block_on(batch.wait(deadline(PATIENCE))).unwrap_err();
    assert_eq!(error.fault(), Fault::RETRY, "{error}");
    let admin = Admin::open(&config).unwrap();
    assert!(
        admin.topic(&name).unwrap().is_none(),
        "asking for it has made it"
    );
}

#[test]
fn a_producer_that_broke_for_good_is_replaced_and_sending_goes_on() {
    // A healthy broker gives no such answer, so librdkafka's mock does.
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("t", 1, 1).unwrap();
    let producer = AckProducer::open(&config_at(&mock.bootstrap_servers()), "test").unwrap();
    let write = |payload: &str| {
        let batch = Batch::new();
        // In turns as one and as many: the handle of the topic belongs to the producer that broke.
        if producer.replaced().is_multiple_of(2) {
            let record = (b"k".as_slice(), payload.as_bytes());
            producer.send_all(&batch, "t", std::iter::once(record))?;
        } else {
            producer.send(&batch, plain("t", "k", payload))?;
        }
        block_on(batch.wait(deadline(PATIENCE)))
    };
    for round in 1..=3 {
        write("before").unwrap();
        mock.request_errors(
            RDKafkaApiKey::Produce,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
        );
        let error = write("broken").unwrap_err();
        assert!(matches!(error, ProduceError::Broken(_)), "{error}");
        assert_eq!(error.fault(), Fault::RETRY);
        wait_until("it is replaced", || producer.replaced() == round);
    }
    write("after").unwrap();
    assert_eq!(producer.in_flight_bytes(), 0);
}

#[test]
fn waiting_producers_do_not_hold_each_other_up() {
    let config = config();
    let topic = topic(&config, "many", 3);
    let producer = AckProducer::open(&config, "test").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (producer, topic) = (producer.clone(), topic.as_str());
            scope.spawn(move || {
                for n in 0..50 {
                    let batch = Batch::new();
                    let payload = format!("{thread}-{n}");
                    producer
                        .send(&batch, plain(topic, &payload, &payload))
                        .unwrap();
                    block_on(batch.wait(deadline(PATIENCE))).unwrap();
                }
            });
        }
    });
    let partitions: Vec<_> = (0..3)
        .map(|p| TopicPartition::new(topic.as_str(), p))
        .collect();
    let ends = Admin::open(&config)
        .unwrap()
        .offsets(&partitions, OffsetQuery::End)
        .unwrap();
    assert_eq!(ends.values().sum::<i64>(), 200);
}
