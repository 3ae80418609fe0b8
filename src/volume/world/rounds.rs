//! Rounds of the world: as they come, with crashes at any operation of the store, and with crashes
//! and every fault of [`crate::store::faults`].
//!
//! `ARGON_SEED=7 cargo test -p argon volume::world` runs the rounds of that seed alone, and
//! `ARGON_ROUNDS=5000` more of them.

use std::ops::Range;

use super::World;
use crate::store::faults::Fault;
use crate::volume::testing::When;

/// The seeds to run: the one that is asked for, else these.
fn seeds(usual: Range<u64>) -> Vec<u64> {
    match std::env::var("ARGON_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => usual.collect(),
    }
}

fn rounds(usual: u32) -> u32 {
    std::env::var("ARGON_ROUNDS").map_or(usual, |rounds| rounds.parse().unwrap())
}

/// What the usual seeds did must be enough to prove anything.
fn assert_much(went: [u64; 2]) {
    let [versions, packs] = went;
    println!("{versions} versions deleted, {packs} packs rewritten");
    assert!(std::env::var("ARGON_SEED").is_ok() || versions > 50 && packs > 1, "{went:?}");
}

#[tokio::test]
async fn whatever_is_done_versions_stay_what_they_were_and_nothing_dead_stays() {
    let mut went = [0, 0];
    for seed in seeds(1..4) {
        println!("ARGON_SEED={seed}");
        let mut world = World::new(seed).await;
        let start = world.branches[0].head;
        for step in 0..rounds(200) {
            world.step().await.unwrap();
            if step % 10 == 0 {
                world.verify().await;
            }
        }
        world.end(start).await;
        went = [went[0] + world.went[0], went[1] + world.went[1]];
    }
    assert_much(went);
}

#[tokio::test]
async fn whatever_crashes_whenever_nothing_acknowledged_is_lost() {
    for seed in seeds(11..12) {
        println!("ARGON_SEED={seed}");
        let mut world = World::new(seed).await;
        let start = world.branches[0].head;
        let mut crashes = 0;
        for round in 0..rounds(500) {
            // Some work in between, so that there is something to lose.
            if round % 2 == 0 {
                world.step().await.unwrap();
            }
            crash_sometime(&mut world);
            let ended = world.step().await;
            assert!(ended.is_ok() || world.process.has_crashed(), "{ended:?}");
            crashes += u32::from(world.process.has_crashed());
            world.restart();
            world.settle().await;
            world.what = format!("seed {seed}, round {round}, {}", world.what);
            world.verify().await;
        }
        println!("{crashes} crashes");
        world.end(start).await;
        assert_much(world.went);
    }
}

fn crash_sometime(world: &mut World) {
    let when = [When::BeforeTheEffect, When::AfterTheEffect][world.random.below(2)];
    let most = [4, 12, 60][world.random.below(3)];
    let operation = 1 + world.random.below(most) as u32;
    world.process.crash_at(operation, when);
}

/// Of what happened in rounds with faults.
#[derive(Debug, Default)]
struct Troubles {
    crashes: u32,
    faults: u64,
    failed: u32,
}

/// A step in which the store fails now and then, and the process may crash. One that does not crash
/// goes on with whatever it believes.
async fn troubled_step(world: &mut World, troubles: &mut Troubles) {
    let (often, crash) = (world.random.below(4), world.random.below(3) == 0);
    let before = world.faults.happened();
    world.faults.often([0, 20, 100, 300][often], &Fault::ALL);
    if crash {
        crash_sometime(world);
    }
    let ended = world.step().await;
    world.faults.calm();
    let (crashed, faults) = (world.process.has_crashed(), world.faults.happened() - before);
    assert!(ended.is_ok() || crashed || faults > 0, "{}: {ended:?}", world.what);
    troubles.crashes += u32::from(crashed);
    troubles.faults += faults;
    troubles.failed += u32::from(ended.is_err());
    if crash || world.random.below(8) == 0 {
        world.restart();
    }
}

/// Time is paused, as a slow call costs none.
#[tokio::test(start_paused = true)]
async fn whatever_fails_and_crashes_whenever_nothing_acknowledged_is_lost() {
    for seed in seeds(21..22) {
        println!("ARGON_SEED={seed}");
        let mut world = World::new(seed).await;
        world.lists_may_be_stale = true;
        let start = world.branches[0].head;
        let mut troubles = Troubles::default();
        for round in 0..rounds(500) {
            if round % 2 == 0 {
                world.step().await.unwrap();
            }
            troubled_step(&mut world, &mut troubles).await;
            world.settle().await;
            world.what = format!("seed {seed}, round {round}, {}", world.what);
            world.verify().await;
        }
        println!("{troubles:?}");
        world.end(start).await;
        assert_much(world.went);
    }
}
