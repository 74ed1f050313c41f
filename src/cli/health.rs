//! `volctl health`

use clap::Args;

use super::answer::Answer;
use super::render::{self, Cell, Column, Narrow, Output, Page, Screen, Table, read};
use super::session::{Request, Session};
use crate::api::{self, Check, method};
use crate::model::printable;

const COLUMNS: &[Column] =
    &[Column::new("CHECK"), Column::new("STATE"), Column::number("AGE").least(6), Column::new("MESSAGE")];
const NARROWING: &[Narrow] = &[Narrow::Wrap("MESSAGE", 24)];

/// Check the daemon and what it depends on; exit code 1 where something is wrong
#[derive(Args, Debug)]
pub struct Health {}

impl Health {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let request = Request::new(method::SYSTEM_HEALTH, "check the health", &serde_json::json!({}))?;
        let health = session.ask(request)?;
        let healthy = read::<api::Health>(&health)?.healthy;
        let screen = output.screen();
        let code = output.answer(Ok(health), |health| page(health, &screen));
        Ok(if code == 0 && !healthy { 1 } else { code })
    }
}

fn page(health: &api::Health, screen: &Screen) -> Page {
    let text = Table::new("checks", COLUMNS, NARROWING, health.checks.iter().map(row)).draw(screen);
    let quiet = if health.healthy { "healthy\n" } else { "unhealthy\n" };
    Page { text, quiet: quiet.to_owned(), notes: Vec::new() }
}

fn row(check: &Check) -> Vec<Cell> {
    vec![
        Cell::text(printable(&check.name)),
        Cell::state(if check.ok { "ok" } else { "bad" }),
        Cell::text(render::span(check.age_seconds)),
        Cell::text(printable(&check.message)),
    ]
}
