//! A bounded cache that evicts the least recently used value first. Pure.

use std::collections::HashMap;

/// Values by key, with a limit on their total cost.
#[derive(Debug)]
pub struct Recent<V> {
    cost_max: usize,
    cost: usize,
    clock: u64,
    entries: HashMap<String, Entry<V>>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    cost: usize,
    used: u64,
}

impl<V: Clone + Default> Recent<V> {
    /// `cost_max`: maximum total cost. The most recently used value is kept at any cost.
    pub fn new(cost_max: usize) -> Self {
        Self { cost_max, cost: 0, clock: 0, entries: HashMap::new() }
    }

    /// Returns the value of `key`, or inserts a new one.
    pub fn get(&mut self, key: &str) -> V {
        self.clock += 1;
        let used = self.clock;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = used;
            return entry.value.clone();
        }
        let value = V::default();
        self.entries.insert(key.to_owned(), Entry { value: value.clone(), cost: 0, used });
        value
    }

    /// Sets the cost of the value of `key`, and evicts others until the total is within the limit.
    pub fn set_cost(&mut self, key: &str, cost: usize) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.cost = self.cost - entry.cost + cost;
        entry.cost = cost;
        while self.cost > self.cost_max {
            let others = self.entries.iter().filter(|(other, _)| *other != key);
            let Some(oldest) = others.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else { return };
            if let Some(evicted) = self.entries.remove(&oldest) {
                self.cost -= evicted.cost;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn the_least_recently_used_value_is_evicted_first() {
        let mut recent: Recent<std::sync::Arc<()>> = Recent::new(10);
        let [a, b] = ["a", "b"].map(|key| {
            let value = recent.get(key);
            recent.set_cost(key, 4);
            value
        });
        assert!(std::sync::Arc::ptr_eq(&a, &recent.get("a")));
        recent.get("c");
        recent.set_cost("c", 4);
        assert!(std::sync::Arc::ptr_eq(&a, &recent.get("a")));
        assert!(!std::sync::Arc::ptr_eq(&b, &recent.get("b")));
        recent.set_cost("a", 1_000);
        assert!(std::sync::Arc::ptr_eq(&a, &recent.get("a")));
        assert_eq!(recent.entries.len(), 1);
    }
}
