//! A bounded memory of what came last.

use std::collections::HashMap;
use std::hash::Hash;

/// Remembers at least the last `limit` keys that were put or asked for, and at most twice as many: two generations,
/// of which the old one is forgotten when the young one is full.
pub struct RecentMap<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    limit: usize,
}

impl<K: Eq + Hash, V> RecentMap<K, V> {
    /// Empty; takes no memory until something is put.
    pub fn new(limit: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), limit: limit.max(1) }
    }

    /// Remembers.
    pub fn put(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.limit && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// What is remembered under the key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Whether it is remembered.
    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// As [`Self::get`], and it counts as put just now.
    pub fn refresh(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.put(key, value);
        }
        self.young.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_the_memory_is_bounded() {
        let mut recent = RecentMap::new(10);
        for n in 0..1_000_u32 {
            recent.put(n, n * 2);
            assert!((n.saturating_sub(9)..=n).all(|m| recent.get(&m) == Some(&(m * 2))), "{n}");
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        assert!(!recent.contains(&0));
    }

    #[test]
    fn what_is_asked_for_again_and_again_stays() {
        let mut recent = RecentMap::new(3);
        recent.put(7, ());
        for n in 100..200 {
            recent.put(n, ());
            assert!(recent.refresh(&7).is_some(), "{n}");
        }
    }
}
