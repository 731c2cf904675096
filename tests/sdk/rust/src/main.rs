//! `sluice-sdk-rust URL KEY COUNT`: tracks events numbered from 0 and ends when every one was accepted.

use std::time::Duration;

use rudderanalytics::client::RudderAnalytics;
use rudderanalytics::message::{Message, Track};
use rudderanalytics::retry::RetryConfig;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (url, key) = (args[1].clone(), args[2].clone());
    let count: u64 = args[3].parse().expect("a count");
    let retry = RetryConfig { max_retries: 10, ..RetryConfig::default() };
    let client = RudderAnalytics::load_with_retry_config(key, url, retry);
    for n in 0..count {
        let message = Message::Track(Track {
            user_id: Some(format!("rust-{}", n % 3)),
            event: "Sdk".to_owned(),
            properties: Some(serde_json::json!({ "n": n })),
            ..Track::default()
        });
        // The client gives up when a connection breaks in the middle of a request; the application sends the event again.
        let mut tries = 0;
        while let Err(error) = client.send(&message) {
            tries += 1;
            assert!(tries < 20, "{error:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
