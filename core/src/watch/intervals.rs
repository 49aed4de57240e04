//! The intervals that contain a key: a treap ordered by (start, end), where each node knows the
//! greatest end below it, so that a search skips what ends before the key.

use std::cmp::Ordering;
use std::sync::Arc;

use super::watcher::{Slot, SlotSet};

const NIL: u32 = u32::MAX;

/// Expected cost of insert, remove and of a search without hits: O(log n); of a search O(log n) per hit.
#[derive(Debug)]
pub(super) struct Intervals {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    /// State of the generator of priorities: they only balance the tree.
    draw: u32,
}

/// One interval. `end` is `None` for an open one.
#[derive(Debug)]
struct Node {
    start: Arc<[u8]>,
    end: Option<Arc<[u8]>>,
    slots: SlotSet,
    /// Invariant: not below the priorities of the children.
    priority: u32,
    left: u32,
    right: u32,
    /// The node of this subtree with the greatest end.
    furthest: u32,
}

type Bounds<'a> = (&'a [u8], Option<&'a [u8]>);

/// An open end is the greatest.
fn compare_ends(a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

fn compare(a: Bounds<'_>, b: Bounds<'_>) -> Ordering {
    a.0.cmp(b.0).then_with(|| compare_ends(a.1, b.1))
}

impl Default for Intervals {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NIL, draw: 0x9e37_79b9 }
    }
}

impl Intervals {
    pub(super) fn insert(&mut self, start: &Arc<[u8]>, end: Option<&Arc<[u8]>>, slot: Slot) {
        let bounds: Bounds<'_> = (start, end.map(|e| &**e));
        if let Some(node) = self.find(bounds) {
            self.nodes[node as usize].slots.insert(slot);
            return;
        }
        let new = self.allocate(start, end, slot);
        let (left, right) = self.split(self.root, bounds);
        let left = self.merge(left, new);
        self.root = self.merge(left, right);
    }

    pub(super) fn remove(&mut self, start: &[u8], end: Option<&[u8]>, slot: Slot) {
        let node = self.find((start, end)).expect("only what was inserted is removed");
        if self.nodes[node as usize].slots.remove(slot) {
            self.root = self.unlink(self.root, (start, end));
            // The slot of the arena is reused; let go of the keys now.
            let nothing: Arc<[u8]> = Arc::from(&b""[..]);
            (self.nodes[node as usize].start, self.nodes[node as usize].end) = (nothing, None);
            self.free.push(node);
        }
    }

    /// Calls `f` for every slot whose interval contains `key`.
    pub(super) fn for_each_containing(&self, key: &[u8], mut f: impl FnMut(Slot)) {
        if self.root == NIL {
            return;
        }
        let mut open = vec![self.root];
        while let Some(at) = open.pop() {
            if at == NIL {
                continue;
            }
            let node = &self.nodes[at as usize];
            let furthest = self.end_of(node.furthest);
            if furthest.is_some_and(|end| end <= key) {
                continue;
            }
            if &*node.start <= key {
                if node.end.as_ref().is_none_or(|end| key < &**end) {
                    node.slots.for_each(&mut f);
                }
                open.push(node.right);
            }
            open.push(node.left);
        }
    }

