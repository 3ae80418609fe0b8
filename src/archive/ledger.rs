//! What was seen of every namespace so far: the rules that hold across blocks.

use std::collections::HashMap;

use crc::{CRC_64_XZ, Crc, Digest, Table};

use super::error::Damage;
use super::prelude::{Entry, Namespace};

/// The checksum over a namespace's documents. mongodump's "ECMA" is the reflected polynomial.
static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// One account for every namespace of the prelude.
pub(super) struct Ledger {
    accounts: Vec<Account>,
    /// A time-series collection is found by its own name and by that of its buckets.
    by_name: HashMap<Namespace, usize>,
}

pub(super) struct Account {
    pub(super) namespace: Namespace,
    state: State,
    pub(super) documents: u64,
    pub(super) bytes: u64,
    digest: Digest<'static, u64, Table<16>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unseen,
    Open,
    Ended,
}

impl Ledger {
    /// Accounts for `entries`, numbered as they are; the error names the entry that is twice there.
    pub(super) fn new(entries: &[Entry]) -> Result<Self, Namespace> {
        let mut by_name = HashMap::new();
        let mut accounts = Vec::with_capacity(entries.len());
        for (number, entry) in entries.iter().enumerate() {
            for name in [Some(entry.namespace.clone()), entry.buckets()].into_iter().flatten() {
                if by_name.insert(name, number).is_some() {
                    return Err(entry.namespace.clone());
                }
            }
            accounts.push(Account {
                namespace: entry.buckets().unwrap_or_else(|| entry.namespace.clone()),
                state: State::Unseen,
                documents: 0,
                bytes: 0,
                digest: CRC.digest(),
            });
        }
        Ok(Self { accounts, by_name })
    }

    /// The entry that `namespace` belongs to, which is now open.
    pub(super) fn open(&mut self, namespace: &Namespace) -> Result<usize, Damage> {
        let number = *self.by_name.get(namespace).ok_or(Damage::Unlisted)?;
        let account = &mut self.accounts[number];
        match account.state {
            State::Ended => return Err(Damage::Reopened),
            State::Open if account.namespace != *namespace => return Err(Damage::Reopened),
            State::Open => {}
            State::Unseen => {
                account.state = State::Open;
                account.namespace = namespace.clone();
            }
        }
        Ok(number)
    }

    pub(super) fn add(&mut self, number: usize, document: &[u8]) {
        let account = &mut self.accounts[number];
        account.digest.update(document);
        account.documents += 1;
        account.bytes += document.len() as u64;
    }

    /// Ends a namespace and gives its checksum.
    pub(super) fn end(&mut self, number: usize) -> u64 {
        let account = &mut self.accounts[number];
        account.state = State::Ended;
        account.digest.clone().finalize()
    }

    /// Refuses the end of the archive while a namespace has not ended; names the first.
    pub(super) fn finish(&self) -> Result<(), Namespace> {
        let ended = |account: &&Account| account.state == State::Ended;
        match self.accounts.iter().find(|account| !ended(account)) {
            Some(account) => Err(account.namespace.clone()),
            None => Ok(()),
        }
    }

    pub(super) fn account(&self, number: usize) -> &Account {
        &self.accounts[number]
    }

    pub(super) fn accounts(&self) -> &[Account] {
        &self.accounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_64_xz() {
        // The check value of the catalogue of parametrised CRC algorithms.
        assert_eq!(CRC.checksum(b"123456789"), 0x995d_c9bb_df19_39fa);
        assert_eq!(CRC.checksum(b""), 0);
    }
}
