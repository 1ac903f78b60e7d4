//! Sets of up to 128 indices as one machine word pair.

use std::fmt;
use std::marker::PhantomData;

/// The most objects, receptacles or locations that one game may have.
pub const CAPACITY: usize = 128;

/// An index type that a [`Set`] can hold.
pub trait Index: Copy {
    /// From a position below [`CAPACITY`].
    fn from_index(index: usize) -> Self;
    /// The position.
    fn index(self) -> usize;
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u8);

        impl Index for $name {
            fn from_index(index: usize) -> Self {
                debug_assert!(index < CAPACITY);
                Self(index as u8)
            }
            fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

index! {
    /// An object of a game; ordered as the raw identifiers are.
    ObjectId
}
index! {
    /// A receptacle of a game; ordered as the raw identifiers are.
    ReceptacleId
}
index! {
    /// A place where the agent can stand; ordered as the raw identifiers are.
    LocationId
}

/// A set of indices of one kind. Iterates in index order.
pub struct Set<I>(u128, PhantomData<I>);

impl<I> Clone for Set<I> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<I> Copy for Set<I> {}
impl<I> Default for Set<I> {
    fn default() -> Self {
        Self(0, PhantomData)
    }
}
impl<I> PartialEq for Set<I> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<I> Eq for Set<I> {}
impl<I> std::hash::Hash for Set<I> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<I> Set<I> {
    pub(crate) fn from_bits(bits: u128) -> Self {
        Self(bits, PhantomData)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::from_bits(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::from_bits(self.0 | other.0)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self::from_bits(self.0 & !other.0)
    }
}

impl<I: Index> Set<I> {
    /// Whether the index is in it.
    pub fn contains(self, index: I) -> bool {
        self.0 >> index.index() & 1 == 1
    }

    /// Adds an index.
    pub fn insert(&mut self, index: I) {
        self.0 |= 1 << index.index();
    }

    /// Takes an index out.
    pub fn remove(&mut self, index: I) {
        self.0 &= !(1 << index.index());
    }

    /// The members in index order.
    pub fn iter(self) -> Members<I> {
        Members(self)
    }
}

impl<I: Index> IntoIterator for Set<I> {
    type Item = I;
    type IntoIter = Members<I>;
    fn into_iter(self) -> Members<I> {
        Members(self)
    }
}

impl<I: Index> FromIterator<I> for Set<I> {
    fn from_iter<T: IntoIterator<Item = I>>(members: T) -> Self {
        let mut set = Self::default();
        for member in members {
            set.insert(member);
        }
        set
    }
}

impl<I: Index + fmt::Debug> fmt::Debug for Set<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Iterates over a [`Set`].
pub struct Members<I>(Set<I>);

impl<I: Index> Iterator for Members<I> {
    type Item = I;
    fn next(&mut self) -> Option<I> {
        if self.0.0 == 0 {
            return None;
        }
        let index = self.0.0.trailing_zeros() as usize;
        self.0.0 &= self.0.0 - 1;
        Some(I::from_index(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_members() {
        let mut set: Set<ObjectId> =
            [127, 0, 64, 3].into_iter().map(ObjectId::from_index).collect();
        assert_eq!(set.len(), 4);
        set.remove(ObjectId::from_index(64));
        assert!(set.contains(ObjectId::from_index(127)));
        assert_eq!(set.iter().map(Index::index).collect::<Vec<_>>(), [0, 3, 127]);
        assert_eq!(set.without(set).len(), 0);
    }
}
