//! The engine's protocol, walked through in every order that faults and delays can bring about, at small sizes: no
//! Postgres, no Redis, no clock. What decides is the engine's own (`jobs::protocol`).
//!
//! Each state that can be reached is held against what must always be true (`rules`), and from each of them every job
//! must be able to end without a further fault. Variants of the protocol that are broken on purpose show that the rules
//! are not empty words.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod explore;
mod flaws;
mod moves;
mod rules;
mod walks;
mod work;
mod world;

use explore::{Found, explore};
use world::{Flaw, Scenario};

/// Everything off: one job of one step, nobody to run it, nothing that goes wrong.
const PLAIN: Scenario = Scenario {
    workers: 1,
    jobs: 1,
    keyed: false,
    keyless: 0,
    scopes: 1,
    cap: None,
    steps: 1,
    pivot: None,
    limit: 2,
    lease: 2,
    faults: 0,
    cancels: false,
    revivals: 0,
    flaw: None,
};

fn holds(name: &str, scenario: &Scenario) {
    let begun = std::time::Instant::now();
    match explore(scenario) {
        Found::Nothing { states, moves } => {
            println!(
                "{name}: {states} states, {moves} moves in {:.1?}: every rule holds, every job can end",
                begun.elapsed()
            );
        }
        Found::Broken { rule, trace } => panic!("{name}: {rule}\n{trace}"),
    }
}

#[test]
fn one_job_among_three_workers_that_pause_and_die() {
    let scenario = Scenario {
        workers: 3,
        steps: 2,
        faults: 3,
        cancels: true,
        ..PLAIN
    };
    holds("one job, three workers", &scenario);
}

#[test]
fn a_job_past_its_pivot_goes_forward_only() {
    let scenario = Scenario {
        workers: 2,
        steps: 3,
        pivot: Some(1),
        faults: 3,
        cancels: true,
        revivals: 1,
        ..PLAIN
    };
    holds("one job with a pivot, two workers", &scenario);
}

#[test]
fn a_job_that_dies_again_and_again_may_be_revived() {
    let scenario = Scenario {
        workers: 2,
        limit: 1,
        lease: 1,
        faults: 4,
        cancels: true,
        revivals: 2,
        ..PLAIN
    };
    holds("one job, revived twice", &scenario);
}

#[test]
fn two_jobs_of_one_key_run_one_after_the_other() {
    let scenario = Scenario {
        workers: 2,
        jobs: 2,
        keyed: true,
        lease: 1,
        faults: 1,
        cancels: true,
        ..PLAIN
    };
    holds("two jobs of one key", &scenario);
}

#[test]
fn a_key_outlives_two_faults() {
    let scenario = Scenario {
        workers: 2,
        jobs: 2,
        keyed: true,
        limit: 1,
        lease: 1,
        faults: 2,
        ..PLAIN
    };
    holds("two jobs of one key, two faults", &scenario);
}

#[test]
fn a_dead_job_s_key_is_free_and_a_revived_one_takes_its_turn() {
    let scenario = Scenario {
        workers: 2,
        jobs: 2,
        keyed: true,
        limit: 1,
        lease: 1,
        pivot: Some(0),
        faults: 1,
        revivals: 1,
        ..PLAIN
    };
    holds("two jobs of one key, revived past the pivot", &scenario);
}

#[test]
fn two_jobs_without_a_key_do_not_mind_each_other() {
    let scenario = Scenario {
        workers: 2,
        jobs: 2,
        lease: 1,
        faults: 1,
        cancels: true,
        ..PLAIN
    };
    holds("two jobs without a key", &scenario);
}

#[test]
fn two_jobs_share_the_one_slot_of_their_scope() {
    let scenario = Scenario {
        workers: 2,
        jobs: 2,
        cap: Some(1),
        lease: 1,
        faults: 1,
        cancels: true,
        revivals: 1,
        ..PLAIN
    };
    holds("two jobs of one slot", &scenario);
}

#[test]
fn a_scope_that_is_full_holds_up_no_other_scope() {
    let scenario = Scenario {
        workers: 2,
        jobs: 3,
        scopes: 2,
        cap: Some(1),
        limit: 1,
        lease: 1,
        cancels: true,
        ..PLAIN
    };
    holds("three jobs of two scopes with a slot each", &scenario);
}

#[test]
fn a_key_and_a_slot_together_hold_up_nobody_for_ever() {
    let scenario = Scenario {
        workers: 2,
        jobs: 2,
        keyed: true,
        cap: Some(1),
        lease: 1,
        faults: 2,
        ..PLAIN
    };
    holds("two jobs of one key and one slot", &scenario);
}

#[test]
fn a_job_that_began_keeps_its_key_while_it_waits_for_a_slot() {
    let scenario = Scenario {
        workers: 2,
        jobs: 2,
        keyed: true,
        keyless: 1,
        cap: Some(1),
        lease: 1,
        faults: 1,
        cancels: true,
        ..PLAIN
    };
    holds("a keyed and a keyless job of one slot", &scenario);
}

#[test]
fn a_key_goes_over_two_scopes_with_a_slot_each() {
    let scenario = Scenario {
        workers: 2,
        jobs: 3,
        keyed: true,
        scopes: 2,
        cap: Some(1),
        limit: 1,
        lease: 1,
        ..PLAIN
    };
    holds("three jobs of one key and two scopes", &scenario);
}

#[test]
fn every_broken_variant_is_found_out() {
    let unnoticed: Vec<_> = Flaw::ALL
        .into_iter()
        .filter(|flaw| {
            let (scenario, expected) = flaws::shown_by(*flaw);
            match explore(&scenario) {
                Found::Broken { rule, trace } => {
                    println!("{flaw:?}: {rule}, after {} moves", trace.lines().count());
                    assert_eq!(rule, expected, "{flaw:?}\n{trace}");
                    false
                }
                Found::Nothing { .. } => true,
            }
        })
        .collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}
