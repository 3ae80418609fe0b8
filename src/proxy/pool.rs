//! Where back connections are between two exchanges: in their front's seat while it is busy, at rest
//! in the pool of the branch's life when it is not, closed when the life ends.
//!
//! A busy front finds its connection in its seat and shares no lock with others. One task per life
//! looks through the seats now and then and puts to rest what was not used since the last time; the
//! fronts need not be woken for that, and there is no timer per connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bson::RawDocument;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::back::{Back, Tie};
use crate::base::ids::{BranchId, Epoch};
use crate::base::limits::{BACK_REST, BACK_SWEEP, BACKS_AT_REST_MAX};
use crate::branch::Lease;

/// The pools of all branches that run and have, or had, connections.
#[derive(Debug, Default)]
pub(super) struct Pools(DashMap<BranchId, Arc<Pool>>);

impl Pools {
    /// A seat for a front, in the life that the lease is of.
    pub(super) fn seat(self: &Arc<Self>, lease: &Lease, front: u64) -> Arc<Seat> {
        let pool = self.pool(lease.branch(), lease.epoch(), lease.ended());
        Arc::new(Seat { pool, front, place: Mutex::default() })
    }

    fn pool(
        self: &Arc<Self>,
        branch: BranchId,
        epoch: Epoch,
        ended: &CancellationToken,
    ) -> Arc<Pool> {
        let pool = match self.0.entry(branch) {
            Entry::Occupied(found) if found.get().epoch == epoch => return found.get().clone(),
            // A request outlived its life: nothing is kept for another one.
            Entry::Occupied(newer) if newer.get().epoch > epoch => {
                let pool = Pool::new(branch, epoch);
                pool.close();
                return Arc::new(pool);
            }
            Entry::Occupied(mut older) => {
                let pool = Arc::new(Pool::new(branch, epoch));
                older.insert(pool.clone());
                pool
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::new(Pool::new(branch, epoch))).value().clone()
            }
        };
        let (pools, tended, ended) = (self.clone(), pool.clone(), ended.clone());
        // It belongs to the life, and ends with it.
        tokio::spawn(async move {
            ended.run_until_cancelled(tended.tend()).await;
            tended.close();
            pools.0.remove_if(&branch, |_, pool| Arc::ptr_eq(pool, &tended));
        });
        pool
    }
}

/// The connections of one life of a branch that nobody uses right now.
#[derive(Debug)]
pub(super) struct Pool {
    branch: BranchId,
    epoch: Epoch,
    /// Set under `inner`'s lock, and only ever to true.
    closed: AtomicBool,
    inner: Mutex<Inner>,
    /// There is something to look through.
    occupied: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Seats with a connection in them, or of which it is out in use.
    seats: Vec<Weak<Seat>>,
    /// The latest last.
    resting: Vec<Resting>,
}

#[derive(Debug)]
struct Resting {
    back: Back,
    front: u64,
    since: Instant,
}

impl Pool {
    fn new(branch: BranchId, epoch: Epoch) -> Self {
        let (closed, inner) = (AtomicBool::new(false), Mutex::default());
        Self { branch, epoch, closed, inner, occupied: Notify::new() }
    }

    /// A connection that greeted mongod with this metadata: the front's own last one, else the one
    /// that was used last.
    fn take(&self, client: Option<&RawDocument>, front: u64) -> Option<Back> {
        let mut inner = self.lock();
        loop {
            let fits = |resting: &Resting| resting.back.is_of(client);
            let own = inner.resting.iter().rposition(|one| one.front == front && fits(one));
            let place = own.or_else(|| inner.resting.iter().rposition(fits))?;
            let mut found = inner.resting.remove(place).back;
            if found.connection.is_quiet() {
                return Some(found);
            }
        }
    }

    fn rest(&self, mut back: Back, front: u64) {
        let mut inner = self.lock();
        if self.is_closed() || back.tie == Tie::Pinned {
            return;
        }
        back.connection.shrink();
        inner.resting.push(Resting { back, front, since: Instant::now() });
        if inner.resting.len() > BACKS_AT_REST_MAX {
            inner.resting.remove(0);
        }
        self.occupied.notify_one();
    }

    /// Looks through the seats whenever there are any.
    async fn tend(&self) {
        loop {
            self.occupied.notified().await;
            while {
                sleep(BACK_SWEEP).await;
                self.sweep() == Left::Some
            } {}
        }
    }

    /// Puts to rest what was not used since the last time, and closes what rested long enough.
    fn sweep(&self) -> Left {
        // Seats lock before the pool does, so they are looked at with the pool unlocked.
        let mut seats = std::mem::take(&mut self.lock().seats);
        seats.retain(|seat| seat.upgrade().is_some_and(|seat| seat.sweep() == Left::Some));
        let mut inner = self.lock();
        inner.seats.append(&mut seats);
        inner.resting.retain(|one| one.since.elapsed() < BACK_REST);
        match inner.seats.is_empty() && inner.resting.is_empty() {
            true => Left::Nothing,
            false => Left::Some,
        }
    }

