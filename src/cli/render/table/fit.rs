//! Fitting a table's columns to a width.

use std::collections::HashSet;

use super::{Cell, Column, GAP, Narrow, Short, Table};
use crate::cli::render::text::width_of;

/// How many characters of an identifier are shown at least.
const SHORTEST_ID: usize = 8;

/// What stands for characters that are left out.
const ELLIPSIS: char = '…';

/// How the texts of a column that has less room than they need are made to fit.
#[derive(Clone, Copy)]
enum Way {
    Elide,
    Cut,
    Wrap,
}

/// A column as it is drawn.
pub struct Strip<'a> {
    /// What it shows.
    pub column: &'a Column,
    /// Its cells.
    pub cells: Vec<&'a Cell>,
    /// What is shown of each.
    pub texts: Vec<String>,
    /// How wide it is drawn.
    pub width: usize,
    /// With how little width it puts up, and how.
    yields: Option<(usize, Way)>,
    is_left_out: bool,
}

/// All columns with all their texts.
pub fn whole(table: &Table) -> Vec<Strip<'_>> {
    let strip = |(index, column)| {
        let cells: Vec<&Cell> = table.rows.iter().filter_map(|row| row.get(index)).collect();
        let texts = cells.iter().map(|cell| cell.full.clone()).collect();
        let mut strip = Strip { column, cells, texts, width: 0, yields: None, is_left_out: false };
        strip.width = strip.natural();
        strip
    };
    table.columns.iter().enumerate().map(strip).collect()
}

/// The columns, made narrower until they fit; none where nothing helps.
pub fn fitted(table: &Table, width: usize) -> Option<Vec<Strip<'_>>> {
    let mut strips = whole(table);
    let mut narrowing = table.narrowing.iter();
    while needed(&strips) > width {
        narrowing.next()?.apply(&mut strips);
    }
    bring_back(&mut strips, table.narrowing, width);
    strips.retain(|strip| !strip.is_left_out);
    strips.iter_mut().for_each(|strip| strip.width = strip.needed());
    for _ in needed(&strips)..width {
        let yielding = strips.iter_mut().filter(|strip| strip.width < strip.natural());
        let Some(neediest) = yielding.min_by_key(|strip| strip.share()) else { break };
        neediest.width += 1;
    }
    strips.iter_mut().for_each(Strip::fit);
    Some(strips)
}

/// What was left out last may find room once other columns are narrower.
fn bring_back(strips: &mut [Strip<'_>], narrowing: &[Narrow], width: usize) {
    for step in narrowing.iter().rev() {
        let Some(index) = strips.iter().position(|strip| strip.is_left_out && strip.column.word == step.word()) else {
            continue;
        };
        strips[index].is_left_out = false;
        strips[index].is_left_out = needed(strips) > width;
    }
}

/// The width of a table whose columns yield all they can.
fn needed(strips: &[Strip<'_>]) -> usize {
    let shown = || strips.iter().filter(|strip| !strip.is_left_out);
    let gaps = usize::from(GAP) * shown().count().saturating_sub(1);
    shown().map(Strip::needed).sum::<usize>() + gaps
}

impl Narrow {
    fn word(self) -> &'static str {
        let (Self::Short(word) | Self::Drop(word) | Self::Elide(word, _) | Self::Cut(word, _) | Self::Wrap(word, _)) =
            self;
        word
    }

    fn apply(self, strips: &mut [Strip<'_>]) {
        for strip in strips.iter_mut().filter(|strip| strip.column.word == self.word()) {
            match self {
                Self::Short(_) => strip.shorten(),
                Self::Drop(_) => strip.is_left_out = true,
                Self::Elide(_, least) => strip.yields = Some((least, Way::Elide)),
                Self::Cut(_, least) => strip.yields = Some((least, Way::Cut)),
                Self::Wrap(_, least) => strip.yields = Some((least, Way::Wrap)),
            }
        }
    }
}

impl Strip<'_> {
    fn natural(&self) -> usize {
        let widest = self.texts.iter().map(|text| width_of(text)).max().unwrap_or(0);
        widest.max(self.least())
    }

    fn least(&self) -> usize {
        self.column.least.max(self.column.word.len())
    }

    fn needed(&self) -> usize {
        self.yields.map_or_else(|| self.natural(), |(least, _)| self.natural().min(least.max(self.least())))
    }

    /// Of what is left over, sentences get twice as much as names.
    fn share(&self) -> usize {
        match self.yields {
            Some((_, Way::Cut | Way::Wrap)) => self.width / 2,
            _ => self.width,
        }
    }

    fn shorten(&mut self) {
        let is_id = |cell: &&&Cell| cell.short == Short::Prefix;
        let prefix = telling_prefix(&self.cells.iter().filter(is_id).map(|cell| cell.full.as_str()).collect());
        for (text, cell) in self.texts.iter_mut().zip(&self.cells) {
            match &cell.short {
                Short::None => {}
                Short::Text(short) => text.clone_from(short),
                Short::Prefix => *text = text.chars().take(prefix).collect(),
            }
        }
    }

    /// Makes the texts fit its width; what is to be wrapped is left to the drawing.
    fn fit(&mut self) {
        let Some((_, way)) = self.yields.filter(|_| self.width < self.natural()) else { return };
        match way {
            Way::Elide => self.texts = elided_names(&self.texts, self.width),
            Way::Cut => self.texts.iter_mut().for_each(|text| *text = elided(text, self.width, self.width)),
            Way::Wrap => {}
        }
    }
}

/// How many first characters tell these identifiers from each other.
fn telling_prefix(ids: &HashSet<&str>) -> usize {
    let longest = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0);
    let tells = |length: &usize| {
        let prefixes: HashSet<String> = ids.iter().map(|id| id.chars().take(*length).collect()).collect();
        prefixes.len() == ids.len()
    };
    (SHORTEST_ID..longest).find(tells).unwrap_or(longest)
}

/// Names without so much of their middle that they fit, all cut at the same place: as near to the middle as leaves them
/// different. Where none does they stay whole.
pub fn elided_names(names: &[String], width: usize) -> Vec<String> {
    let different = |names: &[String]| names.iter().collect::<HashSet<_>>().len();
    let middle = width / 2;
    let places = (0..=middle).flat_map(|away| [middle - away, middle + away]).filter(|place| *place < width);
    places
        .map(|place| names.iter().map(|name| elided(name, place, width)).collect::<Vec<_>>())
        .find(|elided| different(elided) == different(names))
        .unwrap_or_else(|| names.to_vec())
}

/// A text in so many columns, where it is longer without what follows this place; its end as far as there is room.
fn elided(text: &str, place: usize, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let begin = beginning(text.chars(), place.min(room));
    let end = beginning(text.chars().rev(), room.saturating_sub(place));
    begin.into_iter().chain([ELLIPSIS]).chain(end.into_iter().rev()).collect()
}

/// The first characters that find room.
fn beginning(text: impl Iterator<Item = char>, room: usize) -> Vec<char> {
    let mut left = room;
    let fits = |character: &char| {
        let width = width_of(character.encode_utf8(&mut [0; 4]));
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    text.take_while(fits).collect()
}
