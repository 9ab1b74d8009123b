//! What each broken variant of the protocol is found out by.

use crate::{
    PLAIN, rules,
    world::{Flaw, Scenario},
};

/// A scenario that is too much for the variant, and the rule that it breaks there.
pub(crate) fn shown_by(flaw: Flaw) -> (Scenario, &'static str) {
    let flawed = Scenario {
        flaw: Some(flaw),
        ..PLAIN
    };
    let two_workers = Scenario {
        workers: 2,
        faults: 1,
        ..flawed
    };
    let one_key = Scenario {
        jobs: 2,
        keyed: true,
        ..two_workers
    };
    let one_slot = Scenario {
        jobs: 2,
        cap: Some(1),
        ..two_workers
    };
    match flaw {
        Flaw::WritesUnfenced => (two_workers, rules::DEAD_WRITE),
        Flaw::StolenEarly => (two_workers, rules::STOLEN_EARLY),
        Flaw::StolenUnderOneEpoch => (two_workers, rules::TWO_LIVE),
        Flaw::KeyFreedAtRetry | Flaw::KeyNotLookedAt => (one_key, rules::KEY_SHARED),
        Flaw::ClaimsUncharged => (
            Scenario {
                limit: 1,
                ..two_workers
            },
            rules::TRIED_TOO_OFTEN,
        ),
        Flaw::PivotForgotten => (
            Scenario {
                steps: 2,
                pivot: Some(0),
                faults: 2,
                ..two_workers
            },
            rules::PIVOT_UNDONE,
        ),
        Flaw::PivotOverCancel => (
            Scenario {
                pivot: Some(0),
                cancels: true,
                ..flawed
            },
            rules::CANCEL_LOST,
        ),
        Flaw::SuccessOverCancel => (
            Scenario {
                cancels: true,
                ..flawed
            },
            rules::CANCEL_LOST,
        ),
        Flaw::FinishedClaimed => (two_workers, rules::FINISHED_CHANGED),
        Flaw::NoSweeper => (two_workers, rules::STUCK),
        Flaw::SlotNotLookedAt => (one_slot, rules::CAP_EXCEEDED),
        Flaw::SlotKept | Flaw::NobodyInLineWoken => (
            Scenario {
                faults: 0,
                ..one_slot
            },
            rules::STUCK,
        ),
        Flaw::TheftNeedsRoom => (Scenario { jobs: 1, ..one_slot }, rules::STUCK),
        Flaw::NobodyWoken => (Scenario { faults: 0, ..one_key }, rules::STUCK),
    }
}
