//! Numbered events, and posting them to a gateway.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::checker::Input;
use super::client::{Connection, post_json};
use super::killed::Killed;

/// The write key of the source that tests of this kind configure.
pub const WRITE_KEY: &str = "feed-key";

/// Several producers that post side by side.
pub struct Feeds {
    feeds: Vec<Feed>,
}

impl Feeds {
    const PRODUCERS: u32 = 4;
    const KEYS: u64 = 50;
    const BATCH: u64 = 25;

    /// Producers whose ids begin with `run`.
    pub fn new(run: &str, gateway: SocketAddr) -> Self {
        Self {
            feeds: (0..Self::PRODUCERS)
                .map(|n| Feed::new(run, n, Self::KEYS, gateway, WRITE_KEY))
                .collect(),
        }
    }

    /// Posts `count` events in small batches and gives back what was accepted, which is all of them.
    #[track_caller]
    pub fn post(&mut self, count: u64) -> Vec<Input> {
        let each = count / u64::from(Self::PRODUCERS);
        let parts: Vec<Vec<Input>> = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .feeds
                .iter_mut()
                .map(|feed| {
                    scope.spawn(move || {
                        let inputs = feed.make(each);
                        for batch in inputs.chunks(Self::BATCH as usize) {
                            feed.post_until_accepted(batch);
                        }
                        inputs
                    })
                })
                .collect();
            running.into_iter().map(|r| r.join().unwrap()).collect()
        });
        parts.into_iter().flatten().collect()
    }

    /// Posts `count` events in portions, so that every death of every role comes while there is work, and waits until all
    /// deaths are over.
    #[track_caller]
    pub fn spread(&mut self, count: u64, killed: &mut [&mut Killed<'_>]) -> Vec<Input> {
        const PORTIONS: usize = 50;
        // The last portions are for the life after the last death.
        const PORTIONS_FOR_DEATHS: usize = 45;
        const PATIENCE: Duration = Duration::from_secs(5);
        let mut inputs = Vec::new();
        for portion in 1..=PORTIONS {
            inputs.extend(self.post(count / PORTIONS as u64));
            // A point that needs more passes than this portion gave is waited for in vain; the next portion helps.
            let until = Instant::now() + PATIENCE;
            loop {
                let mut due = true;
                for role in killed.iter_mut() {
                    role.tend();
                    due &= role.deaths.len()
                        >= role.all() * portion.min(PORTIONS_FOR_DEATHS) / PORTIONS_FOR_DEATHS;
                }
                if due || Instant::now() >= until {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for role in killed {
            assert!(role.ahead() == 0, "never passed: {}", role.waits_for());
        }
        inputs
    }
}

/// Makes and posts one producer's events. Its keys are its own, so that the order of posting is each key's order.
pub struct Feed {
    run: String,
    producer: u32,
    keys: u64,
    next: u64,
    gateway: SocketAddr,
    write_key: String,
    connection: Option<Connection>,
    runtime: tokio::runtime::Runtime,
}

impl Feed {
    /// A producer with `keys` users.
    pub fn new(run: &str, producer: u32, keys: u64, gateway: SocketAddr, write_key: &str) -> Self {
        Self {
            run: run.to_owned(),
            producer,
            keys,
            next: 0,
            gateway,
            write_key: write_key.to_owned(),
            connection: None,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// The next `count` inputs, not posted yet.
    pub fn make(&mut self, count: u64) -> Vec<Input> {
        let from = self.next;
        self.next += count;
        (from..self.next)
            .map(|seq| Input {
                producer: self.producer,
                seq,
                id: format!("{}-{}-{seq}", self.run, self.producer),
                key: format!("u{}-{}", self.producer, seq % self.keys),
                key_seq: seq / self.keys,
            })
            .collect()
    }

    /// Posts a batch once; the status, or `None` when no answer came.
    pub fn post(&mut self, batch: &[Input]) -> Option<u16> {
        let body = json!({"batch": batch.iter().map(event).collect::<Vec<_>>()}).to_string();
        self.send("/v1/batch", body.as_bytes())
    }

    /// Posts one event once.
    pub fn post_one(&mut self, input: &Input) -> Option<u16> {
        self.send("/v1/track", event(input).to_string().as_bytes())
    }

    /// Posts a batch until it is accepted.
    ///
    /// # Panics
    /// When it is refused for another reason than that the gateway is away or cannot reach Kafka.
    #[track_caller]
    pub fn post_until_accepted(&mut self, batch: &[Input]) {
        for _ in 0..300 {
            match self.post(batch) {
                Some(200) => return,
                Some(503) | None => std::thread::sleep(Duration::from_millis(100)),
                Some(other) => panic!("the gateway answered {other}"),
            }
        }
        panic!("the gateway did not accept a batch in 30 s");
    }

    fn send(&mut self, target: &str, body: &[u8]) -> Option<u16> {
        let request = post_json(self.gateway, target, &self.write_key, body);
        let (connection, gateway) = (&mut self.connection, self.gateway);
        self.runtime.block_on(async {
            if connection.is_none() {
                *connection = Connection::open(gateway).await.ok();
            }
            let answer = tokio::time::timeout(
                Duration::from_secs(30),
                connection.as_mut()?.exchange(&request),
            )
            .await;
            match answer {
                Ok(Ok(answer)) => {
                    let (status, closes) = (answer.status, answer.closes());
                    if closes {
                        *connection = None;
                    }
                    Some(status)
                }
                Ok(Err(_)) | Err(_) => {
                    *connection = None;
                    None
                }
            }
        })
    }
}

/// The event of an input.
pub fn event(input: &Input) -> Value {
    json!({
        "type": "track",
        "event": "Tick",
        "messageId": input.id,
        "userId": input.key,
        "originalTimestamp": "2026-01-01T00:00:00.000Z",
        "properties": {"producer": input.producer, "seq": input.seq, "key_seq": input.key_seq},
    })
}
