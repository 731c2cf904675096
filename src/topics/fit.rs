//! Whether topics and settings agree: what must be kept long enough, and what must be let through.

use super::spec::{Shape, Spec, SpecError};
use crate::config::{Config, DeliveryConfig};

/// Checks `spec` against the settings whose promises rest on it. No I/O.
///
/// # Errors
/// Everything that does not fit, each with both sides named.
pub fn fit(spec: &Spec, config: &Config) -> Result<(), SpecError> {
    let mut problems = Vec::new();
    let dedup = &config.processor.dedup;
    if dedup.enabled {
        // Ids are forgotten by whole buckets, so the oldest is remembered for a bucket longer than the window.
        let needs = dedup.window_ms.saturating_add(dedup.bucket_ms);
        let why = "processor.dedup.window_ms and bucket_ms";
        keeps(spec, "seen", needs, why, &mut problems);
    }
    let longest = longest_patience(config);
    let why = "the longest give_up_after_ms or give_up_throttled_after_ms of router.delivery";
    keeps(spec, "deliver.*", longest, why, &mut problems);
    // A parked event waits for those before it and then has a window of its own.
    let why = "twice the longest give_up_after_ms or give_up_throttled_after_ms of router.delivery";
    keeps(
        spec,
        "parked.*",
        longest.saturating_mul(2),
        why,
        &mut problems,
    );
    let largest = config.kafka.producer.message_bytes_max as u64;
    for name in spec.names() {
        if let Some(takes) = number(spec.shape(name), "max.message.bytes")
            && takes < largest
        {
            problems.push(format!(
                "topics.{name}.config.max.message.bytes: {takes} is less than kafka.producer.message_bytes_max ({largest}), so brokers would refuse what we send"
            ));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(SpecError::Unfit { problems })
    }
}

fn keeps(spec: &Spec, name: &str, needs_ms: u64, why: &str, problems: &mut Vec<String>) {
    // -1 keeps for ever.
    if let Some(keeps) = number(spec.shape(name), "retention.ms")
        && keeps < needs_ms
    {
        problems.push(format!(
            "topics.{name}.config.retention.ms: {keeps} is less than {needs_ms}, which is {why}"
        ));
    }
}

fn number(shape: Option<Shape>, key: &str) -> Option<u64> {
    shape?.config.get(key)?.parse().ok()
}

/// The longest time for which any destination's events are tried again.
fn longest_patience(config: &Config) -> u64 {
    let general: &DeliveryConfig = &config.router.delivery;
    let special = config.router.destinations.values();
    special
        .flat_map(|one| [one.give_up_after_ms, one.give_up_throttled_after_ms])
        .flatten()
        .chain([general.give_up_after_ms, general.give_up_throttled_after_ms])
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DeliveryOverrides;

    fn problems(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        fit(&Spec::load(None).unwrap(), &config)
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(problems(|_| ()), "");
    }

    #[test]
    fn what_would_be_deleted_while_it_is_still_needed_is_named() {
        let hours = |n: u64| n * 3_600_000;
        let found = problems(|c| c.processor.dedup.window_ms = hours(3));
        assert!(found.contains("topics.seen.config.retention.ms"), "{found}");
        assert_eq!(
            problems(|c| {
                c.processor.dedup.window_ms = hours(3);
                c.processor.dedup.enabled = false;
            }),
            ""
        );
        let found = problems(|c| c.router.delivery.give_up_after_ms = hours(24 * 5));
        assert!(
            found.contains("topics.parked") && !found.contains("topics.deliver"),
            "{found}"
        );
        let patient = DeliveryOverrides {
            give_up_after_ms: Some(hours(24 * 30)),
            ..DeliveryOverrides::default()
        };
        let found = problems(|c| c.router.destinations = [("WEBHOOK".into(), patient)].into());
        assert!(
            found.contains("topics.parked") && found.contains("topics.deliver"),
            "{found}"
        );
    }

    #[test]
    fn a_record_that_we_may_send_is_one_that_every_topic_takes() {
        let found = problems(|c| c.kafka.producer.message_bytes_max = 3 << 20);
        assert!(
            found.contains("topics.events.config.max.message.bytes"),
            "{found}"
        );
        assert!(!found.contains("topics.dlq"), "{found}");
    }
}
