//! Long random walks at sizes that are too large to be explored wholly.

use proptest::prelude::{ProptestConfig, any, prop, proptest};

use crate::{
    PLAIN,
    moves::{Nature, moves},
    rules,
    world::{Scenario, World},
};

const LARGE: Scenario = Scenario {
    workers: 4,
    jobs: 3,
    keyed: true,
    steps: 4,
    pivot: Some(2),
    limit: 3,
    faults: 40,
    cancels: true,
    revivals: 2,
    ..PLAIN
};

/// Follows a walk, choice by choice.
fn walk(scenario: &Scenario, choices: &[u16]) -> World {
    let mut world = World::new(scenario);
    for choice in choices {
        let mut open = moves(scenario, &world);
        if open.is_empty() {
            break;
        }
        let step = open.swap_remove(usize::from(*choice) % open.len());
        let broken = step
            .broken
            .or_else(|| rules::broken_on_the_way(&world, &step.world))
            .or_else(|| rules::broken(scenario, &step.world));
        assert_eq!(broken, None, "{:?} from {world:?}", step.what);
        world = step.world;
    }
    world
}

/// Goes on without faults, each thing in its turn, until every job is over.
fn rest(scenario: &Scenario, mut world: World) {
    const ENOUGH: usize = 5000;
    for turn in 0..ENOUGH {
        if world.is_over() {
            return;
        }
        let mut open = moves(scenario, &world);
        open.retain(|step| step.nature == Nature::Fair);
        // A stride that is prime meets each of them sooner or later.
        world = open.swap_remove(turn.wrapping_mul(7919) % open.len()).world;
    }
    panic!("{}: {world:?}", rules::STUCK);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn long_walks_break_no_rule_and_every_job_ends_after_them(
        keyed in any::<bool>(),
        scopes in 1..=2_usize,
        cap in prop::option::of(1..=2_u16),
        pivot in prop::option::of(0..4),
        choices in prop::collection::vec(any::<u16>(), 50..400),
    ) {
        let scenario = Scenario { keyed, scopes, cap, pivot, ..LARGE };
        let world = walk(&scenario, &choices);
        rest(&scenario, world);
    }
}
