//! Whether to keep looking for a client's next request instead of sleeping until it comes: to be woken takes longer than
//! a fast client takes, but to look in vain costs the same time of a core.
//!
//! So it is done while it pays, as the kernel does before it halts a core.

use std::time::{Duration, Instant};

/// It is looked so long: as a fast client takes from an answer to its next request, with some room.
const LONGEST: Duration = Duration::from_micros(40);
/// So many sleeps at most before it is tried again.
const LONGEST_PAUSE: u32 = 255;

/// How looking has paid, for one client.
#[derive(Default)]
pub(super) struct Eager {
    /// So many times it was slept after the last look in vain.
    pause: u32,
    /// So many of them are left.
    left: u32,
}

impl Eager {
    /// Looks until there is something, unless that has not paid of late; none where it is time to sleep. All others who
    /// want the core have it between two looks.
    pub fn look<T>(&mut self, look: impl FnMut() -> Option<T>) -> Option<T> {
        self.look_for(LONGEST, look)
    }

    fn look_for<T>(&mut self, longest: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        let until = Instant::now() + longest;
        loop {
            let found = look();
            if found.is_some() {
                self.pause = 0;
                return found;
            }
            if Instant::now() >= until {
                break;
            }
            std::thread::yield_now();
        }
        self.pause = (2 * self.pause + 1).min(LONGEST_PAUSE);
        self.left = self.pause;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_until_something_comes() {
        let mut looks = 0;
        let found = Eager::default().look_for(Duration::from_secs(60), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, Some(3));
    }

    #[test]
    fn it_looks_less_and_less_where_nothing_comes() {
        let mut eager = Eager::default();
        let mut looked = |finds: bool| {
            let mut has_looked = false;
            let found = eager.look(|| {
                has_looked = true;
                finds.then_some(())
            });
            assert_eq!(found.is_some(), has_looked && finds);
            has_looked
        };
        let pauses: Vec<_> = (0..10).map(|_| (0..).take_while(|_| !looked(false)).count()).collect();
        assert_eq!(pauses, [0, 1, 3, 7, 15, 31, 63, 127, 255, 255]);
        assert_eq!((0..).take_while(|_| !looked(true)).count(), 255);
        assert!(looked(false) && !looked(false) && looked(false), "from the beginning after a success");
    }
}