    fn close(&self) {
        let seats = {
            let mut inner = self.lock();
            self.closed.store(true, Ordering::Release);
            inner.resting.clear();
            std::mem::take(&mut inner.seats)
        };
        seats.iter().filter_map(Weak::upgrade).for_each(|seat| drop(seat.lock().back.take()));
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under this lock leaves it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is a reason to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Some,
}

/// A front's own place for its connection of one life.
#[derive(Debug)]
pub(super) struct Seat {
    pool: Arc<Pool>,
    front: u64,
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    back: Option<Back>,
    /// Used since the last sweep.
    fresh: bool,
    /// Known to the pool.
    known: bool,
}

impl Seat {
    /// Whether it is a seat in the life that the lease is of.
    pub(super) fn serves(&self, lease: &Lease) -> bool {
        self.pool.epoch == lease.epoch() && self.pool.branch == lease.branch()
    }

    /// The front's connection, or one at rest that greeted mongod with this metadata.
    pub(super) fn take(&self, client: Option<&RawDocument>) -> Option<Back> {
        let own = self.lock().back.take();
        let own = own.and_then(|mut back| back.connection.is_quiet().then_some(back));
        own.or_else(|| self.pool.take(client, self.front))
    }

    /// Keeps a connection whose exchange ended well.
    pub(super) fn put(self: &Arc<Self>, back: Back) {
        let mut place = self.lock();
        if self.pool.is_closed() {
            return;
        }
        place.back = Some(back);
        place.fresh = true;
        let known = std::mem::replace(&mut place.known, true);
        drop(place);
        if !known {
            self.make_known();
        }
    }

    /// The front leaves; others may have its connection.
    pub(super) fn leave(&self) {
        let back = self.lock().back.take();
        if let Some(back) = back {
            self.pool.rest(back, self.front);
        }
    }

    fn make_known(self: &Arc<Self>) {
        let mut inner = self.pool.lock();
        if !self.pool.is_closed() {
            inner.seats.push(Arc::downgrade(self));
            self.pool.occupied.notify_one();
            return;
        }
        drop(inner);
        // It was closed in between, and nobody would look here again.
        self.lock().back = None;
    }

