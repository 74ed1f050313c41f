//! Numbers that look random and can be had again: SplitMix64.

use uuid::Uuid;

/// A sequence of numbers.
pub struct Random(u64);

impl Random {
    /// A seed that nobody has had yet.
    pub fn seed() -> u64 {
        Uuid::new_v4().as_u64_pair().0
    }

    /// The sequence of one of those who share a seed.
    pub fn of(seed: u64, index: u64) -> Self {
        Self(seed ^ (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn of_these<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
