//! What one mongod may take of the machine.

/// What one mongod may take: nothing where nobody said, and 0 where it was said that there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, bytes, with the page cache of its files; a container gets no swap on top of it.
    pub memory_bytes: Option<u64>,
    /// CPUs, in thousandths.
    pub cpu_thousandths: Option<u32>,
    /// Threads; mongod has one for each connection.
    pub pids: Option<u32>,
}

impl Limits {
    /// These, and the others where nobody said.
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.or(others.memory_bytes),
            cpu_thousandths: self.cpu_thousandths.or(others.cpu_thousandths),
            pids: self.pids.or(others.pids),
        }
    }

    /// Those that hold: 0 is nothing then, too.
    pub(super) fn that_hold(self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.filter(|bytes| *bytes > 0),
            cpu_thousandths: self.cpu_thousandths.filter(|cpus| *cpus > 0),
            pids: self.pids.filter(|pids| *pids > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_holds_and_zero_is_no_limit() {
        let others = Limits { memory_bytes: Some(9), cpu_thousandths: Some(9), pids: Some(9) };
        let said = Limits { memory_bytes: Some(5), cpu_thousandths: Some(0), pids: None };
        let held = Limits { memory_bytes: Some(5), cpu_thousandths: None, pids: Some(9) };
        assert_eq!(said.or(others).that_hold(), held);
        assert_eq!(said.that_hold(), Limits { pids: None, ..held });
        assert_eq!(Limits::default().or(others), others);
    }
}
