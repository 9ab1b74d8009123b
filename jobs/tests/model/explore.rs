//! Walks through every state, nearest first, and back again from the ends.

use std::{collections::HashMap, fmt::Write as _, rc::Rc};

use crate::{
    moves::{Move, Nature, moves},
    rules,
    world::{Scenario, World},
};

/// What came of it.
pub(crate) enum Found {
    /// All rules hold in all states.
    Nothing { states: usize, moves: usize },
    /// One does not; the shortest way there.
    Broken { rule: &'static str, trace: String },
}

struct Explorer {
    known: HashMap<Rc<World>, usize>,
    worlds: Vec<Rc<World>>,
    /// How each state was first reached.
    from: Vec<Option<(usize, Move)>>,
}

impl Explorer {
    fn enter(&mut self, world: World, from: Option<(usize, Move)>) -> usize {
        if let Some(known) = self.known.get(&world) {
            return *known;
        }
        let (world, index) = (Rc::new(world), self.worlds.len());
        self.known.insert(Rc::clone(&world), index);
        self.worlds.push(world);
        self.from.push(from);
        index
    }

    fn broken(&self, rule: &'static str, mut state: usize, last: Option<Move>) -> Found {
        let mut moves: Vec<Move> = last.into_iter().collect();
        let end = Rc::clone(&self.worlds[state]);
        while let Some((from, taken)) = self.from[state] {
            moves.push(taken);
            state = from;
        }
        let mut trace = String::new();
        for taken in moves.iter().rev() {
            writeln!(trace, "  {taken:?}").unwrap();
        }
        write!(trace, "  in {end:?}").unwrap();
        Found::Broken { rule, trace }
    }
}

/// Explores a scenario wholly.
pub(crate) fn explore(scenario: &Scenario) -> Found {
    let mut explorer = Explorer {
        known: HashMap::new(),
        worlds: Vec::new(),
        from: Vec::new(),
    };
    explorer.enter(World::new(scenario), None);
    // Moves without faults, to and from.
    let mut fair: Vec<(usize, usize)> = Vec::new();
    let (mut next, mut taken) = (0, 0);
    while next < explorer.worlds.len() {
        let world = Rc::clone(&explorer.worlds[next]);
        if let Some(rule) = rules::broken(scenario, &world) {
            return explorer.broken(rule, next, None);
        }
        for step in moves(scenario, &world) {
            taken += 1;
            let rule = step
                .broken
                .or_else(|| rules::broken_on_the_way(&world, &step.world));
            if let Some(rule) = rule {
                return explorer.broken(rule, next, Some(step.what));
            }
            let to = explorer.enter(step.world, Some((next, step.what)));
            if step.nature == Nature::Fair && to != next {
                fair.push((to, next));
            }
        }
        next += 1;
    }
    match stuck(&explorer.worlds, fair) {
        Some(state) => explorer.broken(rules::STUCK, state, None),
        None => Found::Nothing {
            states: explorer.worlds.len(),
            moves: taken,
        },
    }
}

/// The first state from which no way without faults leads to every job's end.
fn stuck(worlds: &[Rc<World>], mut fair: Vec<(usize, usize)>) -> Option<usize> {
    fair.sort_unstable();
    let mut ends: Vec<bool> = worlds.iter().map(|world| world.is_over()).collect();
    let mut queue: Vec<usize> = (0..worlds.len()).filter(|state| ends[*state]).collect();
    while let Some(state) = queue.pop() {
        let first = fair.partition_point(|(to, _)| *to < state);
        for (_, from) in fair[first..].iter().take_while(|(to, _)| *to == state) {
            if !std::mem::replace(&mut ends[*from], true) {
                queue.push(*from);
            }
        }
    }
    ends.iter().position(|ends| !ends)
}
