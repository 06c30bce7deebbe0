//! The client's numbers of a run's resume points: which are stored, and which is still to be.

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Saves(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    wanted: u64,
    stored: u64,
    /// A task is writing them.
    being_stored: bool,
}

/// What becomes of a resume point.
pub(crate) enum Taken {
    /// A task has to be started that stores it.
    ToBeStored,
    /// The task that is there stores it, or a later one.
    BeingStored,
    /// It is stored, or a later one is, up to this number.
    Stored { n: u64 },
}

impl Saves {
    /// A resume point has come, which is kept unless a later one is known.
    pub(crate) fn take(&self, n: u64, keep: impl FnOnce()) -> Taken {
        let mut numbers = self.0.lock();
        if n <= numbers.stored {
            return Taken::Stored { n: numbers.stored };
        }
        if n >= numbers.wanted {
            keep();
            numbers.wanted = n;
        }
        if std::mem::replace(&mut numbers.being_stored, true) { Taken::BeingStored } else { Taken::ToBeStored }
    }

    /// The newest that is still to be stored. `None`: the task that asks ends.
    pub(crate) fn next(&self) -> Option<u64> {
        let mut numbers = self.0.lock();
        let next = (numbers.wanted > numbers.stored).then_some(numbers.wanted);
        numbers.being_stored = next.is_some();
        next
    }

    /// Every one up to this is stored.
    pub(crate) fn stored(&self, n: u64) {
        self.0.lock().stored = n;
    }
}
