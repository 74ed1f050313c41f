//! The daemon's journal while no daemon runs: time that passes for it without a test having to wait.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};
use serde_json::Value;

/// Moves every moment in the unfinished operations into the past, as if the daemon had been off for so long.
pub fn age(state_directory: &Path, by: SignedDuration) {
    let database = Connection::open(state_directory.join("volctl.db")).unwrap();
    let unfinished = "finished_at IS NULL";
    let mut select = database
        .prepare(&format!("SELECT seq, story, deadline, created_at, updated_at FROM operations WHERE {unfinished}"))
        .unwrap();
    let rows: Vec<(i64, [String; 4])> = select
        .query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?])))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (seq, [story, deadline, created_at, updated_at]) in rows {
        let mut story: Value = serde_json::from_str(&story).unwrap();
        age_value(&mut story, by);
        let earlier = |text: &str| format!("{:.6}", text.parse::<Timestamp>().unwrap() - by);
        database
            .execute(
                "UPDATE operations SET story = ?2, deadline = ?3, created_at = ?4, updated_at = ?5 WHERE seq = ?1",
                params![seq, story.to_string(), earlier(&deadline), earlier(&created_at), earlier(&updated_at)],
            )
            .unwrap();
    }
}

fn age_value(value: &mut Value, by: SignedDuration) {
    match value {
        Value::String(text) => {
            if let Ok(at) = text.parse::<Timestamp>() {
                *text = (at - by).to_string();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| age_value(item, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| age_value(field, by)),
        _ => {}
    }
}

/// Changes the journal's rows by hand.
pub fn execute(state_directory: &Path, sql: &str) {
    Connection::open(state_directory.join("volctl.db")).unwrap().execute_batch(sql).unwrap();
}
