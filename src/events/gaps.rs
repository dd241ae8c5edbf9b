//! Which ids below the newest one may still appear. Pure.
//!
//! A transaction takes its ids long before it commits, so a reader sees 7 before 5, and cannot know
//! whether 5 is late or was rolled back. Both happen to a transaction that writes to the table, and it
//! holds a lock on the table from before it takes an id until after its commit can be seen. So: who
//! holds such a lock after a gap was noticed may fill it; once all of those are gone, one more look
//! tells.

use std::{collections::HashSet, sync::Arc};

/// Who was writing at some moment: virtual transaction ids.
pub type Writers = Arc<HashSet<String>>;

/// Ids of which none has been seen.
#[derive(Clone, Debug)]
struct Gap {
    low: i64,
    high: i64,
    /// Who may fill it; `None` until asked.
    writers: Option<Writers>,
    /// All of them are gone: what the next look does not find will never be.
    closing: bool,
}

/// What has been seen of a sequence of ids.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    highest: i64,
    /// By id.
    gaps: Vec<Gap>,
}

impl Seen {
    /// Everything up to `highest` but for `gaps`, which `writers` may fill.
    #[must_use]
    pub fn up_to(highest: i64, gaps: impl IntoIterator<Item = (i64, i64)>, writers: &Writers) -> Self {
        let gap = |(low, high)| Gap { low, high, writers: Some(writers.clone()), closing: false };
        Self { highest, gaps: gaps.into_iter().map(gap).collect() }
    }

    /// The highest id seen.
    #[must_use]
    pub const fn highest(&self) -> i64 {
        self.highest
    }

    /// The id up to which nothing can appear any more.
    #[must_use]
    pub fn settled(&self) -> i64 {
        self.gaps.first().map_or(self.highest, |gap| gap.low - 1)
    }

    /// The gaps, as their first and their last ids.
    #[must_use]
    pub fn gaps(&self) -> (Vec<i64>, Vec<i64>) {
        self.gaps.iter().map(|gap| (gap.low, gap.high)).unzip()
    }

    /// Whether there are gaps.
    #[must_use]
    pub const fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Notes an id; whether it is new.
    pub fn see(&mut self, id: i64) -> bool {
        if id > self.highest {
            if id > self.highest + 1 {
                self.gaps.push(Gap { low: self.highest + 1, high: id - 1, writers: None, closing: false });
            }
            self.highest = id;
            return true;
        }
        let at = self.gaps.partition_point(|gap| gap.high < id);
        let Some(gap) = self.gaps.get(at).filter(|gap| gap.low <= id).cloned() else { return false };
        let parts = [Gap { high: id - 1, ..gap.clone() }, Gap { low: id + 1, ..gap }];
        self.gaps.splice(at..=at, parts.into_iter().filter(|part| part.low <= part.high));
        true
    }

    /// Takes note of who is writing now: to be called before a look at the table, and to be followed by
    /// [`Seen::close`] after it.
    pub fn ask(&mut self, now: &Writers) {
        for gap in &mut self.gaps {
            gap.closing = gap.writers.get_or_insert_with(|| now.clone()).is_disjoint(now);
        }
    }

    /// After a look that has found all there was in the gaps: what nobody can fill any more is none.
    pub fn close(&mut self) {
        self.gaps.retain(|gap| !gap.closing);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn writers(names: &[&str]) -> Writers {
        Arc::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_gap_holds_the_mark_until_it_is_filled() {
        let mut seen = Seen::up_to(4, [], &writers(&[]));
        assert!(seen.see(5) && seen.see(9));
        assert_eq!((seen.settled(), seen.gaps()), (5, (vec![6], vec![8])));
        assert!(seen.see(7) && !seen.see(7) && !seen.see(3));
        assert_eq!((seen.settled(), seen.gaps()), (5, (vec![6, 8], vec![6, 8])));
        assert!(seen.see(6));
        assert_eq!(seen.settled(), 7);
        assert!(seen.see(8));
        assert_eq!((seen.settled(), seen.has_gaps()), (9, false));
    }

    #[test]
    fn a_gap_closes_when_all_who_could_fill_it_are_gone() {
        let mut seen = Seen::up_to(0, [], &writers(&[]));
        seen.see(3);
        let mut look = |now: &[&str]| {
            seen.ask(&writers(now));
            seen.close();
            seen.settled()
        };
        assert_eq!(look(&["a", "b"]), 0);
        assert_eq!(look(&["b", "c"]), 0);
        assert_eq!(look(&["c"]), 3, "c began later");
    }

    proptest! {
        /// Transactions take ids, and commit or roll back in any order; the reader looks now and then.
        #[test]
        fn whatever_the_order_each_commit_is_seen_once_and_the_mark_passes_none(
            steps in proptest::collection::vec((0..6_u8, any::<bool>()), 1..200)
        ) {
            let mut running: Vec<(String, Vec<i64>)> = Vec::new();
            let (mut table, mut told): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
            let (mut seen, mut next, mut begun) = (Seen::default(), 1_i64, 0);
            let mut look = |running: &[(String, Vec<i64>)], table: &[i64]| {
                seen.ask(&Arc::new(running.iter().map(|(name, _)| name.clone()).collect()));
                let mut rows = table.to_vec();
                rows.sort_unstable();
                for id in rows {
                    if seen.see(id) {
                        told.push(id);
                        // A client that breaks off here starts again from the mark.
                        let mark = seen.settled();
                        prop_assert!(table.iter().all(|id| *id > mark || told.contains(id)));
                        prop_assert!(running.iter().flat_map(|(_, ids)| ids).all(|id| *id > mark));
                    }
                }
                seen.close();
                let mark = seen.settled();
                prop_assert!(running.iter().flat_map(|(_, ids)| ids).all(|id| *id > mark));
                Ok((told.clone(), mark))
            };
            for (step, commits) in steps {
                match step {
                    0 => {
                        begun += 1;
                        running.push((begun.to_string(), Vec::new()));
                    }
                    1 | 2 => {
                        let count = running.len();
                        if count > 0 {
                            running[usize::from(step) * 7 % count].1.push(next);
                            next += 1;
                        }
                    }
                    3 => {
                        if !running.is_empty() {
                            let (_, ids) = running.remove(usize::from(commits) % running.len());
                            if commits { table.extend(ids) }
                        }
                    }
                    _ => drop(look(&running, &table)?),
                }
            }
            running.clear();
            look(&running, &table)?;
            let (mut told, mark) = look(&running, &table)?;
            told.sort_unstable();
            table.sort_unstable();
            prop_assert_eq!(told, table.clone());
            prop_assert_eq!(mark, table.last().copied().unwrap_or(0));
        }
    }
}
