//! What a process used, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Kernel clock ticks a second as user space sees them: 100 on every Linux that we run on.
const TICKS: u64 = 100;

/// Counters of a process at one moment.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// CPU time of the process.
    pub cpu: Duration,
    /// Memory that is resident now, in bytes.
    pub rss: u64,
    /// Most memory that was ever resident, in bytes.
    pub rss_peak: u64,
    /// CPU time by thread name; numbers at the end of a name are cut so that a pool is one line.
    pub threads: BTreeMap<String, Duration>,
}

impl Usage {
    /// Reads the counters; zeros when the process is gone.
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kib = |name: &str| {
            status
                .lines()
                .find_map(|line| {
                    line.strip_prefix(name)?
                        .split_whitespace()
                        .nth(1)?
                        .parse::<u64>()
                        .ok()
                })
                .unwrap_or(0)
                * 1024
        };
        Self {
            cpu: cpu(&stat),
            rss: kib("VmRSS"),
            rss_peak: kib("VmHWM"),
            threads: threads(pid),
        }
    }

    /// CPU time since `before`.
    pub fn cpu_since(&self, before: &Usage) -> Duration {
        self.cpu.saturating_sub(before.cpu)
    }

    /// CPU time since `before` by thread name, most first.
    pub fn threads_since(&self, before: &Usage) -> Vec<(String, Duration)> {
        let mut list: Vec<(String, Duration)> = self
            .threads
            .iter()
            .map(|(name, cpu)| {
                let was = before.threads.get(name).copied().unwrap_or_default();
                (name.clone(), cpu.saturating_sub(was))
            })
            .filter(|(_, cpu)| *cpu > Duration::from_millis(10))
            .collect();
        list.sort_by_key(|(_, cpu)| std::cmp::Reverse(*cpu));
        list
    }
}

/// Fields 14 and 15; the name before them may hold spaces and parentheses.
fn cpu(stat: &str) -> Duration {
    let ticks: u64 = stat
        .rsplit_once(") ")
        .map(|(_, rest)| {
            rest.split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|n| n.parse::<u64>().ok())
                .sum()
        })
        .unwrap_or(0);
    Duration::from_millis(ticks * 1000 / TICKS)
}

fn threads(pid: u32) -> BTreeMap<String, Duration> {
    let mut by_name = BTreeMap::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return by_name;
    };
    for task in tasks.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let run = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let Some(nanos) = run.split_whitespace().next().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let name = name
            .trim()
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == ':')
            .to_owned();
        *by_name.entry(name).or_default() += Duration::from_nanos(nanos);
    }
    by_name
}
