//! Which entries a worker takes, in which order: what people asked for before what schedules caused, and nobody held up by
//! those who must wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use redis::RedisResult;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    Bell, WorkerOptions,
    bell::{Entry, Reader},
    entity::job::Priority,
    hand::Hand,
};

/// After so many interactive entries in a row the next one is a scheduled one, if there is any: what schedules caused
/// keeps a ninth of a worker, however much people ask for.
const IN_A_ROW: usize = 8;

/// What a worker reads.
pub(crate) struct Intake<'a> {
    bell: &'a Bell,
    options: &'a WorkerOptions,
    block: Duration,
    reader: Option<Reader>,
    /// Entries that were read ahead and may run. They are not touched while they wait: an idle worker takes them over.
    kept: VecDeque<Entry>,
    /// Interactive entries since the last scheduled one.
    in_a_row: usize,
    /// When entries of dead workers were last looked for.
    looked: Instant,
}

impl<'a> Intake<'a> {
    pub(crate) fn new(bell: &'a Bell, options: &'a WorkerOptions) -> Self {
        Self {
            bell,
            options,
            block: options.block.min(options.lease / 2),
            reader: None,
            kept: VecDeque::new(),
            in_a_row: 0,
            looked: Instant::now(),
        }
    }

    /// The connection is of no use any more.
    pub(crate) fn hang_up(&mut self) {
        self.reader = None;
    }

    /// What was read ahead and not begun.
    pub(crate) fn leftovers(&mut self) -> impl Iterator<Item = Entry> + use<> {
        std::mem::take(&mut self.kept).into_iter()
    }

    /// Up to `free` entries to begin, some time; none when there were none for a while.
    pub(crate) async fn next(
        &mut self,
        free: usize,
        shutdown: &CancellationToken,
    ) -> RedisResult<Vec<Entry>> {
        let stale = self.take_over(free).await?;
        if !stale.is_empty() {
            return Ok(stale);
        }
        let mut found = Vec::new();
        if self.in_a_row >= IN_A_ROW {
            // Even if there is none: the next one's turn comes after as many again.
            self.in_a_row = 0;
            found = self.up_to(1, Priority::Scheduled).await?;
        }
        match self.up_to(free - found.len(), Priority::Interactive).await {
            Ok(interactive) => found.extend(interactive),
            Err(error) => {
                self.kept.extend(found);
                return Err(error);
            }
        }
        found.extend(self.unkeep(free - found.len(), Priority::Scheduled));
        if found.is_empty() {
            found = self.wait(free, shutdown).await?;
            if found.len() > free {
                self.kept.extend(found.drain(free..));
            }
        }
        let interactive = found
            .iter()
            .filter(|entry| entry.id.stream == Priority::Interactive);
        self.in_a_row += interactive.count();
        Ok(found)
    }

    /// While no hand is free: reads on, one by one, until an entry of each stream is there that may run. So jobs that must
    /// wait are put to wait, and don't stand in the stream before jobs that need not. Reads nothing that an idle worker
    /// waits for: that one has it at once.
    pub(crate) async fn look_ahead(&mut self, hand: &Hand, permits: &Semaphore) -> RedisResult<()> {
        for stream in Priority::ALL {
            while permits.available_permits() == 0 && !self.keeps(stream) {
                let Some(entry) = self.reader().await?.take(stream, 1).await?.pop() else {
                    break;
                };
                if hand.sort(&entry).await {
                    self.kept.push_back(entry);
                }
            }
        }
        Ok(())
    }

    fn keeps(&self, stream: Priority) -> bool {
        self.kept.iter().any(|entry| entry.id.stream == stream)
    }

    fn unkeep(&mut self, count: usize, stream: Priority) -> Vec<Entry> {
        let mut found = Vec::new();
        while found.len() < count
            && let Some(place) = self.kept.iter().position(|entry| entry.id.stream == stream)
        {
            found.extend(self.kept.remove(place));
        }
        found
    }

    /// Of one stream, what was read ahead first.
    async fn up_to(&mut self, count: usize, stream: Priority) -> RedisResult<Vec<Entry>> {
        let mut found = self.unkeep(count, stream);
        if found.len() < count {
            let rest = count - found.len();
            match self.take(stream, rest).await {
                Ok(read) => found.extend(read),
                Err(error) => {
                    self.kept.extend(found);
                    return Err(error);
                }
            }
        }
        Ok(found)
    }

    async fn take(&mut self, stream: Priority, count: usize) -> RedisResult<Vec<Entry>> {
        self.reader().await?.take(stream, count).await
    }

    /// The first of either stream.
    async fn wait(&mut self, free: usize, shutdown: &CancellationToken) -> RedisResult<Vec<Entry>> {
        let bell = self.bell;
        let reader = self.reader().await?;
        let client = reader.client_id;
        // Of each stream: both together seldom have more than are asked for, and by one at most.
        let mut read = std::pin::pin!(reader.wait(free.div_ceil(2)));
        tokio::select! {
            entries = &mut read => entries,
            () = shutdown.cancelled() => {
                // What is read in this moment is given back; a dropped read would lose sight of it.
                bell.unblock(client).await?;
                read.await
            }
        }
    }

    async fn reader(&mut self) -> RedisResult<&mut Reader> {
        match &mut self.reader {
            Some(reader) => Ok(reader),
            none => Ok(none.insert(self.bell.reader(&self.options.name, self.block).await?)),
        }
    }

    /// Entries of workers that died, now and then.
    async fn take_over(&mut self, count: usize) -> RedisResult<Vec<Entry>> {
        let WorkerOptions { name, lease, .. } = self.options;
        let mut found = Vec::new();
        if self.looked.elapsed() <= *lease / 2 {
            return Ok(found);
        }
        self.looked = Instant::now();
        for stream in Priority::ALL {
            let rest = count - found.len();
            if rest > 0 {
                let stale = self.bell.take_over(stream, name, *lease, rest).await?;
                // Our own that were read ahead, long ago, are there already.
                found.extend(
                    stale
                        .into_iter()
                        .filter(|entry| self.kept.iter().all(|kept| kept.id != entry.id)),
                );
            }
        }
        Ok(found)
    }
}