    fn allocate(&mut self, start: &Arc<[u8]>, end: Option<&Arc<[u8]>>, slot: Slot) -> u32 {
        // xorshift32
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 17;
        self.draw ^= self.draw << 5;
        let node = Node {
            start: start.clone(),
            end: end.cloned(),
            slots: SlotSet::One(slot),
            priority: self.draw,
            left: NIL,
            right: NIL,
            furthest: NIL,
        };
        let at = if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            at
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 intervals")
        };
        self.nodes[at as usize].furthest = at;
        at
    }

    fn bounds(&self, at: u32) -> Bounds<'_> {
        let node = &self.nodes[at as usize];
        (&node.start, node.end.as_deref())
    }

    fn end_of(&self, at: u32) -> Option<&[u8]> {
        self.nodes[at as usize].end.as_deref()
    }

    fn find(&self, bounds: Bounds<'_>) -> Option<u32> {
        let mut at = self.root;
        while at != NIL {
            at = match compare(bounds, self.bounds(at)) {
                Ordering::Equal => return Some(at),
                Ordering::Less => self.nodes[at as usize].left,
                Ordering::Greater => self.nodes[at as usize].right,
            };
        }
        None
    }

    /// Recomputes `furthest` from the children.
    fn update(&mut self, at: u32) {
        let (left, right) = (self.nodes[at as usize].left, self.nodes[at as usize].right);
        let mut best = at;
        for child in [left, right].into_iter().filter(|child| *child != NIL) {
            let candidate = self.nodes[child as usize].furthest;
            if compare_ends(self.end_of(candidate), self.end_of(best)).is_gt() {
                best = candidate;
            }
        }
        self.nodes[at as usize].furthest = best;
    }

    /// Into the nodes below `bounds` and the others.
    fn split(&mut self, at: u32, bounds: Bounds<'_>) -> (u32, u32) {
        if at == NIL {
            return (NIL, NIL);
        }
        if compare(self.bounds(at), bounds).is_lt() {
            let (left, right) = self.split(self.nodes[at as usize].right, bounds);
            self.nodes[at as usize].right = left;
            self.update(at);
            (at, right)
        } else {
            let (left, right) = self.split(self.nodes[at as usize].left, bounds);
            self.nodes[at as usize].left = right;
            self.update(at);
            (left, at)
        }
    }

    /// One tree of two, all of `left` below all of `right`.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL || right == NIL {
            return if left == NIL { right } else { left };
        }
        if self.nodes[left as usize].priority >= self.nodes[right as usize].priority {
            self.nodes[left as usize].right = self.merge(self.nodes[left as usize].right, right);
            self.update(left);
            left
        } else {
            self.nodes[right as usize].left = self.merge(left, self.nodes[right as usize].left);
            self.update(right);
            right
        }
    }

    /// The tree without the node of these bounds.
    fn unlink(&mut self, at: u32, bounds: Bounds<'_>) -> u32 {
        let (left, right) = (self.nodes[at as usize].left, self.nodes[at as usize].right);
        match compare(bounds, self.bounds(at)) {
            Ordering::Equal => return self.merge(left, right),
            Ordering::Less => self.nodes[at as usize].left = self.unlink(left, bounds),
            Ordering::Greater => self.nodes[at as usize].right = self.unlink(right, bounds),
        }
        self.update(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u8, Option<u8>),
        Remove(prop::sample::Index),
        Search(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..40u8, prop::option::of(0..40u8)).prop_map(|(s, e)| Op::Insert(s, e)),
            2 => any::<prop::sample::Index>().prop_map(Op::Remove),
            4 => (0..42u8).prop_map(Op::Search),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_search_finds_what_a_scan_finds(ops in prop::collection::vec(op(), 1..200)) {
            let mut tree = Intervals::default();
            let mut model: Vec<(u8, Option<u8>, Slot)> = Vec::new();
            for (slot, op) in (0..).zip(ops) {
                match op {
                    Op::Insert(start, end) => {
                        let key: Arc<[u8]> = Arc::from(&[start][..]);
                        let end_key: Option<Arc<[u8]>> = end.map(|e| Arc::from(&[e][..]));
                        tree.insert(&key, end_key.as_ref(), slot);
                        model.push((start, end, slot));
                    }
                    Op::Remove(_) if model.is_empty() => {}
                    Op::Remove(which) => {
                        let (start, end, slot) = model.swap_remove(which.index(model.len()));
                        tree.remove(&[start], end.as_ref().map(std::slice::from_ref), slot);
                    }
                    Op::Search(key) => {
                        let mut found = Vec::new();
                        tree.for_each_containing(&[key], |slot| found.push(slot));
                        found.sort_unstable();
                        let mut want: Vec<Slot> = model
                            .iter()
                            .filter(|(s, e, _)| *s <= key && e.is_none_or(|e| key < e))
                            .map(|(_, _, slot)| *slot)
                            .collect();
                        want.sort_unstable();
                        prop_assert_eq!(found, want);
                    }
                }
            }
        }
    }

    #[test]
    fn the_tree_stays_shallow() {
        let mut tree = Intervals::default();
        for i in 0..10_000u32 {
            let start: Arc<[u8]> = Arc::from(&i.to_be_bytes()[..]);
            let end: Arc<[u8]> = Arc::from(&(i + 1).to_be_bytes()[..]);
            tree.insert(&start, Some(&end), i);
        }
        fn depth(tree: &Intervals, at: u32) -> usize {
            if at == NIL {
                return 0;
            }
            let node = &tree.nodes[at as usize];
            1 + depth(tree, node.left).max(depth(tree, node.right))
        }
        let depth = depth(&tree, tree.root);
        assert!(depth < 50, "depth {depth} with 10,000 ascending intervals");
    }
}
