//! How long the steps of operations usually take here, by the last of them.

use rusqlite::params;

use super::row::name;
use super::{Store, sql};
use crate::api::{OperationKind, Usual};
use crate::error::Result;

/// Of fewer nothing is said.
const FEWEST: usize = 5;

impl Store {
    /// How long a step took the last times that it went well; none where these were too few.
    pub fn usual_time(&self, kind: OperationKind, step: &str) -> Result<Option<Usual>> {
        self.read(|db| {
            let query = "SELECT ms FROM recent_step_times WHERE kind = ?1 AND step = ?2 ORDER BY ms";
            let mut statement = db.prepare_cached(query).map_err(sql)?;
            let rows = statement.query_map(params![name(kind)?, step], |row| row.get::<_, i64>(0)).map_err(sql)?;
            let times: Vec<i64> = rows.collect::<rusqlite::Result<_>>().map_err(sql)?;
            Ok(usual(&times))
        })
    }
}

/// Of sorted times.
fn usual(times: &[i64]) -> Option<Usual> {
    let at = |tenth: usize| times[times.len() * tenth / 10].unsigned_abs();
    (times.len() >= FEWEST).then(|| Usual { from_ms: at(1), median_ms: at(5), to_ms: at(9) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn the_last_times_of_a_step_are_what_is_usual() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let db = Connection::open(store.path()).unwrap();
        db.execute_batch(
            "INSERT INTO operations (id, kind, status, step, step_words, request, asker, story, deadline, created_at, updated_at)
             VALUES ('1', 'attach', 'running', 'send', '', '', '', '', '', '', '2026-01-02T03:04:00.000000Z')",
        )
        .unwrap();
        let took = |second: u32| {
            db.execute_batch(&format!(
                "UPDATE operations SET step = 'await', updated_at = '2026-01-02T03:04:00.000000Z';
                 UPDATE operations SET step = 'device', updated_at = '2026-01-02T03:04:{second:02}.500000Z';
                 UPDATE operations SET step = 'send', updated_at = '2026-01-02T03:04:00.000000Z';"
            ))
            .unwrap();
        };
        (1..=4).for_each(took);
        assert_eq!(store.usual_time(OperationKind::Attach, "await").unwrap(), None, "too few");
        (5..=42).for_each(took);
        let usual = Usual { from_ms: 14_500, median_ms: 27_500, to_ms: 39_500 };
        assert_eq!(store.usual_time(OperationKind::Attach, "await").unwrap(), Some(usual), "of the last 32");
        assert_eq!(store.usual_time(OperationKind::Detach, "await").unwrap(), None);
    }
}
