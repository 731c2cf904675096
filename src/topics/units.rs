//! Times and sizes as people write them, as numbers as Kafka takes them.

/// Reads `value` for the topic setting `key`: `7d` for one that ends in `.ms`, `2MiB` for one that ends in `.bytes`; anything
/// else is passed on as it is.
///
/// # Errors
/// What is wrong with the value, as a sentence without the key.
pub(super) fn kafka_value(key: &str, value: &str) -> Result<String, String> {
    let units = if key.ends_with(".ms") {
        TIMES
    } else if key.ends_with(".bytes") {
        SIZES
    } else {
        return Ok(value.to_owned());
    };
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    if unit.is_empty() || value == "-1" {
        return Ok(value.to_owned());
    }
    let scaled = units
        .iter()
        .find(|(name, _)| *name == unit.trim())
        .and_then(|(_, scale)| number.parse::<i64>().ok()?.checked_mul(*scale));
    scaled.map(|n| n.to_string()).ok_or_else(|| {
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        format!(
            "{value:?} is not a number with one of the units {}",
            names.join(", ")
        )
    })
}

const TIMES: &[(&str, i64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZES: &[(&str, i64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Kafka's number for the topic setting `key` as a person would say it: `604800000 (7d)`.
pub(super) fn for_people(key: &str, value: &str) -> String {
    let units = if key.ends_with(".ms") {
        TIMES
    } else if key.ends_with(".bytes") {
        SIZES
    } else {
        return value.to_owned();
    };
    let Ok(number) = value.parse::<i64>() else {
        return value.to_owned();
    };
    units
        .iter()
        .rev()
        .find(|(_, scale)| number > 0 && number % scale == 0)
        .filter(|(_, scale)| *scale > 1)
        .map_or_else(
            || value.to_owned(),
            |(name, scale)| format!("{value} ({}{name})", number / scale),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_become_kafkas_numbers_and_come_back() {
        assert_eq!(kafka_value("retention.ms", "7d").unwrap(), "604800000");
        assert_eq!(kafka_value("retention.ms", "-1").unwrap(), "-1");
        assert_eq!(kafka_value("max.message.bytes", "2MiB").unwrap(), "2097152");
        assert_eq!(kafka_value("cleanup.policy", "2MiB").unwrap(), "2MiB");
        assert_eq!(for_people("retention.ms", "604800000"), "604800000 (7d)");
        assert_eq!(for_people("retention.ms", "1"), "1");
        assert_eq!(for_people("cleanup.policy", "compact"), "compact");
    }

    #[test]
    fn a_wrong_unit_or_a_number_too_large_is_refused() {
        for wrong in ["7 days", "7D", "d", "", "99999999999999999d"] {
            let read = kafka_value("retention.ms", wrong);
            assert!(wrong.is_empty() || read.is_err(), "{wrong}: {read:?}");
        }
        assert!(kafka_value("segment.bytes", "1GB").is_err());
    }
}