    fn sweep(&self) -> Left {
        let mut place = self.lock();
        let used = std::mem::replace(&mut place.fresh, false);
        let pinned = place.back.as_ref().is_some_and(|back| back.tie == Tie::Pinned);
        if used || pinned {
            return Left::Some;
        }
        // One that is out in use makes its seat known again when it comes back.
        place.known = false;
        let back = place.back.take();
        drop(place);
        if let Some(back) = back {
            self.pool.rest(back, self.front);
        }
        Left::Nothing
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        // Nothing under this lock leaves it half changed.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use bson::{RawDocumentBuf, rawdoc};
    use tokio::time::advance;

    use super::*;
    use crate::base::clock::Timestamp;

    fn pool() -> Arc<Pool> {
        let branch = BranchId::generate(Timestamp::from_unix_ms(1));
        Arc::new(Pool::new(branch, Epoch(1)))
    }

    fn seat(pool: &Arc<Pool>, front: u64) -> Arc<Seat> {
        Arc::new(Seat { pool: pool.clone(), front, place: Mutex::default() })
    }

    fn metadata() -> RawDocumentBuf {
        rawdoc! { "application": { "name": "argon.dev" } }
    }

    /// A connection and mongod's end of it, which never waits.
    fn back() -> (Back, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let near = tokio::net::UnixStream::from_std(near).unwrap();
        (Back::over(near, Some(metadata())), far)
    }

    /// Is it this one's other end?
    async fn is_of(mut back: Back, mut far: &UnixStream) -> bool {
        back.connection.write(b"x").await.is_ok() && far.read(&mut [0]).is_ok_and(|got| got == 1)
    }

    /// Waits a little: a child that another test has just forked may hold a copy of the other end until it
    /// has closed what it inherited.
    fn is_closed(mut far: &UnixStream) -> bool {
        far.set_nonblocking(false).unwrap();
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        far.read(&mut [0]).is_ok_and(|got| got == 0)
    }

    #[tokio::test]
    async fn a_busy_front_keeps_its_connection_and_a_quiet_one_gives_it_up() {
        let (pool, metadata) = (pool(), metadata());
        let mine = seat(&pool, 1);
        let (back, far) = back();
        mine.put(back);
        for _ in 0..5 {
            assert_eq!(pool.sweep(), Left::Some);
            assert!(pool.take(Some(&metadata), 2).is_none(), "it is in use");
            let back = mine.take(Some(&metadata)).unwrap();
            // A sweep while it is out.
            pool.sweep();
            mine.put(back);
        }
        pool.sweep();
        pool.sweep();
        assert!(pool.take(None, 2).is_none(), "another client's metadata");
        assert!(pool.take(Some(&rawdoc! {}), 2).is_none(), "another client's metadata");
        let taken = seat(&pool, 2).take(Some(&metadata)).unwrap();
        assert!(mine.take(Some(&metadata)).is_none());
        assert!(is_of(taken, &far).await);
    }

    #[tokio::test]
    async fn a_front_gets_its_own_last_connection_or_the_latest() {
        let (pool, metadata) = (pool(), metadata());
        let (backs, fars): (Vec<_>, Vec<_>) = (0..3).map(|_| back()).unzip();
        for (front, back) in (0..).zip(backs) {
            pool.rest(back, front);
        }
        for (front, expected) in [(1, 1), (9, 2), (9, 0)] {
            let taken = pool.take(Some(&metadata), front).unwrap();
            assert!(is_of(taken, &fars[expected]).await, "front {front}");
        }
        assert!(pool.take(Some(&metadata), 9).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn few_rest_and_not_for_long() {
        let (pool, metadata) = (pool(), metadata());
        let (backs, fars): (Vec<_>, Vec<_>) = (0..BACKS_AT_REST_MAX + 3).map(|_| back()).unzip();
        backs.into_iter().for_each(|back| pool.rest(back, 7));
        for far in &fars[..3] {
            assert!(is_closed(far), "the oldest leave first");
        }
        advance(BACK_REST - BACK_SWEEP).await;
        assert_eq!(pool.sweep(), Left::Some);
        assert!(is_of(pool.take(Some(&metadata), 7).unwrap(), fars.last().unwrap()).await);
        advance(BACK_SWEEP).await;
        assert_eq!(pool.sweep(), Left::Nothing);
        assert!(is_closed(&fars[3]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_sweeper_sleeps_while_there_is_nothing_and_wakes_for_a_seat() {
        let pool = pool();
        let tending = tokio::spawn({
            let pool = pool.clone();
            async move { pool.tend().await }
        });
        for front in 0..3 {
            let mine = seat(&pool, front);
            let (back, far) = back();
            mine.put(back);
            // Two sweeps to rest, its time there, and a third.
            sleep(BACK_REST + 3 * BACK_SWEEP).await;
            assert!(is_closed(&far));
            assert!(pool.lock().seats.is_empty() && pool.lock().resting.is_empty());
        }
        assert!(!tending.is_finished());
        tending.abort();
    }

    #[tokio::test]
    async fn a_pinned_connection_is_nobody_elses() {
        let (pool, metadata) = (pool(), metadata());
        let mine = seat(&pool, 1);
        let (mut back, far) = back();
        back.tie = Tie::Pinned;
        mine.put(back);
        for _ in 0..5 {
            assert_eq!(pool.sweep(), Left::Some);
        }
        let back = mine.take(Some(&metadata)).unwrap();
        mine.put(back);
        mine.leave();
        assert!(pool.take(Some(&metadata), 1).is_none());
        assert!(is_closed(&far));
    }

    #[tokio::test]
    async fn who_leaves_hands_its_connection_on_and_a_dead_one_is_not_taken() {
        let (pool, metadata) = (pool(), metadata());
        let (mine, dead) = (seat(&pool, 1), seat(&pool, 2));
        let (good, far) = back();
        let (bad, gone) = back();
        mine.put(good);
        dead.put(bad);
        mine.leave();
        dead.leave();
        drop(gone);
        // The runtime learns of the end.
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        let taken = pool.take(Some(&metadata), 9).unwrap();
        assert!(is_of(taken, &far).await, "the latest, which is closed, is passed over");
    }

    #[tokio::test]
    async fn the_end_of_the_life_closes_what_nobody_uses_and_then_what_is_given_back() {
        let (pool, metadata) = (pool(), metadata());
        let (mine, other) = (seat(&pool, 1), seat(&pool, 2));
        let (seated, far_seated) = back();
        let (resting, far_resting) = back();
        let (used, far_used) = back();
        mine.put(seated);
        pool.rest(resting, 3);
        pool.close();
        assert!(is_closed(&far_seated) && is_closed(&far_resting));
        other.put(used);
        assert!(is_closed(&far_used));
        assert!(other.take(Some(&metadata)).is_none() && mine.take(Some(&metadata)).is_none());
    }

    #[tokio::test]
    async fn each_life_has_its_pool_and_takes_it_along() {
        let pools = Arc::new(Pools::default());
        let branch = BranchId::generate(Timestamp::from_unix_ms(1));
        let (first_ended, ended) = (CancellationToken::new(), CancellationToken::new());
        let first = pools.pool(branch, Epoch(1), &first_ended);
        assert!(Arc::ptr_eq(&first, &pools.pool(branch, Epoch(1), &first_ended)));
        let second = pools.pool(branch, Epoch(2), &ended);
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(pools.pool(branch, Epoch(1), &first_ended).is_closed(), "its life is over");
        first_ended.cancel();
        while !first.is_closed() {
            tokio::task::yield_now().await;
        }
        assert!(Arc::ptr_eq(&second, &pools.pool(branch, Epoch(2), &ended)));
        ended.cancel();
        while !pools.0.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(second.is_closed());
    }
}
