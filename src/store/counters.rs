//! What was counted since the store was made. No count ever becomes smaller: with another store they all begin again.

use rusqlite::params;

use super::exports::put_usage;
use super::{Store, sql, whole};
use crate::api::Usage;
use crate::error::Result;
use crate::model::VolumeId;

/// One count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What is counted.
    pub name: String,
    /// Which of its kind, in words with a space between; empty where there is only one.
    pub label: String,
    /// How many.
    pub value: u64,
}

/// How many steps took a time of at most this bound and more than the next smaller one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// The operation's kind, by its name.
    pub kind: String,
    /// The step, by its name; `queue` for the time in line, `undo_...` for one that was undone.
    pub step: String,
    /// The bound in milliseconds; none above the highest one.
    pub at_most_ms: Option<u64>,
    /// How many.
    pub count: u64,
    /// What they took together, in milliseconds.
    pub total_ms: u64,
}

/// The bounds of [`StepTime`] in milliseconds, as the trigger of the migration has them.
pub const STEP_BOUNDS_MS: [u64; 11] = [100, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000];

impl Store {
    /// Adds what was counted since the last time, and takes what clients have done with exports. Without either it only
    /// proves that the store can be written.
    pub fn keep_tally(&self, added: &[Counter], usages: &[(VolumeId, Usage)]) -> Result<()> {
        self.remember(|db| {
            let mut add = db
                .prepare_cached(
                    "INSERT INTO counters (name, label, value) VALUES (?1, ?2, ?3)
                     ON CONFLICT (name, label) DO UPDATE SET value = value + excluded.value",
                )
                .map_err(sql)?;
            for Counter { name, label, value } in added {
                add.execute(params![name, label, whole(*value)]).map_err(sql)?;
            }
            usages.iter().try_for_each(|(volume, usage)| put_usage(db, *volume, usage))
        })
    }

    /// All counts, by name and label.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        self.read(|db| {
            let query = "SELECT name, label, value FROM counters ORDER BY name, label";
            let mut statement = db.prepare_cached(query).map_err(sql)?;
            let counter = |row: &rusqlite::Row<'_>| {
                Ok(Counter { name: row.get(0)?, label: row.get(1)?, value: row.get::<_, i64>(2)?.unsigned_abs() })
            };
            statement.query_map([], counter).map_err(sql)?.collect::<rusqlite::Result<_>>().map_err(sql)
        })
    }

    /// How long steps took, by kind and step.
    pub fn step_times(&self) -> Result<Vec<StepTime>> {
        self.read(|db| {
            let query =
                "SELECT kind, step, at_most_ms, count, total_ms FROM step_times ORDER BY kind, step, at_most_ms";
            let mut statement = db.prepare_cached(query).map_err(sql)?;
            let times = |row: &rusqlite::Row<'_>| {
                let at_most: i64 = row.get(2)?;
                Ok(StepTime {
                    kind: row.get(0)?,
                    step: row.get(1)?,
                    at_most_ms: (at_most != i64::MAX).then_some(at_most.unsigned_abs()),
                    count: row.get::<_, i64>(3)?.unsigned_abs(),
                    total_ms: row.get::<_, i64>(4)?.unsigned_abs(),
                })
            };
            statement.query_map([], times).map_err(sql)?.collect::<rusqlite::Result<_>>().map_err(sql)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn a_count_only_grows() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let counter = |value| Counter { name: "calls".into(), label: "listVolumes".into(), value };
        for (added, counted) in [(3, 3), (0, 3), (4, 7)] {
            store.keep_tally(&[counter(added)], &[]).unwrap();
            assert_eq!(store.counters().unwrap(), [counter(counted)]);
        }
    }

    #[test]
    fn each_transition_times_the_step_before_it_and_each_end_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let db = Connection::open(store.path()).unwrap();
        db.execute_batch(
            "INSERT INTO operations (id, kind, status, step, step_words, request, asker, story, deadline, created_at, updated_at)
             VALUES ('1', 'attach', 'running', 'check', '', '', '', '', '', '', '2026-01-02T03:04:05.000000Z');
             UPDATE operations SET step = 'send', updated_at = '2026-01-02T03:04:05.100000Z';
             UPDATE operations SET step = 'send', status = 'unwinding', updated_at = '2026-01-02T03:04:06.300000Z';
             UPDATE operations SET status = 'stuck', updated_at = '2026-01-02T02:00:00.000000Z';
             UPDATE operations SET status = 'unwinding', updated_at = '2026-01-02T02:00:00.000000Z';
             UPDATE operations SET status = 'failed', updated_at = '2026-01-02T04:00:00.001000Z', finished_at = 'then';",
        )
        .unwrap();
        let times: Vec<_> =
            store.step_times().unwrap().into_iter().map(|t| (t.step, t.at_most_ms, t.total_ms)).collect();
        let undone = [("undo_send".to_owned(), Some(100), 0), ("undo_send".to_owned(), None, 7_200_001)];
        let forward = [("check".to_owned(), Some(100), 100), ("send".to_owned(), Some(2500), 1200)];
        assert_eq!(times, [forward, undone].concat());
        let ended = Counter { name: "operations".into(), label: "attach failed".into(), value: 1 };
        assert_eq!(store.counters().unwrap(), [ended]);
    }

    #[test]
    fn the_bounds_are_those_of_the_migration() {
        let migration = include_str!("migrations/0001_initial.sql");
        for bound in STEP_BOUNDS_MS {
            assert!(migration.contains(&format!("WHEN ms <= {bound} THEN {bound}")), "{bound}");
        }
    }
}
