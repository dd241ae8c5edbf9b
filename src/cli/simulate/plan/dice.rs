//! Chance, from a seed: a generator whose algorithm is part of its name, so that a seed means the
//! same on every machine and with every later version.

use std::ops::RangeInclusive;

use rand::{
    RngExt, SeedableRng,
    rngs::Xoshiro256PlusPlus,
    seq::{IndexedRandom, SliceRandom},
};

/// A source of chance.
#[derive(Debug)]
pub struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// The same throws for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// A number of the range, each as likely.
    pub fn between(&mut self, range: RangeInclusive<u32>) -> u32 {
        self.0.random_range(range)
    }

    /// True once in `n` throws on average.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.between(1..=n) == 1
    }

    /// One of these, each as likely.
    pub fn pick<T: Copy, const N: usize>(&mut self, from: &[T; N]) -> T {
        from.choose(&mut self.0).copied().unwrap_or(from[0])
    }

    /// One of these, if there are any.
    pub fn pick_of<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.choose(&mut self.0)
    }

    fn shuffle<T>(&mut self, slice: &mut [T]) {
        slice.shuffle(&mut self.0);
    }
}

/// A pack of cards that is shuffled anew once it is used up: unlike with dice, the proportions hold
/// in a short run too, and whatever is in the pack happens.
#[derive(Debug)]
pub struct Deck<T> {
    pack: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    /// A pack with so many of each card; there must be at least one.
    #[must_use]
    pub fn of<const N: usize>(cards: [(usize, T); N]) -> Self {
        let pack = cards.iter().flat_map(|(count, card)| std::iter::repeat_n(*card, *count)).collect();
        Self { pack, left: Vec::new() }
    }

    /// The next card.
    pub fn draw(&mut self, dice: &mut Dice) -> T {
        if self.left.is_empty() {
            self.left.clone_from(&self.pack);
            dice.shuffle(&mut self.left);
        }
        self.left.pop().unwrap_or(self.pack[0])
    }
}
