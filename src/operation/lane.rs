//! The lanes: at most two jobs of a VM are with CloudStack at a time, and the rest of them wait here.
//!
//! CloudStack works on one job of a VM after another. What waits there cannot be cancelled and begins whenever it comes to
//! it; what waits here can be, and keeps its deadline. A detach goes before the others, and otherwise whoever was accepted
//! first: as a volume has one operation at a time, no volume comes twice before another.
//!
//! A lane is entered before the step that sends, and left when the step that awaits the job's end is over; [`Story::turn`]
//! says which these are. The journal needs no word of it: a row that stands at such a step is in the lane.
//!
//! [`Story::turn`]: super::Story::turn

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::engine::Note;
use super::world::Cx;
use super::{Story, after};
use crate::error::{Error, Kind, Result};
use crate::model::{OperationId, VmId, printable};
use crate::store::OperationRow;

/// How many jobs of a VM CloudStack is given at a time: the next is there when one ends.
const JOBS: usize = 2;

/// A job of a VM that is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turn {
    /// Whose lane it is.
    pub vm: VmId,
    /// That VM's name, for people.
    pub name: String,
    /// Whether it goes before the others, as a detach does.
    pub first: bool,
}

impl Turn {
    /// A turn like others.
    pub fn of(vm: VmId, name: Option<&str>) -> Self {
        Self { vm, name: name.map_or_else(|| vm.to_string(), printable), first: false }
    }

    /// The turn of a detach.
    pub fn of_detach(vm: VmId, name: Option<&str>) -> Self {
        Self { first: true, ..Self::of(vm, name) }
    }
}

/// The lanes of all VMs.
#[derive(Clone)]
pub(super) struct Lanes {
    lanes: Arc<Mutex<HashMap<VmId, Lane>>>,
    /// Bumped whenever somebody comes into a line, or leaves it or its lane.
    moved: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Lane {
    inside: HashSet<OperationId>,
    line: BTreeSet<Place>,
}

/// Sorted as they get their turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    behind_detaches: bool,
    accepted: Timestamp,
    operation: OperationId,
}

/// The right to have a job with CloudStack; ends with the value.
pub(super) struct Pass {
    lanes: Lanes,
    vm: VmId,
    operation: OperationId,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.lanes.change(self.vm, |lane| _ = lane.inside.remove(&self.operation));
    }
}

/// A place in line; ends with the value.
pub(super) struct InLine {
    lanes: Lanes,
    vm: VmId,
    place: Place,
}

impl InLine {
    /// Waits for the turn; tells which place it has whenever that changes, the first being 1.
    pub async fn pass(self, tell: impl Fn(usize)) -> Pass {
        let mut moved = self.lanes.moved.subscribe();
        let mut told = 0;
        loop {
            moved.mark_unchanged();
            match self.lanes.advance(self.vm, self.place) {
                Ok(pass) => return pass,
                Err(place) if place != told => {
                    told = place;
                    tell(place);
                }
                Err(_) => {}
            }
            // The sender lives in `self`.
            moved.changed().await.ok();
        }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.lanes.change(self.vm, |lane| _ = lane.line.remove(&self.place));
    }
}

impl Lanes {
    pub fn new() -> Self {
        Self { lanes: Arc::default(), moved: Arc::new(watch::Sender::new(0)) }
    }

    /// Enters a lane, or takes a place in line for it.
    fn enter(&self, turn: &Turn, row: &OperationRow) -> Result<Pass, InLine> {
        let place = Place { behind_detaches: !turn.first, accepted: row.created_at, operation: row.id };
        self.change(turn.vm, |lane| _ = lane.line.insert(place));
        let in_line = InLine { lanes: self.clone(), vm: turn.vm, place };
        self.advance(turn.vm, place).map_err(|_| in_line)
    }

    /// Is in a lane already: the job may be with CloudStack since an earlier daemon.
    pub fn occupy(&self, turn: &Turn, operation: OperationId) -> Pass {
        self.with(turn.vm, |lane| _ = lane.inside.insert(operation));
        Pass { lanes: self.clone(), vm: turn.vm, operation }
    }

    /// Goes from the line into the lane, or gives the place in line.
    fn advance(&self, vm: VmId, place: Place) -> Result<Pass, usize> {
        let operation = place.operation;
        self.with(vm, |lane| {
            let before = lane.line.range(..place).count();
            if before + lane.inside.len() >= JOBS {
                return Err(before + 1);
            }
            lane.inside.insert(operation);
            lane.line.remove(&place);
            Ok(())
        })?;
        Ok(Pass { lanes: self.clone(), vm, operation })
    }

    fn change(&self, vm: VmId, change: impl FnOnce(&mut Lane)) {
        self.with(vm, change);
        self.moved.send_modify(|count| *count += 1);
    }

    /// Looks at a lane; one in and before which there is nobody is forgotten.
    fn with<T>(&self, vm: VmId, look: impl FnOnce(&mut Lane) -> T) -> T {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(vm).or_default();
        let seen = look(lane);
        if lane.inside.is_empty() && lane.line.is_empty() {
            lanes.remove(&vm);
        }
        seen
    }
}

