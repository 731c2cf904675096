//! When a destination's files are loaded: RudderStack's `syncFrequency`, `syncStartAt`, `excludeWindow`. Pure.

use serde_json::Value;

use crate::clock::UnixMs;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// Without a schedule.
const DEFAULT_EVERY: i64 = 30 * MINUTE;

/// When to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    every: i64,
    /// Of the day, in UTC; with it loads come at fixed times.
    start_at: Option<i64>,
    /// Of the day, in UTC; the second may be before the first, over midnight.
    excluded: Option<(i64, i64)>,
    /// `manualSync`: never by itself.
    is_manual: bool,
}

impl Schedule {
    /// Every `ms` milliseconds.
    pub fn every(ms: u64) -> Self {
        Self {
            every: i64::try_from(ms).unwrap_or(DAY).max(1),
            start_at: None,
            excluded: None,
            is_manual: false,
        }
    }

    /// Reads a destination's config. What cannot be read counts as not set, as in RudderStack.
    pub fn from_config(config: &Value) -> Self {
        let minutes = match config.get("syncFrequency") {
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(Value::Number(number)) => number.as_i64(),
            _ => None,
        };
        let window = config.get("excludeWindow");
        let bound = |field: &str| window.and_then(|w| w.get(field)).and_then(minute_of_day);
        let start = bound("excludeWindowStartTime");
        Self {
            every: minutes
                .filter(|&m: &i64| m > 0)
                .map_or(DEFAULT_EVERY, |m| m.saturating_mul(MINUTE)),
            start_at: config.get("syncStartAt").and_then(minute_of_day),
            excluded: start.zip(bound("excludeWindowEndTime")),
            is_manual: config.get("manualSync") == Some(&Value::Bool(true)),
        }
    }

    /// Whether to load at `now`, when the last load began at `last`.
    pub fn is_due(&self, now: UnixMs, last: Option<UnixMs>) -> bool {
        if self.is_manual || self.is_excluded(now) {
            return false;
        }
        let Some(last) = last else { return true };
        match self.start_at {
            None => now - last >= self.every,
            Some(_) => last < self.previous(now),
        }
    }

    /// The last scheduled time at or before `now`: the start of the day, and every frequency before and after it within
    /// the day.
    fn previous(&self, now: UnixMs) -> UnixMs {
        let today = now.div_euclid(DAY) * DAY;
        let every = self.every.min(DAY);
        let first = self.start_at.unwrap_or(0).rem_euclid(every);
        let since = now - today - first;
        if since >= 0 {
            return today + first + since / every * every;
        }
        // The last one of yesterday.
        let last = (DAY - 1 - first) / every * every;
        today - DAY + first + last
    }

    fn is_excluded(&self, now: UnixMs) -> bool {
        let Some((from, to)) = self.excluded else {
            return false;
        };
        let at = now.rem_euclid(DAY);
        if from <= to {
            from < at && at < to
        } else {
            at > from || at < to
        }
    }
}

/// `HH:MM` as milliseconds of the day.
fn minute_of_day(value: &Value) -> Option<i64> {
    let (hour, minute) = value.as_str()?.trim().split_once(':')?;
    let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
    ((0..24).contains(&hour) && (0..60).contains(&minute)).then_some((hour * 60 + minute) * MINUTE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warehouse::datetime;
    use serde_json::json;

    fn at(text: &str) -> UnixMs {
        datetime::parse(text).unwrap()
    }

    #[test]
    fn loads_come_at_the_days_fixed_times_as_in_rudderstack() {
        let cases = [
            ("30", "14:00", "2020-04-27 20:23:54", "2020-04-27 20:00"),
            ("30", "14:00", "2020-04-27 20:30:00", "2020-04-27 20:30"),
            ("360", "05:00", "2020-04-27 04:23:54", "2020-04-26 23:00"),
            ("180", "22:00", "2020-04-27 22:23:54", "2020-04-27 22:00"),
            ("180", "22:00", "2020-04-27 00:00:00", "2020-04-26 22:00"),
            ("180", "00:00", "2020-04-27 00:00:00", "2020-04-27 00:00"),
            ("180", "00:00", "2020-04-27 23:59:59", "2020-04-27 21:00"),
        ];
        for (frequency, start, now, previous) in cases {
            let config = json!({"syncFrequency": frequency, "syncStartAt": start});
            let schedule = Schedule::from_config(&config);
            assert_eq!(schedule.previous(at(now)), at(previous), "{now}");
            assert!(schedule.is_due(at(now), Some(at(previous) - 1)));
            assert!(!schedule.is_due(at(now), Some(at(previous))));
        }
    }

    #[test]
    fn an_excluded_window_may_cross_midnight_and_its_ends_are_not_in_it() {
        let window = |from: &str, to: &str| {
            let window = json!({"excludeWindowStartTime": from, "excludeWindowEndTime": to});
            Schedule::from_config(&json!({"excludeWindow": window}))
        };
        let day = window("09:00", "17:00");
        assert!(!day.is_due(at("2020-01-01 12:00"), None));
        assert!(day.is_due(at("2020-01-01 09:00"), None));
        let night = window("22:00", "06:00");
        for excluded in ["2020-01-01 23:00", "2020-01-01 05:59"] {
            assert!(!night.is_due(at(excluded), None));
        }
        assert!(night.is_due(at("2020-01-01 12:00"), None));
    }

    #[test]
    fn without_a_schedule_loads_come_every_half_hour_and_manual_ones_never() {
        let plain = Schedule::from_config(&json!({}));
        let now = at("2020-01-01 12:00");
        assert!(plain.is_due(now, None) && plain.is_due(now, Some(now - DEFAULT_EVERY)));
        assert!(!plain.is_due(now, Some(now - DEFAULT_EVERY + 1)));
        assert!(!Schedule::from_config(&json!({"manualSync": true})).is_due(now, None));
        assert!(Schedule::every(1_000).is_due(now, Some(now - 1_000)));
    }
}
