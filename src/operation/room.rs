//! Whether there is room for another operation: on the disk that holds the journal, and in number.

use super::world::World;
use crate::error::{Error, Kind, Result};

/// Under so many bytes free no new change is accepted, so that the running ones can still be journaled to their end.
pub(super) const ENOUGH_BYTES: u64 = 64 << 20;

/// So many operations may wait or run at a time.
const MOST_UNFINISHED: usize = 4096;

impl World {
    /// Bytes that are free on the disk which holds the store, where it says.
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(self.store.path().parent()?).ok()?;
        Some(stat.blocks_available() * stat.fragment_size())
    }

    /// Refuses what could not be journaled to its end.
    pub fn refuse_without_room(&self) -> Result<()> {
        self.store.refuse_if_read_only()?;
        if let Some(free) = self.free_bytes().filter(|free| *free < ENOUGH_BYTES) {
            return Err(Error::new(
                Kind::Store,
                format!(
                    "only {free} bytes are free where {} is, and {ENOUGH_BYTES} are needed for a new change",
                    self.store.path().display()
                ),
            )
            .hint("make room; what is running goes on, exports are served, and nothing new was begun")
            .retryable(true));
        }
        if self.store.count_unfinished()? >= MOST_UNFINISHED {
            return Err(Error::new(Kind::Busy, format!("{MOST_UNFINISHED} operations wait or run already"))
                .hint("`volctl ops` lists them; ask again when some have ended"));
        }
        Ok(())
    }
}