/// How a lane was entered.
pub(super) enum Entered {
    /// Without a wait, or there was no need to.
    AtOnce,
    /// What was looked at before may be old.
    AfterWaiting,
}

impl Cx {
    /// Enters the lane that a story is about to need: what it looks at before it sends is then as new as can be.
    pub async fn take_turn_ahead<S: Story>(&mut self, story: &S, step: S::Step) -> Result<()> {
        let ahead = after(story, step).filter(|_| story.turn(step).is_none());
        self.take_turn(story, step, ahead.and_then(|next| story.turn(next))).await.map(drop)
    }

    /// Enters the lane that a story needs where it goes from a step. What could still be given up is given up at its
    /// deadline, and when its volume was held meanwhile.
    pub async fn take_turn<S: Story>(&mut self, story: &S, from: S::Step, turn: Option<Turn>) -> Result<Entered> {
        let Some(turn) = turn else { return Ok(Entered::AtOnce) };
        if self.pass.as_ref().is_some_and(|pass| pass.vm == turn.vm) {
            return Ok(Entered::AtOnce);
        }
        // Nobody waits for one lane while in another.
        self.pass = None;
        let in_line = match self.world.lanes.enter(&turn, &self.row) {
            Ok(pass) => {
                self.pass = Some(pass);
                return Ok(Entered::AtOnce);
            }
            Err(in_line) => in_line,
        };
        let may_give_up = S::LOOKING.contains(&from) || story.is_reversible(from);
        let tell = |place| self.note(Some(Note::InLine(format!("{} in line for VM {}", ordinal(place), turn.name))));
        let left = self.deadline.left().unwrap_or_default();
        let pass = tokio::select! {
            pass = in_line.pass(tell) => pass,
            () = tokio::time::sleep(left), if may_give_up => return Err(too_long(&format!("in line for VM {}", turn.name))),
        };
        self.note(None);
        self.pass = Some(pass);
        if let Some(volume) = self.row.volume_id.filter(|_| may_give_up && self.row.kind.is_refused_by_hold()) {
            self.world.refuse_if_held(volume)?;
        }
        Ok(Entered::AfterWaiting)
    }
}

/// The end of an operation whose time was over while it stood at a place in line.
pub(super) fn too_long(place: &str) -> Error {
    Error::new(Kind::Busy, format!("nothing was sent to CloudStack: its time had passed while it was {place}"))
        .hint("`volctl ops` shows what is before it")
}

/// `1st`, `2nd`, `3rd`, `4th`, ...
fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(first: bool, second: i64) -> Place {
        let accepted = Timestamp::from_second(second).unwrap();
        Place { behind_detaches: !first, accepted, operation: OperationId::random() }
    }

    /// Takes a place in line, without a look whether there is room.
    fn stand(lanes: &Lanes, vm: VmId, place: Place) -> InLine {
        lanes.with(vm, |lane| _ = lane.line.insert(place));
        InLine { lanes: lanes.clone(), vm, place }
    }

    #[tokio::test]
    async fn a_detach_goes_first_and_then_whoever_was_accepted_first() {
        let (lanes, vm) = (Lanes::new(), VmId::random());
        let turn = Turn::of(vm, None);
        let (one, two) = (lanes.occupy(&turn, OperationId::random()), lanes.occupy(&turn, OperationId::random()));
        let (third, second, first) = (place(false, 9), place(false, 5), place(true, 7));
        let line = [third, second, first].map(|place| stand(&lanes, vm, place));
        assert_eq!([third, second, first].map(|place| lanes.advance(vm, place).err()), [Some(3), Some(2), Some(1)]);
        drop(one);
        let [third, second, first] = line;
        let first = first.pass(|_| {}).await;
        assert_eq!(lanes.advance(vm, second.place).err(), Some(1), "two are inside");
        drop(two);
        let second = second.pass(|_| {}).await;
        drop((first, second));
        drop(third.pass(|_| {}).await);
        assert!(lanes.lanes.lock().unwrap().is_empty(), "an empty lane is forgotten");
    }

    #[test]
    fn whoever_leaves_the_line_lets_the_others_move_up() {
        let (lanes, vm) = (Lanes::new(), VmId::random());
        let full = [(); 2].map(|()| lanes.occupy(&Turn::of(vm, None), OperationId::random()));
        let (first, second) = (stand(&lanes, vm, place(false, 1)), stand(&lanes, vm, place(false, 2)));
        drop(first);
        assert_eq!(lanes.advance(vm, second.place).err(), Some(1));
        let other = VmId::random();
        assert!(lanes.advance(other, place(false, 3)).is_ok(), "another VM has its own lane");
        drop(full);
    }

    #[test]
    fn places_are_said_as_people_say_them() {
        let said = [1, 2, 3, 4, 11, 12, 13, 21, 112].map(ordinal);
        assert_eq!(said, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]);
    }
}
