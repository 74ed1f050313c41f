//! Tables at some widths.

use super::*;
use crate::cli::render::tests::screen;

const COLUMNS: &[Column] = &[
    Column::new("NAME"),
    Column::new("ID"),
    Column::new("STATE").least(9),
    Column::number("SIZE"),
    Column::new("NOTE"),
];
const NARROWING: &[Narrow] =
    &[Narrow::Short("ID"), Narrow::Cut("NOTE", 6), Narrow::Elide("NAME", 12), Narrow::Drop("ID")];

fn row(name: &str, id: &str) -> Vec<Cell> {
    vec![Cell::text(name), Cell::id(id), Cell::state("Ready"), Cell::text("5G"), Cell::text("a short sentence")]
}

fn table(names: &[&str]) -> Table {
    let id = |number| format!("5f0c8a5{number}-1b2c-4d3e-9f40-a1b2c3d4e5f6");
    Table::new("things", COLUMNS, NARROWING, names.iter().zip(1..).map(|(name, number)| row(name, &id(number))))
}

#[test]
fn a_pipe_gets_everything_in_aligned_columns() {
    assert_eq!(
        table(&["data1", "a long name"]).draw(&screen(None)),
        "NAME         ID                                    STATE      SIZE  NOTE\n\
         data1        5f0c8a51-1b2c-4d3e-9f40-a1b2c3d4e5f6  Ready        5G  a short sentence\n\
         a long name  5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6  Ready        5G  a short sentence\n"
    );
}

#[test]
fn what_a_terminal_has_no_room_for_goes_in_its_order() {
    let table = table(&["data1", "a name that is long"]);
    let lines = |width| table.draw(&screen(Some(width))).lines().nth(2).unwrap_or_default().to_owned();
    assert!(lines(92).contains("a1b2c3d4e5f6"));
    assert_eq!(lines(80), "a name that is long  5f0c8a52  Ready        5G  a short sentence");
    assert_eq!(lines(60), "a name that is long  5f0c8a52  Ready        5G  a short sen…");
    assert_eq!(lines(50), "a name… long  5f0c8a52  Ready        5G  a short …");
    assert_eq!(lines(45), "a name… long  Ready        5G  a short sente…");
    assert_eq!(lines(20), "STATE  Ready", "each row by itself");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let table = table(&["data1", "日本語の長い名前のボリュームがここにあります", &"x".repeat(60)]);
    for width in 38..130 {
        let drawn = table.draw(&screen(Some(width)));
        let widest = drawn.lines().map(console::measure_text_width).max();
        assert!(widest <= Some(usize::from(width)), "{width}:\n{drawn}");
    }
}

#[test]
fn different_names_stay_different() {
    let names = ["production-database-one-of-two-data", "production-database-two-of-two-data"];
    let drawn = table(&names).draw(&screen(Some(62)));
    assert!(drawn.contains("pro…e-of-two-data  ") && drawn.contains("pro…o-of-two-data  "), "{drawn}");
    let names = ["one", "two"].map(|name| format!("{0}{name}{0}", "x".repeat(20)));
    let drawn = table(&[&names[0], &names[1]]).draw(&screen(Some(56)));
    assert!(!drawn.contains("x…x") && drawn.lines().count() > 3, "whole, on several lines:\n{drawn}");
}

#[test]
fn short_identifiers_differ() {
    let rows = ["a0000000-0000-4000-8000-000000000001", "a0000000-0000-4000-8000-000000000002"];
    let table = Table::new("things", COLUMNS, NARROWING, rows.map(|id| row("x", id)));
    let drawn = table.draw(&screen(Some(75)));
    assert!(drawn.contains("000000000001") && drawn.contains("000000000002"), "{drawn}");
}

#[test]
fn an_empty_table_is_a_sentence_on_a_terminal_only() {
    assert_eq!(table(&[]).draw(&screen(Some(80))), "no things\n");
    assert!(table(&[]).draw(&screen(None)).starts_with("NAME "));
}

#[test]
fn colour_is_only_where_it_is_wanted() {
    let coloured = Screen { colour: true, ..screen(Some(100)) };
    assert!(table(&["x"]).draw(&coloured).contains("\u{1b}["));
    assert!(!table(&["x"]).draw(&screen(Some(100))).contains('\u{1b}'));
}
